"""What every stage does before and around its loop: paths, data, accelerator, fresh networks."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from accelerate.accelerator import Accelerator
from accelerate.utils.operations import gather_object
from torch import nn
from torch.optim import Adam, AdamW, Optimizer

from slimdiffsr.errors import ConfigError, OutputError, WeightsError
from slimdiffsr.files.pretrained import load_lpips
from slimdiffsr.files.tensors import load_metadata, write_atomically
from slimdiffsr.models.lpips import LPIPS
from slimdiffsr.models.sd_vae import KLCodec
from slimdiffsr.models.spec import UNetSpec
from slimdiffsr.models.unet import UNet
from slimdiffsr.settings.config import LoopConfig, StudentLoss, to_dict
from slimdiffsr.stages.material import (
    PAIRS_FILE,
    Material,
    degrade_by,
    gather_images,
    gather_pairs,
    thin_out,
)
from slimdiffsr.stages.processes import join
from slimdiffsr.training.data import batch_files, training_batches
from slimdiffsr.training.loop import STATE_FILE, Batches, Progress, Task, TrainResult, train
from slimdiffsr.training.notices import LEFT_OUT_FILE, LeftOut, Notice, Tell, say_nothing

Network = TypeVar("Network", bound=nn.Module)
C = TypeVar("C", bound=LoopConfig)
CONFIG_FILE = "config.json"
BASE_FILE = "base.json"  # hashes of what the run stands on

__all__ = [
    "Run",
    "RunPaths",
    "changed_settings",
    "channels_last",
    "check_crop",
    "check_scale",
    "fresh",
    "lpips_of",
    "make_optimizer",
    "recompute_blocks",
    "start_run",
]


@dataclass(frozen=True, slots=True)
class RunPaths:
    """Where a training run reads and writes."""

    data: tuple[Path, ...]
    out: Path
    lpips: Path | None = None  # a safetensors file; None takes the lpips package's weights
    validation: Path | None = None  # sharp images, or pairs in lr/ and hr/; None: training images
    start: Path | None = None  # weights of the same architecture to start from
    teacher: Path | None = None  # a merged teacher, for distillation
    codec_folder: Path | None = None  # TAESD, where a student inherits from it; None asks the hub
    dino: str = "facebook/dino-vitb16"  # or a local folder; for adversary="dino"
    unet: Path | None = None  # of train prior, where a student of init=sd begins; None: sd_folder
    sd_folder: Path | None = None  # or Stable Diffusion's copy there; None: the hub's
    pairs: tuple[Path, Path] | None = None  # in place of data: folders of real LR and of HR


@dataclass(frozen=True, slots=True)
class Run(Generic[C]):
    """A run that is ready to loop."""

    config: C  # with what was found in the data
    out: Path
    accelerator: Accelerator
    batches: Batches
    files_of: Callable[[int], list[Path]]  # the images in a step's batch
    left_out: LeftOut  # images that are passed over
    changed: tuple[str, ...]  # settings other than those that the run had when it stopped
    material: Material  # what it learns from
    tell: Tell
    base: dict[str, str] = field(default_factory=dict)  # hashes of the weights it stands on

    def stands_on(self, hashes: dict[str, str]) -> Run[C]:
        """The run, which goes on only with these weights. Raises WeightsError for others."""
        before = _noted(self.out, BASE_FILE)
        other = [part for part, digest in hashes.items() if before.get(part, digest) != digest]
        if other:
            raise WeightsError(
                f"the run in {self.out} stands on another {' and '.join(other)} than the one given: "
                "give the same files again, or another output folder"
            )
        return dataclasses.replace(self, base=hashes)

    def loop(
        self,
        task: Task,
        *,
        max_minutes: float | None,
        on_progress: Callable[[Progress], None] | None,
    ) -> TrainResult:
        """Train, and write down with which config and on what.

        The result also counts the images that were passed over before the first step.
        """
        self.accelerator.wait_for_everyone()  # the others may still be to read the old config
        result = train(
            self.config, task, self.batches, self.out, self.accelerator,
            max_minutes=max_minutes, on_progress=on_progress, files_of=self.files_of,
            on_ready=self._note, tell=self.tell,
        )  # fmt: skip
        met = {why for some in gather_object([self.left_out.reasons]) for why in some.items()}
        self.left_out.note(met)
        if self.accelerator.is_main_process:
            self.left_out.write()
        return dataclasses.replace(
            result,
            unreadable=len(self.left_out.reasons) - self.material.too_small,
            too_small=self.material.too_small,
            changed=self.changed,
        )

    def _note(self) -> None:
        if self.changed:
            self.tell(Notice(f"goes on with other settings than before: {'; '.join(self.changed)}"))
        if self.accelerator.is_main_process:
            self.left_out.write()
            notes: dict[str, Any] = {
                CONFIG_FILE: to_dict(self.config),
                BASE_FILE: {**self.base, "images": self.material.about},
            }
            if self.material.notes:
                notes[PAIRS_FILE] = self.material.notes
            for name, values in notes.items():
                write_atomically(self.out / name, json.dumps(values, indent=1).encode())

    def about(self, result: TrainResult) -> dict[str, str]:
        """Metadata for what the run leaves: steps done, and the config."""
        return {"step": str(result.step), "train_config": json.dumps(to_dict(self.config))}


def start_run(
    config: C, paths: RunPaths, *, degraded: bool = True, tell: Tell = say_nothing
) -> Run[C]:
    """Find the images, join the processes.

    ``degraded=False``: LR is not looked at, so HR's pixels, thinned out, stand for it.
    Raises DataError, ConfigError and OutputError.
    """
    accelerator = join(config.precision)
    if not accelerator.is_main_process:
        tell = say_nothing
    pieces = accelerator.num_processes * config.accumulate
    if config.batch % pieces:
        raise ConfigError(
            f"a batch of {config.batch} cannot be shared out among {accelerator.num_processes} "
            f"processes in {config.accumulate} pieces each: it must be a multiple of {pieces}"
        )
    if paths.pairs is not None:
        material = gather_pairs(config, paths.pairs, tell)
    else:
        material = gather_images(config, paths.data, degrade_by if degraded else thin_out, tell)
    config = dataclasses.replace(config, value_range=material.value_range)
    changed = changed_settings(paths.out, config)
    before = _noted(paths.out, BASE_FILE).get("images", material.about)
    if before != material.about:
        changed += (f"data: {before} -> {material.about}",)
    left_out = LeftOut(paths.out / LEFT_OUT_FILE, tell)
    left_out.note(material.left_out)
    batches = partial(
        training_batches,
        config,
        material.samples,
        device=accelerator.device,
        process=accelerator.process_index,
        processes=accelerator.num_processes,
        tell=tell,
        on_passed=left_out.note,
    )
    files_of = partial(batch_files, config, material.samples)
    return Run(config, paths.out, accelerator, batches, files_of, left_out, changed, material, tell)


def changed_settings(out: Path, config: LoopConfig) -> tuple[str, ...]:
    """What a run that goes on from its state does otherwise than before, as "key: old -> new"."""
    before = _flat(_noted(out, CONFIG_FILE))
    if not before:
        return ()
    now = _flat(json.loads(json.dumps(to_dict(config))))
    return tuple(
        f"{key}: {before.get(key)} -> {now.get(key)}"
        for key in sorted(before.keys() | now.keys())
        if before.get(key) != now.get(key)
    )


def _noted(out: Path, name: str) -> dict[str, Any]:
    # What a run that goes on has noted about itself; nothing where there is none to go on with.
    if not (out / STATE_FILE).is_file() or not (out / name).is_file():
        return {}
    try:
        noted = json.loads((out / name).read_text(encoding="utf-8"))
    except ValueError:
        noted = None
    if not isinstance(noted, dict):
        raise OutputError(
            f"{out / name} is damaged: delete it to go on without what it notes, or choose another "
            "output folder"
        )
    return noted


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= (
            _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
        )
    return flat


def fresh(build: Callable[[], Network], seed: int) -> Network:
    """A network whose start hangs on ``seed`` alone."""
    # PyTorch initialises from its global generator; the fork leaves that as it was.
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return build()


def channels_last(module: nn.Module) -> None:
    """Put a network's weights into the layout that convolutions like best, in place."""
    module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def check_crop(config: LoopConfig, unet: UNetSpec) -> None:
    """Raise ConfigError where the teacher's UNet could not halve the crop often enough."""
    if config.crop_hr_px % unet.unit_hr_px:
        raise ConfigError(
            f"crop_hr_px {config.crop_hr_px} is no multiple of {unet.unit_hr_px}, which the "
            "teacher needs"
        )


def check_scale(config: LoopConfig, path: Path) -> None:
    """Raise ConfigError where a file of an earlier stage was trained at another enlargement."""
    settings = json.loads(load_metadata(path).get("train_config", "{}"))
    scale = settings.get("recipe", {}).get("scale", config.recipe.scale)
    if scale != config.recipe.scale:
        raise ConfigError(
            f"{path} was trained for {scale}x, this run is for {config.recipe.scale}x: give one of "
            f"that enlargement, or set recipe.scale={scale}"
        )


def lpips_of(loss: StudentLoss, path: Path | None, device: torch.device) -> LPIPS | None:
    """LPIPS, where the loss has a part for it or its file is given; else nothing asks for it."""
    if loss.lpips == 0 and path is None:
        return None
    return load_lpips(path, loss.lpips_net).to(device)


def recompute_blocks(unet: UNet, codec: nn.Module | None = None) -> None:
    """Run the blocks of a UNet, and of Stable Diffusion's autoencoder, again on the way back."""
    unet.checkpointing = True
    if isinstance(codec, KLCodec):
        codec.vae.enable_gradient_checkpointing()


def make_optimizer(config: LoopConfig, module: nn.Module) -> Optimizer:
    """Adam, or AdamW where there is weight decay, over what trains (MS 11)."""
    kind = AdamW if config.weight_decay > 0 else Adam
    trained = [p for p in module.parameters() if p.requires_grad]
    fused = True if all(p.is_cuda for p in trained) else None
    return kind(
        trained, config.lr, betas=config.betas, weight_decay=config.weight_decay, fused=fused
    )

"""What every stage does before and around its loop: paths, data, accelerator, fresh networks."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import torch
from accelerate.accelerator import Accelerator
from torch import Tensor, nn
from torch.optim import Adam, AdamW, Optimizer

from slimdiffsr.checkpoint import write_atomically
from slimdiffsr.config import LoopConfig, to_dict
from slimdiffsr.data import TrainingPairs, batch_files, find_images, training_batches
from slimdiffsr.degrade import degrade, image_generator
from slimdiffsr.errors import ConfigError
from slimdiffsr.models.sd_vae import KLCodec
from slimdiffsr.models.spec import UNetSpec
from slimdiffsr.models.unet import UNet
from slimdiffsr.stages.processes import join
from slimdiffsr.training import STATE_FILE, Batches, Progress, Task, TrainResult, train

Network = TypeVar("Network", bound=nn.Module)
CONFIG_FILE = "config.json"

__all__ = [
    "Run",
    "RunPaths",
    "changed_settings",
    "channels_last",
    "check_crop",
    "fresh",
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


@dataclass(frozen=True, slots=True)
class Run:
    """A run that is ready to loop."""

    config: LoopConfig
    out: Path
    accelerator: Accelerator
    batches: Batches
    files_of: Callable[[int], list[Path]]  # the images in a step's batch
    unreadable: int  # images whose header could not be read
    too_small: int  # images smaller than the crop
    changed: tuple[str, ...]  # settings other than those that the run had when it stopped

    def loop(
        self,
        task: Task,
        *,
        max_minutes: float | None,
        on_progress: Callable[[Progress], None] | None,
    ) -> TrainResult:
        """Write the config, and train.

        The result also counts the images that were passed over before the first step.
        """
        self.accelerator.wait_for_everyone()  # the others may still be to read the old config
        if self.accelerator.is_main_process:
            text = json.dumps(to_dict(self.config), indent=1)
            write_atomically(self.out / CONFIG_FILE, text.encode())
        result = train(
            self.config, task, self.batches, self.out, self.accelerator,
            max_minutes=max_minutes, on_progress=on_progress, files_of=self.files_of,
        )  # fmt: skip
        return dataclasses.replace(
            result,
            unreadable=result.unreadable + self.unreadable,
            too_small=self.too_small,
            changed=self.changed,
        )

    def about(self, result: TrainResult) -> dict[str, str]:
        """Metadata for what the run leaves: steps done, and the config."""
        return {"step": str(result.step), "train_config": json.dumps(to_dict(self.config))}


def start_run(config: LoopConfig, paths: RunPaths, *, degraded: bool = True) -> Run:
    """Find the images, join the processes.

    ``degraded=False``: LR is not looked at, so HR's pixels, thinned out, stand for it.
    Raises DataError, ConfigError and OutputError.
    """
    images = find_images(paths.data, config.crop_hr_px)
    accelerator = join(config.precision)
    pieces = accelerator.num_processes * config.accumulate
    if config.batch % pieces:
        raise ConfigError(
            f"a batch of {config.batch} cannot be shared out among {accelerator.num_processes} "
            f"processes in {config.accumulate} pieces each: it must be a multiple of {pieces}"
        )
    changed = changed_settings(paths.out, config)
    pairs = TrainingPairs(
        images,
        config.crop_hr_px,
        config.seed,
        partial(_degrade if degraded else _thin, config),
        image_generator,
        flip_all=config.flip_all,
    )
    batches = partial(
        training_batches,
        config,
        pairs,
        device=accelerator.device,
        process=accelerator.process_index,
        processes=accelerator.num_processes,
    )
    files_of = partial(batch_files, config, pairs)
    return Run(
        config, paths.out, accelerator, batches, files_of,
        len(images.unreadable), len(images.too_small), changed,
    )  # fmt: skip


def changed_settings(out: Path, config: LoopConfig) -> tuple[str, ...]:
    """What a run that goes on from its state does otherwise than before, as "key: old -> new"."""
    if not (out / STATE_FILE).is_file() or not (out / CONFIG_FILE).is_file():
        return ()
    before = _flat(json.loads((out / CONFIG_FILE).read_text(encoding="utf-8")))
    now = _flat(json.loads(json.dumps(to_dict(config))))
    return tuple(
        f"{key}: {before.get(key)} -> {now.get(key)}"
        for key in sorted(before.keys() | now.keys())
        if before.get(key) != now.get(key)
    )


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= (
            _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
        )
    return flat


def _degrade(config: LoopConfig, hr: Tensor, rngs: list[torch.Generator]) -> Tensor:
    return degrade(hr, config.recipe, rngs)


def _thin(config: LoopConfig, hr: Tensor, rngs: list[torch.Generator]) -> Tensor:
    return hr[..., :: config.recipe.scale, :: config.recipe.scale].contiguous()


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

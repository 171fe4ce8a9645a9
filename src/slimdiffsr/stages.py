"""Training stages, one function each. So far the student without a teacher."""

from __future__ import annotations

import copy
import dataclasses
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from accelerate.accelerator import Accelerator
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Adam, AdamW, Optimizer

from slimdiffsr.checkpoint import load_strict, load_tensors, save_model, write_atomically
from slimdiffsr.config import TrainConfig, to_dict
from slimdiffsr.data import TrainingPairs, find_images, read_rgb, training_batches
from slimdiffsr.degrade import degrade, image_generator
from slimdiffsr.errors import DataError
from slimdiffsr.losses import adversarial_loss, discriminator_loss, perceptual_loss
from slimdiffsr.metrics import grey8, grid_energy_db, psnr_y, ssim_y
from slimdiffsr.models.discriminator import UNetDiscriminator
from slimdiffsr.models.lpips import LPIPS
from slimdiffsr.models.student import build_student
from slimdiffsr.training import Average, Progress, TrainResult, bare, train

Pixels = np.ndarray[tuple[int, ...], np.dtype[np.uint8]]

__all__ = ["StudentPaths", "load_lpips", "train_student"]

SMALLEST_VALIDATION_PX = 32  # what LPIPS needs
VALIDATION_STREAM = 1 << 40  # sample numbers of the fixed validation set, far from training's


@dataclass(frozen=True, slots=True)
class StudentPaths:
    """Where a student's training reads and writes."""

    data: tuple[Path, ...]
    out: Path
    lpips: Path | None = None  # safetensors of LPIPS-SqueezeNet; None takes the lpips package's
    validation: Path | None = None  # a folder of sharp images; None validates on training images
    start: Path | None = None  # weights of the same architecture to start from


def load_lpips(path: Path | None) -> Callable[[Tensor, Tensor], Tensor]:
    """LPIPS with SqueezeNet from a file, or from the ``lpips`` package, which downloads it.

    Raises WeightsError when the file does not fit, DataError when there is neither.
    """
    if path is not None:
        model = LPIPS()
        tensors, _ = load_tensors(path)
        load_strict(model, {key: value.float() for key, value in tensors.items()}, str(path))
        return model.eval().requires_grad_(False)
    try:
        import lpips
    except ImportError:
        raise DataError(
            "LPIPS needs weights: give --lpips FILE.safetensors, or pip install 'slimdiffsr[lpips]'"
        ) from None
    packaged = lpips.LPIPS(net="squeeze", verbose=False).eval().requires_grad_(False)

    def distance(a: Tensor, b: Tensor) -> Tensor:
        values: Tensor = packaged.to(a.device)(a, b)
        return values.flatten()

    return distance


def train_student(
    config: TrainConfig,
    paths: StudentPaths,
    *,
    max_minutes: float | None = None,
    on_progress: Callable[[Progress], None] | None = None,
) -> TrainResult:
    """Train a student from scratch with L1 + LPIPS + adversarial loss (Eq. 20).

    Writes ``model.safetensors``, the resumable state, TensorBoard logs and validation pictures into
    ``paths.out``; the same call again goes on where the last one stopped.
    """
    images = find_images(paths.data, config.crop_hr_px)
    accelerator = Accelerator(mixed_precision=config.precision)
    paths.out.mkdir(parents=True, exist_ok=True)
    if accelerator.is_main_process:
        text = json.dumps(to_dict(config), indent=1)
        write_atomically(paths.out / "config.json", text.encode())
    pairs = TrainingPairs(
        images,
        config.crop_hr_px,
        config.seed,
        partial(_degrade, config),
        image_generator,
        flip_all=config.flip_all,
    )
    task = StudentTask(config, paths, accelerator)
    batches = partial(
        training_batches, config, pairs, device=accelerator.device,
        process=accelerator.process_index, processes=accelerator.num_processes,
    )  # fmt: skip
    result = train(
        config, task, batches, paths.out, accelerator,
        max_minutes=max_minutes, on_progress=on_progress,
    )  # fmt: skip
    if accelerator.is_main_process:
        about = {"step": str(result.step), "train_config": json.dumps(to_dict(config))}
        save_model(paths.out / "model.safetensors", task.averaged(), config.model, about)
    return dataclasses.replace(result, unreadable=result.unreadable + len(images.unreadable))


def _degrade(config: TrainConfig, hr: Tensor, rngs: list[torch.Generator]) -> Tensor:
    return degrade(hr, config.recipe, rngs)


class StudentTask:
    """Stage 2 without a teacher: reconstruction losses only."""

    def __init__(self, config: TrainConfig, paths: StudentPaths, accelerator: Accelerator) -> None:
        self.config = config
        self.accelerator = accelerator
        device = accelerator.device
        self.lpips = load_lpips(paths.lpips)
        if isinstance(self.lpips, nn.Module):
            self.lpips.to(device)
        student = self._fresh(lambda: build_student(config.model))
        if paths.start is not None:
            load_strict(student, load_tensors(paths.start)[0], str(paths.start))
        adversary = self._fresh(lambda: UNetDiscriminator(config.discriminator_width))
        _channels_last(student.to(device))
        _channels_last(adversary.to(device))
        optimizer = _optimizer(config, student)
        adversary_optimizer = _optimizer(config, adversary)
        self.averages = {"student": Average(student, config.ema)} if config.ema else {}
        self.validation = _validation_set(config, paths)
        forward = torch.compile(student) if config.compile else student
        self.student = accelerator.prepare(forward)
        self.adversary = accelerator.prepare(adversary)
        self.modules: dict[str, nn.Module] = {"student": self.student, "adversary": self.adversary}
        self.optimizers: dict[str, Optimizer] = {
            "student": optimizer,
            "adversary": adversary_optimizer,
        }
        self.base_lr = {"student": config.lr, "adversary": config.lr_adversary or config.lr}

    def _fresh(self, build: Callable[[], nn.Module]) -> nn.Module:
        # PyTorch initialises from its global generator; the fork leaves that as it was.
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(self.config.seed)
            return build()

    def update(self, lr: Tensor, hr: Tensor, step: int) -> dict[str, Tensor]:
        """One step of the student, then one of its adversary."""
        weights = self.config.loss
        lr = lr.to(memory_format=torch.channels_last)
        hr = hr.to(memory_format=torch.channels_last)
        adversarial = weights.gan > 0 and step > weights.gan_from
        with self.accelerator.autocast():
            sr = self.student(lr)
        losses = {"l1": (sr.float() - hr).abs().mean()}
        total = weights.l1 * losses["l1"]
        if weights.lpips > 0 and step > weights.perceptual_from:
            rng = image_generator(self.config.seed + 1, step) if weights.lpips_jitter else None
            losses["lpips"] = perceptual_loss(self.lpips, sr.float(), hr, rng)  # float32: MS 11
            total = total + weights.lpips * losses["lpips"]
        if adversarial:
            adversary = bare(self.adversary).requires_grad_(False)
            with self.accelerator.autocast():
                losses["gan"] = adversarial_loss(adversary(sr), weights.gan_kind)
            total = total + weights.gan * losses["gan"]
        self._descend("student", self.student, total)
        if adversarial:
            losses["adversary"] = self._update_adversary(sr.detach(), hr)
        for average in self.averages.values():
            average.update(bare(self.student), step)
        return {name: value.detach() for name, value in losses.items()}

    def _update_adversary(self, sr: Tensor, hr: Tensor) -> Tensor:
        bare(self.adversary).requires_grad_(True)
        with self.accelerator.autocast():
            both = self.adversary(torch.cat((hr, sr.to(hr.dtype))))
            real, fake = zip(*(level.chunk(2) for level in both), strict=True)
            loss = discriminator_loss(list(real), list(fake), self.config.loss.gan_kind)
        self._descend("adversary", self.adversary, loss)
        return loss

    def _descend(self, name: str, module: nn.Module, loss: Tensor) -> None:
        self.accelerator.backward(loss)
        self.accelerator.clip_grad_norm_(module.parameters(), self.config.grad_clip)
        self.optimizers[name].step()
        self.optimizers[name].zero_grad(set_to_none=True)

    def averaged(self) -> nn.Module:
        """The student with its averaged weights, in evaluation mode."""
        student = copy.deepcopy(bare(self.student)).eval()
        if "student" in self.averages:
            student.load_state_dict(self.averages["student"].weights)
        return student

    @torch.inference_mode()
    def validate(self, step: int, out: Path) -> dict[str, float]:
        """Metrics over the fixed set, and one PNG: LR, SR, HR side by side, one image a row."""
        student = self.averaged()
        rows, values = [], []
        for lr, hr in self.validation:
            sr = student(lr.to(self.accelerator.device)[None] * 2 - 1).float()
            distance = float(self.lpips(sr.clamp(-1, 1), hr.to(sr.device)[None] * 2 - 1))
            sr8, hr8 = _to_uint8(sr[0] / 2 + 0.5), _to_uint8(hr)
            grid = grid_energy_db(grey8(sr8), self.config.model.scale)
            values.append((psnr_y(sr8, hr8), ssim_y(sr8, hr8), distance, grid))
            enlarged = F.interpolate(lr[None], size=hr.shape[1:], mode="nearest")[0]
            rows.append(np.hstack([_to_uint8(enlarged), sr8, hr8]))
        folder = out / "validation"
        folder.mkdir(exist_ok=True)
        Image.fromarray(_stack(rows)).save(folder / f"{step:07d}.png")
        names = ("val/psnr_y", "val/ssim_y", "val/lpips", "val/grid_db")
        return dict(zip(names, np.mean(values, axis=0).tolist(), strict=True))


def _validation_set(config: TrainConfig, paths: StudentPaths) -> list[tuple[Tensor, Tensor]]:
    """Fixed centre crops with fixed degradations."""
    unit = config.model.multiple_lr_px * config.model.scale
    most = max(unit, 256 // unit * unit)
    folders: Sequence[Path] = paths.data if paths.validation is None else (paths.validation,)
    files = find_images(folders, max(unit, SMALLEST_VALIDATION_PX)).files
    spread = np.linspace(0, len(files) - 1, min(config.validation_images, len(files)))
    pairs = []
    for number, index in enumerate(spread.round().astype(int)):
        hr = read_rgb(files[index])
        height, width = (min(most, side // unit * unit) for side in hr.shape[1:])
        y, x = (hr.shape[1] - height) // 2, (hr.shape[2] - width) // 2
        hr = hr[:, y : y + height, x : x + width]
        rng = image_generator(config.seed, VALIDATION_STREAM + number)
        pairs.append((degrade(hr[None], config.recipe, [rng])[0], hr))
    return pairs


def _channels_last(module: nn.Module) -> None:
    module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def _optimizer(config: TrainConfig, module: nn.Module) -> Optimizer:
    kind = AdamW if config.weight_decay > 0 else Adam
    return kind(
        module.parameters(), config.lr, betas=config.betas, weight_decay=config.weight_decay
    )


def _stack(rows: list[Pixels]) -> Pixels:
    """Rows of pictures one below another, narrower ones filled with black."""
    width = max(row.shape[1] for row in rows)
    return np.vstack([np.pad(row, ((0, 0), (0, width - row.shape[1]), (0, 0))) for row in rows])


def _to_uint8(rgb: Tensor) -> Pixels:
    """(3, h, w) in [0, 1] -> (h, w, 3) uint8."""
    return (rgb.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).cpu().numpy()

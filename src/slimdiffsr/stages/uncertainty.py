"""Stage 0, the uncertainty estimator (Eqs. 1 to 5, MS 2)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from accelerate.accelerator import Accelerator
from torch import Tensor

from slimdiffsr.datasets.images import to_rgb8
from slimdiffsr.files.stages import ESTIMATOR_FILE, build_estimator
from slimdiffsr.method.losses import uncertainty_loss
from slimdiffsr.metrics import psnr_y
from slimdiffsr.models.sd_vae import KLCodec, Taesd
from slimdiffsr.models.spec import LATENT_PX
from slimdiffsr.models.student import enlarge_bicubic
from slimdiffsr.models.uncertainty import Uncertainty, UncertaintyEstimator
from slimdiffsr.stages.latents import LatentTask, train_on_latents
from slimdiffsr.stages.pictures import grey, save_rows
from slimdiffsr.stages.pretraining import UncertaintyConfig
from slimdiffsr.stages.run import RunPaths, start_run
from slimdiffsr.training.loop import Progress, TrainResult
from slimdiffsr.training.notices import Tell, say_nothing

__all__ = ["train_uncertainty"]


def train_uncertainty(
    config: UncertaintyConfig,
    paths: RunPaths,
    codec: Taesd | KLCodec,
    *,
    max_minutes: float | None = None,
    on_progress: Callable[[Progress], None] | None = None,
    tell: Tell = say_nothing,
) -> TrainResult:
    """Train the estimator on latents of a frozen codec; the same call again goes on.

    Writes ``estimator.safetensors``, the resumable state, TensorBoard logs and validation pictures
    into ``paths.out``.
    """
    run = start_run(config, paths, tell=tell)
    return train_on_latents(
        run,
        lambda ready: UncertaintyTask(ready.config, paths, codec, ready.accelerator),
        codec,
        paths.out / ESTIMATOR_FILE,
        config.estimator,
        {},
        max_minutes=max_minutes,
        on_progress=on_progress,
    )


class UncertaintyTask(LatentTask[UncertaintyEstimator]):
    """The estimator and how it learns; the codec only encodes."""

    kind = "estimator"
    unit_hr_px = LATENT_PX

    def __init__(
        self,
        config: UncertaintyConfig,
        paths: RunPaths,
        codec: Taesd | KLCodec,
        accelerator: Accelerator,
    ) -> None:
        self.config = config
        super().__init__(config, paths, codec, accelerator)

    def build(self) -> UncertaintyEstimator:
        """The estimator before its first step."""
        return build_estimator(self.config.estimator)

    def update(self, lr: Tensor, hr: Tensor, step: int) -> dict[str, Tensor]:
        """One step on Eq. 5, or at first on the squared error."""
        mean_only = step <= self.config.mean_only_steps

        def loss(lr: Tensor, hr: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
            z_lr, z_gt = self.encode(lr, hr)
            made = Uncertainty(*self.learner.forward(z_lr))
            terms = measure(z_gt, made)
            return terms["mse"] if mean_only else terms["nll"], terms

        return self.learner.descend(loss, (lr, hr), step)

    @torch.no_grad()
    def encode(self, lr: Tensor, hr: Tensor) -> tuple[Tensor, Tensor]:
        """z_lr and z_gt, (b, 4, h, w), of images in [-1, 1]."""
        enlarged = enlarge_bicubic(lr, self.config.recipe.scale)
        return self.codec.encode(enlarged), self.codec.encode(hr)

    @torch.inference_mode()
    def validate(self, step: int, out: Path) -> dict[str, float]:
        """Eq. 5 and its parts, what z_mean gains over z_lr once decoded, and a picture.

        Each row: LR, z_mean decoded, HR, s averaged over channels (white: most uncertain).
        """
        estimator = self.learner.averaged()
        rows, maps, values = [], [], []
        for lr01, hr01 in self.validation:
            lr, hr = lr01.to(self.device)[None] * 2 - 1, hr01.to(self.device)[None] * 2 - 1
            z_lr, z_gt = self.encode(lr, hr)
            made = estimator(z_lr)
            terms = {name: float(value) for name, value in measure(z_gt, made).items()}
            hr8 = to_rgb8(hr[0])
            before, after = (to_rgb8(self.codec.decode(z)[0]) for z in (z_lr, made.mean))
            terms |= {"psnr_y_lr": psnr_y(before, hr8), "psnr_y_mean": psnr_y(after, hr8)}
            values.append(terms)
            rows.append([to_rgb8(enlarge_nearest(lr, hr)), after, hr8])
            maps.append(made.log_var[0].mean(0).cpu())
        low, high = min(float(m.min()) for m in maps), max(float(m.max()) for m in maps)
        drawn = [grey(one, low, high, LATENT_PX) for one in maps]
        save_rows(
            [[*row, one] for row, one in zip(rows, drawn, strict=True)],
            out / "validation" / f"{step:07d}.png",
        )
        return {f"val/{name}": float(np.mean([v[name] for v in values])) for name in values[0]}


def measure(z_gt: Tensor, made: Uncertainty) -> dict[str, Tensor]:
    """Eq. 5 as ``nll``, the squared error, and r^2 / z_var, which comes near 3 (MS 2)."""
    squared = (z_gt - made.mean).square()
    return {
        "nll": uncertainty_loss(z_gt, made.mean, made.log_var),
        "mse": squared.mean(),
        "ratio": (squared * (-made.log_var).exp()).mean(),
    }


def enlarge_nearest(lr: Tensor, hr: Tensor) -> Tensor:
    """(1, 3, h, w) -> (3, H, W), as it is, in larger pixels."""
    large: Tensor = torch.nn.functional.interpolate(lr, size=hr.shape[2:], mode="nearest")[0]
    return large

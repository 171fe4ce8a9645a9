"""The prior: a small latent diffusion UNet, for where Stable Diffusion cannot be had."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import torch
from accelerate.accelerator import Accelerator
from torch import Tensor
from torch.nn import functional as F

from slimdiffsr.datasets.images import to_rgb8
from slimdiffsr.degrade import image_generator
from slimdiffsr.files.stages import UNET_FILE
from slimdiffsr.method.diffusion import (
    PredictionType,
    add_noise,
    noise_schedule,
    predict_clean,
    prediction_target,
)
from slimdiffsr.models.sd_vae import KLCodec, Taesd
from slimdiffsr.models.unet import UNet
from slimdiffsr.stages.latents import LatentTask, train_on_latents
from slimdiffsr.stages.pictures import save_rows
from slimdiffsr.stages.pretraining import PriorConfig
from slimdiffsr.stages.run import RunPaths, start_run
from slimdiffsr.stages.validation import STREAM
from slimdiffsr.training.loop import Progress, TrainResult
from slimdiffsr.training.notices import Tell, say_nothing

__all__ = ["sample", "train_prior"]

VALIDATION_TIMESTEPS = tuple(range(50, 1000, 100))
SHOWN_TIMESTEP = 200  # where the teacher's predictor starts (MS 3)


def train_prior(
    config: PriorConfig,
    paths: RunPaths,
    codec: Taesd | KLCodec,
    *,
    max_minutes: float | None = None,
    on_progress: Callable[[Progress], None] | None = None,
    tell: Tell = say_nothing,
) -> TrainResult:
    """Train a UNet to denoise latents of sharp images; the same call again goes on.

    Writes ``unet.safetensors``, the resumable state, TensorBoard logs and validation pictures into
    ``paths.out``.
    """
    run = start_run(config, paths, degraded=False, tell=tell)
    return train_on_latents(
        run,
        lambda ready: PriorTask(ready.config, paths, codec, ready.accelerator),
        codec,
        paths.out / UNET_FILE,
        config.unet,
        {"prediction": config.prediction},
        max_minutes=max_minutes,
        on_progress=on_progress,
    )


class PriorTask(LatentTask[UNet]):
    """The UNet and how it learns; the codec only encodes and decodes."""

    kind = "unet"

    def __init__(
        self,
        config: PriorConfig,
        paths: RunPaths,
        codec: Taesd | KLCodec,
        accelerator: Accelerator,
    ) -> None:
        self.config = config
        self.unit_hr_px = config.unet.unit_hr_px
        self.schedule = noise_schedule().to(accelerator.device)
        super().__init__(config, paths, codec, accelerator)

    def build(self) -> UNet:
        """The UNet before its first step."""
        unet = UNet(self.config.unet)
        unet.checkpointing = self.config.checkpointing
        return unet

    def update(self, lr: Tensor, hr: Tensor, step: int) -> dict[str, Tensor]:
        """One step of Ho et al. 2020, Eq. 14, on the latents of HR; LR is not looked at."""
        z_gt = self.encode(hr)
        timestep, noise = self.draw(z_gt, step)

        def loss(z_gt: Tensor, timestep: Tensor, noise: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
            value = self.loss(self.learner.forward, z_gt, timestep, noise)
            return value, {"loss": value}

        return self.learner.descend(loss, (z_gt, timestep, noise), step)

    @torch.no_grad()
    def encode(self, hr: Tensor) -> Tensor:
        """(b, 3, H, W) in [-1, 1] -> (b, 4, h, w)."""
        return self.codec.encode(hr)

    def draw(self, z_gt: Tensor, step: int) -> tuple[Tensor, Tensor]:
        """Uniform timesteps (b,) and noise (b, 4, h, w): this process's share of the step's."""
        rng = image_generator(self.config.seed + 4, step)
        batch, first = self.config.batch, self.accelerator.process_index * len(z_gt)
        share = slice(first, first + len(z_gt))
        timestep = torch.randint(0, len(self.schedule), (batch,), generator=rng)[share]
        noise = torch.randn(batch, *z_gt.shape[1:], generator=rng)[share]
        return timestep.to(self.device), noise.to(self.device)

    def loss(
        self, unet: Callable[..., Tensor], z_gt: Tensor, timestep: Tensor, noise: Tensor
    ) -> Tensor:
        """Mean squared error of what the UNet says of a noisy latent; float32 scalar."""
        alpha_bar = self.schedule[timestep].view(-1, 1, 1, 1)
        with self.accelerator.autocast():
            made = unet(add_noise(z_gt, noise, alpha_bar), timestep)
        target = prediction_target(z_gt, noise, alpha_bar, self.config.prediction)
        return F.mse_loss(made.float(), target)

    @torch.inference_mode()
    def validate(self, step: int, out: Path) -> dict[str, float]:
        """The loss at fixed timesteps and noise; pictures of one-step estimates and of samples.

        Each row of the first: HR, its noisy latent decoded, the clean latent estimated in one step.
        """
        unet = self.learner.averaged()
        losses, rows, shapes = [], [], []
        for number, (_, hr01) in enumerate(self.validation):
            hr = hr01.to(self.device)[None] * 2 - 1
            z_gt = self.encode(hr)
            noise = self.fixed_noise(z_gt.shape, number)
            for t in VALIDATION_TIMESTEPS:
                timestep = torch.tensor([t], device=self.device)
                losses.append(float(self.loss(unet, z_gt, timestep, noise)))
            noisy = add_noise(z_gt, noise, self.schedule[SHOWN_TIMESTEP])
            clean = estimate(unet, noisy, SHOWN_TIMESTEP, self.schedule, self.config.prediction)
            decoded = (to_rgb8(self.codec.decode(z)[0]) for z in (noisy, clean))
            rows.append([to_rgb8(hr[0]), *decoded])
            shapes.append(z_gt.shape)
        folder = out / "validation"
        save_rows(rows, folder / f"{step:07d}.png")
        self.show_samples(unet, shapes[0], folder / f"{step:07d}-samples.png")
        return {"val/loss": sum(losses) / len(losses)}

    def fixed_noise(self, shape: torch.Size, number: int) -> Tensor:
        """Noise that is the same at each validation."""
        rng = image_generator(self.config.seed + 4, STREAM + number)
        return torch.randn(shape, generator=rng).to(self.device)

    def show_samples(self, unet: UNet, shape: torch.Size, path: Path) -> None:
        """Images from noise alone, as many as the validation set has, in rows of four."""
        noise = [self.fixed_noise(shape, -1 - n) for n in range(len(self.validation))]
        config = self.config
        made = [
            sample(unet, z, config.sample_steps, self.schedule, config.prediction) for z in noise
        ]
        images = [to_rgb8(self.codec.decode(z)[0]) for z in made]
        save_rows([images[start : start + 4] for start in range(0, len(images), 4)], path)


def estimate(
    unet: UNet, noisy: Tensor, timestep: int, schedule: Tensor, kind: PredictionType
) -> Tensor:
    """The clean latent in one step. noisy: (b, 4, h, w)."""
    made = unet(noisy, torch.full((len(noisy),), timestep, device=noisy.device))
    return predict_clean(noisy, made, schedule[timestep], kind)


def sample(unet: UNet, noise: Tensor, steps: int, schedule: Tensor, kind: PredictionType) -> Tensor:
    """Deterministic sampling (Song et al. 2021, DDIM, Eq. 12 with sigma = 0) in equal strides.

    noise: (b, 4, h, w), standard normal. Returns latents of the same shape.
    """
    z = clean = noise
    timesteps = torch.linspace(len(schedule) - 1, 0, steps + 1).round().long().tolist()
    for now, following in pairwise(timesteps):
        clean = estimate(unet, z, now, schedule, kind)
        # The noise that leads from that clean latent to z: Eq. 6 solved for it.
        direction = (z - schedule[now].sqrt() * clean) / (1 - schedule[now]).sqrt()
        z = add_noise(clean, direction, schedule[following])
    return clean

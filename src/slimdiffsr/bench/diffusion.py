"""Stable Diffusion as a super-resolver of one or many steps: the teacher's class, for its cost."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from slimdiffsr.method.diffusion import add_noise, noise_schedule, predict_clean
from slimdiffsr.models.sd_vae import build_kl
from slimdiffsr.models.spec import SD21
from slimdiffsr.models.student import enlarge_bicubic
from slimdiffsr.models.unet import UNet

__all__ = ["StableDiffusion"]


class StableDiffusion(nn.Module):
    """Encode the enlarged image, ``steps`` times the UNet without guidance, decode.

    One step is the paper's teacher without its estimator and predictor, which are small beside it
    and, as published, want the ground truth. The prompt's embedding is constant, so the text
    encoder never runs.
    """

    schedule: Tensor
    prompt: Tensor

    def __init__(self, scale: int) -> None:
        super().__init__()
        self.scale = scale
        self.codec = build_kl()
        self.unet = UNet(SD21)
        self.register_buffer("schedule", noise_schedule(), persistent=False)
        self.register_buffer("prompt", torch.zeros(1, 77, SD21.text_width), persistent=False)

    def forward(self, rgb_lr: Tensor, steps: int = 1) -> Tensor:
        """rgb_lr: (b, 3, h, w) in [-1, 1], scale*h a multiple of 64. Returns (b, 3, scale*h, scale*w)."""
        z = self.codec.encode(enlarge_bicubic(rgb_lr, self.scale))
        last = len(self.schedule) - 1
        for k in range(steps, 0, -1):
            z = self.step(z, last * k // steps, last * (k - 1) // steps)
        return self.codec.decode(z)

    def step(self, z: Tensor, now: int = 999, then: int = 0) -> Tensor:
        """One call of the UNet, and the way from timestep ``now`` to ``then`` (DDIM, Eq. 12 at sigma 0).

        z: (b, 4, h, w). Returns the same shape and dtype. Song et al. 2021; then = 0 ends at z_0.
        """
        b = len(z)
        timestep = z.new_full((b,), now, dtype=torch.float32)
        noise = self.unet(z, timestep, self.prompt.expand(b, -1, -1).to(z.dtype))
        clean = predict_clean(z, noise, self.schedule[now], "epsilon")
        return (add_noise(clean, noise, self.schedule[then]) if then > 0 else clean).to(z.dtype)

"""The paper's losses, as functions of tensors. Images are RGB in [-1, 1]."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = [
    "adversarial_loss",
    "coarse_loss",
    "discriminator_loss",
    "jitter",
    "perceptual_loss",
    "total_variation",
    "uncertainty_loss",
]

GanKind = Literal["hinge", "bce_s"]
VIEW_STEP = 8
REAL_TARGET = 0.8  # one-sided label smoothing of multilevel_sigmoid_s (MS 7)


def discriminator_loss(real: list[Tensor], fake: list[Tensor], kind: GanKind) -> Tensor:
    """What the adversary minimises; one logit map a level, summed over levels.

    hinge: Lim & Ye 2017. bce_s: binary cross-entropy against 0.8 and 0 (MS 7).
    """
    total = real[0].new_zeros(())
    for r, f in zip(real, fake, strict=True):
        r, f = r.float(), f.float()
        if kind == "hinge":
            total = total + F.relu(1 - r).mean() + F.relu(1 + f).mean()
        else:
            total = total + _bce(r, REAL_TARGET) + _bce(f, 0.0)
    return total


def adversarial_loss(fake: list[Tensor], kind: GanKind) -> Tensor:
    """L_GAN of Eq. 20 for the generator."""
    total = fake[0].new_zeros(())
    for f in fake:
        total = total + (-f.float().mean() if kind == "hinge" else _bce(f.float(), REAL_TARGET))
    return total


def _bce(logits: Tensor, target: float) -> Tensor:
    return F.binary_cross_entropy_with_logits(logits, torch.full_like(logits, target))


def coarse_loss(sr: Tensor, hr: Tensor, scale: int) -> Tensor:
    """L1 between both averaged down by ``scale``: holds mean and contrast without asking for blur."""
    return (F.avg_pool2d(sr, scale) - F.avg_pool2d(hr, scale)).abs().mean()


def perceptual_loss(
    lpips: Callable[[Tensor, Tensor], Tensor],
    sr: Tensor,
    hr: Tensor,
    rng: torch.Generator | None = None,
) -> Tensor:
    """L_LPIPS of Eq. 20: mean over images; with ``rng``, on one common random view of both.

    A fixed view lets a network paint a faint grid that the metric's strided layers do not see.
    """
    if rng is not None:
        sr, hr = jitter(torch.cat((sr, hr)), rng).chunk(2)
    return lpips(sr, hr).mean()


def jitter(rgb: Tensor, rng: torch.Generator) -> Tensor:
    """One random shift, flip and rescale (0.75 to 1.25) for the whole batch, by a CPU generator.

    rgb: (b, c, h, w). Returns (b, c, h', w') with h', w' a little different from h, w.
    """
    dy, dx, flips, rescale = torch.randint(0, 8, (4,), generator=rng).tolist()
    # Sizes in steps of 8: for each new one an accelerator plans all its convolutions anew.
    height, width = (side - VIEW_STEP for side in rgb.shape[-2:])
    rgb = rgb[..., dy : dy + height, dx : dx + width]
    if flips & 1:
        rgb = rgb.flip(-1)
    if flips & 2:
        rgb = rgb.flip(-2)
    if flips & 4:
        rgb = rgb.transpose(-1, -2)
    if rescale < 4:
        factor = 0.75 + 0.5 * torch.rand((), generator=rng).item()
        size = [round(side * factor / VIEW_STEP) * VIEW_STEP for side in rgb.shape[-2:]]
        rgb = F.interpolate(rgb, size, mode="bilinear", align_corners=False, antialias=True)
    return rgb


def uncertainty_loss(z_gt: Tensor, z_mean: Tensor, log_var: Tensor) -> Tensor:
    """Eq. 5, mean over all elements; least where z_var is a third of the squared residual.

    z_gt, z_mean, log_var: (b, 4, h, w). The 3 is 1 from the Gaussian and 2 from Jeffreys' prior.
    Returns a float32 scalar.
    """
    residual, s = z_gt.float() - z_mean.float(), log_var.float()
    return 0.5 * ((-s).exp() * residual.square() + 3 * s).mean()


def total_variation(alpha_bar: Tensor) -> Tensor:
    """L_TV of Eq. 21 with means for sums, so that it does not grow with the map.

    alpha_bar: (b, 1, h, w) in [0, 1]. Returns a float32 scalar, 0 for one number an image.
    """
    x = alpha_bar.float()
    total = x.new_zeros(())
    for axis in (2, 3):
        if x.shape[axis] > 1:
            total = total + x.diff(dim=axis).square().mean()
    return total

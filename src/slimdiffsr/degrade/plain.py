"""Plain surfaces to learn from: water, sand, asphalt as a noisy input and its smooth truth."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from slimdiffsr.degrade.draws import chance, uniform
from slimdiffsr.degrade.jpeg import jpeg
from slimdiffsr.degrade.ops import add_gaussian_noise, quantise

__all__ = ["plain_pair"]

MOST_NOISE = 5.0  # in 8-bit grey levels
MOST_SLOPE = 12.0  # in 8-bit grey levels across the image


def plain_pair(hr: Tensor, scale: int, rng: torch.Generator) -> tuple[Tensor, Tensor]:
    """A surface of an image's mean colour, perhaps sloping gently: noisy LR, and smooth HR.

    Photographs hold few surfaces that are plain enough, so a network that divides by statistics
    learns to make relief of a plain tile's noise.

    hr: (3, h, w) in [0, 1], sides multiples of ``scale``. Returns (3, h / scale, w / scale), rounded
    to 8-bit levels, and (3, h, w).
    """
    height, width = hr.shape[1:]
    corners = hr.mean((1, 2), keepdim=True)[None].repeat(1, 1, 2, 2)
    if chance(0.5, rng):
        slope = 2 * torch.rand((1, 1, 2, 2), generator=rng).to(hr) - 1
        corners = corners + slope * (uniform((0.0, MOST_SLOPE), rng) / 255 / 2)
    truth = F.interpolate(corners, (height, width), mode="bilinear", align_corners=True).clamp(0, 1)
    lr = F.avg_pool2d(truth, scale)
    sigma = MOST_NOISE * uniform((0.0, 1.0), rng) ** 2
    grey = chance(0.3, rng)
    lr = add_gaussian_noise(lr, torch.tensor([sigma]), torch.tensor([grey]), [rng]).clamp(0, 1)
    if chance(0.2, rng):
        lr = jpeg(lr, lr.new_tensor([uniform((60.0, 100.0), rng)]))
    return quantise(lr)[0], truth[0]

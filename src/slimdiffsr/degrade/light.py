"""The light end of the range of inputs: what a good sensor and a good file leave (not the paper's)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from slimdiffsr.degrade.draws import chance, uniform
from slimdiffsr.degrade.jpeg import jpeg
from slimdiffsr.degrade.kernels import KERNEL_SIZE, gaussian_kernel
from slimdiffsr.degrade.ops import add_gaussian_noise, blur, quantise
from slimdiffsr.settings.config import Light

__all__ = ["degrade_lightly"]


def degrade_lightly(image: Tensor, scale: int, light: Light, rng: torch.Generator) -> Tensor:
    """Averaged down or bicubic, perhaps after a sensor's blur, and then with little noise and JPEG.

    image: (1, 3, h, w) in [0, 1], sides multiples of ``scale``. Returns (1, 3, h / scale, w / scale)
    in [0, 1], rounded to 8-bit levels.
    """
    if chance(light.untouched, rng):
        return quantise(_shrink(image, scale, rng))
    sigma_hr_px = scale * _strength(light.blur_lr_px, rng)
    if sigma_hr_px > 0.05:
        kernel = gaussian_kernel(KERNEL_SIZE, sigma_hr_px, sigma_hr_px)
        image = blur(image, kernel.to(image)[None])
    image = _shrink(image, scale, rng)
    sigma, grey = _strength(light.noise, rng), chance(light.grey_prob, rng)
    image = add_gaussian_noise(image, torch.tensor([sigma]), torch.tensor([grey]), [rng])
    if chance(light.jpeg_prob, rng):
        quality = uniform(light.jpeg_quality, rng)
        image = jpeg(image.clamp(0, 1), image.new_tensor([quality]))
    return quantise(image)


def _shrink(image: Tensor, scale: int, rng: torch.Generator) -> Tensor:
    if chance(0.6, rng):
        return F.avg_pool2d(image, scale)
    size = (image.shape[-2] // scale, image.shape[-1] // scale)
    return F.interpolate(image, size=size, mode="bicubic", antialias=True).clamp(0, 1)


def _strength(bounds: tuple[float, float], rng: torch.Generator) -> float:
    low, high = bounds
    return low + (high - low) * uniform((0.0, 1.0), rng) ** 2

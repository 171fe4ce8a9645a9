"""The whole second-order degradation, HR to LR (MS 12; Wang et al. 2021)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from slimdiffsr.degrade.draws import chance, choose, uniform
from slimdiffsr.degrade.jpeg import jpeg
from slimdiffsr.degrade.kernels import draw_kernel, draw_sinc_kernel
from slimdiffsr.degrade.light import degrade_lightly
from slimdiffsr.degrade.ops import (
    ResizeMode,
    add_gaussian_noise,
    add_poisson_noise,
    blur,
    quantise,
    resize,
    resize_by,
)
from slimdiffsr.errors import DataError
from slimdiffsr.settings.config import Noise, Recipe, Resize, Stage

__all__ = ["degrade", "image_generator"]

_MODES: tuple[ResizeMode, ...] = ("area", "bilinear", "bicubic")

_MASK_64 = (1 << 64) - 1


def image_generator(seed: int, index: int) -> torch.Generator:
    """The generator of image number ``index`` in a run with this seed; neighbours are independent.

    Both numbers pass through a mixing function, because generators seeded 1, 2, 3 or with
    ``seed + index`` would repeat each other from run to run.
    """
    mixed = _mix_64(_mix_64(seed & _MASK_64) ^ (index & _MASK_64))
    return torch.Generator().manual_seed(mixed)


@torch.no_grad()
def degrade(hr: Tensor, recipe: Recipe, rngs: Sequence[torch.Generator]) -> Tensor:
    """Make the low-resolution image of each HR image.

    An LR image depends on its own pixels, the recipe and its generator only, so it is the same
    in any batch, in any order and on any number of workers.

    Args:
        hr: (b, 3, h, w) in [0, 1]; h and w multiples of ``recipe.scale``. float64 gives the same
            bits on all CPUs; float32 takes two thirds of the time, but a few levels in 10,000
            hang on the CPU's vector instructions. The two draw different noise.
        recipe: every range and probability.
        rngs: b generators, see ``image_generator``; they advance.

    Returns:
        (b, 3, h / scale, w / scale) in [0, 1], rounded to 8-bit levels.

    Raises:
        DataError: shape, type, values or the number of generators do not fit.
    """
    _check(hr, recipe.scale, len(rngs))
    return torch.cat([_degrade_one(hr[i : i + 1], recipe, rng) for i, rng in enumerate(rngs)])


def _degrade_one(hr: Tensor, recipe: Recipe, rng: torch.Generator) -> Tensor:
    """One image, (1, 3, h, w)."""
    if recipe.light.share > 0 and chance(recipe.light.share, rng):
        return degrade_lightly(image=hr, scale=recipe.scale, light=recipe.light, rng=rng)
    height, width = hr.shape[-2:]
    lr_size = (height // recipe.scale, width // recipe.scale)
    first, second = recipe.first, recipe.second

    image = _random_blur(hr, first, rng)
    image = resize_by(image, _draw_factor(first.resize, rng), _draw_mode(rng))
    image = _random_noise(image, first.noise, rng)
    image = _random_jpeg(image, first, rng)

    image = _random_blur(image, second, rng)
    factor = _draw_factor(second.resize, rng)
    between = (max(1, int(lr_size[0] * factor)), max(1, int(lr_size[1] * factor)))
    image = resize(image, between, _draw_mode(rng))
    image = _random_noise(image, second.noise, rng)

    jpeg_last = chance(0.5, rng)
    if not jpeg_last:
        image = _random_jpeg(image, second, rng)
    image = resize(image, lr_size, _draw_mode(rng))
    if chance(recipe.final_sinc_prob, rng):
        image = blur(image, draw_sinc_kernel(second.blur, rng).to(image).unsqueeze(0))
    if jpeg_last:
        image = _random_jpeg(image, second, rng)
    return quantise(image)


def _random_blur(image: Tensor, stage: Stage, rng: torch.Generator) -> Tensor:
    if not chance(stage.blur.prob, rng):
        return image
    return blur(image, draw_kernel(stage.blur, rng).to(image).unsqueeze(0))


def _random_noise(image: Tensor, noise: Noise, rng: torch.Generator) -> Tensor:
    gaussian = chance(noise.gaussian_prob, rng)
    strength = uniform(noise.sigma if gaussian else noise.poisson_scale, rng)
    grey = chance(noise.grey_prob, rng)
    add_noise = add_gaussian_noise if gaussian else add_poisson_noise
    return add_noise(image, torch.tensor([strength]), torch.tensor([grey]), [rng]).clamp_(0, 1)


def _random_jpeg(image: Tensor, stage: Stage, rng: torch.Generator) -> Tensor:
    # The bicubic filter and the sinc overshoot; a file cannot hold such values.
    return jpeg(image.clamp(0, 1), image.new_tensor([uniform(stage.jpeg_quality, rng)]))


def _draw_factor(resize: Resize, rng: torch.Generator) -> float:
    low, high = resize.factor
    change = choose(resize.probs, rng)  # up, down, keep
    return uniform(((1.0, high), (low, 1.0), (1.0, 1.0))[change], rng)


def _draw_mode(rng: torch.Generator) -> ResizeMode:
    return _MODES[choose([1 / len(_MODES)] * len(_MODES), rng)]


def _mix_64(number: int) -> int:
    """The step and output functions of splitmix64 (Steele et al. 2014)."""
    number = (number + 0x9E3779B97F4A7C15) & _MASK_64
    number = ((number ^ (number >> 30)) * 0xBF58476D1CE4E5B9) & _MASK_64
    number = ((number ^ (number >> 27)) * 0x94D049BB133111EB) & _MASK_64
    return number ^ (number >> 31)


def _check(hr: Tensor, scale: int, generators: int) -> None:
    if hr.ndim != 4 or hr.shape[1] != 3 or hr.numel() == 0:
        raise DataError(f"hr must be (b, 3, h, w), none of them 0, got {tuple(hr.shape)}")
    if hr.dtype not in (torch.float32, torch.float64):
        raise DataError(f"hr must be float in [0, 1], got {hr.dtype}: divide 8-bit values by 255")
    height, width = hr.shape[-2:]
    if height % scale or width % scale:
        raise DataError(
            f"hr must have sides that are multiples of scale {scale}, got {height} x {width}: crop it"
        )
    if generators != hr.shape[0]:
        raise DataError(
            f"give one generator for each image: got {generators} for {hr.shape[0]} images"
        )
    lowest, highest = (bound.item() for bound in torch.aminmax(hr))
    if not (lowest >= 0 and highest <= 1):  # so that NaN is caught too
        raise DataError(
            f"hr must be in [0, 1], got {lowest:g} to {highest:g}: divide 8-bit values by 255"
        )

"""The operations of the degradation on batches: blur, resize, noise, quantise.

Images are (b, c, h, w) float in [0, 1]; parameters come one for each image. What is random takes
one generator for each image, so that an image never depends on its neighbours in the batch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from slimdiffsr.errors import DataError

__all__ = [
    "ResizeMode",
    "add_gaussian_noise",
    "add_poisson_noise",
    "blur",
    "quantise",
    "resize",
    "resize_by",
]

ResizeMode = Literal["area", "bilinear", "bicubic"]

_LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601


def blur(images: Tensor, kernels: Tensor) -> Tensor:
    """Correlate each image with its kernel; the border is mirrored without repeating the edge.

    Args:
        images: (b, c, h, w), any range.
        kernels: (b, k, k), k odd.

    Returns:
        (b, c, h, w). Images of k // 2 pixels or fewer repeat their edge instead, for there is not
        enough to mirror.
    """
    side = kernels.shape[-1]
    if kernels.shape != (images.shape[0], side, side) or side % 2 == 0:
        raise DataError(
            "blur takes one odd square kernel for each image, (b, k, k), got "
            f"{tuple(kernels.shape)} for images {tuple(images.shape)}"
        )
    radius = side // 2
    height, width = images.shape[-2:]
    mode = "reflect" if radius < min(height, width) else "replicate"
    padded = F.pad(images, (radius,) * 4, mode=mode)
    # Fourier space, because a 21 x 21 sum costs one core nine times as much at 192 x 192. The
    # wrap-around of the circular product stays inside the padding, which is cut off.
    size = [_fast_length(n) for n in padded.shape[-2:]]
    spectrum = torch.fft.rfft2(padded, s=size)
    spectrum *= torch.fft.rfft2(kernels, s=size).conj().unsqueeze(1)
    filtered: Tensor = torch.fft.irfft2(spectrum, s=size)
    return filtered[..., :height, :width].contiguous()


def resize(images: Tensor, size: tuple[int, int], mode: ResizeMode) -> Tensor:
    """Resample to ``size`` = (height, width) without an antialias filter, as the authors do."""
    return F.interpolate(images, size=size, mode=mode)


def resize_by(images: Tensor, factor: float, mode: ResizeMode) -> Tensor:
    """Resample by a factor; sizes are rounded down, pixel positions keep the exact factor."""
    height, width = images.shape[-2:]
    if min(height, width) * factor < 1:
        return resize(images, (max(1, int(height * factor)), max(1, int(width * factor))), mode)
    return F.interpolate(images, scale_factor=factor, mode=mode)


def add_gaussian_noise(
    images: Tensor, sigma: Tensor, grey: Tensor, rngs: Sequence[torch.Generator]
) -> Tensor:
    """Add normal noise of ``sigma`` 8-bit grey levels; not clipped.

    Args:
        images: (b, c, h, w) in [0, 1].
        sigma: (b,) standard deviations in 8-bit grey levels.
        grey: (b,) bool; True adds the same noise to every band.
        rngs: b generators.

    Returns:
        (b, c, h, w).
    """
    _check_parameters(images, sigma, grey, rngs)
    noisy = images.clone()
    for image, level, same, rng in zip(noisy, sigma.tolist(), grey.tolist(), rngs, strict=True):
        bands = 1 if same else image.shape[0]
        shape = (bands, *image.shape[1:])
        noise = torch.randn(shape, generator=rng, device=rng.device, dtype=image.dtype)
        image.add_(noise.to(image.device), alpha=level / 255)
    return noisy


def add_poisson_noise(
    images: Tensor, scale: Tensor, grey: Tensor, rngs: Sequence[torch.Generator]
) -> Tensor:
    """Add shot noise: counts of light whose mean is the image, times ``scale``; not clipped.

    One unit of light is 1/n of white, where n is the number of distinct 8-bit values in the image
    rounded up to a power of two (Wang et al. 2021): an image of few values is taken for a dark one.

    Args:
        images: (b, 3, h, w) in [0, 1].
        scale: (b,) factors on the noise; 1 is natural shot noise.
        grey: (b,) bool; True draws the noise of the luma and adds it to every band.
        rngs: b generators.

    Returns:
        (b, 3, h, w).
    """
    _check_parameters(images, scale, grey, rngs)
    noisy = images.clone()
    for image, factor, same, rng in zip(noisy, scale.tolist(), grey.tolist(), rngs, strict=True):
        light = _luma(image) if same else image
        image.add_(_shot_noise(light, rng), alpha=factor)
    return noisy


def quantise(images: Tensor) -> Tensor:
    """Clip to [0, 1] and round to the 256 values of 8 bits."""
    return (images * 255).round_().clamp_(0, 255) / 255


def _check_parameters(
    images: Tensor, strength: Tensor, grey: Tensor, rngs: Sequence[torch.Generator]
) -> None:
    b = images.shape[0]
    if strength.shape != (b,) or grey.shape != (b,) or len(rngs) != b:
        raise DataError(
            f"noise takes a strength (b,), a grey flag (b,) and a generator for each of {b} images, "
            f"got {tuple(strength.shape)}, {tuple(grey.shape)} and {len(rngs)} generators"
        )


def _shot_noise(light: Tensor, rng: torch.Generator) -> Tensor:
    """Zero-mean Poisson noise of (c, h, w) in [0, 1], same shape."""
    levels = (light * 255).round_().clamp_(0, 255)
    distinct = int(torch.bincount(levels.flatten().long(), minlength=256).count_nonzero())
    counts_at_white = 1 << math.ceil(math.log2(distinct))
    mean = levels * (counts_at_white / 255)
    counts: Tensor = torch.poisson(mean.to(rng.device), generator=rng).to(light.device)
    return (counts - mean) / counts_at_white


def _luma(image: Tensor) -> Tensor:
    return torch.einsum("c,chw->hw", image.new_tensor(_LUMA), image).unsqueeze(0)


def _fast_length(length: int) -> int:
    """The next even length whose only prime factors are 2, 3 and 5: fast to transform."""
    while length % 2 or not _is_smooth(length):
        length += 1
    return length


def _is_smooth(number: int) -> bool:
    for prime in (2, 3, 5):
        while number % prime == 0:
            number //= prime
    return number == 1

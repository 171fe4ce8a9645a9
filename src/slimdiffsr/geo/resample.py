"""Averages, enlargements and fills of (bands, rows, columns) arrays.

Every function works pixel by pixel in a fixed order of operations, so a value does not depend on
how much of the scene the array holds, as long as the needed neighbours are there. Averages and
enlargements work on the arrays of any library; fills, which the input alone needs, on NumPy's.
"""

from __future__ import annotations

from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from slimdiffsr.geo.arrays import NUMPY, Array, Arrays

__all__ = [
    "BICUBIC_REACH",
    "BILINEAR_REACH",
    "bicubic_kernel",
    "bilinear_kernel",
    "block_mean",
    "enlarge",
    "fill_invalid",
    "fill_near",
    "gaussian",
    "gaussian_reach",
]

Float = TypeVar("Float", np.float32, np.float64)

BILINEAR_REACH = 1  # neighbours on each side that the kernel needs
BICUBIC_REACH = 2


def block_mean(image_hr: Array, scale: int) -> Array:
    """(b, scale*h, scale*w) -> (b, h, w): the mean of each block of scale x scale pixels."""
    rows = image_hr[:, ::scale] + image_hr[:, 1::scale]
    for k in range(2, scale):
        rows += image_hr[:, k::scale]
    blocks = rows[:, :, ::scale] + rows[:, :, 1::scale]
    for k in range(2, scale):
        blocks += rows[:, :, k::scale]
    blocks *= 1 / scale**2  # a power of two: exact in every type
    return blocks


def bilinear_kernel(scale: int) -> NDArray[np.float64]:
    """(scale, 3) weights of the pixels -1, 0, +1 for each position inside an enlarged pixel."""
    offset = (np.arange(scale) + 0.5) / scale - 0.5  # from the centre of the input pixel
    return np.stack([np.maximum(-offset, 0), 1 - np.abs(offset), np.maximum(offset, 0)], axis=1)


def bicubic_kernel(scale: int) -> NDArray[np.float64]:
    """(scale, 5) weights of the pixels -2 ... +2: Keys' cubic convolution with a = -0.5."""
    offset = (np.arange(scale) + 0.5) / scale - 0.5
    x = np.abs(offset[:, None] - np.arange(-2, 3)[None])
    near = 1.5 * x**3 - 2.5 * x**2 + 1
    far = -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
    return np.where(x <= 1, near, np.where(x < 2, far, 0.0))


def enlarge(image_lr: Array, kernel: NDArray[np.float64], arrays: Arrays = NUMPY) -> Array:
    """(b, h + 2r, w + 2r) -> (b, scale*h, scale*w) with a (scale, 2r + 1) kernel.

    The margin of r pixels is the neighbourhood; at the scene's edge make it with ``arrays.pad``.
    """
    scale, taps = kernel.shape
    bands, height, width = image_lr.shape
    height, width = height - taps + 1, width - taps + 1
    wide = arrays.empty((bands, height + taps - 1, width * scale), image_lr)
    for phase in range(scale):
        wide[:, :, phase::scale] = _weighted(
            [image_lr[:, :, k : k + width] for k in range(taps)], kernel[phase]
        )
    out = arrays.empty((bands, height * scale, width * scale), image_lr)
    for phase in range(scale):
        out[:, phase::scale] = _weighted(
            [wide[:, k : k + height] for k in range(taps)], kernel[phase]
        )
    return out


def _weighted(images: list[Array], weights: NDArray[np.float64]) -> Array:
    used = [k for k in range(len(images)) if weights[k] != 0]
    total = images[used[0]] * float(weights[used[0]])
    for k in used[1:]:
        total += images[k] * float(weights[k])
    return total


def gaussian_reach(sigma_px: float) -> int:
    """Pixels on each side that ``gaussian`` reads: four sigma."""
    return int(4 * sigma_px + 0.5)


def gaussian(image: Array, sigma_px: float, arrays: Arrays = NUMPY) -> Array:
    """(b, h, w) of float32 low-passed, cut off at four sigma; zeros outside the array."""
    reach = gaussian_reach(sigma_px)
    taps = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma_px) ** 2)
    weights = [float(tap) for tap in (taps / taps.sum()).astype(np.float32)]
    padded = arrays.pad(image, (reach, reach, reach, reach), repeat=False)
    height, width = image.shape[1:]
    result = arrays.empty(tuple(image.shape), image)
    for row in range(0, height, arrays.rows_at_once):
        rows = min(arrays.rows_at_once, height - row)
        down = _symmetric([padded[:, row + k : row + k + rows] for k in range(len(taps))], weights)
        result[:, row : row + rows] = _symmetric(
            [down[:, :, k : k + width] for k in range(len(taps))], weights
        )
    return result


def _symmetric(images: list[Array], weights: list[float]) -> Array:
    reach = len(weights) // 2
    total = images[reach] * weights[reach]
    for k in range(reach):
        pair = images[k] + images[2 * reach - k]
        pair *= weights[k]
        total += pair
    return total


def fill_invalid(image: NDArray[np.float32], valid: NDArray[np.bool_]) -> NDArray[np.float32]:
    """(h, w) with invalid pixels replaced by a smooth continuation of the valid ones.

    Averages over ever larger blocks: each hole takes the mean of the smallest block around it
    that holds something valid. Without any valid pixel the result is 0.
    """
    if valid.all():
        return image
    known = np.where(valid, image, np.float32(0))
    return np.where(valid, image, _fill_level(known, valid.astype(np.float32)))


def _fill_level(known: NDArray[np.float32], weight: NDArray[np.float32]) -> NDArray[np.float32]:
    filled = np.zeros_like(known)
    np.divide(known, weight, out=filled, where=weight > 0)
    if min(known.shape) == 1 and max(known.shape) == 1:
        return filled
    odd = [(0, n % 2) for n in known.shape]
    small, small_weight = (
        block_mean(np.pad(part, odd)[None], 2)[0] * np.float32(4) for part in (known, weight)
    )
    # A block counts as one pixel on the next level however many valid ones it held.
    share = np.minimum(small_weight, np.float32(1))
    coarse = _fill_level(
        small / np.where(small_weight > 0, small_weight, np.float32(1)) * share, share
    )
    around = NUMPY.pad(coarse[None], (1, 1, 1, 1), repeat=True)
    smooth: NDArray[np.float32] = enlarge(around, bilinear_kernel(2))[0]
    return np.where(weight > 0, filled, smooth[: known.shape[0], : known.shape[1]])


def fill_near(image: NDArray[Float], valid: NDArray[np.bool_], reach: int) -> NDArray[Float]:
    """(b, h, w) with invalid pixels replaced by the mean of the valid ones within ``reach``.

    Unlike ``fill_invalid`` it reads a fixed neighbourhood only; pixels without a valid one there
    become 0.
    """
    if valid.all():
        return image
    total = _box_sum(np.where(valid, image, np.zeros((), image.dtype)), reach)
    count = _box_sum(valid.astype(image.dtype), reach)
    return np.where(valid, image, total / np.where(count > 0, count, np.ones((), image.dtype)))


def _box_sum(image: NDArray[Float], reach: int) -> NDArray[Float]:
    height, width = image.shape[1:]
    padded = np.pad(image, [(0, 0), (reach, reach), (reach, reach)])
    rows = padded[:, :height].copy()
    for k in range(1, 2 * reach + 1):
        rows += padded[:, k : k + height]
    total = rows[:, :, :width].copy()
    for k in range(1, 2 * reach + 1):
        total += rows[:, :, k : k + width]
    return total

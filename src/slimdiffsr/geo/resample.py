"""Averages, enlargements and fills of (bands, rows, columns) arrays.

Every function works pixel by pixel in a fixed order of operations, so a value does not depend on
how much of the scene the array holds, as long as the needed neighbours are there.
"""

from __future__ import annotations

from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "BICUBIC_REACH",
    "BILINEAR_REACH",
    "bicubic_kernel",
    "bilinear_kernel",
    "block_mean",
    "enlarge",
    "enlarge_nearest",
    "fill_invalid",
    "fill_near",
    "gaussian",
    "gaussian_reach",
    "pad_edges",
]

Float = TypeVar("Float", np.float32, np.float64)
Any_ = TypeVar("Any_", bound=np.generic)

BILINEAR_REACH = 1  # neighbours on each side that the kernel needs
BICUBIC_REACH = 2

_ROWS_AT_ONCE = 32  # few enough to stay in the processor's cache


def block_mean(image_hr: NDArray[Float], scale: int) -> NDArray[Float]:
    """(b, scale*h, scale*w) -> (b, h, w): the mean of each block of scale x scale pixels."""
    rows = image_hr[:, ::scale].copy()
    for k in range(1, scale):
        rows += image_hr[:, k::scale]
    blocks = rows[:, :, ::scale].copy()
    for k in range(1, scale):
        blocks += rows[:, :, k::scale]
    blocks *= np.asarray(1 / scale**2, blocks.dtype)
    return blocks


def enlarge_nearest(image_lr: NDArray[Any_], scale: int) -> NDArray[Any_]:
    """(..., h, w) -> (..., scale*h, scale*w): every pixel becomes a block."""
    return np.repeat(np.repeat(image_lr, scale, axis=-1), scale, axis=-2)


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


def enlarge(image_lr: NDArray[Float], kernel: NDArray[np.float64]) -> NDArray[Float]:
    """(b, h + 2r, w + 2r) -> (b, scale*h, scale*w) with a (scale, 2r + 1) kernel.

    The margin of r pixels is the neighbourhood; at the scene's edge make it with ``pad_edges``.
    """
    scale, taps = kernel.shape
    weights = kernel.astype(image_lr.dtype)
    bands, height, width = image_lr.shape
    height, width = height - taps + 1, width - taps + 1
    wide = np.empty((bands, height + taps - 1, width * scale), image_lr.dtype)
    for phase in range(scale):
        wide[:, :, phase::scale] = _weighted(
            [image_lr[:, :, k : k + width] for k in range(taps)], weights[phase]
        )
    out = np.empty((bands, height * scale, width * scale), image_lr.dtype)
    for phase in range(scale):
        out[:, phase::scale] = _weighted(
            [wide[:, k : k + height] for k in range(taps)], weights[phase]
        )
    return out


def _weighted(images: list[NDArray[Float]], weights: NDArray[Float]) -> NDArray[Float]:
    used = [k for k in range(len(images)) if weights[k] != 0]
    total: NDArray[Float] = images[used[0]] * weights[used[0]]
    for k in used[1:]:
        total += images[k] * weights[k]
    return total


def pad_edges(image: NDArray[Any_], left: int, top: int, right: int, bottom: int) -> NDArray[Any_]:
    """(..., h, w) with its outermost pixels repeated outwards."""
    if not (left or top or right or bottom):
        return image
    around = [(0, 0)] * (image.ndim - 2)
    return np.pad(image, [*around, (top, bottom), (left, right)], mode="edge")


def gaussian_reach(sigma_px: float) -> int:
    """Pixels on each side that ``gaussian`` reads: four sigma."""
    return int(4 * sigma_px + 0.5)


def gaussian(image: NDArray[np.float32], sigma_px: float) -> NDArray[np.float32]:
    """(b, h, w) low-passed, cut off at four sigma; zeros outside the array."""
    reach = gaussian_reach(sigma_px)
    taps = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma_px) ** 2)
    weights = (taps / taps.sum()).astype(np.float32)
    padded = np.pad(image, [(0, 0), (reach, reach), (reach, reach)])
    result = np.empty_like(image)
    height, width = image.shape[1:]
    for row in range(0, height, _ROWS_AT_ONCE):
        rows = min(_ROWS_AT_ONCE, height - row)
        down = _symmetric([padded[:, row + k : row + k + rows] for k in range(len(taps))], weights)
        result[:, row : row + rows] = _symmetric(
            [down[:, :, k : k + width] for k in range(len(taps))], weights
        )
    return result


def _symmetric(
    images: list[NDArray[np.float32]], weights: NDArray[np.float32]
) -> NDArray[np.float32]:
    reach = len(weights) // 2
    total: NDArray[np.float32] = images[reach] * weights[reach]
    pair = np.empty_like(total)
    for k in range(reach):
        np.add(images[k], images[2 * reach - k], out=pair)
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
    smooth: NDArray[np.float32] = enlarge(pad_edges(coarse[None], 1, 1, 1, 1), bilinear_kernel(2))[
        0
    ]
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

"""Images from whole numbers alone: the same on every machine and with every library version."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Rgb8 = NDArray[np.uint8]


def pattern(height: int, width: int, seed: int = 0) -> Rgb8:
    """Rings that grow finer towards the lower right, another phase in each band."""
    y, x = np.mgrid[:height, :width]
    bands = []
    for band in range(3):
        phase = ((3 + seed) * x * x + (5 + 2 * seed) * y * y + 7 * x * y) // 24 + 90 * band
        bands.append(np.minimum(phase % 512, 511 - phase % 512))
    return np.stack(bands, axis=-1).astype(np.uint8)


def reduced(hr: Rgb8, scale: int) -> Rgb8:
    """Averages of blocks, rounded down."""
    h, w = (side // scale for side in hr.shape[:2])
    blocks = hr[: h * scale, : w * scale].reshape(h, scale, w, scale, 3).astype(np.int64)
    return np.asarray(blocks.sum(axis=(1, 3)) // scale**2, dtype=np.uint8)


def repeated(lr: Rgb8, scale: int) -> Rgb8:
    """Each pixel scale x scale times."""
    return np.repeat(np.repeat(lr, scale, axis=0), scale, axis=1)


def results(hr: Rgb8, scale: int) -> dict[str, Rgb8]:
    """What a method might make of the reduced image: nothing new, something wrong, nearly all."""
    y, x = np.mgrid[: hr.shape[0], : hr.shape[1]]
    checks = np.where((x // 2 + y // 2) % 2 == 0, 30, -30)[..., None]
    return {
        "repeated": repeated(reduced(hr, scale), scale),
        "checkered": np.clip(hr.astype(np.int64) + checks, 0, 255).astype(np.uint8),
        "moved": np.roll(hr, (1, 2), axis=(0, 1)),
        "darker": (hr // 2 + 20).astype(np.uint8),
    }

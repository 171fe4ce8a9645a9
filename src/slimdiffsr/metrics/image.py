"""What the measures look at: luma, and images that fit together."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from slimdiffsr.errors import DataError

__all__ = ["Grey", "Rgb8", "check_pair", "check_rgb8", "grey8", "luma"]

Rgb8 = NDArray[np.uint8]
Grey = NDArray[np.float64]

# ITU-R BT.601 luma for R, G, B in 0..255, with the digits of MATLAB's rgb2ycbcr.
_LUMA = np.array([65.481, 128.553, 24.966]) / 255.0
_LUMA_BLACK = 16.0


def luma(rgb: Rgb8) -> Grey:
    """BT.601 Y of an 8-bit image, not rounded.

    Args:
        rgb: (h, w, 3) uint8.

    Returns:
        (h, w) in [16, 235]: white is 235, black 16. MATLAB's ``rgb2ycbcr`` rounds this to whole
        levels, the published Python ports do not; the difference in PSNR is below 0.01 dB.

    Raises:
        DataError: not a (h, w, 3) uint8 array.
    """
    check_rgb8("image", rgb)
    return np.asarray(rgb.astype(np.float64) @ _LUMA + _LUMA_BLACK)


def grey8(rgb: Rgb8) -> Grey:
    """BT.601 luma over the full range, in whole 8-bit levels: what Pillow calls mode "L".

    Grid energy is published on this one: the rounding puts a floor of 1/12 squared level under the
    spectrum, so that lattices far too faint to be seen do not count.

    Args:
        rgb: (h, w, 3) uint8.

    Returns:
        (h, w) whole numbers in [0, 255].

    Raises:
        DataError: not a (h, w, 3) uint8 array.
    """
    check_rgb8("image", rgb)
    weighted = rgb.astype(np.int64) @ np.array([19595, 38470, 7471])  # BT.601 in 1/65536
    return np.asarray((weighted + 0x8000) >> 16, dtype=np.float64)


def check_pair(sr: Rgb8, hr: Rgb8) -> None:
    """Raise DataError unless both are (h, w, 3) uint8 of one size."""
    check_rgb8("sr", sr)
    check_rgb8("hr", hr)
    if sr.shape != hr.shape:
        raise DataError(
            f"images to compare must have the same size: got sr {sr.shape} and hr {hr.shape}"
        )


def check_rgb8(name: str, rgb: Rgb8) -> None:
    """Raise DataError unless it is (h, w, 3) uint8 and not empty."""
    if rgb.dtype != np.uint8 or rgb.ndim != 3 or rgb.shape[2] != 3 or rgb.size == 0:
        raise DataError(
            f"{name} must be a (h, w, 3) uint8 RGB array: got shape {rgb.shape}, {rgb.dtype}"
        )

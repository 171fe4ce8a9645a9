"""Whether a result still agrees with the input that it was made from."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from slimdiffsr.errors import DataError

__all__ = ["reflectance_consistency"]


def reflectance_consistency(sr: NDArray[np.generic], lr: NDArray[np.generic], scale: int) -> float:
    """Mean absolute change of the measured values, in units of the input. Lower is better.

    The result averaged over blocks of scale x scale pixels must give back the input: the idea of
    opensr-test's reflectance distance (Aybar et al. 2024, IEEE GRSL 21). All bands, no border
    crop, any range. An input that is itself noisy or blurred keeps even the true image above 0.

    Args:
        sr: (scale*h, scale*w, bands), integer or float.
        lr: (h, w, bands), in the same units.
        scale: the upscaling factor.

    Raises:
        DataError: sr is not scale times lr.
    """
    h, w, *bands = lr.shape
    if sr.shape != (scale * h, scale * w, *bands) or len(bands) != 1:
        raise DataError(
            f"reflectance consistency needs an image of exactly {scale} times the input: "
            f"got {sr.shape} from {lr.shape}"
        )
    blocks = sr.astype(np.float64).reshape(h, scale, w, scale, *bands)
    return float(np.mean(np.abs(blocks.mean(axis=(1, 3)) - lr.astype(np.float64))))

"""Detail for a coarse band from finer ones of the same scene.

How much of a guide's detail a band shares is the slope of a regression around each of its pixels
(as in guided filtering, He et al. 2010, with the regression on the coarse grid and its slope used
on the fine one). The means over the coarse pixels stay those of the band, so that ratios of bands
do too.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from slimdiffsr.geo.arrays import NUMPY
from slimdiffsr.geo.resample import (
    BICUBIC_REACH,
    bicubic_kernel,
    bilinear_kernel,
    block_mean,
    enlarge,
    gaussian,
    gaussian_reach,
)

__all__ = ["GUIDED_REACH", "MEANS_REACH", "share_detail", "with_block_means"]

_SIGMA_PX = 2.0  # of the regression's window, in coarse pixels
_NOISE = 1e-4  # variance of the guide, seen as [0, 1], that counts as nothing
_STEEPEST = 1.5  # slopes beyond it are noise more often than detail
_PASSES = 4

MEANS_REACH = _PASSES
GUIDED_REACH = MEANS_REACH + BICUBIC_REACH + gaussian_reach(_SIGMA_PX)


def share_detail(
    coarse: NDArray[np.float32],
    valid: NDArray[np.bool_],
    guide_means: NDArray[np.float32],
    guide: NDArray[np.float32],
    scale: int,
) -> NDArray[np.float32]:
    """A band on the guide's grid, with as much of its detail as the band shares.

    coarse, valid, guide_means: (h + 2r, w + 2r) with r = GUIDED_REACH around the part wanted: the
    band, about [0, 1], where it and the guide are known, and the guide on the band's grid.
    guide: (scale * (h + 2m), ...) with m = MEANS_REACH. Returns (scale*h, scale*w), about [0, 1].
    """
    kernel = bicubic_kernel(scale)
    near = _inside(GUIDED_REACH - MEANS_REACH - BICUBIC_REACH)
    slope = _slope(coarse, guide_means, valid)[_inside(GUIDED_REACH - MEANS_REACH - 1)]
    fine = guide - enlarge(guide_means[near][None], kernel)[0]
    fine *= enlarge(slope[None], bilinear_kernel(scale))[0]
    fine += enlarge(coarse[near][None], kernel)[0]
    means = with_block_means(fine, coarse[_inside(GUIDED_REACH - MEANS_REACH)], scale)
    result: NDArray[np.float32] = means[_inside(MEANS_REACH * scale)]
    return result


def with_block_means(
    fine: NDArray[np.float32], wanted: NDArray[np.float32], scale: int
) -> NDArray[np.float32]:
    """(scale*h, scale*w) with the means of its blocks made (h, w) ``wanted``, smoothly.

    What is missing is enlarged bilinearly and added, a few times: then less than a hundredth of
    it is left. Right MEANS_REACH coarse pixels away from the edge of the arrays.
    """
    kernel = bilinear_kernel(scale)
    for _ in range(_PASSES):
        missing = wanted - block_mean(fine[None], scale)[0]
        fine = fine + _enlarged(missing, kernel)
    return fine


def _inside(margin: int) -> tuple[slice, slice]:
    return (slice(margin, -margin or None),) * 2


def _enlarged(image: NDArray[np.float32], kernel: NDArray[np.float64]) -> NDArray[np.float32]:
    reach = kernel.shape[1] // 2
    padded = NUMPY.pad(image[None], (reach,) * 4, repeat=True)
    result: NDArray[np.float32] = enlarge(padded, kernel)[0]
    return result


def _slope(
    band: NDArray[np.float32], guide: NDArray[np.float32], valid: NDArray[np.bool_]
) -> NDArray[np.float32]:
    """Of the band's values over the guide's, in a window around each pixel; 0 where unknown."""
    known = valid.astype(np.float32)
    stack = np.stack([known, known * band, known * guide, known * band * guide, known * guide**2])
    share, *sums = gaussian(stack, _SIGMA_PX)
    means = [one / np.maximum(share, np.float32(1e-6)) for one in sums]
    covariance = means[2] - means[0] * means[1]
    variance = means[3] - means[1] * means[1]
    slope = np.clip(covariance / (variance + np.float32(_NOISE)), -_STEEPEST, _STEEPEST)
    found: NDArray[np.float32] = np.where(valid, slope, np.float32(0)).astype(np.float32)
    return found

"""The colour rule: the low frequencies of the result are those of the input, tile or no tile."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from slimdiffsr.geo.resample import (
    bilinear_kernel,
    enlarge,
    gaussian,
    gaussian_reach,
    pad_edges,
)

__all__ = ["HALO_LR_PX", "low_frequency_correction"]

_SIGMA_LR_PX = 2.0
# Two passes, each followed by a bilinear enlargement.
HALO_LR_PX = 2 * (gaussian_reach(_SIGMA_LR_PX) + 1)


def low_frequency_correction(
    wanted: NDArray[np.float32],
    got: NDArray[np.float32],
    valid: NDArray[np.bool_],
    scale: int,
) -> NDArray[np.float32]:
    """What to add to the result, on the input's grid, to be enlarged bilinearly.

    wanted: (b, h, w), the input. got: (b, h, w), the block means of the result. Correct where all
    of ``HALO_LR_PX`` around a pixel that lies in the scene lies in the arrays. The second pass
    makes up for what the Gaussian and the enlargement smooth away in the first.
    """
    # The block means of a bilinear enlargement are a three-tap average.
    taps = bilinear_kernel(scale).mean(axis=0, keepdims=True)
    result = np.empty_like(wanted)
    known: NDArray[np.float32] | None = None
    for k in range(len(wanted)):  # band by band: a third of the memory
        band = slice(k, k + 1)
        if known is None or not np.array_equal(valid[k], valid[k - 1]):
            known = gaussian(valid[band].astype(np.float32), _SIGMA_LR_PX)
            known[known == 0] = 1
        missing = np.where(valid[band], wanted[band] - got[band], np.float32(0))
        first = gaussian(missing, _SIGMA_LR_PX) / known
        missing -= enlarge(pad_edges(first, 1, 1, 1, 1), taps)
        missing *= valid[band]
        result[band] = first + gaussian(missing, _SIGMA_LR_PX) / known
    return result

"""The colour rule: the low frequencies of the result are those of the input, tile or no tile."""

from __future__ import annotations

from slimdiffsr.geo.arrays import NUMPY, Array, Arrays
from slimdiffsr.geo.resample import bilinear_kernel, enlarge, gaussian, gaussian_reach

__all__ = ["HALO_LR_PX", "low_frequency_correction"]

_SIGMA_LR_PX = 2.0
# Two passes, each followed by a bilinear enlargement.
HALO_LR_PX = 2 * (gaussian_reach(_SIGMA_LR_PX) + 1)


def low_frequency_correction(
    wanted: Array, got: Array, valid: Array | None, scale: int, arrays: Arrays = NUMPY
) -> Array:
    """What to add to the result, on the input's grid, to be enlarged bilinearly.

    wanted: (b, h, w), the input. got: (b, h, w), the block means of the result. valid: (b, h, w) of
    float32, 1 where the input is, else 0; None where all of it is. Correct where all of
    ``HALO_LR_PX`` around a pixel that lies in the scene lies in the arrays. The second pass
    makes up for what the Gaussian and the enlargement smooth away in the first.
    """
    # The block means of a bilinear enlargement are a three-tap average.
    taps = bilinear_kernel(scale).mean(axis=0, keepdims=True)
    known = _known_share(wanted, valid, arrays)
    missing = wanted - got
    if valid is not None:
        missing *= valid
    result = gaussian(missing, _SIGMA_LR_PX, arrays)
    result /= known
    missing -= enlarge(arrays.pad(result, (1, 1, 1, 1), repeat=True), taps, arrays)
    if valid is not None:
        missing *= valid
    second = gaussian(missing, _SIGMA_LR_PX, arrays)
    second /= known
    result += second
    return result


def _known_share(wanted: Array, valid: Array | None, arrays: Arrays) -> Array:
    """How much of the Gaussian around each pixel lies on valid pixels; 1 where nothing does."""
    if valid is None:
        ones = arrays.zeros((1, *wanted.shape[1:]))
        ones += 1
        return gaussian(ones, _SIGMA_LR_PX, arrays)
    known = gaussian(valid, _SIGMA_LR_PX, arrays)
    known += arrays.where(known == 0, 1.0, 0.0)
    return known

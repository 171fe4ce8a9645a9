"""What says "empty" in a band: declared values, as they are stored, and what one file can declare."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["common_nodata", "equals_nodata", "stored_nodata"]

# GDAL takes floats for equal that differ by less than this times their sum (ARE_REAL_EQUAL).
_ULPS = 2
_NEVER_DATA = 1e30  # a nodata value beyond it may have gone through float32 on its way


def stored_nodata(declared: float | None, dtype: np.dtype[Any]) -> float | None:
    """A declared value as a band of this type stores it; None when it cannot.

    Integers lose their fraction, as in GDAL. A value that only rounding puts beyond a float's
    largest is the largest.
    """
    if declared is None:
        return None
    if dtype.kind != "f":
        info = np.iinfo(dtype)
        # NaN fails both comparisons.
        return float(int(declared)) if info.min <= declared <= info.max else None
    if not np.isfinite(declared):
        return declared
    largest = float(np.finfo(dtype).max)
    if abs(declared) > largest:
        near = abs(declared) <= largest * (1 + 1e-6)
        return float(np.copysign(largest, declared)) if near else None
    return float(dtype.type(declared))


def equals_nodata(values: NDArray[Any], nodata: float) -> NDArray[np.bool_]:
    """Where values are a nodata value of ``stored_nodata``, up to the last digits of a float.

    Infinity stands for the largest value too: that is what overflowed when it was declared.
    """
    dtype = values.dtype
    same: NDArray[np.bool_]
    if dtype.kind != "f":
        same = values == dtype.type(nodata)
    elif np.isnan(nodata):
        same = np.isnan(values)
    elif np.isinf(nodata):
        same = (values == nodata) | (values == np.copysign(np.finfo(dtype).max, nodata))
    else:
        same = _close(values, nodata)
    return same


def _close(values: NDArray[Any], nodata: float) -> NDArray[np.bool_]:
    dtype = values.dtype
    coarse = np.float32 if abs(nodata) >= _NEVER_DATA else dtype
    margin = 2 * abs(nodata) * float(np.finfo(coarse).eps) * _ULPS
    with np.errstate(over="ignore"):
        low, high = dtype.type(nodata - margin), dtype.type(nodata + margin)
    same: NDArray[np.bool_] = (values >= low) & (values <= high)
    if dtype == np.float64 and abs(nodata) < _NEVER_DATA:
        same |= values == np.float64(np.float32(nodata))  # stored by way of float32
    return same


def common_nodata(
    own: Sequence[float | None], masked: bool, dtype: np.dtype[Any], samples: NDArray[Any]
) -> float | None:
    """One nodata value for a file whose bands declare ``own``, or are ``masked`` one by one.

    samples: valid values of the bands. Where the bands disagree it is, of the values declared, NaN
    and the ends of the type, the one that occurs least among them.
    """
    declared = [value for value in own if value is not None]
    same = len({repr(value) for value in own}) == 1
    if same and (declared or not masked):
        return own[0]
    if not declared and not masked:
        return None
    if dtype.kind == "f":
        candidates = [*declared, float("nan")]
    else:
        info = np.iinfo(dtype)
        candidates = [*declared, float(info.min), float(info.max)]
    counts = [int(equals_nodata(samples, value).sum()) for value in candidates]
    return candidates[counts.index(min(counts))]

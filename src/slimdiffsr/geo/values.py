"""Radiometry: from the source's units to [0, 1] and back, without clipping and without surprises.

The network sees ``clip((x - low) / (high - low), 0, 1)``; what lies outside the range is added
back after enlargement, so the range never limits the result.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slimdiffsr.errors import RangeError

__all__ = [
    "DTYPES",
    "ValueRange",
    "cast",
    "check_range",
    "estimate_range",
    "hidden_nodata",
    "looks_like_alpha",
    "working_dtype",
]

DTYPES = ("uint8", "int8", "uint16", "int16", "uint32", "int32", "float32", "float64")

# Values that producers write for "nothing here" and often forget to declare.
_USUAL_NODATA = (-9999.0, -99999.0, -32768.0, -32767.0, -3.4028234663852886e38)
_RANGE_PERCENTILES = (0.5, 99.5)
_MASK, _FEATHERED = 0.9, 0.5  # shares of clear and opaque in masks, and in soft-edged ones
_ROOM = 0.1  # of a float's largest value: sums of neighbours must not overflow


@dataclass(frozen=True, slots=True)
class ValueRange:
    """The values that the network sees as 0 and 1."""

    low: float
    high: float

    @property
    def span(self) -> float:
        """High minus low; always positive."""
        return self.high - self.low

    def to_unit(self, values: NDArray[Any], valid: NDArray[np.bool_]) -> NDArray[np.float32]:
        """Any shape in source units -> float32 in [0, 1]; 0 where invalid."""
        work = working_dtype(values.dtype)
        unit = np.where(valid, values, np.zeros((), values.dtype)).astype(work)
        with np.errstate(over="ignore"):
            unit -= work.type(self.low)
            unit *= work.type(1 / self.span)
        seen: NDArray[np.float32] = np.where(valid, np.clip(unit, 0, 1), 0).astype(np.float32)
        return seen

    def outside(self, values: NDArray[Any], valid: NDArray[np.bool_]) -> NDArray[Any]:
        """The part of each value beyond the range, in source units; 0 inside it or invalid."""
        work = working_dtype(values.dtype)
        exact = np.where(valid, values, np.zeros((), values.dtype)).astype(work)
        beyond: NDArray[Any] = exact - np.clip(exact, work.type(self.low), work.type(self.high))
        beyond[~valid] = 0
        return beyond

    def holds(self, dtype: np.dtype[Any]) -> bool:
        """Whether no value of this type can lie outside."""
        if dtype.kind == "f":
            return False
        info = np.iinfo(dtype)
        return self.low <= info.min and self.high >= info.max

    def limits(self, dtype: np.dtype[Any]) -> tuple[np.float32, np.float32] | None:
        """The smallest and largest value of an integer type, as the network would see them."""
        if dtype.kind == "f":
            return None
        info = np.iinfo(dtype)
        low, high = (info.min - self.low) / self.span, (info.max - self.low) / self.span
        return np.float32(low), np.float32(high)

    def from_unit(self, unit: NDArray[np.float32], dtype: np.dtype[Any]) -> NDArray[Any]:
        """Float32 about [0, 1] -> source units, in the working type of ``dtype``."""
        real = self.stretched(unit, dtype)
        real += real.dtype.type(self.low)
        return real

    def stretched(self, unit: NDArray[np.float32], dtype: np.dtype[Any]) -> NDArray[Any]:
        """A difference of unit values -> the difference in source units."""
        work = working_dtype(dtype)
        stretched: NDArray[Any] = unit.astype(work, copy=False) * work.type(self.span)
        return stretched


def working_dtype(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """float32 where it holds every value of ``dtype`` exactly, else float64."""
    exact = dtype.itemsize <= 2 or dtype == np.float32
    return np.dtype(np.float32 if exact else np.float64)


def cast(values: NDArray[Any], dtype: np.dtype[Any], nodata: float | None) -> NDArray[Any]:
    """Real values -> ``dtype``, rounded and saturated; no result equals ``nodata``."""
    if dtype.kind == "f":
        limit = np.finfo(dtype).max
        floats: NDArray[Any] = np.clip(values, -limit, limit).astype(dtype)
        if nodata is not None and np.isfinite(nodata):
            empty = dtype.type(nodata)
            floats[floats == empty] = np.nextafter(empty, dtype.type(0 if empty else 1))
        return floats
    info = np.iinfo(dtype)
    whole = np.rint(values)
    result: NDArray[Any] = np.clip(whole, info.min, info.max, out=whole).astype(dtype)
    if nodata is not None:
        result[result == nodata] = nodata + (1 if nodata < info.max else -1)
    return result


def check_range(values: ValueRange, dtype: np.dtype[Any]) -> None:
    """Raise RangeError when a range is too far out, or too narrow, to compute with."""
    info = np.finfo(working_dtype(dtype))
    far = max(abs(values.low), abs(values.high)) > _ROOM * float(info.max)
    if far or values.span < float(info.tiny):
        raise RangeError(
            f"the range from {values.low:g} to {values.high:g} is at the edge of what numbers like "
            f"{dtype} can express: declare nodata if values so far out are none, or rescale them"
        )


def estimate_range(values: NDArray[Any], valid: NDArray[np.bool_]) -> ValueRange:
    """The range between the 0.5th and 99.5th percentile of the valid samples.

    A constant image gets a range of its own small width. Raises RangeError when the percentiles
    are too large to work with.
    """
    samples = values[valid]
    if samples.size == 0:
        return ValueRange(0.0, 1.0)
    # method="nearest" keeps to values that occur, so the range does not hang on rounding.
    low, high = (float(v) for v in np.percentile(samples, _RANGE_PERCENTILES, method="nearest"))
    if low == high:
        low, high = float(samples.min()), float(samples.max())
    if low == high:
        high = low + (1.0 if samples.dtype.kind != "f" else abs(low) * 1e-3 or 1.0)
    if not np.isfinite(high - low):
        raise RangeError(
            f"the values run from {low:g} to {high:g}, too wide to estimate a range: "
            "declare nodata in the raster or give a range"
        )
    return ValueRange(low, high)


def hidden_nodata(values: NDArray[Any], valid: NDArray[np.bool_]) -> float | None:
    """An undeclared nodata value, if the samples leave no doubt.

    It is one of the usual values, the smallest there is, frequent, and far below all others.
    """
    samples = values[valid]
    if samples.size == 0 or samples.dtype.kind == "u":
        return None
    lowest = samples.min()
    usual = next((v for v in _USUAL_NODATA if _as(samples.dtype, v) == lowest), None)
    others = samples[samples != lowest].astype(np.float64)
    if usual is None or others.size == 0 or samples.size - others.size < 1e-3 * samples.size:
        return None
    p1, p99 = np.percentile(others, (1, 99))
    return float(lowest) if p1 - float(lowest) > 2 * (p99 - p1) else None


def looks_like_alpha(samples: NDArray[Any]) -> bool:
    """Whether a band holds transparency: most of it is fully clear or fully opaque.

    Nearly all of it, if "opaque" is not the largest value of its type: that could be chance.
    """
    if samples.size == 0:
        return True
    opaque = samples.max()
    full = samples.dtype.kind != "f" and opaque == np.iinfo(samples.dtype).max
    share = ((samples == 0) | (samples == opaque)).mean()
    return bool(share >= (_FEATHERED if full else _MASK))


def _as(dtype: np.dtype[Any], value: float) -> Any:  # noqa: ANN401  a numpy scalar or None
    if dtype.kind == "f":
        return dtype.type(value) if abs(value) <= np.finfo(dtype).max else None
    info = np.iinfo(dtype)
    return dtype.type(value) if info.min <= value <= info.max else None

"""What the work on output pixels asks of an array library, and NumPy's answer, the reference.

Blending, the colour rule, units and rounding are written once, with ``+``, ``*`` and slices and
the few operations named here. They run where the network runs: on NumPy arrays beside a network
on the CPU, on a card's arrays where ``slimdiffsr.runtime`` brings them. Every operation is exact
or rounds once, so that two libraries agree to the last bit if the network does.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from slimdiffsr.geo.values import cast

__all__ = ["NUMPY", "Array", "Arrays", "Download", "NumpyArrays"]

Array: TypeAlias = Any
"""An array of one library: slices, ``+``, ``-``, ``*`` and their in-place forms work alike."""

Download: TypeAlias = Callable[[], NDArray[Any]]
"""Waits for an array that is on its way to the host."""


class Arrays(Protocol):
    """One array library on one device.

    rows_at_once: rows of output pixels to work on together. readers, writers: threads that serve
    this device with input, and that compress its output. kept_bytes: room for results that later
    chunks need too. batches_ahead: how many batches may run before the first is looked at.
    """

    rows_at_once: int
    readers: int
    writers: int
    kept_bytes: int
    batches_ahead: int

    def upload(self, values: NDArray[Any]) -> Array:
        """An array of the host, of any type, as this library holds it."""
        ...

    def empty(self, shape: tuple[int, ...], like: Array) -> Array:
        """A new array of a type as ``like``, its values undefined."""
        ...

    def zeros(self, shape: tuple[int, ...]) -> Array:
        """A new float32 array."""
        ...

    def pad(self, image: Array, margins: tuple[int, int, int, int], repeat: bool) -> Array:
        """(b, h, w) of floats grown left, top, right and bottom: its edge repeated, or zeros."""
        ...

    def where(self, condition: Array, yes: Array, no: Array) -> Array:
        """Elements of ``yes`` where the condition holds, else of ``no``."""
        ...

    def clip(self, image: Array, low: float, high: float) -> None:
        """Cut off what lies outside, in place."""
        ...

    def enlarge_nearest(self, image: Array, scale: int) -> Array:
        """(..., h, w) -> (..., scale*h, scale*w)."""
        ...

    def as_real(self, image: Array, dtype: np.dtype[Any]) -> Array:
        """float32 -> float32 or float64; a new array only where the type changes."""
        ...

    def cast(self, real: Array, dtype: np.dtype[Any], nodata: float | None) -> Array:
        """Real values -> ``dtype``: see ``values.cast``. May use up ``real``."""
        ...

    def add_weighted(self, target: Array, image: Array, rows: Array, cols: Array) -> None:
        """``target += image * (rows[:, None] * cols)``, in place.

        Weights lie in [0, 1] and come to one in all: where one of them is 1, ``target`` is zero.
        """
        ...

    def join(self, parts: list[Array]) -> Array:
        """(b, h, w) arrays of one type, put below each other."""
        ...

    def copy(self, image: Array) -> Array:
        """An array of its own."""
        ...

    def is_finite(self, image: Array) -> Callable[[], bool]:
        """Whether all elements are finite; calling what is returned waits for the answer."""
        ...

    def later(self, make: Callable[[], Array], dtype: np.dtype[Any]) -> Download:
        """Have ``make`` called, here or in the thread that waits, and its result brought home."""
        ...


class NumpyArrays:
    """NumPy: everything is done at once, in memory of the host."""

    rows_at_once = 32  # few enough to stay in the processor's cache
    readers = 1
    writers = 1
    kept_bytes = 400_000_000
    batches_ahead = 0

    def upload(self, values: NDArray[Any]) -> NDArray[Any]:
        """The array itself."""
        return values

    def empty(self, shape: tuple[int, ...], like: NDArray[Any]) -> NDArray[Any]:
        """See ``Arrays``."""
        return np.empty(shape, like.dtype)

    def zeros(self, shape: tuple[int, ...]) -> NDArray[np.float32]:
        """See ``Arrays``."""
        return np.zeros(shape, np.float32)

    def pad(
        self, image: NDArray[Any], margins: tuple[int, int, int, int], repeat: bool
    ) -> NDArray[Any]:
        """See ``Arrays``."""
        left, top, right, bottom = margins
        around = [(0, 0), (top, bottom), (left, right)]
        return np.pad(image, around, mode="edge" if repeat else "constant")

    def where(
        self, condition: NDArray[np.bool_], yes: NDArray[Any], no: NDArray[Any]
    ) -> NDArray[Any]:
        """See ``Arrays``."""
        return np.where(condition, yes, no)

    def clip(self, image: NDArray[Any], low: float, high: float) -> None:
        """See ``Arrays``."""
        np.clip(image, low, high, out=image)

    def enlarge_nearest(self, image: NDArray[Any], scale: int) -> NDArray[Any]:
        """See ``Arrays``."""
        return np.repeat(np.repeat(image, scale, axis=-1), scale, axis=-2)

    def as_real(self, image: NDArray[np.float32], dtype: np.dtype[Any]) -> NDArray[Any]:
        """See ``Arrays``."""
        return image.astype(dtype, copy=False)

    def cast(self, real: NDArray[Any], dtype: np.dtype[Any], nodata: float | None) -> NDArray[Any]:
        """See ``Arrays``."""
        return cast(real, dtype, nodata)

    def add_weighted(
        self,
        target: NDArray[np.float32],
        image: NDArray[np.float32],
        rows: NDArray[np.float32],
        cols: NDArray[np.float32],
    ) -> None:
        """See ``Arrays``. Where both weights are one, no other tile is added, and it copies."""
        top, bottom = _ramps(rows)
        left, right = _ramps(cols)
        middle = slice(top, bottom)
        for some_rows, some_cols in (
            (slice(0, top), slice(None)),
            (middle, slice(0, left)),
            (middle, slice(right, None)),
            (slice(bottom, None), slice(None)),
        ):
            weights = rows[some_rows, None] * cols[some_cols]
            here = (slice(None), some_rows, some_cols)
            target[here] += image[here] * weights
        inside = (slice(None), middle, slice(left, right))
        target[inside] = image[inside]

    def join(self, parts: list[NDArray[Any]]) -> NDArray[Any]:
        """See ``Arrays``."""
        return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)

    def copy(self, image: NDArray[Any]) -> NDArray[Any]:
        """See ``Arrays``."""
        return image.copy()

    def is_finite(self, image: NDArray[np.float32]) -> Callable[[], bool]:
        """See ``Arrays``."""
        finite = bool(np.isfinite(image).all())
        return lambda: finite

    def later(self, make: Callable[[], NDArray[Any]], dtype: np.dtype[Any]) -> Download:
        """``make`` itself: the thread that wants the pixels makes them."""
        return make


def _ramps(weights: NDArray[np.float32]) -> tuple[int, int]:
    """Where the run of ones in the middle of the weights begins and ends."""
    ones = np.flatnonzero(weights == 1)
    return (int(ones[0]), int(ones[-1]) + 1) if len(ones) else (len(weights), len(weights))


NUMPY = NumpyArrays()

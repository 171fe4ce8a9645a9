"""Whether a file holds what was to be written: read back and held against the chunks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rasterio.windows import Window

from slimdiffsr.geo.grid import Region
from slimdiffsr.geo.header import Header
from slimdiffsr.geo.spec import BLOCK_HR_PX

__all__ = ["Fidelity", "compare"]

# What a lossy compression may change on average, of a block's spread and of its largest value.
_OF_SPREAD, _OF_LARGEST = 0.25, 0.01
_BYTE_LEVELS = 16.0  # of 255: what JPEG and WEBP at their worst do to flat areas


@dataclass(slots=True)
class Fidelity:
    """What became of the pixels."""

    exact: bool = True  # every value is the same
    close: bool = True  # no block is further off than a lossy compression may be
    empty: bool = True  # what was empty is, and nothing else

    def __iand__(self, other: Fidelity) -> Fidelity:
        self.exact &= other.exact
        self.close &= other.close
        self.empty &= other.empty
        return self


def compare(
    dataset: Any,  # noqa: ANN401
    chunk: Any,  # noqa: ANN401
    chunk_hr: Region,
    header: Header,
    options: Mapping[str, str],
) -> Fidelity:
    """Hold the part of an output that a chunk became against the chunk, block by block.

    dataset, chunk: open for reading. options: of the output's creation, which may name the error
    that they allow. Raises GDAL's errors for what cannot be read.
    """
    found = Fidelity()
    allowed = _asked_for(options)
    for inner in _blocks(chunk_hr):
        col, row = chunk_hr.col - header.region_hr.col, chunk_hr.row - header.region_hr.row
        outer = Window(inner.col_off + col, inner.row_off + row, inner.width, inner.height)
        wanted, got = chunk.read(window=inner), dataset.read(window=outer)
        exact = wanted.shape == got.shape and wanted.tobytes() == got.tobytes()
        found &= Fidelity(exact=exact, close=exact or _is_close(wanted, got, allowed))
        if header.has_mask or not exact:
            found.empty &= _same_empty(dataset, outer, chunk, inner, header)
    return found


def _blocks(chunk_hr: Region) -> Iterator[Window]:
    step = BLOCK_HR_PX
    for row in range(0, chunk_hr.height, step):
        for col in range(0, chunk_hr.width, step):
            yield Window(
                col, row, min(step, chunk_hr.width - col), min(step, chunk_hr.height - row)
            )


def _asked_for(options: Mapping[str, str]) -> float:
    """The error that creation options allow, in units of the pixels."""
    error = 0.0
    for key, worth in (("MAX_Z_ERROR", float), ("DISCARD_LSB", lambda text: 2 ** float(text))):
        for text in options.get(key, "").split(","):
            try:
                error = max(error, worth(text))
            except ValueError:
                continue
    return error


def _is_close(wanted: NDArray[Any], got: NDArray[Any], allowed: float) -> bool:
    # A transparency that became a mask is no band any more.
    if wanted.shape != got.shape and wanted.shape[0] - 1 != got.shape[0]:
        return False
    for before, after in zip(wanted.astype(float), got.astype(float), strict=False):
        known = np.isfinite(before)
        if not np.isfinite(after[known]).all():
            return False
        if not known.any():
            continue
        values = before[known]
        limit = allowed + _OF_SPREAD * np.ptp(values) + _OF_LARGEST * np.abs(values).max()
        if wanted.dtype.itemsize == 1:
            limit += _BYTE_LEVELS
        if np.abs(after[known] - values).mean() > limit:
            return False
    return True


def _same_empty(
    dataset: Any,  # noqa: ANN401
    outer: Window,
    chunk: Any,  # noqa: ANN401
    inner: Window,
    header: Header,
) -> bool:
    for number, band in enumerate(header.bands, 1):
        if band.colour == "alpha":
            wanted = chunk.read(number, window=inner) > 0
            if number <= dataset.count:
                got = dataset.read(number, window=outer) > 0
            else:
                got = dataset.read_masks(1, window=outer) > 0
        elif header.has_mask or header.nodata is not None:
            wanted = chunk.read_masks(number, window=inner) > 0
            got = dataset.read_masks(number, window=outer) > 0
        else:
            continue
        if not np.array_equal(wanted, got):
            return False
    return True

"""Where the pixels of an input lie in a result: any ratio of pixel sizes, any part of the scene."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from affine import Affine
from numpy.typing import NDArray

from slimdiffsr.errors import DataError
from slimdiffsr.geo.grid import Region
from slimdiffsr.geo.raster import Source

__all__ = ["Placing", "average_matrix", "place"]

_ALIGNED = 1e-3  # of an input pixel: rotation or skew below this is rounding of a transform
_TRUNCATED_PX = 1e-6


@dataclass(frozen=True, slots=True)
class Placing:
    """Result pixel = scale * input pixel + offset, along each axis."""

    scale: tuple[float, float]  # (rows, columns): result pixels in one input pixel
    offset_hr_px: tuple[float, float]  # of the input's corner in the result
    covered_lr: Region  # the input pixels that lie wholly in the result

    def window_hr(self, region_lr: Region, height_hr: int, width_hr: int) -> Region:
        """The result pixels that touch a part of the input."""
        top, left = (
            math.floor(o + s * first + _TRUNCATED_PX)
            for o, s, first in zip(
                self.offset_hr_px, self.scale, (region_lr.row, region_lr.col), strict=True
            )
        )
        below, right = (
            math.ceil(o + s * end - _TRUNCATED_PX)
            for o, s, end in zip(
                self.offset_hr_px, self.scale, (region_lr.row_end, region_lr.col_end), strict=True
            )
        )
        return Region(left, top, right - left, below - top).clipped(
            Region(0, 0, width_hr, height_hr)
        )

    def averages(self, region_lr: Region, window_hr: Region) -> tuple[NDArray[np.float64], ...]:
        """Matrices (rows, columns) whose products with a window average it onto input pixels."""
        firsts = ((region_lr.row, region_lr.height), (region_lr.col, region_lr.width))
        windows = ((window_hr.row, window_hr.height), (window_hr.col, window_hr.width))
        return tuple(
            average_matrix(scale, offset + scale * first - window, count, size)
            for scale, offset, (first, count), (window, size) in zip(
                self.scale, self.offset_hr_px, firsts, windows, strict=True
            )
        )


def average_matrix(
    scale: float, offset_hr_px: float, count_lr: int, count_hr: int
) -> NDArray[np.float64]:
    """(count_lr, count_hr) shares of each fine cell in each coarse one; each row sums to 1 inside.

    Coarse cell i covers ``offset + scale * i`` to ``offset + scale * (i + 1)`` of the fine axis.
    """
    edges = offset_hr_px + scale * np.arange(count_lr + 1)
    cells = np.arange(count_hr)
    low = np.maximum(edges[:-1, None], cells)
    high = np.minimum(edges[1:, None], cells + 1)
    return np.asarray(np.clip(high - low, 0, None) / scale)


def place(source: Source, result: Source) -> Placing:
    """Lay a result over its input.

    Raises DataError when they have different coordinate systems, are rotated against each other, do
    not overlap, or when the result is not finer than the input.
    """
    lr, hr = source.dataset, result.dataset
    if lr.crs != hr.crs and lr.crs is not None and hr.crs is not None:
        raise DataError(
            f"{result.path} has another coordinate system than {source.path} "
            f"({_name(hr.crs)}, {_name(lr.crs)}): warp one onto the other's first"
        )
    transform = _between(source, result)
    if abs(transform.b) > _ALIGNED * transform.a or abs(transform.d) > _ALIGNED * transform.a:
        raise DataError(f"{result.path} is rotated against {source.path}: warp it first")
    if min(transform.a, transform.e) < 1 - _TRUNCATED_PX:
        raise DataError(
            f"{result.path} is not finer than {source.path}: {transform.a:.4g} x {transform.e:.4g} "
            "of its pixels lie in one of the input's; give the input first, then the result"
        )
    covered = _covered(transform, source.region_lr, hr.height, hr.width)
    if covered.pixels == 0:
        raise DataError(
            f"{result.path} is of another place than {source.path}: they do not overlap"
        )
    return Placing((transform.e, transform.a), (transform.f, transform.c), covered)


def _between(source: Source, result: Source) -> Affine:
    """The transform from the input's pixels to the result's."""
    lr, hr = source.dataset, result.dataset
    if Affine.identity() in (lr.transform, hr.transform):
        # One of them lies nowhere: then the result is taken for the whole input.
        return Affine.scale(hr.width / lr.width, hr.height / lr.height)
    between: Affine = ~hr.transform @ lr.transform
    return between


def _covered(transform: Affine, scene_lr: Region, height_hr: int, width_hr: int) -> Region:
    bounds = []
    for scale, offset, size in (
        (transform.a, transform.c, width_hr),
        (transform.e, transform.f, height_hr),
    ):
        first = math.ceil(-offset / scale - _TRUNCATED_PX)
        end = math.floor((size - offset) / scale + _TRUNCATED_PX)
        bounds.append((first, end))
    (col, col_end), (row, row_end) = bounds
    return Region(col, row, col_end - col, row_end - row).clipped(scene_lr)


def _name(crs: object) -> str:
    return str(crs)[:60]

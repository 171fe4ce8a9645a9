"""From the network's grid to a coarser one of any scale: an antialiased reduction, exactly placed.

Both grids start at the scene's upper-left corner. ``ratio`` is the output's pixels for one of the
network's, along a side: at most 1, and exact, so that the last column lies where it must.
"""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from slimdiffsr.geo.grid import Region
from slimdiffsr.geo.values import working_dtype

__all__ = ["needed_hr", "reach_hr_px", "reduce_pixels", "reduced"]

_LOBE = 2  # of Keys' cubic, in output pixels
_LEAST_WEIGHT = 0.25  # of valid pixels, below which the nearest one stands for them


def reduced(region_hr: Region, ratio: Fraction) -> Region:
    """The output pixels whose centres lie in a region: those of neighbours do not overlap."""
    col, row = _first(region_hr.col, ratio), _first(region_hr.row, ratio)
    return Region(
        col,
        row,
        _first(region_hr.col_end, ratio) - col,
        _first(region_hr.row_end, ratio) - row,
    )


def _first(edge_hr: int, ratio: Fraction) -> int:
    return math.ceil(edge_hr * ratio - Fraction(1, 2))


def reach_hr_px(ratio: Fraction) -> int:
    """How far around an output pixel's centre the kernel reaches."""
    return 0 if ratio == 1 else math.ceil(_LOBE / ratio) + 1


def needed_hr(part_out: Region, ratio: Fraction) -> Region:
    """What output pixels are made of; may reach beyond the scene."""
    if ratio == 1:
        return part_out
    reach = reach_hr_px(ratio)
    col, row = math.floor(part_out.col / ratio), math.floor(part_out.row / ratio)
    width = math.ceil(part_out.col_end / ratio) - col
    height = math.ceil(part_out.row_end / ratio) - row
    return Region(col, row, width, height).grown(reach)


def reduce_pixels(
    pixels: NDArray[np.generic],
    valid: NDArray[np.bool_] | None,
    part_hr: Region,
    part_out: Region,
    ratio: Fraction,
) -> tuple[NDArray[np.floating], NDArray[np.generic], NDArray[np.bool_]]:
    """Pixels of ``part_hr`` on the grid of ``part_out``: Keys' cubic (a = -0.5) as wide as they are.

    valid: which pixels count, None: all. Returns the means in a working type, the pixels at the
    centres, and whether those are valid; (h, w) each.
    """
    rows, row_weights = _taps(part_out.row, part_out.height, part_hr.row, part_hr.height, ratio)
    cols, col_weights = _taps(part_out.col, part_out.width, part_hr.col, part_hr.width, ratio)
    centre = np.ix_(
        _centres(part_out.row, part_out.height, part_hr.row, part_hr.height, ratio),
        _centres(part_out.col, part_out.width, part_hr.col, part_hr.width, ratio),
    )
    nearest = pixels[centre]
    work = working_dtype(pixels.dtype)
    if valid is None or valid.all():
        total = _weighted(pixels.astype(work), rows, row_weights, cols, col_weights)
        return total, nearest, np.ones(nearest.shape, np.bool_)
    known = np.where(valid, pixels, np.zeros((), pixels.dtype)).astype(work)
    total = _weighted(known, rows, row_weights, cols, col_weights)
    share = _weighted(valid.astype(work), rows, row_weights, cols, col_weights)
    enough = share >= _LEAST_WEIGHT
    # Where all is valid nothing is divided: the rest of the part must not change a last bit.
    np.divide(total, share, out=total, where=enough & (np.abs(share - 1) > 1e-6))
    alone = valid[centre]
    return np.where(enough | ~alone, total, nearest.astype(work)), nearest, alone


def _taps(
    start: int, count: int, held_start: int, held: int, ratio: Fraction
) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """(count, taps): which held pixels an output pixel is made of, and their weights."""
    reach = reach_hr_px(ratio)
    # In whole numbers: a weight's last bit must not depend on where the held pixels start.
    whole, fraction = _split(start, count, ratio)
    offset = np.arange(-reach, reach + 1)
    index = whole[:, None] - held_start + offset
    x = np.abs((offset + 0.5 - fraction[:, None]) * float(ratio))
    near = 1.5 * x**3 - 2.5 * x**2 + 1
    far = -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
    weights = np.where(x <= 1, near, np.where(x < _LOBE, far, 0.0))
    weights[(index < 0) | (index >= held)] = 0
    weights /= weights.sum(axis=1, keepdims=True)
    return np.clip(index, 0, held - 1), weights


def _split(start: int, count: int, ratio: Fraction) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """The pixels of the network's grid that hold the centres of output pixels, and where in them."""
    pairs = [
        divmod((2 * j + 1) * ratio.denominator, 2 * ratio.numerator)
        for j in range(start, start + count)
    ]
    whole, rest = zip(*pairs, strict=True)
    return np.array(whole, np.intp), np.array([r / (2 * ratio.numerator) for r in rest])


def _centres(
    start: int, count: int, held_start: int, held: int, ratio: Fraction
) -> NDArray[np.intp]:
    return np.clip(_split(start, count, ratio)[0] - held_start, 0, held - 1)


def _weighted(
    image: NDArray[np.floating],
    rows: NDArray[np.intp],
    row_weights: NDArray[np.float64],
    cols: NDArray[np.intp],
    col_weights: NDArray[np.float64],
) -> NDArray[np.floating]:
    down = np.zeros((len(rows), image.shape[1]), image.dtype)
    for k in range(rows.shape[1]):
        down += image[rows[:, k]] * row_weights[:, k, None].astype(image.dtype)
    result = np.zeros((len(rows), len(cols)), image.dtype)
    for k in range(cols.shape[1]):
        result += down[:, cols[:, k]] * col_weights[:, k].astype(image.dtype)
    return result

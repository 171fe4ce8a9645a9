"""Where to look: the place with most detail."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["Box", "cut", "most_detailed"]

Rgb8 = NDArray[np.uint8]

STEPS = 16  # places looked at along each axis


class Box(NamedTuple):
    """A square of an image, in its pixels."""

    row: int
    column: int
    side: int

    def times(self, scale: int) -> Box:
        """The same place in an image ``scale`` times as large."""
        return Box(scale * self.row, scale * self.column, scale * self.side)


def most_detailed(rgb: Rgb8, side: int, unit: int = 1) -> Box:
    """The square whose gradients are strongest on average: of ``rgb``, (h, w, 3).

    side: at most, in pixels; squares start and end at multiples of ``unit``, so that they can be
    found in an image 1/unit as large.
    """
    height, width = (length // unit * unit for length in rgb.shape[:2])
    side = max(unit, min(side, height, width) // unit * unit)
    grey = rgb[:height, :width].mean(axis=2)
    down, right = np.gradient(grey) if min(grey.shape) > 1 else (grey * 0, grey * 0)
    # Sums over rectangles by differences of running sums.
    sums = np.pad(np.hypot(down, right).cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    rows, columns = (
        np.unique(np.linspace(0, (length - side) // unit, STEPS).round().astype(int)) * unit
        for length in (height, width)
    )
    top, left = np.ix_(rows, columns)
    totals = (
        sums[top + side, left + side] - sums[top, left + side] - sums[top + side, left]
        + sums[top, left]
    )  # fmt: skip
    y, x = np.unravel_index(int(totals.argmax()), totals.shape)
    return Box(int(rows[y]), int(columns[x]), side)


def cut(rgb: Rgb8, box: Box) -> Rgb8:
    """The pixels of a box."""
    return rgb[box.row : box.row + box.side, box.column : box.column + box.side]

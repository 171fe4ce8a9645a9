"""Rasters whose values are entries of a palette, or whose zero is white."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Palette", "palette_of"]


@dataclass(frozen=True, slots=True)
class Palette:
    """Colours by entry: (entries, 1 to 4), grey or red, green, blue, and perhaps alpha."""

    table: NDArray[np.uint8]
    colours: tuple[str, ...]  # what the columns are
    nodata: float | None  # the entry that means nodata

    @property
    def is_ramp(self) -> bool:
        """Whether it is no choice of colours but white to black, or back, in 256 steps or more.

        GDAL shows white-is-zero rasters so, of 16 bits too.
        """
        column = self.table[:, 0].astype(int)
        steps = np.diff(column)
        one_way = bool((steps <= 0).all() or (steps >= 0).all())
        whole = {int(column[0]), int(column[-1])} == {0, 255}
        return self.colours == ("gray",) and len(column) >= 256 and one_way and whole

    @property
    def starts_white(self) -> bool:
        """Whether zero is white."""
        return bool(self.table[0, 0] == 255)

    def expand(self, entries: NDArray[Any]) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        """(h, w) entries -> (h, w, colours) and (h, w) validity."""
        looked_up = self.table[np.clip(entries, 0, len(self.table) - 1)]
        valid = np.ones(entries.shape, np.bool_) if self.nodata is None else entries != self.nodata
        if "alpha" in self.colours:
            valid &= looked_up[..., -1] > 0
        return looked_up, valid


def palette_of(dataset: Any, nodata: float | None) -> Palette | None:  # noqa: ANN401
    """The palette of a raster's only band; None when the raster says that it has one and has none.

    Transparent entries become an alpha band; where the nodata entry is the only one, it stays that.
    """
    try:
        entries = dataset.colormap(1)
    except ValueError:
        return None
    if not entries:
        return None
    table = np.zeros((max(entries) + 1, 4), np.uint8)
    table[list(entries)] = list(entries.values())
    told = table[list(entries)]
    grey = bool((told[:, :1] == told[:, 1:3]).all())
    clear = any(colour[3] < 255 for entry, colour in entries.items() if entry != nodata)
    if clear and nodata is not None and nodata in entries:
        table[int(nodata), 3], nodata = 0, None
    columns = ([0] if grey else [0, 1, 2]) + ([3] if clear else [])
    colours = (("gray",) if grey else ("red", "green", "blue")) + (("alpha",) if clear else ())
    return Palette(table[:, columns], colours, nodata)

"""What is known of a raster beyond its file: which bands are which, what their numbers mean."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from os import PathLike
from typing import Any

from slimdiffsr.errors import RangeError, RasterError

__all__ = ["BandMeaning", "KnownRaster", "as_known"]


@dataclass(frozen=True, slots=True, kw_only=True)
class BandMeaning:
    """How a band's stored numbers become reflectance, and which of it a network sees.

    reflectance = scale * stored + offset, as in GDAL and in STAC's ``raster:bands``. The network
    sees ``black`` (a reflectance) as 0 and ``white`` as 1.
    Raises RangeError when that is no range.
    """

    scale: float = 1.0
    offset: float = 0.0
    black: float = 0.0
    white: float = 1.0

    def __post_init__(self) -> None:
        numbers = (self.scale, self.offset, self.black, self.white)
        if not all(map(math.isfinite, numbers)) or self.scale <= 0 or self.black >= self.white:
            raise RangeError(
                "a band needs a scale above 0, a finite offset, and black below white; got "
                f"scale {self.scale:g}, offset {self.offset:g}, black {self.black:g}, "
                f"white {self.white:g}"
            )

    @property
    def stored_range(self) -> tuple[float, float]:
        """Black and white in the numbers that the file holds."""
        low, high = ((value - self.offset) / self.scale for value in (self.black, self.white))
        return _whole(low), _whole(high)


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownRaster:
    """A raster to read, and what its file does not say.

    path: what GDAL opens; may be the text of a VRT. name: what messages call it.
    meanings: one for each band, or none at all. nodata: that of bands that declare none.
    special: numbers that are no measurements, such as those of saturated pixels: they are kept
    as they are, and the network never sees them.
    """

    path: str
    name: str = ""
    rgb: tuple[int, ...] | None = None
    rgb_reason: str = ""
    meanings: tuple[BandMeaning, ...] = ()
    range_reason: str = ""
    nodata: float | None = None
    special: tuple[float, ...] = ()
    coarser: tuple[int, ...] = ()  # by how much each band's own pixels are larger than the grid's
    files: tuple[str, ...] = ()  # that GDAL reads beyond those it lists itself
    remarks: tuple[str, ...] = ()  # whole sentences for the user
    derived_from: tuple[str, ...] = ()  # addresses of catalogues' items that it is made of
    properties: Mapping[str, Any] = field(default_factory=dict)  # of such an item

    @property
    def called(self) -> str:
        """The name, or else the path."""
        return self.name or self.path


def as_known(src: str | PathLike[str] | KnownRaster) -> KnownRaster:
    """A raster by its path, of which nothing else is known, or what is known of it."""
    if isinstance(src, KnownRaster):
        return src
    try:
        path = os.fspath(src)
    except TypeError:
        raise RasterError(
            f"a raster is given by its path, got {type(src).__name__}: arrays go to upscale, and of "
            "an open dataset give the name"
        ) from None
    return KnownRaster(path=os.fsdecode(path))


def _whole(value: float) -> float:
    # (0.3 + 0.1) / 0.0001 is not quite 4000, and its last digit would show in tags.
    near = round(value)
    return float(near) if abs(value - near) < 1e-6 * max(1, abs(near)) else value

"""Where to look in a raster to judge its values, without reading all of it."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from typing import Any

import numpy as np

from slimdiffsr.geo.grid import Region

__all__ = [
    "SAMPLE_LR_PX",
    "Look",
    "claims_too_much",
    "pixel_bytes",
    "places_to_look",
    "reads_whole",
]

SAMPLE_LR_PX = 1024  # side of a decimated read of the whole raster
_WHOLE_BYTES = 64_000_000  # what may be read for that
_PLACES = 64
_PLACE_LR_PX = 128  # side of what is kept of a place
_BUDGET_BYTES = 256_000_000  # to decode for all places together; never fewer than eight
_HOLD_THEIR_PIXELS = (
    "BMP", "GIF", "GTiff", "HFA", "JP2OpenJPEG", "JPEG", "NITF", "PNG", "PNM", "WEBP",
)  # fmt: skip
_PACKED = 1e8  # no file packs so well, not even an empty one that has a list of its blocks


@dataclass(frozen=True, slots=True)
class Look:
    """One place to read, and how many of its rows and columns to keep."""

    region: Region
    rows: int
    cols: int


def pixel_bytes(dataset: Any, bands: int) -> int:  # noqa: ANN401  rasterio's DatasetReader
    """What has to be decoded for a pixel of some bands: where they are interleaved, of all."""
    apart = dataset.get_tag_item("INTERLEAVE", "IMAGE_STRUCTURE") == "BAND"
    size: int = np.dtype(dataset.dtypes[0]).itemsize
    return size * (bands if apart else dataset.count)


def reads_whole(whole: Region, bytes_per_pixel: int, overviews: list[int]) -> bool:
    """Whether a decimated read of the whole raster is cheap, thanks to its size or overviews."""
    wanted = max(1.0, min(side / SAMPLE_LR_PX for side in (whole.width, whole.height)))
    level = max((factor for factor in overviews if factor <= wanted), default=1)
    return whole.pixels * bytes_per_pixel <= _WHOLE_BYTES * level**2


def places_to_look(area: Region, block: tuple[int, int], bytes_per_pixel: int) -> list[Look]:
    """Blocks (rows, columns) spread evenly over a part of a raster; the same every time."""
    rows, cols = (
        min(side, whole) for side, whole in zip(block, (area.height, area.width), strict=True)
    )
    if cols < area.width:  # small tiles: several side by side are one place
        cols = min(area.width, cols * math.ceil(_PLACE_LR_PX / cols))
        rows = min(area.height, rows * math.ceil(_PLACE_LR_PX / rows))
    places = _BUDGET_BYTES // max(1, rows * cols * bytes_per_pixel)
    places = max(8, min(_PLACES, places))
    down, across = math.ceil(area.height / rows), math.ceil(area.width / cols)
    many_across = min(across, max(1, math.isqrt(places))) if across > 1 else 1
    many_down = min(down, max(1, places // many_across))
    many_across = min(across, max(1, places // many_down))
    looks = []
    for k in range(many_down):
        for j in range(many_across):
            corner = Region(
                area.col + _middle(j, many_across, across) * cols,
                area.row + _middle(k, many_down, down) * rows,
                cols,
                rows,
            )
            place = corner.clipped(area)
            kept = SAMPLE_LR_PX if across == 1 else _PLACE_LR_PX
            looks.append(Look(place, min(place.height, _PLACE_LR_PX), min(place.width, kept)))
    return looks


def _middle(k: int, parts: int, whole: int) -> int:
    """The middle of the k-th of ``parts`` equal parts of ``whole`` things."""
    return (2 * k + 1) * whole // (2 * parts)


def claims_too_much(dataset: Any) -> bool:  # noqa: ANN401  rasterio's DatasetReader
    """Whether files on this machine are too small for what their header claims, however packed."""
    if dataset.driver not in _HOLD_THEIR_PIXELS:
        return False
    try:
        held = sum(os.path.getsize(name) for name in dataset.files)
    except OSError:  # not on this machine
        return False
    pixels = dataset.width * dataset.height * dataset.count
    return bool(held and pixels * np.dtype(dataset.dtypes[0]).itemsize > _PACKED * held)

"""All chunks of a scene as one VRT; of a large scene as VRTs over squares of chunks.

GDAL holds all sources of a VRT in memory while it is open, of a VRT inside another only while it
reads there.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from slimdiffsr.geo.grid import Region
from slimdiffsr.geo.header import Header
from slimdiffsr.geo.vrt import vrt_xml

__all__ = ["SQUARE", "write_mosaic"]

SQUARE = 32  # chunks along a side of what one VRT holds

Source = tuple[str, Region]  # a file's name, and its place on the output grid


def write_mosaic(
    vrt: Path,
    header: Header,
    chunks: Iterable[Source],
    chunk_hr_px: int,
    *,
    nodata_as_mask: bool = False,
    tags_travel: bool = False,
) -> None:
    """Write a VRT over chunks that come row by row, and others beside it where they are many.

    nodata_as_mask, tags_travel: as in ``vrt_xml``.
    Raises OSError.
    """
    side_hr_px = SQUARE * chunk_hr_px
    whole = header.region_hr
    if max(whole.width, whole.height) <= side_hr_px:
        sources = list(chunks)
    else:
        plain = replace(header, tags={}, domains={}, documents=(), gcps=(), gcps_crs=None)
        sources = list(_squares(vrt.parent, plain, chunks, side_hr_px))
    text = vrt_xml(header, sources, nodata_as_mask=nodata_as_mask, tags_travel=tags_travel)
    vrt.write_text(text, encoding="utf-8")


def _squares(
    folder: Path, header: Header, chunks: Iterable[Source], side_hr_px: int
) -> Iterator[Source]:
    """Write a VRT for each square; never more than one row of squares is held."""
    whole = header.region_hr
    held: defaultdict[tuple[int, int], list[Source]] = defaultdict(list)
    for name, chunk_hr in chunks:
        row = (chunk_hr.row - whole.row) // side_hr_px
        col = (chunk_hr.col - whole.col) // side_hr_px
        if held and row != next(iter(held))[0]:
            yield from _written(folder, header, held)
            held.clear()
        held[row, col].append((name, chunk_hr))
    yield from _written(folder, header, held)


def _written(
    folder: Path, header: Header, held: dict[tuple[int, int], list[Source]]
) -> Iterator[Source]:
    for (row, col), sources in held.items():
        region_hr = sources[0][1].joined(sources[-1][1])
        # Where it lies on the map is said by the VRT above it.
        text = vrt_xml(replace(header, region_hr=region_hr, transform=None, crs=None), sources)
        name = f"part-{row}-{col}.vrt"
        (folder / name).write_text(text, encoding="utf-8")
        yield name, region_hr

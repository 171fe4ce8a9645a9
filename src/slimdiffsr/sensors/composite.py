"""One raster of the files that a product keeps its bands in, by a VRT: nothing is copied."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any
from xml.etree import ElementTree as Xml

from affine import Affine
from rasterio.crs import CRS

from slimdiffsr.errors import RasterError
from slimdiffsr.geo.raster import open_quietly
from slimdiffsr.geo.vrt import VRT_TYPES
from slimdiffsr.sensors.product import BandFacts

__all__ = ["BandFile", "Composite", "compose"]

_ALIGNED_PX = 0.01  # of the finest pixel: corners this close are the same
# What GDAL says where a server or a store wants to know who asks.
_REFUSED = re.compile(r"code: 40[13]|AccessDenied|[Cc]redentials|AWS_SECRET_ACCESS_KEY")
_COLOURS = ("red", "green", "blue")


@dataclass(frozen=True, slots=True)
class BandFile:
    """A band: the raster that holds it, and its number there."""

    path: str
    facts: BandFacts
    number: int = 1


@dataclass(frozen=True, slots=True)
class Composite:
    """The text of a VRT over several files, which all have one grid there."""

    vrt: str
    dtype: str
    bands: tuple[BandFacts, ...]
    pixel_m: tuple[float, ...]  # of the file that each band comes from, in units of the CRS
    coarser: tuple[int, ...]  # by how much its pixels are larger than the finest
    files: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Opened:
    file: BandFile
    width: int
    height: int
    transform: Affine
    crs: CRS | None
    dtype: str
    facts: BandFacts


def compose(name: str, files: Sequence[BandFile]) -> Composite:
    """Lay bands on the grid of the finest of them; coarser ones are enlarged by cubic convolution.

    Raises RasterError when a file cannot be opened, or when they do not lie in one CRS or are not
    of one type.
    """
    opened = [_open(file) for file in files]
    finest = min(opened, key=lambda one: abs(one.transform.a))
    _check_alike(name, opened)
    root = Xml.Element("VRTDataset", rasterXSize=str(finest.width), rasterYSize=str(finest.height))
    if finest.crs is not None:
        Xml.SubElement(root, "SRS").text = finest.crs.to_wkt(version="WKT2_2019")
    numbers = finest.transform.to_gdal()
    Xml.SubElement(root, "GeoTransform").text = ", ".join(map(repr, map(float, numbers)))
    for number, one in enumerate(opened, 1):
        _band(root, number, one, finest)
    return Composite(
        vrt=Xml.tostring(root, encoding="unicode"),
        dtype=finest.dtype,
        bands=tuple(one.facts for one in opened),
        pixel_m=tuple(abs(one.transform.a) for one in opened),
        coarser=tuple(_times_coarser(one, finest) for one in opened),
        files=tuple(one.file.path for one in opened),
    )


def _open(file: BandFile) -> _Opened:
    with _opened(file.path) as dataset:
        if file.number > dataset.count:
            raise RasterError(
                f"{file.path} has {dataset.count} bands, and band {file.number} is asked"
            )
        declared = dataset.nodatavals[file.number - 1]
        facts = file.facts
        if facts.nodata is None and declared is not None:
            facts = replace(facts, nodata=declared)
        scale, offset = dataset.scales[file.number - 1], dataset.offsets[file.number - 1]
        if facts.scale is None and facts.offset is None and (scale, offset) != (1.0, 0.0):
            facts = replace(facts, scale=scale, offset=offset)
        return _Opened(
            file, dataset.width, dataset.height, dataset.transform, dataset.crs,
            dataset.dtypes[file.number - 1], facts,
        )  # fmt: skip


@contextmanager
def _opened(path: str) -> Iterator[Any]:
    try:
        with open_quietly(path) as dataset:
            yield dataset
    except RasterError as error:
        if not _REFUSED.search(str(error)):
            raise
        raise RasterError(
            f"{path} is not given out without credentials: sign the links with --sign "
            "planetary-computer, or set those of your store, such as AWS_ACCESS_KEY_ID or AWS_PROFILE"
        ) from None


def _check_alike(name: str, opened: Sequence[_Opened]) -> None:
    first = opened[0]
    for one in opened[1:]:
        if one.crs != first.crs:
            raise RasterError(
                f"the bands of {name} lie in different CRSs, {_code(first.crs)} and "
                f"{_code(one.crs)}: bring them into one first"
            )
        if one.dtype != first.dtype:
            raise RasterError(
                f"the bands of {name} are of different types: {first.file.path} holds "
                f"{first.dtype}, {one.file.path} {one.dtype}; choose among them"
            )


def _code(crs: CRS | None) -> str:
    return "none" if crs is None else crs.to_string()[:40]


def _band(root: Xml.Element, number: int, one: _Opened, finest: _Opened) -> None:
    kind = VRT_TYPES[one.dtype]
    band = Xml.SubElement(root, "VRTRasterBand", dataType=kind, band=str(number))
    facts = one.facts
    if facts.name:
        Xml.SubElement(band, "Description").text = facts.name
    if facts.nodata is not None:
        Xml.SubElement(band, "NoDataValue").text = repr(float(facts.nodata))
    if facts.scale is not None or facts.offset is not None:
        Xml.SubElement(band, "Offset").text = repr(facts.offset or 0.0)
        Xml.SubElement(band, "Scale").text = repr(1.0 if facts.scale is None else facts.scale)
    colour = facts.role if facts.role in _COLOURS else "gray"
    Xml.SubElement(band, "ColorInterp").text = colour.capitalize()
    place = _place(one, finest)
    same = place == (0.0, 0.0, float(finest.width), float(finest.height))
    same = same and (one.width, one.height) == (finest.width, finest.height)
    source = Xml.SubElement(band, "SimpleSource", {} if same else {"resampling": "cubic"})
    if same or facts.nodata is None:
        path, held = one.file.path, one.file.number
    else:
        path, held = _with_nodata(one, kind), 1
    Xml.SubElement(source, "SourceFilename", relativeToVRT="0").text = path
    Xml.SubElement(source, "SourceBand").text = str(held)
    _rect(source, "SrcRect", (0.0, 0.0, float(one.width), float(one.height)))
    _rect(source, "DstRect", place)


def _place(one: _Opened, finest: _Opened) -> tuple[float, float, float, float]:
    """Where a file lies on the finest grid, in its pixels: column, row, width, height."""
    ours, theirs = finest.transform, one.transform
    col, row = (theirs.c - ours.c) / ours.a, (theirs.f - ours.f) / ours.e
    corners = (col, row, one.width * theirs.a / ours.a, one.height * theirs.e / ours.e)
    whole = tuple(float(round(value)) for value in corners)
    near = all(abs(a - b) < _ALIGNED_PX for a, b in zip(corners, whole, strict=True))
    return whole if near else corners  # type: ignore[return-value]  # four of them


def _times_coarser(one: _Opened, finest: _Opened) -> int:
    """How many of the finest pixels make one of a file, where they do so exactly; else 1."""
    col, row, width, height = _place(one, finest)
    factor = round(width / one.width)
    exact = (col, row, width, height) == (0, 0, factor * one.width, factor * one.height)
    return factor if exact and (width, height) == (finest.width, finest.height) else 1


def _rect(source: Xml.Element, name: str, rect: tuple[float, float, float, float]) -> None:
    keys = ("xOff", "yOff", "xSize", "ySize")
    Xml.SubElement(source, name, {k: repr(v) for k, v in zip(keys, rect, strict=True)})


def _with_nodata(one: _Opened, kind: str) -> str:
    """A VRT over the file that declares its nodata, so that enlargement leaves those pixels out."""
    size = {"rasterXSize": str(one.width), "rasterYSize": str(one.height)}
    root = Xml.Element("VRTDataset", size)
    numbers: Any = one.transform.to_gdal()
    Xml.SubElement(root, "GeoTransform").text = ", ".join(map(repr, map(float, numbers)))
    band = Xml.SubElement(root, "VRTRasterBand", dataType=kind, band="1")
    Xml.SubElement(band, "NoDataValue").text = repr(float(one.facts.nodata or 0.0))
    source = Xml.SubElement(band, "SimpleSource")
    Xml.SubElement(source, "SourceFilename", relativeToVRT="0").text = one.file.path
    Xml.SubElement(source, "SourceBand").text = str(one.file.number)
    return Xml.tostring(root, encoding="unicode")

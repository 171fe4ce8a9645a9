"""One raster over the outputs of a job: a VRT for some, a GDAL tile index (GTI) for very many."""

from __future__ import annotations

import json
import os
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any
from xml.etree import ElementTree as Xml

from affine import Affine

from slimdiffsr.geo.raster import open_quietly
from slimdiffsr.geo.vrt import VRT_TYPES
from slimdiffsr.scale_out.places import FolderPlace, Place

__all__ = ["write_mosaic"]

MOST_IN_A_VRT = 1000
_READERS = 16


@dataclass(frozen=True, slots=True)
class _Member:
    name: str
    width: int
    height: int
    transform: Affine
    crs: str  # WKT
    dtypes: tuple[str, ...]
    nodata: float | None
    colours: tuple[str, ...]

    @property
    def bounds(self) -> tuple[float, float, float, float]:
        """Left, bottom, right, top."""
        t = self.transform
        return t.c, t.f + t.e * self.height, t.c + t.a * self.width, t.f


def write_mosaic(output: Place, names: Sequence[str]) -> str:
    """Lay the outputs side by side; later ones over earlier ones. Returns what was written.

    One mosaic for each combination of coordinate system, pixel size, bands and type that occurs
    more than once; outputs that are rotated or lie nowhere are left out.
    """
    with ThreadPoolExecutor(_READERS) as readers:
        members = [m for m in readers.map(lambda name: _member(output, name), names) if m]
    groups: dict[Any, list[_Member]] = defaultdict(list)
    for member in members:
        size = round(member.transform.a, 9), round(member.transform.e, 9)
        groups[member.crs, size, member.dtypes].append(member)
    groups = {key: group for key, group in groups.items() if len(group) > 1}
    written = []
    for number, group in enumerate(groups.values()):
        stem = "mosaic" if len(groups) == 1 else f"mosaic-{number + 1}"
        written.append(_write(output, stem, group))
    return ", ".join(written)


def _write(output: Place, stem: str, group: Sequence[_Member]) -> str:
    if len(group) <= MOST_IN_A_VRT:
        name = f"{stem}.vrt"
        output.put(name, _vrt(group).encode(), replace=True)
        return name
    output.put(f"{stem}.index.geojson", _index(output, group).encode(), replace=True)
    name = f"{stem}.gti"
    output.put(name, _gti(output, stem, group).encode(), replace=True)
    return name


def _gdal_path(output: Place, name: str) -> str:
    if isinstance(output, FolderPlace):
        return os.fspath(output.path(name))
    kinds = {"s3": "/vsis3/", "gs": "/vsigs/", "az": "/vsiaz/"}
    scheme, _, rest = output.address.partition("://")
    return f"{kinds[scheme]}{rest}/{name}"


def _member(output: Place, name: str) -> _Member | None:
    with open_quietly(_gdal_path(output, name)) as dataset:
        transform = dataset.transform
        if dataset.crs is None or transform.b or transform.d or transform.e >= 0:
            return None
        return _Member(
            name, dataset.width, dataset.height, transform, dataset.crs.to_wkt(),
            tuple(dataset.dtypes), dataset.nodata,
            tuple(colour.name.capitalize() for colour in dataset.colorinterp),
        )  # fmt: skip


def _extent(group: Sequence[_Member]) -> tuple[float, float, float, float]:
    lefts, bottoms, rights, tops = zip(*(member.bounds for member in group), strict=True)
    return min(lefts), min(bottoms), max(rights), max(tops)


def _vrt(group: Sequence[_Member]) -> str:
    first = group[0]
    left, bottom, right, top = _extent(group)
    a, e = first.transform.a, first.transform.e
    size = {
        "rasterXSize": str(round((right - left) / a)),
        "rasterYSize": str(round((bottom - top) / e)),
    }
    root = Xml.Element("VRTDataset", size)
    Xml.SubElement(root, "SRS").text = first.crs
    Xml.SubElement(root, "GeoTransform").text = f"{left!r}, {a!r}, 0, {top!r}, 0, {e!r}"
    for number, (dtype, colour) in enumerate(zip(first.dtypes, first.colours, strict=True), 1):
        band = Xml.SubElement(root, "VRTRasterBand", dataType=VRT_TYPES[dtype], band=str(number))
        if first.nodata is not None:
            Xml.SubElement(band, "NoDataValue").text = repr(first.nodata)
        Xml.SubElement(band, "ColorInterp").text = colour
        for member in group:
            _source(band, member, number, (left, top))
    return Xml.tostring(root, encoding="unicode")


def _source(band: Xml.Element, member: _Member, number: int, corner: tuple[float, float]) -> None:
    # A complex source leaves holes where the member is empty, so that what lies below shows.
    kind = "SimpleSource" if member.nodata is None else "ComplexSource"
    source = Xml.SubElement(band, kind)
    Xml.SubElement(source, "SourceFilename", relativeToVRT="1").text = member.name
    Xml.SubElement(source, "SourceBand").text = str(number)
    size = {"xSize": str(member.width), "ySize": str(member.height)}
    Xml.SubElement(source, "SrcRect", {"xOff": "0", "yOff": "0", **size})
    col = (member.transform.c - corner[0]) / member.transform.a
    row = (member.transform.f - corner[1]) / member.transform.e
    place = {"xOff": repr(round(col, 6)), "yOff": repr(round(row, 6))}
    Xml.SubElement(source, "DstRect", {**place, **size})
    if member.nodata is not None:
        Xml.SubElement(source, "NODATA").text = repr(member.nodata)


def _index(output: Place, group: Sequence[_Member]) -> str:
    """Footprints with their files, as GeoJSON in the outputs' own coordinate system."""
    features = []
    for member in group:
        left, bottom, right, top = member.bounds
        ring = [[left, bottom], [right, bottom], [right, top], [left, top], [left, bottom]]
        features.append({
            "type": "Feature",
            "properties": {"location": _gdal_path(output, member.name)},
            "geometry": {"type": "Polygon", "coordinates": [ring]},
        })  # fmt: skip
    return json.dumps({"type": "FeatureCollection", "features": features})


def _gti(output: Place, stem: str, group: Sequence[_Member]) -> str:
    first = group[0]
    left, bottom, right, top = _extent(group)
    root = Xml.Element("GDALTileIndexDataset")
    for tag, value in {
        "IndexDataset": _gdal_path(output, f"{stem}.index.geojson"),
        "LocationField": "location", "SRS": first.crs, "ResX": repr(first.transform.a),
        "ResY": repr(-first.transform.e), "MinX": repr(left), "MinY": repr(bottom),
        "MaxX": repr(right), "MaxY": repr(top), "BandCount": str(len(first.dtypes)),
        "DataType": VRT_TYPES[first.dtypes[0]],
    }.items():  # fmt: skip
        Xml.SubElement(root, tag).text = value
    if first.nodata is not None:
        Xml.SubElement(root, "NoData").text = repr(first.nodata)
    return Xml.tostring(root, encoding="unicode")

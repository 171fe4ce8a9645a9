"""What GDAL says of a raster besides its pixels, as the text of a VRT.

rasterio hands tags and control points over one by one, and stumbles: a tag without a name ends the
process, a name that is not UTF-8 the reading. GDAL writes the same facts as XML, whatever they hold.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from xml.etree import ElementTree as Xml

import rasterio.shutil
from rasterio.control import GroundControlPoint
from rasterio.io import MemoryFile

__all__ = ["BandFacts", "Description", "describe"]

_FORBIDDEN = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")  # in XML 1.0
# As GDAL indents them: in one line, or up to an end in the third column.
_DOCUMENT = re.compile(
    r'^  <Metadata domain="([^"]*)" format="[^"]*">(?:[^\n]*?|.*?\n  )</Metadata>$', re.M | re.S
)
_SOURCES = re.compile(rb"\n    <(Simple|Complex|Averaged)Source.*?</\1Source>", re.S)
_LONE_BYTES = {0xDC00 + byte: byte for byte in range(0x80, 0x100)}  # read as Latin-1


@dataclass(frozen=True, slots=True)
class BandFacts:
    """One band. ``nodata`` is as declared, whether or not the type can hold it."""

    description: str = ""
    colour: str = "undefined"  # lower case
    nodata: float | None = None
    unit: str = ""
    scale: float = 1.0
    offset: float = 0.0
    tags: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Description:
    """A raster's header.

    domains: tags by namespace, "" for those without one. documents: namespaces that hold one text,
    such as XMP, as elements of the VRT, to
    the letter. srs: the coordinate system as GDAL writes it. gcps: control points
    to about a dozen digits, and gcps_srs their system.
    """

    domains: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    documents: Mapping[str, str] = field(default_factory=dict)
    bands: tuple[BandFacts, ...] = ()
    srs: str = ""
    gcps: tuple[GroundControlPoint, ...] = ()
    gcps_srs: str = ""

    def band(self, number: int) -> BandFacts:
        """A band, counted from 1; one without facts if GDAL said nothing of it."""
        return self.bands[number - 1] if number <= len(self.bands) else BandFacts()


def describe(dataset: Any) -> Description:  # noqa: ANN401  rasterio's DatasetReader
    """All that GDAL tells, at the cost of about a millisecond; raises GDAL's errors."""
    with MemoryFile(ext=".vrt") as memory:  # type: ignore[no-untyped-call]
        rasterio.shutil.copy(dataset, memory.name, driver="VRT", COPY_SRC_MDD="YES")
        memory.seek(0)
        content: bytes = memory.read()
    # Thousands of bands, or of a mosaic's sources, would take seconds.
    text = _text(_SOURCES.sub(b"", content))
    root = Xml.fromstring(text)
    points = root.find("GCPList")
    return Description(
        domains=_metadata(root),
        documents={found[1]: found[0] for found in _DOCUMENT.finditer(text)},
        bands=tuple(_band(element) for element in root.findall("VRTRasterBand")),
        srs=root.findtext("SRS", ""),
        gcps=() if points is None else tuple(_gcp(element) for element in points.findall("GCP")),
        gcps_srs="" if points is None else points.get("Projection", ""),
    )


def _text(content: bytes) -> str:
    try:
        text = content.decode()
    except UnicodeDecodeError:
        text = content.decode("utf-8", "surrogateescape").translate(_LONE_BYTES)
    return _FORBIDDEN.sub("", text)


def _metadata(parent: Xml.Element) -> dict[str, dict[str, str]]:
    domains: dict[str, dict[str, str]] = {}
    for element in parent.findall("Metadata"):
        tags = {item.get("key", ""): item.text or "" for item in element.findall("MDI")}
        tags.pop("", None)
        if tags:
            domains[element.get("domain", "")] = tags
    return domains


def _band(element: Xml.Element) -> BandFacts:
    nodata = element.findtext("NoDataValue")
    return BandFacts(
        description=element.findtext("Description", ""),
        colour=element.findtext("ColorInterp", "undefined").lower(),
        nodata=None if nodata is None else _number(nodata, 0.0),
        unit=element.findtext("UnitType", ""),
        scale=_number(element.findtext("Scale", ""), 1.0),
        offset=_number(element.findtext("Offset", ""), 0.0),
        tags=_metadata(element).get("", {}),
    )


def _number(text: str, otherwise: float) -> float:
    try:
        return float(text)
    except ValueError:
        return otherwise


def _gcp(element: Xml.Element) -> GroundControlPoint:
    row, col, x, y, z = (
        _number(element.get(key, ""), 0.0) for key in ("Line", "Pixel", "X", "Y", "Z")
    )
    names = {"id": element.get("Id", ""), "info": element.get("Info", "")}
    return GroundControlPoint(row=row, col=col, x=x, y=y, z=z, **names)  # type: ignore[no-untyped-call]

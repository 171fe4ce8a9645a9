"""A VRT over the chunks of a scene, with everything that the output says of itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from xml.etree import ElementTree as Xml

from rasterio.crs import CRS

from slimdiffsr.geo.band_tags import travelling
from slimdiffsr.geo.georef import crs_text
from slimdiffsr.geo.grid import Region
from slimdiffsr.geo.header import BandHeader, Header
from slimdiffsr.geo.spec import BLOCK_HR_PX

__all__ = ["VRT_TYPES", "vrt_xml"]

VRT_TYPES = {
    "uint8": "Byte", "int8": "Int8", "uint16": "UInt16", "int16": "Int16",
    "uint32": "UInt32", "int32": "Int32", "float32": "Float32", "float64": "Float64",
}  # fmt: skip


def vrt_xml(
    header: Header,
    chunks: Sequence[tuple[str, Region]],
    *,
    nodata_as_mask: bool = False,
    tags_travel: bool = False,
) -> str:
    """A VRT that lays chunk files (names relative to it, output regions) side by side.

    nodata_as_mask: declare no nodata value, but a mask of the pixels that have it in all bands.
    tags_travel: hold the bands' tags as ``band_tags.travelling`` gives them.
    """
    region_hr = header.region_hr
    root = Xml.Element(
        "VRTDataset", rasterXSize=str(region_hr.width), rasterYSize=str(region_hr.height)
    )
    if header.crs is not None:
        _srs(root, header.crs)
    if header.transform is not None:
        numbers = header.transform.to_gdal()
        Xml.SubElement(root, "GeoTransform").text = ", ".join(map(repr, map(float, numbers)))
    if header.gcps:
        _gcps(root, header)
    _metadata(root, {**header.tags, **(travelling(header) if tags_travel else {})})
    for domain, tags in header.domains.items():
        _metadata(root, tags, domain)
    for number, band in enumerate(header.bands, 1):
        told = replace(band, nodata=None) if nodata_as_mask else band
        _band(root, header, number, replace(told, tags={}) if tags_travel else told, chunks)
    if header.has_mask or nodata_as_mask:
        mask = Xml.SubElement(Xml.SubElement(root, "MaskBand"), "VRTRasterBand", dataType="Byte")
        if nodata_as_mask:
            for number, band in enumerate(header.bands, 1):
                if band.colour != "alpha":
                    _sources(mask, header, f"mask,{number}", chunks, only_valid=True)
        else:
            _sources(mask, header, "mask,1", chunks)
    text = Xml.tostring(root, encoding="unicode")
    end = "</VRTDataset>"
    return text.removesuffix(end) + "".join(header.documents) + end


def _srs(parent: Xml.Element, crs: CRS) -> None:
    Xml.SubElement(parent, "SRS").text = crs_text(crs)


def _gcps(root: Xml.Element, header: Header) -> None:
    attributes = {}
    if header.gcps_crs is not None:
        attributes["Projection"] = header.gcps_crs.to_wkt()
    points = Xml.SubElement(root, "GCPList", attributes)
    for point in header.gcps:
        where = {"Pixel": point.col, "Line": point.row, "X": point.x, "Y": point.y}
        if point.z is not None:
            where["Z"] = point.z
        numbers = {key: repr(float(value)) for key, value in where.items()}
        Xml.SubElement(points, "GCP", {"Id": point.id or "", "Info": point.info or "", **numbers})


def _metadata(parent: Xml.Element, tags: Mapping[str, str], domain: str | None = None) -> None:
    if not tags:
        return
    element = Xml.SubElement(parent, "Metadata", {"domain": domain} if domain else {})
    for key, value in tags.items():
        Xml.SubElement(element, "MDI", key=key).text = value


def _band(
    root: Xml.Element,
    header: Header,
    number: int,
    band: BandHeader,
    chunks: Sequence[tuple[str, Region]],
) -> None:
    element = Xml.SubElement(
        root, "VRTRasterBand", dataType=VRT_TYPES[header.dtype.name], band=str(number),
        blockXSize=str(BLOCK_HR_PX), blockYSize=str(BLOCK_HR_PX),
    )  # fmt: skip
    _metadata(element, band.tags)
    if band.description:
        Xml.SubElement(element, "Description").text = band.description
    if band.nodata is not None:
        Xml.SubElement(element, "NoDataValue").text = repr(float(band.nodata))
    if band.unit:
        Xml.SubElement(element, "UnitType").text = band.unit
    if (band.scale, band.offset) != (1.0, 0.0):
        Xml.SubElement(element, "Offset").text = repr(float(band.offset))
        Xml.SubElement(element, "Scale").text = repr(float(band.scale))
    Xml.SubElement(element, "ColorInterp").text = band.colour.capitalize()
    _sources(element, header, str(number), chunks)


def _sources(
    parent: Xml.Element,
    header: Header,
    band: str,
    chunks: Sequence[tuple[str, Region]],
    *,
    only_valid: bool = False,  # leave what earlier sources said where this one says 0
) -> None:
    for name, region_hr in chunks:
        source = Xml.SubElement(parent, "ComplexSource" if only_valid else "SimpleSource")
        Xml.SubElement(source, "SourceFilename", relativeToVRT="1").text = name
        Xml.SubElement(source, "SourceBand").text = band
        size = {"xSize": str(region_hr.width), "ySize": str(region_hr.height)}
        Xml.SubElement(source, "SrcRect", {"xOff": "0", "yOff": "0", **size})
        place = {
            "xOff": str(region_hr.col - header.region_hr.col),
            "yOff": str(region_hr.row - header.region_hr.row),
        }
        Xml.SubElement(source, "DstRect", {**place, **size})
        if only_valid:
            Xml.SubElement(source, "NODATA").text = "0"

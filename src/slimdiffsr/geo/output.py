"""From finished chunks to the output file: a VRT over them, copied by GDAL, moved into place."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as Xml

import numpy as np
import rasterio
import rasterio.shutil
from affine import Affine
from rasterio.crs import CRS
from rasterio.io import MemoryFile

from slimdiffsr.errors import OutputError
from slimdiffsr.geo.failures import UNREADABLE, WRITE_ERRORS, first_line, output_error
from slimdiffsr.geo.grid import Region
from slimdiffsr.geo.header import BandHeader, Header
from slimdiffsr.geo.raster import GDAL_ERRORS, open_quietly
from slimdiffsr.geo.spec import BLOCK_HR_PX, OutputFormat

__all__ = [
    "best_compression",
    "check_creation_options",
    "check_format",
    "copy_to_format",
    "is_readable",
    "predictor",
    "vrt_xml",
]

VRT_TYPES = {
    "uint8": "Byte", "int8": "Int8", "uint16": "UInt16", "int16": "Int16",
    "uint32": "UInt32", "int32": "Int32", "float32": "Float32", "float64": "Float64",
}  # fmt: skip
MAX_BLOCK_HR_PX = 16_384
_DRIVERS = {"cog": "COG", "gtiff": "GTiff", "png": "PNG"}
_BIG_BYTES = 3_000_000_000  # with overviews and poor compression, 4 GB is then in reach


def check_format(header: Header, fmt: OutputFormat) -> None:
    """Raise OutputError when the format cannot hold the output."""
    if fmt != "png":
        return
    if header.dtype.name not in ("uint8", "uint16"):
        raise OutputError(
            f"PNG holds uint8 and uint16 only, and this raster is {header.dtype.name}: "
            "use the format cog or gtiff"
        )
    if len(header.bands) > 4:
        raise OutputError(
            f"PNG holds up to 4 bands, and the output has {len(header.bands)}: "
            "use the format cog or gtiff, or fewer bands"
        )


def vrt_xml(header: Header, chunks: Sequence[tuple[str, Region]]) -> str:
    """A VRT that lays chunk files (names relative to it, output regions) side by side."""
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
    _metadata(root, header.tags)
    for domain, tags in header.domains.items():
        _metadata(root, tags, domain)
    for number, band in enumerate(header.bands, 1):
        _band(root, header, number, band, chunks)
    if header.has_mask:
        mask = Xml.SubElement(Xml.SubElement(root, "MaskBand"), "VRTRasterBand", dataType="Byte")
        _sources(mask, header, "mask,1", chunks)
    return Xml.tostring(root, encoding="unicode")


def _srs(parent: Xml.Element, crs: CRS) -> None:
    Xml.SubElement(parent, "SRS").text = crs.to_wkt(version="WKT2_2019")


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
    parent: Xml.Element, header: Header, band: str, chunks: Sequence[tuple[str, Region]]
) -> None:
    for name, region_hr in chunks:
        source = Xml.SubElement(parent, "SimpleSource")
        Xml.SubElement(source, "SourceFilename", relativeToVRT="1").text = name
        Xml.SubElement(source, "SourceBand").text = band
        size = {"xSize": str(region_hr.width), "ySize": str(region_hr.height)}
        Xml.SubElement(source, "SrcRect", {"xOff": "0", "yOff": "0", **size})
        place = {
            "xOff": str(region_hr.col - header.region_hr.col),
            "yOff": str(region_hr.row - header.region_hr.row),
        }
        Xml.SubElement(source, "DstRect", {**place, **size})


def check_creation_options(header: Header, fmt: OutputFormat, extra: Mapping[str, str]) -> None:
    """Raise OutputError when GDAL refuses the user's creation options, before any work is done."""
    if not extra:
        return
    own = _upper(extra)
    _check_block_sizes(own)
    small = {"width": 64, "height": 64, "count": len(header.bands), "dtype": header.dtype.name}
    options = {**_creation_options(header, fmt), **own}
    trial = f"/vsimem/slimdiffsr-trial-{uuid.uuid4().hex}"
    try:
        with MemoryFile() as memory:  # type: ignore[no-untyped-call]
            with memory.open(driver="GTiff", transform=Affine.scale(2), **small) as dataset:
                dataset.write(np.zeros((len(header.bands), 64, 64), header.dtype))
            with _warnings() as warned:
                rasterio.shutil.copy(
                    memory.name, trial, driver=_DRIVERS[fmt], strict=False, **options
                )
            rasterio.shutil.delete(trial, driver=_DRIVERS[fmt])
        # An option or value that GDAL does not know is passed over with a warning.
        wrong = next((words for words in warned if "creation option" in words), "")
    except (*GDAL_ERRORS, ValueError) as error:
        wrong = first_line(error)
    if wrong:
        words = ", ".join(f"{key}={value}" for key, value in extra.items())
        raise OutputError(f"GDAL refuses the creation options {words} for {fmt}: {wrong}")


def _check_block_sizes(options: Mapping[str, str]) -> None:
    # GDAL's COG driver does not refuse them but takes the whole process down.
    for key in ("BLOCKSIZE", "BLOCKXSIZE", "BLOCKYSIZE"):
        value = options.get(key, "1")
        if not (value.isdecimal() and 1 <= int(value) <= MAX_BLOCK_HR_PX):
            raise OutputError(f"{key} must be pixels from 1 to {MAX_BLOCK_HR_PX}, got {value!r}")


class _Collector(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.words: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.words.append(record.getMessage())


@contextmanager
def _warnings() -> Iterator[list[str]]:
    # What GDAL warns of, which rasterio logs.
    collector, logger = _Collector(), logging.getLogger("rasterio._env")
    logger.addHandler(collector)
    try:
        yield collector.words
    finally:
        logger.removeHandler(collector)


def _upper(options: Mapping[str, str]) -> dict[str, str]:
    return {key.upper(): value for key, value in options.items()}


def copy_to_format(
    vrt: Path, dst: Path, header: Header, fmt: OutputFormat, extra: Mapping[str, str]
) -> None:
    """Copy the VRT into a new file of the format asked for; ``extra`` options win over ours.

    Raises DiskFullError or OutputError.
    """
    options = {**_creation_options(header, fmt), **_upper(extra)}
    try:
        # Else GDAL compresses the overviews twice, the first time at ZSTD's level 9.
        with rasterio.Env(COG_TMP_COMPRESSION="NONE"):  # type: ignore[no-untyped-call]
            rasterio.shutil.copy(str(vrt), str(dst), driver=_DRIVERS[fmt], strict=False, **options)
        _check_readable(dst)
    except (*WRITE_ERRORS, ValueError) as error:
        raise output_error(dst, error) from None


def _check_readable(path: Path) -> None:
    with open_quietly(str(path)) as dataset:
        levels = range(len(dataset.overviews(1)))
        whole = is_readable(dataset)
    for level in levels:
        with open_quietly(str(path), overview_level=level) as dataset:
            whole = whole and is_readable(dataset)
    if not whole:
        raise OSError(UNREADABLE)


def is_readable(dataset: Any) -> bool:  # noqa: ANN401
    """Whether every block can be read back.

    GDAL is silent about some blocks that found no room on the disk.
    """
    try:
        for _, window in dataset.block_windows(1):
            dataset.read(window=window)
    except GDAL_ERRORS:
        return False
    return True


def _creation_options(header: Header, fmt: OutputFormat) -> dict[str, str]:
    if fmt == "png":
        return {"WORLDFILE": "YES"} if header.transform is not None else {}
    zstd = best_compression() == "ZSTD"
    options = {
        "COMPRESS": "ZSTD" if zstd else "DEFLATE",
        "BIGTIFF": "YES" if header.bytes > _BIG_BYTES else "IF_SAFER",
        "NUM_THREADS": "ALL_CPUS",
    }
    if zstd:
        # Level 3 takes twice as long, GDAL's own 9 six times, and both gain next to nothing.
        options["LEVEL" if fmt == "cog" else "ZSTD_LEVEL"] = "1"
    if fmt == "cog":
        options |= {
            "BLOCKSIZE": str(BLOCK_HR_PX), "PREDICTOR": "YES", "OVERVIEW_RESAMPLING": "AVERAGE",
        }  # fmt: skip
        return options
    block = {"BLOCKXSIZE": str(BLOCK_HR_PX), "BLOCKYSIZE": str(BLOCK_HR_PX)}
    return options | {"TILED": "YES", "PREDICTOR": predictor(header.dtype), **block}


def predictor(dtype: np.dtype[np.generic]) -> str:
    """TIFF predictor for a type: differences, by bytes for floating point."""
    return "3" if dtype.kind == "f" else "2"


def best_compression() -> str:
    """ZSTD where this GDAL was built with it, else DEFLATE."""
    profile = {"driver": "GTiff", "width": 1, "height": 1, "count": 1, "dtype": "uint8"}
    try:
        with (
            MemoryFile() as memory,  # type: ignore[no-untyped-call]
            memory.open(**profile, compress="ZSTD", transform=Affine.scale(2)) as dataset,
        ):
            dataset.write(np.zeros((1, 1, 1), np.uint8))
    except (*GDAL_ERRORS, ValueError):
        return "DEFLATE"
    return "ZSTD"

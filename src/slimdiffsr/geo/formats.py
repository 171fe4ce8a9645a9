"""Output formats: what their files are called, what they hold, and how they are written."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from rasterio.drivers import raster_driver_extensions

from slimdiffsr.errors import OutputError
from slimdiffsr.geo.header import Header
from slimdiffsr.geo.spec import BLOCK_HR_PX, OutputFormat

__all__ = [
    "DRIVERS",
    "check_creation_values",
    "check_format",
    "check_name",
    "creation_options",
    "format_of_name",
    "predictor",
]

DRIVERS = {"cog": "COG", "gtiff": "GTiff", "png": "PNG"}
_TIFF_NAMES, _PNG_NAMES = (".tif", ".tiff", ".gtiff", ".btf", ".tf8"), (".png",)
# Formats that this GDAL may lack, but that a name promises all the same.
_OTHER_NAMES = frozenset(
    [
        "bin",
        "bmp",
        "dt2",
        "ecw",
        "gif",
        "grb",
        "h5",
        "hdf",
        "hdf5",
        "he5",
        "img",
        "j2k",
        "jp2",
        "jpeg",
        "jpg",
        "jxl",
        "kmz",
        "las",
        "laz",
        "mbtiles",
        "nc",
        "nc4",
        "npy",
        "npz",
        "parquet",
        "pdf",
        "sid",
        "vrt",
        "webp",
        "xyz",
        "zarr",
        "zip",
    ]
)
MAX_BLOCK_HR_PX = 16_384
_BIG_BYTES = 3_000_000_000  # with overviews and poor compression, 4 GB is then in reach


def format_of_name(name: str) -> OutputFormat:
    """PNG where the name says so, else COG. Raises OutputError for the name of another format."""
    suffix = Path(name).suffix.lower()
    if suffix in _PNG_NAMES:
        return "png"
    if suffix[1:] in _OTHER_NAMES or (
        suffix not in _TIFF_NAMES and suffix[1:] in raster_driver_extensions()
    ):
        raise OutputError(
            f"the output is a GeoTIFF or a PNG, and {name} promises another format: "
            "name it .tif or .png, and convert it with gdal_translate"
        )
    return "cog"


def check_name(name: str, fmt: OutputFormat) -> None:
    """Raise OutputError when a file's name promises another format than it will have."""
    promised = format_of_name(name)
    if (promised == "png") != (fmt == "png") and Path(name).suffix.lower() in (
        *_TIFF_NAMES, *_PNG_NAMES,
    ):  # fmt: skip
        raise OutputError(f"the format {fmt} does not fit the name {name}: change one of them")


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


def creation_options(header: Header, fmt: OutputFormat, extra: Mapping[str, str]) -> dict[str, str]:
    """GDAL's creation options; ``extra`` ones win over ours."""
    own = _own_options(header, fmt)
    extra = {key.upper(): value for key, value in extra.items()}
    if fmt == "gtiff" and extra.get("COMPRESS", "").upper() == "ZSTD":
        own["ZSTD_LEVEL"] = "1"  # GDAL's own 9 takes six times as long
    if "NBITS" in extra:
        own.pop("PREDICTOR", None)  # GDAL has none for odd numbers of bits
    return {**own, **extra}


def check_creation_values(extra: Mapping[str, str]) -> None:
    """Raise OutputError for block sizes that GDAL would not refuse but end the process at."""
    for key in ("BLOCKSIZE", "BLOCKXSIZE", "BLOCKYSIZE"):
        value = {name.upper(): text for name, text in extra.items()}.get(key, "1")
        if not (value.isdecimal() and 1 <= int(value) <= MAX_BLOCK_HR_PX):
            raise OutputError(f"{key} must be pixels from 1 to {MAX_BLOCK_HR_PX}, got {value!r}")


def _own_options(header: Header, fmt: OutputFormat) -> dict[str, str]:
    if fmt == "png":
        return {"WORLDFILE": "YES"} if header.transform is not None else {}
    options = {
        "COPY_SRC_MDD": "YES" if header.has_namespaces else "AUTO",
        "COMPRESS": "DEFLATE",  # every tool opens it; ZSTD saves a few percent, not every one does
        "BIGTIFF": "YES" if header.bytes > _BIG_BYTES else "IF_SAFER",
        "NUM_THREADS": "ALL_CPUS",
    }
    # Higher levels take up to five times as long and gain a few percent.
    if fmt == "cog":
        return options | {
            "LEVEL": "1", "BLOCKSIZE": str(BLOCK_HR_PX), "PREDICTOR": "YES",
            "OVERVIEW_RESAMPLING": "AVERAGE",
        }  # fmt: skip
    block = {"BLOCKXSIZE": str(BLOCK_HR_PX), "BLOCKYSIZE": str(BLOCK_HR_PX)}
    return options | {
        "ZLEVEL": "1", "TILED": "YES", "PREDICTOR": predictor(header.dtype), **block,
    }  # fmt: skip


def predictor(dtype: np.dtype[np.generic]) -> str:
    """TIFF predictor for a type: differences, by bytes for floating point."""
    return "3" if dtype.kind == "f" else "2"

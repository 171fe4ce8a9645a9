"""How the blocks of a GeoTIFF are compressed: alike in chunks and in the output."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import rasterio
from affine import Affine
from rasterio.enums import ColorInterp, Resampling
from rasterio.io import MemoryFile

from slimdiffsr.geo.formats import predictor
from slimdiffsr.geo.header import Header
from slimdiffsr.geo.spec import BLOCK_HR_PX

__all__ = [
    "are_joined",
    "block_profile",
    "build_overviews",
    "chunk_factors",
    "reduced",
    "set_colours",
]

# Beyond that the bands of a block are kept apart: together a row of blocks would not fit into
# GDAL's cache.
_ROW_BYTES = 32_000_000
_ROW_HR_PX = 2048


def are_joined(header: Header) -> bool:
    """Whether the bands of a block lie together, as in the output, and not each on its own."""
    row_px = min(_ROW_HR_PX, header.region_hr.width) * BLOCK_HR_PX
    return row_px * len(header.bands) * header.dtype.itemsize <= _ROW_BYTES


def block_profile(header: Header) -> dict[str, Any]:
    """rasterio's profile for the output's blocks."""
    # Every tool opens DEFLATE; higher levels take up to five times as long for a few percent.
    return {
        "tiled": True, "blockxsize": BLOCK_HR_PX, "blockysize": BLOCK_HR_PX,
        "interleave": "pixel" if are_joined(header) else "band",
        "compress": "deflate", "zlevel": 1, "predictor": predictor(header.dtype),
    }  # fmt: skip


def set_colours(dataset: Any, header: Header) -> None:  # noqa: ANN401
    """Say which band is transparency: averages leave out what it hides."""
    if any(band.colour == "alpha" for band in header.bands):
        dataset.colorinterp = [ColorInterp[band.colour] for band in header.bands]


def chunk_factors(header: Header, chunk_hr_px: int) -> list[int]:
    """The output's overviews, as factors, that chunks have: those made of whole chunks' blocks."""
    longest_hr_px = max(header.region_hr.width, header.region_hr.height)
    factors: list[int] = []
    if not are_joined(header):
        return factors
    factor = 2
    while chunk_hr_px % (factor * BLOCK_HR_PX) == 0 and 2 * longest_hr_px > factor * BLOCK_HR_PX:
        factors.append(factor)
        factor *= 2
    return factors


def reduced(
    dataset: Any,  # noqa: ANN401
    header: Header,
    factor: int,
    **more: Any,  # noqa: ANN401
) -> MemoryFile:
    """An overview of an open raster, as a file in memory; averages leave out empty pixels.

    more: of rasterio's profile. Unlike GDAL's own building of overviews it leaves other threads
    alone.
    """
    height, width = -(-dataset.height // factor), -(-dataset.width // factor)
    shape = (dataset.count, height, width)
    pixels = dataset.read(out_shape=shape, resampling=Resampling.average)
    profile = {
        "driver": "GTiff", "width": width, "height": height, "count": dataset.count,
        "dtype": header.dtype.name, "nodata": header.nodata, "transform": Affine.scale(2),
        "bigtiff": "IF_SAFER", "photometric": "MINISBLACK", **block_profile(header), **more,
    }  # fmt: skip
    memory = MemoryFile(ext=".tif")  # type: ignore[no-untyped-call]
    with memory.open(**profile) as small:
        set_colours(small, header)
        small.write(pixels)
        if header.has_mask:
            small.write_mask(
                dataset.read_masks(1, out_shape=shape[1:], resampling=Resampling.average) > 0
            )
    return memory


def build_overviews(path: Path, header: Header, factors: Sequence[int]) -> None:
    """Add overviews to a file of any size, their blocks as its own, as ``reduced`` makes them."""
    settings = {
        "COMPRESS_OVERVIEW": "DEFLATE", "PREDICTOR_OVERVIEW": predictor(header.dtype),
        "ZLEVEL_OVERVIEW": "1", "INTERLEAVE_OVERVIEW": "PIXEL",
        "GDAL_TIFF_OVR_BLOCKSIZE": str(BLOCK_HR_PX), "GDAL_TIFF_INTERNAL_MASK": True,
        "GDAL_NUM_THREADS": "ALL_CPUS",
    }  # fmt: skip
    with (
        rasterio.Env(**settings),  # type: ignore[no-untyped-call]
        rasterio.open(path, "r+") as dataset,
    ):
        dataset.build_overviews(list(factors), Resampling.average)

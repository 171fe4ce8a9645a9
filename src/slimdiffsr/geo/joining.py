"""From finished chunks to a GeoTIFF without compressing anything again: their blocks, laid together.

Chunks hold compressed blocks of the output's own size, and overviews as far as a chunk's blocks
are blocks of those too. GDAL writes a small file of the same kind, whose directories (everything a
GeoTIFF says of itself) the output takes over, and the few overviews beyond those of the chunks.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import rasterio.shutil
from affine import Affine
from numpy.typing import NDArray
from rasterio.windows import Window

from slimdiffsr.geo import tiff
from slimdiffsr.geo.band_tags import arrive, must_travel
from slimdiffsr.geo.blocks import block_profile, build_overviews, set_colours
from slimdiffsr.geo.chunks import levels_of
from slimdiffsr.geo.formats import DRIVERS
from slimdiffsr.geo.grid import Region
from slimdiffsr.geo.header import Header
from slimdiffsr.geo.raster import open_quietly
from slimdiffsr.geo.spec import BLOCK_HR_PX, OutputFormat
from slimdiffsr.geo.tiff import BlockSource, Directory
from slimdiffsr.geo.vrt import vrt_xml

__all__ = ["join_chunks"]

_SAMPLE_HR_PX = 2 * BLOCK_HR_PX  # large enough for one overview
_CLASSIC_BYTES = 4_000_000_000  # more than that needs offsets of eight bytes
# Tags that say how a block is read: bits, compression, planes, predictor, size, kinds of bands.
_SAME = (258, 259, 277, 284, 317, tiff.TILE_WIDTH, tiff.TILE_HEIGHT, 339)
_AT_ONCE = 64  # chunks whose overviews are held in memory
_THREADS = min(16, os.cpu_count() or 1)


@dataclass(frozen=True, slots=True)
class _Level:
    """The image, or an overview of it, with its mask where there is one."""

    width: int
    height: int
    images: tuple[Directory, ...]  # as a source file has them: the image, its mask
    blocks: tuple[list[BlockSource], ...]  # of each, row by row


def join_chunks(
    header: Header,
    options: Mapping[str, str],
    fmt: OutputFormat,
    chunks: Sequence[tuple[Path, Region]],
    dst: Path,
) -> bool:
    """Write a GeoTIFF or COG of chunks that are written with ``blocks.block_profile``.

    options: GDAL's creation options. Returns False, and writes nothing, when this GDAL would write
    blocks of another kind into the output. Raises OSError, and GDAL's errors.
    """
    tail, sample = (dst.with_name(f"{dst.name}.{name}.tif") for name in ("tail", "sample"))
    try:
        levels = _levels_of_chunks(header, chunks)
        levels = _with_tail(header, chunks, levels, tail) if fmt == "cog" else levels[:1]
        forms, between = _sample(header, options, fmt, sample)
        directories = _directories(levels, forms)
        if directories is None:
            return False
        _write(dst, levels, directories, between)
    finally:
        for path in (tail, sample):
            with suppress(OSError):
                path.unlink(missing_ok=True)
    return True


def _levels_of_chunks(header: Header, chunks: Sequence[tuple[Path, Region]]) -> list[_Level]:
    with ThreadPoolExecutor(_THREADS) as threads:
        files = list(threads.map(_levels_of_chunk, [path for path, _ in chunks]))
    joined = []
    for k in range(min(len(levels) for levels in files)):
        parts = [
            (levels[k], *_place(region, header, k))
            for levels, (_, region) in zip(files, chunks, strict=True)
        ]
        joined.append(_joined(parts))
    return joined


def _place(chunk_hr: Region, header: Header, level: int) -> tuple[int, int]:
    """Column and row of a chunk in an overview of the output."""
    region_hr = header.region_hr
    return (chunk_hr.col - region_hr.col) >> level, (chunk_hr.row - region_hr.row) >> level


def _joined(parts: Sequence[tuple[_Level, int, int]]) -> _Level:
    """One level of the output from that of its parts, each with its column and row there."""
    width = max(col + level.width for level, col, _ in parts)
    height = max(row + level.height for level, _, row in parts)
    columns = -(-width // BLOCK_HR_PX)
    count = columns * -(-height // BLOCK_HR_PX)
    images = parts[0][0].images
    blocks: tuple[list[BlockSource], ...] = tuple([BlockSource("", 0, 0)] * count for _ in images)
    for level, col, row in parts:
        across = -(-level.width // BLOCK_HR_PX)
        first = row // BLOCK_HR_PX * columns + col // BLOCK_HR_PX
        for own, all_blocks in zip(level.blocks, blocks, strict=True):
            for k, block in enumerate(own):
                all_blocks[first + k // across * columns + k % across] = block
    return _Level(width, height, images, blocks)


def _levels_of_chunk(path: Path) -> list[_Level]:
    """The image in a chunk's file and its overviews, largest first."""
    return [_levels_of_file(path, base)[0] for base, _ in levels_of(path)]


def _levels_of_file(path: Path, base: int = 0) -> list[_Level]:
    """The image in a GeoTIFF that begins somewhere in a file, and its overviews, largest first."""
    with path.open("rb") as file:
        directories, _ = tiff.read_directories(file, base)
    kinds = (
        [one for one in directories if not tiff.is_mask(one)],
        [one for one in directories if tiff.is_mask(one)],
    )
    levels = []
    for images in zip(*(kind for kind in kinds if kind), strict=True):
        width, height = (tiff.number(images[0], tag) for tag in (tiff.WIDTH, tiff.HEIGHT))
        blocks = tuple(tiff.blocks(one, str(path), base) for one in images)
        levels.append(_Level(width, height, images, blocks))
    return levels


def _with_tail(
    header: Header, chunks: Sequence[tuple[Path, Region]], levels: list[_Level], path: Path
) -> list[_Level]:
    """All levels: the chunks' own, and those that are smaller still from a new file."""
    last, count = levels[-1], len(levels)
    factors: list[int] = []
    while max(last.width, last.height) > BLOCK_HR_PX << len(factors):
        factors.append(2 << len(factors))
    if not factors:
        return levels
    profile = {
        "driver": "GTiff", "width": last.width, "height": last.height,
        "count": len(header.bands), "dtype": header.dtype.name, "nodata": header.nodata,
        "transform": Affine.scale(2), "bigtiff": "IF_SAFER", **block_profile(header),
    }  # fmt: skip
    with (
        ThreadPoolExecutor(_THREADS) as threads,
        rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True),  # type: ignore[no-untyped-call]
        rasterio.open(path, "w", num_threads="all_cpus", **profile) as dataset,
    ):
        set_colours(dataset, header)
        for first in range(0, len(chunks), _AT_ONCE):
            some = chunks[first : first + _AT_ONCE]
            parts = threads.map(lambda chunk: _read_level(chunk[0], header, count), some)
            for (_, region_hr), (pixels, mask) in zip(some, parts, strict=True):
                col, row = _place(region_hr, header, count - 1)
                window = Window(col, row, pixels.shape[2], pixels.shape[1])
                dataset.write(pixels, window=window)
                if mask is not None:
                    dataset.write_mask(mask, window=window)
    build_overviews(path, header, factors)
    # Of the last level itself the chunks' blocks serve: those of the new file are the same.
    return [*levels, *_levels_of_file(path)[1:]]


def _read_level(
    chunk: Path, header: Header, levels: int
) -> tuple[NDArray[Any], NDArray[np.uint8] | None]:
    """A chunk's last overview, or without any itself, and its mask."""
    offset, size = levels_of(chunk)[levels - 1]
    with open_quietly(f"/vsisubfile/{offset}_{size},{chunk}") as part:
        return part.read(), part.read_masks(1) if header.has_mask else None


def _sample(
    header: Header, options: Mapping[str, str], fmt: OutputFormat, path: Path
) -> tuple[list[Directory], bytes]:
    """The directories of a small file of the same kind, and what stands before them."""
    small = replace(
        header, region_hr=replace(header.region_hr, width=_SAMPLE_HR_PX, height=_SAMPLE_HR_PX)
    )
    vrt = path.with_suffix(".vrt")
    travel = must_travel(header, options)
    vrt.write_text(vrt_xml(small, [], tags_travel=travel), encoding="utf-8")
    try:
        rasterio.shutil.copy(
            str(vrt), str(path), driver=DRIVERS[fmt], strict=False, **{**options, "BIGTIFF": "NO"}
        )
    finally:
        vrt.unlink()
    if travel:
        arrive(path)
    with path.open("rb") as file:
        return tiff.read_directories(file)


def _directories(levels: list[_Level], forms: list[Directory]) -> list[list[Directory]] | None:
    """Of each level, the directories of its image and mask; None where blocks would be misread."""
    found = []
    for k, level in enumerate(levels):
        fitting = [form for form in forms if tiff.is_reduced(form) == (k > 0)]
        fitting = sorted(fitting, key=tiff.is_mask)
        if len(fitting) != len(level.images):
            return None
        for form, own in zip(fitting, level.images, strict=True):
            if any(_value(form, tag) != _value(own, tag) for tag in _SAME):
                return None
        found.append([tiff.sized(form, level.width, level.height) for form in fitting])
    return found


def _value(directory: Directory, tag: int) -> bytes | None:
    field = directory.get(tag)
    if field is not None and tag in (tiff.TILE_WIDTH, tiff.TILE_HEIGHT):
        return str(tiff.number(directory, tag)).encode()  # a short or a long
    return None if field is None else field.data


def _write(
    dst: Path, levels: list[_Level], directories: list[list[Directory]], between: bytes
) -> None:
    """The file: directories first, then blocks, those of the smallest overview first."""
    # As the text between header and directories promises: each block after its size, and its last
    # four bytes once more; a mask's block after that of the image.
    framed = b"BLOCK_LEADER=SIZE_AS_UINT4" in between
    sizes = sum(block.size + 8 for level in levels for some in level.blocks for block in some)
    big = sizes + sum(32 * len(some) for level in levels for some in level.blocks) > _CLASSIC_BYTES
    at = [[[0] * len(some) for some in level.blocks] for level in levels]
    end = len(_encoded(levels, directories, at, between, big))
    copies: list[tuple[BlockSource, int]] = []
    for k in reversed(range(len(levels))):
        for number in range(len(levels[k].blocks[0])):
            for which, some in enumerate(levels[k].blocks):
                block = some[number]
                if block.size == 0:
                    continue
                at[k][which][number] = end + 4 * framed
                copies.append((block, end))
                end += block.size + 8 * framed
    with dst.open("wb") as file:
        file.write(_encoded(levels, directories, at, between, big))
        file.truncate(end)
    copies.sort(key=lambda copy: copy[0].path)
    groups = [list(group) for _, group in groupby(copies, key=lambda copy: copy[0].path)]
    with ThreadPoolExecutor(_THREADS) as threads:
        list(threads.map(lambda group: _copy(group, dst, framed), groups))


def _encoded(
    levels: list[_Level],
    directories: list[list[Directory]],
    at: list[list[list[int]]],
    between: bytes,
    big: bool,
) -> bytes:
    placed = [
        tiff.placed(directory, offsets, [block.size for block in some])
        for level, own, places in zip(levels, directories, at, strict=True)
        for directory, offsets, some in zip(own, places, level.blocks, strict=True)
    ]
    return tiff.encode(placed, between, big)


def _copy(group: list[tuple[BlockSource, int]], dst: Path, framed: bool) -> None:
    with open(group[0][0].path, "rb") as source, dst.open("r+b") as file:
        for block, at in group:
            source.seek(block.offset)
            data = source.read(block.size)
            if len(data) != block.size:
                raise OSError(f"{block.path} was cut off while it was read")
            file.seek(at)
            file.write(struct.pack("<I", block.size) + data + data[-4:] if framed else data)

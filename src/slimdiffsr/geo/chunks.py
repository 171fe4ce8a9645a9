"""The store of finished chunks: each a file that appears whole, and proves itself, or not at all.

A chunk's name holds the key of its job, and its last bytes are a checksum of that name and of all
that stands before them. It is done when it is there and the checksum is right: nothing else is
asked, no list is kept, no lock is needed. Any number of processes may write chunks of one job at
the same time, also the same chunk.
"""

from __future__ import annotations

import hashlib
import os
import struct
import uuid
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import IO, Any, Protocol

import numpy as np
from affine import Affine
from numpy.typing import NDArray
from rasterio.io import MemoryFile
from rasterio.windows import Window

from slimdiffsr.geo.blocks import are_joined, block_profile, reduced, set_colours
from slimdiffsr.geo.failures import WRITE_ERRORS, output_error
from slimdiffsr.geo.georef import shifted
from slimdiffsr.geo.grid import Region
from slimdiffsr.geo.header import Header
from slimdiffsr.geo.inputs import Inputs

__all__ = ["ChunkStore", "Store", "Stripe", "levels_of"]

_SEAL = b"slimdiffsr chunk"  # stands before the checksum; GDAL reads no further than the TIFF
_SEAL_BYTES = len(_SEAL) + 32  # SHA-256
_COUNT_BYTES = 8


@dataclass(frozen=True, slots=True)
class Stripe:
    """Rows of one band of a chunk (band 0: its mask), ready to be written."""

    band: int
    row_hr_px: int  # inside the chunk
    pixels: NDArray[Any]  # (h, w)


class Store(Protocol):
    """Where finished chunks go: a folder here, or objects elsewhere. Can be handed to a process."""

    @property
    def key(self) -> str:
        """Of the job that the chunks are of."""
        ...

    @property
    def inputs(self) -> Inputs:
        """What the chunks are made from."""
        ...

    def write(
        self,
        region_hr: Region,
        header: Header,
        stripes: Iterator[Stripe],
        factors: Sequence[int] = (),
    ) -> None:
        """Take a chunk; it is there whole afterwards, or not at all."""
        ...


@dataclass(frozen=True, slots=True)
class ChunkStore:
    """The chunks of one job in a folder. Can be handed to another process.

    key: of the job, as ``partial.job_key`` makes it. inputs: what chunks are made from; no chunk
    is kept that was made after they changed.
    """

    path: Path
    key: str
    inputs: Inputs

    def chunk_path(self, region_hr: Region) -> Path:
        """File of the chunk that begins at a place of the output grid."""
        return self.path / f"chunk-{self.key}-{region_hr.row:07d}-{region_hr.col:07d}.tif"

    def is_done(self, region_hr: Region) -> bool:
        """Whether a chunk is there and as it was written; a damaged one is deleted.

        Raises OutputError when it can neither be read nor deleted.
        """
        path = self.chunk_path(region_hr)
        try:
            with path.open("rb") as file:
                if _is_sealed(file, path.name):
                    return True
            path.unlink(missing_ok=True)
        except FileNotFoundError:
            pass
        except OSError as error:
            raise output_error(path, error) from None
        return False

    def write(
        self,
        region_hr: Region,
        header: Header,
        stripes: Iterator[Stripe],
        factors: Sequence[int] = (),
    ) -> None:
        """Write a chunk, sealed, under a temporary name, and give it its own.

        factors: of its overviews; see ``blocks.chunk_factors``. Raises DiskFullError or
        OutputError, or RasterError when the input has changed; the chunk is then not there.
        """
        path = self.chunk_path(region_hr)
        temporary = path.with_name(f"{path.name}.{uuid.uuid4().hex[:8]}.tmp")
        try:
            # In memory first: GDAL is silent about some blocks that find no room on a disk.
            with ExitStack() as stack:
                images = [stack.enter_context(MemoryFile(ext=".tif"))]  # type: ignore[no-untyped-call]
                with images[0].open(**_profile(region_hr, header)) as dataset:
                    _write_pixels(dataset, header, stripes)
                with images[0].open() as dataset:
                    for factor in factors:
                        images.append(stack.enter_context(reduced(dataset, header, factor)))
                self.inputs.check_unchanged()
                _save(temporary, [image.getbuffer() for image in images], path.name)
            temporary.replace(path)
            sync(self.path)
        except WRITE_ERRORS as error:
            raise output_error(path, error) from None
        finally:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)

    def count(self) -> int:
        """Number of chunks that are there, whole or not."""
        try:
            return sum(1 for _ in self.path.glob(f"chunk-{self.key}-*.tif"))
        except OSError:
            return 0


def _write_pixels(dataset: Any, header: Header, stripes: Iterator[Stripe]) -> None:  # noqa: ANN401
    set_colours(dataset, header)
    joined = are_joined(header)
    for row, some in groupby(stripes, key=lambda stripe: stripe.row_hr_px):
        bands = []
        for stripe in some:
            window = Window(0, row, stripe.pixels.shape[1], stripe.pixels.shape[0])
            if stripe.band == 0:
                dataset.write_mask(stripe.pixels, window=window)
            elif joined:
                bands.append(stripe)
            else:
                dataset.write(stripe.pixels, stripe.band, window=window)
        if bands:  # that share their blocks
            pixels = np.stack([stripe.pixels for stripe in bands])
            dataset.write(pixels, [stripe.band for stripe in bands], window=window)


def _save(path: Path, images: Sequence[memoryview], name: str) -> None:
    """The one place where pixels go to disk: the image, its overviews, their sizes, the seal."""
    sizes = struct.pack(f"<{len(images)}QQ", *(len(image) for image in images), len(images))
    # The seal is of the name too: two chunks that were swapped are both wrong.
    digest = hashlib.sha256(name.encode())
    with path.open("xb") as file:
        for part in [*images, memoryview(sizes)]:
            digest.update(part)
            file.write(part)
        file.write(_SEAL + digest.digest())
        file.flush()
        os.fsync(file.fileno())


def levels_of(path: Path) -> list[tuple[int, int]]:
    """Where in a chunk's file its image and its overviews lie: offset and size of each."""
    with path.open("rb") as file:
        end = os.fstat(file.fileno()).st_size - _SEAL_BYTES - _COUNT_BYTES
        file.seek(end)
        (count,) = struct.unpack("<Q", file.read(_COUNT_BYTES))
        file.seek(end - count * _COUNT_BYTES)
        sizes = struct.unpack(f"<{count}Q", file.read(count * _COUNT_BYTES))
    return [(sum(sizes[:k]), size) for k, size in enumerate(sizes)]


def _is_sealed(file: IO[bytes], name: str) -> bool:
    length = os.fstat(file.fileno()).st_size - _SEAL_BYTES
    if length < 0:
        return False
    wanted = _SEAL + _checksum(file, name, length)
    return file.read() == wanted


def _checksum(file: IO[bytes], name: str, length: int) -> bytes:
    digest = hashlib.sha256(name.encode())
    file.seek(0)
    left = length
    while left > 0 and (block := file.read(min(left, 1 << 20))):
        digest.update(block)
        left -= len(block)
    return digest.digest()


def _profile(region_hr: Region, header: Header) -> dict[str, Any]:
    # Without map coordinates pixels count downwards from 0, in halves: GDAL takes the identity and
    # its mirror image for "no transform" and warns.
    base = header.transform
    if base is None or base in (Affine.identity(), Affine.scale(1, -1)):
        base = Affine.scale(0.5, -0.5)
    return {
        "driver": "GTiff",
        "width": region_hr.width,
        "height": region_hr.height,
        "count": len(header.bands),
        "dtype": header.dtype.name,
        "crs": header.crs,
        "transform": shifted(
            base, region_hr.col - header.region_hr.col, region_hr.row - header.region_hr.row
        ),
        "nodata": header.nodata,
        "photometric": "MINISBLACK",
        "bigtiff": "IF_SAFER",
        **block_profile(header),
    }


def sync(path: Path) -> None:
    """Wait until a file, or a folder's list of files, is on the disk."""
    try:
        handle = os.open(path, os.O_RDONLY)
    except PermissionError:  # Windows opens no folders
        return
    try:
        os.fsync(handle)
    finally:
        os.close(handle)

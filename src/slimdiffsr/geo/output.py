"""From finished chunks to the output file: a VRT over them, copied by GDAL, and read back."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import rasterio.shutil
from affine import Affine
from numpy.typing import NDArray
from rasterio.io import MemoryFile

from slimdiffsr.errors import OutputError, RasterError
from slimdiffsr.geo.band_tags import arrive, must_travel
from slimdiffsr.geo.failures import UNREADABLE, WRITE_ERRORS, first_line, output_error
from slimdiffsr.geo.fidelity import Fidelity, compare
from slimdiffsr.geo.formats import DRIVERS, check_creation_values, creation_options
from slimdiffsr.geo.grid import Region
from slimdiffsr.geo.header import Header
from slimdiffsr.geo.raster import GDAL_ERRORS, open_quietly
from slimdiffsr.geo.spec import OutputFormat
from slimdiffsr.geo.vrt import vrt_xml

__all__ = ["Writing", "check_opens", "copy_to_format", "settle_writing"]

_TRIAL_HR_PX = 64
_TRIAL_TOP = 4000.0  # fits 12 bits, which some files are limited to


@dataclass(frozen=True, slots=True)
class Writing:
    """How the output is written, tried out on a small picture."""

    format: OutputFormat
    options: Mapping[str, str]  # GDAL's creation options
    asked: str  # those of the user, for messages
    exact: bool = True  # nothing is lost in compression
    nodata_as_mask: bool = False  # values change, so that nodata would not stay what it is


def settle_writing(header: Header, fmt: OutputFormat, extra: Mapping[str, str]) -> Writing:
    """Try the user's creation options out before any work is done.

    Raises OutputError when GDAL refuses them, when what it writes is not what was to be written,
    and when empty pixels would become valid in a way that no mask can mend.
    """
    check_creation_values(extra)
    asked = ", ".join(f"{key}={value}" for key, value in extra.items())
    writing = Writing(fmt, creation_options(header, fmt, extra), asked)
    if not extra and fmt != "png":
        return writing
    found = _trial(header, writing)
    if found.close and not found.empty and header.nodata is not None and not header.has_mask:
        writing = replace(writing, nodata_as_mask=True)
        found = _trial(header, writing)
    with_options = f"{fmt} with the creation options {asked}" if asked else fmt
    if not found.close:
        raise OutputError(
            f"{with_options} does not give back {header.dtype} pixels as "
            "they were written: leave the options out or choose others"
        )
    if not found.empty:
        raise OutputError(
            f"{with_options} would make empty pixels valid: choose a "
            "lossless compression, as DEFLATE, or another format"
        )
    return replace(writing, exact=found.exact)


def _trial(header: Header, writing: Writing) -> Fidelity:
    """What becomes of a small picture that is empty in its left third."""
    where = replace(header.region_hr, width=_TRIAL_HR_PX, height=_TRIAL_HR_PX)
    small = replace(header, region_hr=where)
    name = f"/vsimem/slimdiffsr-{uuid.uuid4().hex}"
    profile = {
        "driver": "GTiff", "transform": Affine.scale(2), "width": _TRIAL_HR_PX,
        "height": _TRIAL_HR_PX, "count": len(header.bands), "dtype": header.dtype.name,
        "nodata": header.nodata,
    }  # fmt: skip
    try:
        with (
            rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True),  # type: ignore[no-untyped-call]
            MemoryFile(filename=f"{name[8:]}.tif") as memory,  # type: ignore[no-untyped-call]
        ):
            with memory.open(**profile) as dataset:
                dataset.write(_trial_picture(header))
                if header.has_mask:
                    dataset.write_mask(_trial_valid().astype(np.uint8) * 255)
            vrt = vrt_xml(small, [(memory.name, where)], nodata_as_mask=writing.nodata_as_mask)
            with (
                _warnings() as warned,
                MemoryFile(vrt.encode(), filename=f"{name[8:]}.vrt") as over,  # type: ignore[no-untyped-call]
            ):
                _copy(over.name, f"{name}.out", writing)
            try:
                with open_quietly(f"{name}.out") as dataset, memory.open() as chunk:
                    found = compare(dataset, chunk, where, small, writing.options)
            finally:
                rasterio.shutil.delete(f"{name}.out", driver=DRIVERS[writing.format])
        # An option or value that GDAL does not know is passed over with a warning.
        wrong = next((said for said in warned if "creation option" in said), "")
    except (*WRITE_ERRORS, RasterError, ValueError) as error:
        wrong = first_line(error)
    if wrong:
        raise OutputError(
            f"GDAL refuses the creation options {writing.asked} for {writing.format}: {wrong}"
        )
    return found


def _trial_valid() -> NDArray[np.bool_]:
    valid = np.ones((_TRIAL_HR_PX, _TRIAL_HR_PX), np.bool_)
    valid[:, : _TRIAL_HR_PX // 3] = False
    return valid


def _trial_picture(header: Header) -> NDArray[Any]:
    top = _TRIAL_TOP if header.dtype.kind == "f" else min(_TRIAL_TOP, np.iinfo(header.dtype).max)
    rows, cols = np.mgrid[:_TRIAL_HR_PX, :_TRIAL_HR_PX] / _TRIAL_HR_PX
    bands = [
        top * (0.5 + 0.3 * np.sin(7 * rows + k) * np.cos(5 * cols))
        for k in range(len(header.bands))
    ]
    picture = np.stack(bands).astype(header.dtype)
    picture += (picture == header.nodata).astype(header.dtype)
    for band, pixels in zip(header.bands, picture, strict=True):
        if band.colour == "alpha":
            pixels[...] = np.where(_trial_valid(), top, 0)
        elif header.nodata is not None:
            pixels[~_trial_valid()] = header.nodata
    return picture


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


def _copy(src: str, dst: str, writing: Writing) -> None:
    # Else GDAL compresses the overviews twice, the first time at a high level.
    with rasterio.Env(COG_TMP_COMPRESSION="NONE"):  # type: ignore[no-untyped-call]
        rasterio.shutil.copy(
            src, dst, driver=DRIVERS[writing.format], strict=False, **writing.options
        )


def copy_to_format(
    vrt: Path, dst: Path, header: Header, writing: Writing, chunks: Iterable[tuple[str, Region]]
) -> None:
    """Copy the VRT into a new file, and hold what can be read of it against the chunks.

    chunks: names beside the VRT, and their places. Raises DiskFullError or OutputError.
    """
    try:
        _copy(str(vrt), str(dst), writing)
        if must_travel(header, writing.options):
            arrive(dst)
        _check_written(vrt, dst, header, writing, chunks)
    except RasterError:  # of the file just written: GDAL was silent about a disk without room
        raise output_error(dst, OSError(UNREADABLE)) from None
    except (*WRITE_ERRORS, ValueError) as error:
        raise output_error(dst, error) from None


def check_opens(dst: Path) -> None:
    """Raise OSError unless GDAL reads the smallest version of a file of blocks known to be good."""
    with open_quietly(str(dst)) as dataset:
        level = len(dataset.overviews(1)) - 1
    options: dict[str, Any] = {"overview_level": level} if level >= 0 else {}
    with open_quietly(str(dst), **options) as dataset:
        _read_all(dataset)


def _check_written(
    vrt: Path, dst: Path, header: Header, writing: Writing, chunks: Iterable[tuple[str, Region]]
) -> None:
    found = Fidelity()
    with open_quietly(str(dst)) as dataset:
        levels = range(len(dataset.overviews(1)))
        for name, chunk_hr in chunks:
            with open_quietly(str(vrt.with_name(name))) as chunk:
                found &= compare(dataset, chunk, chunk_hr, header, writing.options)
            if not (found.exact if writing.exact else found.close):
                raise _not_as_written(dst, writing)
    for level in levels:
        with open_quietly(str(dst), overview_level=level) as dataset:
            _read_all(dataset)
    if not found.empty:
        raise OutputError(
            "some pixels are empty in one band and not in another, which one mask for all cannot "
            "hold: run the same command with a lossless compression; finished chunks are kept"
        )


def _not_as_written(dst: Path, writing: Writing) -> Exception:
    if not writing.asked:
        return OSError(UNREADABLE)
    return OutputError(
        f"{dst.name} does not hold the values that were to be written, perhaps because of the "
        f"creation options {writing.asked}: run the same command without them; finished chunks "
        "are kept"
    )


def _read_all(dataset: Any) -> None:  # noqa: ANN401
    # GDAL is silent about some blocks that found no room on the disk.
    for _, window in dataset.block_windows(1):
        try:
            dataset.read(window=window)
        except GDAL_ERRORS:
            raise OSError(UNREADABLE) from None

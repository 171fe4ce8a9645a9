"""The place of the output: may we write there, and putting the finished file there."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from slimdiffsr.errors import DiskFullError, OutputError
from slimdiffsr.geo.band_tags import must_travel
from slimdiffsr.geo.blocks import are_joined
from slimdiffsr.geo.chunks import ChunkStore, sync
from slimdiffsr.geo.failures import WRITE_ERRORS, free_bytes, output_error
from slimdiffsr.geo.formats import check_name
from slimdiffsr.geo.grid import Region
from slimdiffsr.geo.inputs import Inputs
from slimdiffsr.geo.job import Job
from slimdiffsr.geo.joining import join_chunks
from slimdiffsr.geo.mosaic import write_mosaic
from slimdiffsr.geo.output import check_opens, copy_to_format
from slimdiffsr.geo.partial import PartialFolder
from slimdiffsr.geo.sidefiles import check_side_files, stale_side_files
from slimdiffsr.geo.spec import SceneOptions

__all__ = ["assemble", "check_destination", "check_space", "partial_path"]

# Only empty blocks take no room among the chunks; few scenes are emptier than this.
_HOPELESS = 0.1
_LONGEST_NAME = 255 - len(".sample.tif.msk.ovr.tmp")  # the longest ending, in bytes


def partial_path(dst: Path) -> Path:
    """The folder beside the output that holds the finished chunks of a run."""
    return dst.with_name(dst.name + ".partial")


def check_destination(src: str, dst: Path, options: SceneOptions) -> None:
    """Raise OutputError when the output would destroy something or cannot be written."""
    text = os.fspath(dst)
    if "://" in text or text.startswith(("/vsi", "s3:/", "gs:/", "http:/", "https:/")):
        raise OutputError(f"the output must be a local file, got {text}: copy it there afterwards")
    _check_spelling(dst)
    check_name(dst.name, options.format)
    try:
        _check_place(src, dst, options.overwrite)
    except OSError as error:
        raise OutputError(f"the output {dst} cannot be looked at: {error.strerror}") from None


def _check_spelling(dst: Path) -> None:
    name = dst.name
    if not name or "\0" in str(dst):
        raise OutputError(f"the output needs a file name, got {str(dst)!r}")
    try:
        length = len(name.encode())
        str(dst).encode()
    except UnicodeEncodeError:
        raise OutputError(
            f"the output's name is not UTF-8, which GDAL needs: {str(dst)!a}; choose another"
        ) from None
    if length > _LONGEST_NAME:
        raise OutputError(
            f"the output's name has {length} bytes, and {_LONGEST_NAME} are what a file system "
            f"leaves beside the endings of temporary files: choose a shorter name than {name}"
        )


def _check_place(src: str, dst: Path, overwrite: bool) -> None:
    if dst.is_dir():
        raise OutputError(f"the output {dst} is a folder: give a file name")
    if dst.exists() and not dst.is_file():
        raise OutputError(f"the output {dst} is a device or a pipe: give the name of a file")
    if _same_file(src, dst):
        raise OutputError(f"the output {dst} is the input itself: choose another name")
    if os.path.lexists(dst) and not overwrite:
        raise OutputError(f"{dst} exists already: choose another name or allow overwriting")
    folder = dst.absolute().parent
    if not folder.is_dir():
        raise OutputError(f"the folder {folder} does not exist: make it first")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise OutputError(f"the folder {folder} cannot be written to")


def _same_file(src: str, dst: Path) -> bool:
    try:
        return os.path.samefile(src, dst)
    except (OSError, ValueError):
        return False


def check_space(job: Job, dst: Path, bytes_done: int) -> str:
    """Raise DiskFullError when the disk is far too small; a warning when it may be, else ""."""
    free = free_bytes(dst)
    needed = job.header.bytes - bytes_done
    if free < _HOPELESS * needed:
        raise DiskFullError(
            f"the output holds {job.header.bytes / 1e9:.1f} GB of pixels and the disk of "
            f"{dst.absolute().parent} has {free / 1e9:.1f} GB free: make room or choose another"
        )
    if free < 2 * needed:
        return (
            f"The disk may fill up: {free / 1e9:.1f} GB are free, and the run may need "
            f"{2 * needed / 1e9:.1f} GB while it works."
        )
    return ""


def assemble(job: Job, folder: PartialFolder, dst: Path) -> None:
    """Make the output from the finished chunks; it appears whole, or not at all.

    Raises DiskFullError or OutputError, and RasterError when the input has changed.
    """
    store = folder.chunks
    try:
        for chunk_hr in job.chunks():
            store.chunk_path(job.written(chunk_hr)).stat()
        final = folder.scratch("final")
        _write(job, folder, final / dst.name)
        store.inputs.check_unchanged(thoroughly=True)
        _move(final, dst, job.options.overwrite, store.inputs)
    except OSError as error:
        raise output_error(dst, error) from None


def _sources(job: Job, store: ChunkStore) -> Iterator[tuple[str, Region]]:
    regions = map(job.written, job.chunks())
    return ((store.chunk_path(region).name, region) for region in regions)


def _write(job: Job, folder: PartialFolder, dst: Path) -> None:
    writing, store = job.writing, folder.chunks
    plain = writing.format in ("cog", "gtiff") and not writing.asked
    # Chunks of a reduced output do not begin with its blocks.
    if plain and not writing.nodata_as_mask and job.ratio == 1 and are_joined(job.header):
        paths = [(store.chunk_path(chunk_hr), chunk_hr) for chunk_hr in job.chunks()]
        try:
            if join_chunks(job.header, writing.options, writing.format, paths, dst):
                check_opens(dst)
                return
        except (*WRITE_ERRORS, ValueError) as error:
            raise output_error(dst, error) from None
    write_mosaic(
        folder.vrt_path, job.header, _sources(job, store), job.chunk_hr_px,
        nodata_as_mask=writing.nodata_as_mask,
        tags_travel=must_travel(job.header, writing.options),
    )  # fmt: skip
    copy_to_format(folder.vrt_path, dst, job.header, writing, _sources(job, store))


def _move(final: Path, dst: Path, overwrite: bool, inputs: Inputs) -> None:
    of_input = [file.path for file in inputs.files]
    check_side_files(dst, overwrite, of_input)
    if os.path.lexists(dst):
        if not overwrite:
            raise OutputError(
                f"{dst} was made by another while this run worked: move it and run the same "
                "command again, which keeps the finished chunks, or allow overwriting"
            )
        for stale in stale_side_files(dst, of_input):
            stale.unlink()
    for path in final.iterdir():
        sync(path)  # the chunks are deleted next
    # Side files (world file, .aux.xml, .msk) first: the output itself says that all is done.
    for path in sorted(final.iterdir(), key=lambda path: path.name == dst.name):
        path.replace(dst.with_name(path.name))
    sync(dst.absolute().parent)

"""The place of the output: may we write there, and putting the finished file there."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from slimdiffsr.errors import DiskFullError, OutputError
from slimdiffsr.geo.failures import free_bytes, output_error
from slimdiffsr.geo.grid import Region
from slimdiffsr.geo.job import Job
from slimdiffsr.geo.output import copy_to_format, vrt_xml
from slimdiffsr.geo.partial import PartialFolder

__all__ = ["assemble", "check_destination", "check_space", "partial_path"]

# Only empty blocks take no room among the chunks; few scenes are emptier than this.
_HOPELESS = 0.1


def partial_path(dst: Path) -> Path:
    """The folder beside the output that holds the finished chunks of a run."""
    return dst.with_name(dst.name + ".partial")


def check_destination(src: str, dst: Path, overwrite: bool) -> None:
    """Raise OutputError when the output would destroy something or cannot be written."""
    text = os.fspath(dst)
    if "://" in text or text.startswith(("/vsi", "s3:/", "gs:/", "http:/", "https:/")):
        raise OutputError(f"the output must be a local file, got {text}: copy it there afterwards")
    if dst.is_dir():
        raise OutputError(f"the output {dst} is a folder: give a file name")
    if _same_file(src, dst):
        raise OutputError(f"the output {dst} is the input itself: choose another name")
    if dst.exists() and not overwrite:
        raise OutputError(f"{dst} exists already: choose another name or allow overwriting")
    folder = dst.absolute().parent
    if not folder.is_dir():
        raise OutputError(f"the folder {folder} does not exist: make it first")
    if not os.access(folder, os.W_OK):
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


def assemble(job: Job, folder: PartialFolder, chunks_hr: list[Region], dst: Path) -> None:
    """Make the output from the finished chunks; it appears whole, or not at all."""
    sources = []
    for chunk_hr in chunks_hr:
        path = folder.chunks.chunk_path(chunk_hr)
        if not path.exists():
            raise output_error(path, FileNotFoundError(errno.ENOENT, "No such file"))
        sources.append((path.name, chunk_hr))
    try:
        folder.vrt_path.write_text(vrt_xml(job.header, sources), encoding="utf-8")
        final = folder.scratch("final")
        copy_to_format(
            folder.vrt_path,
            final / dst.name,
            job.header,
            job.options.format,
            job.options.creation_options,
        )
        # Side files (world file, .aux.xml, .msk) first: the output itself says that all is done.
        for path in sorted(final.iterdir(), key=lambda path: path.name == dst.name):
            path.replace(dst.with_name(path.name))
    except OSError as error:
        raise output_error(dst, error) from None

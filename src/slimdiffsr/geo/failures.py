"""What a failed write means to the user."""

from __future__ import annotations

import errno
import shutil
from pathlib import Path

from slimdiffsr.errors import DiskFullError, OutputError
from slimdiffsr.geo.raster import GDAL_ERRORS

__all__ = ["UNREADABLE", "WRITE_ERRORS", "first_line", "free_bytes", "output_error"]

UNREADABLE = "what was written cannot be read back"

# rasterio raises SystemError when GDAL fails while it closes a file.
WRITE_ERRORS = (*GDAL_ERRORS, OSError, SystemError)

_ROOM_BYTES = 1_000_000_000  # with so much free, the disk is not full
_REFUSED = ("Permission denied", "Read-only file system", "Operation not permitted")
_GONE = ("No such file", "does not exist", "Stale file handle")


def output_error(path: Path, error: BaseException) -> OutputError:
    """A full disk, a file that was deleted under us, or another reason."""
    words = " ".join(str(e) for e in (error, error.__cause__, error.__context__) if e is not None)
    if not path.parent.is_dir() or any(sign in words for sign in _GONE):
        lost = path.parent if not path.parent.is_dir() else path
        return OutputError(
            f"{lost} was deleted or moved while it was written: run the same command again"
        )
    # Once writing has begun GDAL fails for want of room, and has a dozen ways to say so.
    of_gdal = isinstance(error, (*GDAL_ERRORS, SystemError)) or UNREADABLE in words
    full = getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)
    if full or (of_gdal and not any(sign in words for sign in _REFUSED)):
        free = free_bytes(path)
        why = f"; {first_line(error)}" if free > _ROOM_BYTES else ""
        return DiskFullError(
            f"the disk of {path.parent} is full or failing ({free / 1e9:.1f} GB free{why}); "
            "finished chunks are kept: make room and run the same command again"
        )
    return OutputError(f"cannot write {path}: {first_line(error)}")


def first_line(error: BaseException) -> str:
    """GDAL's own reason where there is one, without its further lines."""
    words = str(error.__cause__ or error)
    return words.splitlines()[0] if words else type(error).__name__


def free_bytes(path: Path) -> int:
    """Free space where ``path`` is to be written."""
    folder = next((p for p in path.absolute().parents if p.exists()), Path("/"))
    return shutil.disk_usage(folder).free

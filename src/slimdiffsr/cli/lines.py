"""Lines that C libraries write to the process's stderr, past Python and past us."""

from __future__ import annotations

import logging
import os
import re
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import IO

from slimdiffsr.cli.show import note

__all__ = ["library_lines", "open_standard_files"]

# libtiff's words on what our own sentence says: a full disk, a file that is no TIFF.
_SAID_BY_US = re.compile(rb"(_?[Tt]iff|TIFF|_TIFF)\w*: ")


@contextmanager
def library_lines(verbose: bool) -> Iterator[None]:
    """Keep libtiff's lines off the screen; what other libraries write is shown at the end.

    verbose: show everything at once, and what GDAL tells Python.
    """
    if verbose:
        logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(name)s: %(message)s")
        yield
        return
    if sys.stderr is None or not _is_fd_2(sys.stderr):
        yield
        return
    sys.stderr.flush()
    screen, before = os.dup(2), sys.stderr
    with (
        tempfile.TemporaryFile() as kept,
        os.fdopen(
            screen, "w", buffering=1, encoding=before.encoding, errors="backslashreplace"
        ) as own,
    ):
        os.dup2(kept.fileno(), 2)
        sys.stderr = own
        try:
            yield
        finally:
            own.flush()
            os.dup2(own.fileno(), 2)
            sys.stderr = before
            _show_others(kept)


def _is_fd_2(stream: IO[str]) -> bool:
    try:
        return stream.fileno() == 2
    except (OSError, ValueError, AttributeError):
        return False


def _show_others(kept: IO[bytes]) -> None:
    kept.seek(0)
    for line in kept.read().splitlines():
        if not _SAID_BY_US.match(line):
            note(line.decode(errors="replace"))


def open_standard_files() -> None:
    """Put /dev/null where a standard file is closed: else the next file opened takes its place.

    What libraries write to stderr would then go into that file.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            with suppress(OSError):
                handle = os.open(os.devnull, os.O_RDWR)
                if handle != number:
                    os.dup2(handle, number)
                    os.close(handle)

"""The first look at rasters, in a process of its own: what ends that process ends nothing else.

GDAL reads over a hundred formats through as many libraries, and a damaged file can make one of them
crash, or work for hours. From inside, neither can be told from an error.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from types import TracebackType
from typing import Self

from slimdiffsr.errors import RasterError, SlimDiffSRError
from slimdiffsr.geo.environment import gdal
from slimdiffsr.geo.known import as_known
from slimdiffsr.geo.raster import HEADER_ERRORS, open_source

__all__ = ["Probe"]

_PATIENCE_S = 120.0
_BLOCK_BYTES = 256_000_000  # blocks larger than this are not read to try them


class Probe:
    """A process that looks at rasters first; start it early, it gets ready by itself.

    >>> with Probe() as probe:  # doctest: +SKIP
    ...     probe.look("in.tif")
    """

    def __init__(self, patience_s: float = _PATIENCE_S) -> None:
        """patience_s: after how many seconds for one raster it is given up."""
        self.patience_s = patience_s
        self._process: subprocess.Popen[str] | None = None
        self._answers: queue.Queue[str] = queue.Queue()

    def __enter__(self) -> Self:
        self._start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self._end()

    def look(self, path: str) -> None:
        """Read a raster's header and one block, there; errors are left for who reads it here.

        Only local files are looked at: of others each look costs a download. Raises RasterError when
        the process crashes over it, or takes too long.
        """
        if not os.path.exists(path):
            return
        if self._process is None or self._process.poll() is not None:
            self._start()
        process, answers = self._process, self._answers
        if process is None or process.stdin is None:
            return  # no process to be had: then without it
        with suppress(OSError):
            process.stdin.write(json.dumps(path) + "\n")
            process.stdin.flush()
        try:
            answer = answers.get(timeout=self.patience_s)
        except queue.Empty:
            self._end()
            raise RasterError(
                f"{path} takes over {self.patience_s:g} s to open: it is damaged, or its header "
                "claims more than it holds"
            ) from None
        if not answer:
            status = process.wait()
            self._end()
            raise RasterError(
                f"{path} makes GDAL crash ({_cause(status)}): it is damaged, or of a kind that this "
                "GDAL cannot read; convert it elsewhere"
            )

    def _start(self) -> None:
        self._end()
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-m", __name__],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
                # Ctrl-C is for the command, which ends this process.
                start_new_session=True,
            )
        except (OSError, ValueError):
            return
        self._answers = queue.Queue()
        threading.Thread(target=_collect, args=(self._process, self._answers), daemon=True).start()

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.kill()
        process.wait()
        if process.stdin is not None:
            with suppress(OSError):
                process.stdin.close()


def _collect(process: subprocess.Popen[str], answers: queue.Queue[str]) -> None:
    assert process.stdout is not None
    with process.stdout as lines:
        for line in lines:
            answers.put(line)
    answers.put("")  # the process is gone


def _cause(status: int) -> str:
    try:
        return signal.Signals(-status).name
    except ValueError:
        return f"exit status {status}"


def _look(path: str) -> str:
    """Everything that reading begins with; what it raises, in words."""
    try:
        with gdal(), open_source(as_known(path)) as source:
            _ = source.dataset.crs, source.dataset.gcps
            rows, cols = source.dataset.block_shapes[0]
            if rows * cols * source.dataset.count * source.dtype.itemsize <= _BLOCK_BYTES:
                source.dataset.read(1, window=((0, rows), (0, cols)))
    except (SlimDiffSRError, *HEADER_ERRORS, OSError) as error:
        return f"{type(error).__name__}: {error}"
    return "fine"


def _serve() -> None:
    """Look at one raster for each line, until there are no more."""
    # What libraries print must not pass for an answer.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    for line in sys.stdin:
        answers.write(json.dumps(_look(json.loads(line))) + "\n")
        answers.flush()


if __name__ == "__main__":
    _serve()

"""Running a program beside QGIS: progress out, cancel in, its own sentence when it fails.

Knows nothing of QGIS.
"""

from __future__ import annotations

import os
import queue
import re
import signal
import subprocess
import threading
from collections.abc import Callable, Mapping, Sequence

# What QGIS sets for its own Python, GDAL and Qt, and what would break another's.
_QGIS_ONLY = re.compile(
    r"PYTHONHOME|PYTHONPATH|PYTHONEXECUTABLE|GDAL_(DATA|DRIVER_PATH)|PROJ_(LIB|DATA)|QT_.*|QGIS_.*"
)
_PROGRESS = re.compile(r"^(?:\[?(\d+)(?:/| of )(\d+)\]?:? )?.*?\b(\d{1,3}) %")
_PATIENCE_S = 30  # for finishing the chunk at hand after a cancel


class CommandError(Exception):
    """A program is missing or failed; the message is one sentence for the user."""


class CancelledError(Exception):
    """The user stopped the program."""


def clean_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """The environment for a program that is not QGIS's."""
    kept = {name: value for name, value in environ.items() if not _QGIS_ONLY.fullmatch(name)}
    # Progress as lines that can be read here; and no colours, boxes or broken lines in messages.
    return {**kept, "SLIMDIFFSR_PROGRESS_S": "0.5", "PYTHONNOUSERSITE": "1", "PYTHONUTF8": "1",
            "NO_COLOR": "1", "TERM": "dumb", "COLUMNS": "500"}  # fmt: skip


def run(
    arguments: Sequence[str],
    *,
    tell: Callable[[str], None],
    progress: Callable[[float], None],
    cancelled: Callable[[], bool],
    fine: Sequence[int] = (0,),
) -> str:
    """Run a program to its end and return what it wrote to stdout.

    tell: gets each line of its messages; progress: 0 to 100; fine: statuses that are no failure. Raises CancelledError when ``cancelled()``
    becomes true, after the program has stopped in good order; CommandError with its own sentence
    when it fails.
    """
    with _start(arguments) as process:
        written: list[str] = []
        reader = threading.Thread(target=lambda: written.append(process.stdout.read()), daemon=True)
        reader.start()
        told, stopped = _follow(process, tell, progress, cancelled)
        status = process.wait()
        reader.join()
    if stopped:
        raise CancelledError
    if status not in fine:
        raise CommandError(sentence(told, arguments[0], status))
    progress(100)
    return "".join(written)


def _follow(
    process: subprocess.Popen[str],
    tell: Callable[[str], None],
    progress: Callable[[float], None],
    cancelled: Callable[[], bool],
) -> tuple[list[str], bool]:
    """Pass messages on until they end: what was told, and whether the user stopped it."""
    lines: queue.Queue[str | None] = queue.Queue()
    threading.Thread(target=_pass_on, args=(process.stderr, lines), daemon=True).start()
    told: list[str] = []
    stopped = False
    while True:
        if cancelled() and not stopped:
            stopped = True
            _stop(process)
        try:
            line = lines.get(timeout=0.1)
        except queue.Empty:
            continue
        if line is None:
            return told, stopped
        share = share_done(line)
        if share is not None:
            progress(share)
        elif line:
            told.append(line)
            tell(line)


def share_done(line: str) -> float | None:
    """Per cent of the whole command that a line of progress tells; None for other lines."""
    found = _PROGRESS.match(line)
    if found is None or line.startswith(("error", "note")):
        return None
    number, count, share = found.groups()
    if number is None:
        return float(share)
    return (100 * (int(number) - 1) + float(share)) / int(count)


def sentence(told: Sequence[str], program: str, status: int) -> str:
    """Why a command failed, as it said itself."""
    for line in reversed(told):
        _, mark, words = line.lower().partition("error: ")
        if mark:
            return line[-len(words) :]
    words = [line.strip(" │╭╮╰╯─") for line in told]
    last = next((line for line in reversed(words) if line), "it said nothing")
    return f"{os.path.basename(program)} failed with status {status}: {last}"


def _start(arguments: Sequence[str]) -> subprocess.Popen[str]:
    hidden = getattr(subprocess, "CREATE_NO_WINDOW", 0)  # on Windows: no black window
    try:
        return subprocess.Popen(
            list(arguments), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, text=True, encoding="utf-8", errors="replace",
            env=clean_environment(os.environ), creationflags=hidden,
        )  # fmt: skip
    except OSError as error:
        raise CommandError(f"{arguments[0]} cannot be started: {error.strerror}") from None


def _stop(process: subprocess.Popen[str]) -> None:
    """As Ctrl-C would; finished chunks are kept also where Windows can only end it."""
    if os.name == "nt":
        process.terminate()
    else:
        process.send_signal(signal.SIGINT)
    timer = threading.Timer(_PATIENCE_S, process.kill)
    timer.daemon = True
    timer.start()


def _pass_on(stream: object, lines: queue.Queue[str | None]) -> None:
    for line in stream:  # type: ignore[attr-defined]  # a text stream
        lines.put(line.rstrip())
    lines.put(None)

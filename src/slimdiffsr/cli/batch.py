"""Doing the work of a command with many inputs: one after the other, whatever happens to one."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from slimdiffsr.cli.options import make_folder
from slimdiffsr.cli.show import is_out_of_memory, note, print_json, sentence
from slimdiffsr.cli.work import Work, WorkList, check_there
from slimdiffsr.errors import InterruptedRunError, SlimDiffSRError

__all__ = ["run_all", "stops_on_sigterm"]

Run = Callable[[Work, str], dict[str, Any]]


@dataclass(slots=True)
class Stopping:
    """Whether the system asked the command to end."""

    terminated: bool = False

    @property
    def exit_status(self) -> int:
        """128 and the signal's number, as shells have it."""
        return 143 if self.terminated else InterruptedRunError.exit_status


@contextmanager
def stops_on_sigterm() -> Iterator[Stopping]:
    """SIGTERM ends a run as Ctrl-C does: what is finished is kept."""
    stopping = Stopping()

    def stop(_: int, __: FrameType | None) -> None:
        stopping.terminated = True
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # once is enough
        raise KeyboardInterrupt

    try:
        before = signal.signal(signal.SIGTERM, stop)
    except ValueError:  # not in the main thread
        yield stopping
        return
    try:
        yield stopping
    finally:
        signal.signal(signal.SIGTERM, before)


def run_all(found: WorkList, run: Run, as_json: bool) -> int:
    """Do all work; returns the exit status.

    run: does one work, and is told which of how many it is. One input raises its error; of several
    the bad ones are told and the rest go on.
    """
    results: list[dict[str, Any]] = []
    failed = _tell_refused(found, results)
    total = len(found.works) + failed
    made: list[Path] = []
    with stops_on_sigterm() as stopping:
        try:
            for number, work in enumerate(found.works, failed + 1):
                place = f"{number} of {total}: " if found.many and total > 1 else ""
                try:
                    check_there([work.source])
                    if found.in_folder:
                        made += _make_folders(work.target.parent)
                    results.append(run(work, place))
                except InterruptedRunError:
                    raise
                except (SlimDiffSRError, MemoryError, RuntimeError) as error:
                    if not found.many or not _is_of_one_input(error):
                        raise
                    words = sentence(error)
                    failed += 1
                    note(f"error: {words}")
                    results.append({"src": work.source, "error": words})
        except (KeyboardInterrupt, InterruptedRunError) as error:
            _tell_interrupted(error, results, total if found.many else 1)
            if as_json:
                print_json(results)
            return stopping.exit_status
        finally:
            _remove_empty(made)
    if as_json:
        print_json(results)
    if failed:
        note(f"{failed} of {total} inputs failed")
    return 1 if failed else 0


def _is_of_one_input(error: Exception) -> bool:
    return isinstance(error, SlimDiffSRError) or is_out_of_memory(error)


def _tell_refused(found: WorkList, results: list[dict[str, Any]]) -> int:
    for words in found.notes:
        note(words)
    for source, reason in found.refused:
        note(f"error: {source} {reason}")
        results.append({"src": source, "error": f"{source} {reason}"})
    return len(found.refused)


def _tell_interrupted(error: BaseException, results: list[dict[str, Any]], total: int) -> None:
    words = sentence(error) if isinstance(error, SlimDiffSRError) else "stopped"
    done = sum(1 for result in results if "error" not in result)
    if total > 1:
        words = words.removesuffix("; nothing was written")
        words = f"{words}; {done} of {total} outputs are finished, the same command goes on"
    elif "resumes" not in words and "nothing" not in words:
        words = f"{words}; the same command goes on from here"
    note(f"error: {words}" if isinstance(error, SlimDiffSRError) else words)


def _make_folders(folder: Path) -> list[Path]:
    missing = [place for place in (folder, *folder.parents) if not os.path.lexists(place)]
    make_folder(folder)
    return missing


def _remove_empty(folders: list[Path]) -> None:
    """Folders that this command made and that hold nothing, the innermost first."""
    for folder in sorted(set(folders), key=lambda place: -len(place.parts)):
        with suppress(OSError):
            folder.rmdir()

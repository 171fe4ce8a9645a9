"""Doing the work of a command with many inputs: one after the other, whatever happens to one."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from slimdiffsr.cli.options import make_folder
from slimdiffsr.cli.show import is_out_of_memory, note, print_json, sentence
from slimdiffsr.cli.work import Work, WorkList, check_there
from slimdiffsr.errors import InterruptedRunError, SlimDiffSRError

if TYPE_CHECKING:
    from slimdiffsr.geo import Workers

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


def run_all(found: WorkList, run: Run, as_json: bool, crew: Workers | None = None) -> int:
    """Do all work; returns the exit status.

    run: does one work, and is told which of how many it is. crew: processes that share the work,
    of as many inputs at the same time as there are processes. One input raises its error; of several
    the bad ones are told and the rest go on.
    """
    batch = _Batch(found, run, failed=len(found.refused))
    _tell_refused(found, batch.results)
    with stops_on_sigterm() as stopping:
        try:
            with closing(_started(batch.calls(), crew)) as calls:
                for work, call in zip(found.works, calls, strict=False):
                    batch.finish(work, call)
        except (KeyboardInterrupt, InterruptedRunError) as error:
            _tell_interrupted(error, batch.results, batch.total if found.many else 1)
            if as_json:
                print_json(batch.results)
            return stopping.exit_status
        finally:
            _remove_empty(batch.made)
    if as_json:
        print_json(batch.results)
    if batch.failed:
        note(f"{batch.failed} of {batch.total} inputs failed")
    return 1 if batch.failed else 0


@dataclass(slots=True)
class _Batch:
    """The work of a command, and what became of it."""

    found: WorkList
    run: Run
    failed: int
    results: list[dict[str, Any]] = field(default_factory=list)
    made: list[Path] = field(default_factory=list)  # folders

    @property
    def total(self) -> int:
        """Inputs, those that were refused included."""
        return len(self.found.works) + len(self.found.refused)

    def calls(self) -> list[Callable[[], dict[str, Any]]]:
        """What is to be called for each work."""
        first = len(self.found.refused) + 1
        return [partial(self._do, *numbered) for numbered in enumerate(self.found.works, first)]

    def finish(self, work: Work, call: Callable[[], dict[str, Any]]) -> None:
        """Take in a result; the error of one among several is told."""
        try:
            self.results.append(call())
        except InterruptedRunError:
            raise
        except (SlimDiffSRError, MemoryError, RuntimeError) as error:
            if not self.found.many or not _is_of_one_input(error):
                raise
            words = sentence(error)
            self.failed += 1
            note(f"error: {words}")
            self.results.append({"src": work.source, "error": words})

    def _do(self, number: int, work: Work) -> dict[str, Any]:
        place = f"{number} of {self.total}: " if self.found.many and self.total > 1 else ""
        check_there([work.source])
        if self.found.in_folder:
            self.made += _make_folders(work.target.parent)
        return self.run(work, place)


def _started(
    calls: Sequence[Callable[[], dict[str, Any]]], crew: Workers | None
) -> Generator[Callable[[], dict[str, Any]], None, None]:
    """Calls that wait for their result: made one after another, or by a crew some at a time."""
    if crew is None or len(calls) < 2:
        yield from calls
        return
    with ThreadPoolExecutor(crew.size) as threads:
        futures = [threads.submit(call) for call in calls]
        try:
            for future in futures:
                yield future.result
        except GeneratorExit:  # it was stopped
            for future in futures:
                future.cancel()
            crew.close()
            raise


def _is_of_one_input(error: Exception) -> bool:
    return isinstance(error, SlimDiffSRError) or is_out_of_memory(error)


def _tell_refused(found: WorkList, results: list[dict[str, Any]]) -> None:
    for words in found.notes:
        note(words)
    for source, reason in found.refused:
        note(f"error: {source} {reason}")
        results.append({"src": source, "error": f"{source} {reason}"})


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

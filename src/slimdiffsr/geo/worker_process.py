"""What a worker's process does: chunks of scenes, as the command hands them out over a pipe."""

from __future__ import annotations

import os
import pickle
import signal
import threading
import time
import traceback
from collections.abc import Container
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing import connection
from typing import Any

from slimdiffsr.errors import PredictionError, SlimDiffSRError, WorkerError
from slimdiffsr.geo.chunks import Store
from slimdiffsr.geo.crew import Made, Reports, Work, make_chunks
from slimdiffsr.geo.environment import gdal
from slimdiffsr.geo.grid import Region
from slimdiffsr.geo.job import Job, decide, fingerprint
from slimdiffsr.geo.partial import job_key
from slimdiffsr.geo.pipeline import lattice_of
from slimdiffsr.geo.raster import open_source
from slimdiffsr.geo.spec import Network, NetworkSpec

__all__ = ["work"]

_TELL_S = 0.2  # how often a worker says how far it is


def work(
    pipe: connection.Connection, life: connection.Connection, make: bytes, threads: int | None
) -> None:
    """Load a network and make chunks until the command ends; the first call in a new process.

    pipe: to the command. life: the end of a pipe whose other end the command holds as long as it
    lives. make: pickled, gives the network. threads: see ``workers.WorkerPlan``.
    """
    # Both reach the whole group of processes; the command decides what becomes of them.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    threading.Thread(target=_die_with, args=(life,), daemon=True).start()
    if threads is not None:
        os.environ["OMP_NUM_THREADS"] = str(threads)
    side = _Side(pipe)
    try:
        network: Network = pickle.loads(make)()
        spec = NetworkSpec(**{name: getattr(network, name) for name in _SPEC_FIELDS})
        side.send("ready", spec, network.arrays.kept_bytes)
        while True:
            side.send("idle")
            _make_share(side, network, *pipe.recv())
    except (EOFError, BrokenPipeError):  # the command is over
        return
    except BaseException as error:
        side.send("lost", _last_words(error))


_SPEC_FIELDS = tuple(NetworkSpec.__dataclass_fields__)


def _die_with(life: connection.Connection) -> None:
    with suppress(EOFError, OSError):
        life.recv()
    os._exit(1)


def _last_words(error: BaseException) -> str:
    if isinstance(error, SlimDiffSRError):
        return str(error)
    lines = traceback.format_exception_only(error)[-1].strip().splitlines()
    return lines[0] if lines else type(error).__name__


@dataclass(slots=True)
class _Side:
    """The worker's end of the pipe, for all of its threads."""

    pipe: connection.Connection
    _sending: threading.Lock = field(default_factory=threading.Lock)

    def send(self, *message: Any) -> None:  # noqa: ANN401  whatever pickles
        with self._sending:
            self.pipe.send(message)


def _make_share(
    side: _Side, network: Network, number: int, work: Work, order: list[Region]
) -> None:
    made = Made()
    try:
        with gdal(), open_source(work.src, work.options.nodata, work.options.alpha) as source:
            job = decide(source, network, work.options)
            _check_job(job, work.store)
            feed = _RemoteFeed(side, number, order, job)
            told = [time.monotonic()]

            def watch(made: Made) -> None:
                if time.monotonic() > told[0] + _TELL_S:
                    side.send("under way", number, made.px_under_way)
                    told[0] = time.monotonic()

            reports = Reports(watch, lambda chunk: side.send("done", number, feed.number(chunk)))
            make_chunks(job, work.store, network, feed, made, reports)
    except PredictionError:  # of this device, perhaps: others may do better
        raise
    except SlimDiffSRError as error:
        side.send("error", number, error)
    side.send("left", number, made)


def _check_job(job: Job, store: Store) -> None:
    if job_key(fingerprint(job, store.inputs)) != store.key:
        raise WorkerError("a worker sees another scene or network than the command: start it again")


class _RemoteFeed:
    """Chunks as the command hands them out."""

    def __init__(self, side: _Side, number: int, order: list[Region], job: Job) -> None:
        self._side, self._number, self._order = side, number, order
        self._lattice = lattice_of(job)
        self._numbers = {self._lattice.place(chunk): k for k, chunk in enumerate(order)}
        self._coming = _Coming(self._numbers, range(0))

    def take(self) -> Region | None:
        """See ``Feed``."""
        self._side.send("take", self._number)
        given = self._side.pipe.recv()
        number, run = given if given is not None else (None, range(0))
        if run.stop != self._coming.run.stop:
            self._coming = _Coming(self._numbers, run)
        self._coming.run = run
        return None if number is None else self._order[number]

    def coming(self) -> Container[tuple[int, int]]:
        """See ``Feed``."""
        return self._coming

    def number(self, chunk_hr: Region) -> int:
        """Of a chunk, in the order that the command knows."""
        return self._numbers[self._lattice.place(chunk_hr)]


@dataclass(slots=True)
class _Coming:
    """The places of a run of chunks."""

    numbers: dict[tuple[int, int], int]
    run: range

    def __contains__(self, place: object) -> bool:
        return self.numbers.get(place, -1) in self.run  # type: ignore[call-overload]

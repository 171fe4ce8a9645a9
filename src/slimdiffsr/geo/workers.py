"""Several processes make the chunks of scenes: one a card, or one for some of the cores.

The command's process hands out chunks, one at a time, over a pipe to each worker; chunks go to
the store, never through the pipe. A worker that is lost, killed or failed, costs what it had not
finished, and that is made by the others.
"""

from __future__ import annotations

import os
import pickle
import signal
import threading
import time
import traceback
from collections.abc import Callable, Container, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing import connection, get_context
from typing import Any

from slimdiffsr.errors import PredictionError, SlimDiffSRError, WorkerError
from slimdiffsr.geo.chunks import Store
from slimdiffsr.geo.crew import Made, Reports, Watch, Work, make_chunks
from slimdiffsr.geo.environment import gdal
from slimdiffsr.geo.grid import Region
from slimdiffsr.geo.job import Job, decide, fingerprint
from slimdiffsr.geo.order import in_order
from slimdiffsr.geo.partial import job_key
from slimdiffsr.geo.pipeline import lattice_of
from slimdiffsr.geo.raster import open_source
from slimdiffsr.geo.shares import Shares
from slimdiffsr.geo.spec import Network, NetworkSpec

__all__ = ["WorkerPlan", "Workers", "open_workers"]

_LOOK_S = 0.1  # how often a waiting command looks up
_TELL_S = 0.2  # how often a worker says how far it is
_LEAVE_S = 30.0  # how long a worker may take to leave a scene that failed


@dataclass(frozen=True, slots=True)
class WorkerPlan:
    """One worker.

    make: called in the worker's process, which it must be possible to hand it to. threads: how many
    the process may use for arithmetic; None for as many as it likes.
    """

    name: str
    make: Callable[[], Network]
    threads: int | None = None


@dataclass(slots=True)
class _Scene:
    """A scene that is being worked on."""

    work: Work
    order: list[Region]
    shares: Shares
    made: Made = field(default_factory=Made)
    under_way: dict[int, int] = field(default_factory=dict)  # pixels, by worker
    inside: set[int] = field(default_factory=set)  # workers
    error: SlimDiffSRError | None = None


@dataclass(slots=True)
class _Worker:
    """A process, seen from the command."""

    number: int
    name: str
    process: Any
    pipe: connection.Connection
    life: connection.Connection  # closed when this process ends, by whatever
    spec: NetworkSpec | None = None
    kept_bytes: int = 0
    idle: bool = False


class Workers:
    """A crew of processes; made by ``open_workers``. Any number of threads may call ``make``."""

    def __init__(self, plans: Sequence[WorkerPlan]) -> None:
        self._changed = threading.Condition()
        self._scenes: dict[int, _Scene] = {}
        self._lost: list[str] = []  # why, of each worker that is
        self._told = 0  # how many of these
        self._next_scene = 0
        self._workers = {k: _start(k, plan) for k, plan in enumerate(plans)}
        self._size = len(plans)
        self._closing = False
        self._server = threading.Thread(target=self._serve, daemon=True)
        self._server.start()

    @property
    def spec(self) -> NetworkSpec:
        """See ``Crew``; waits until a worker has loaded the network. Raises WorkerError."""
        return self._ready().spec  # type: ignore[return-value]  # such a one is ready

    @property
    def size(self) -> int:
        """Workers that were started, lost ones included."""
        return self._size

    def process_ids(self) -> list[int]:
        """Of the workers that are not lost."""
        with self._changed:
            return [worker.process.pid for worker in self._workers.values()]

    def make(self, job: Job, work: Work, watch: Watch) -> Made:
        """See ``Crew``. Raises WorkerError too, when all workers are lost."""
        ready = self._ready()
        order = in_order(work.chunks_hr, job.grid, job.scale, ready.kept_bytes)
        with self._changed:
            scene = _Scene(work, order, Shares(len(order), max(1, len(self._workers))))
            number, self._next_scene = self._next_scene, self._next_scene + 1
            self._scenes[number] = scene
            self._employ()
        try:
            self._wait(scene, watch)
        except KeyboardInterrupt:
            self._kill(scene)
            raise
        finally:
            self._leave(number, scene)
        if scene.error is not None:
            raise scene.error
        return scene.made

    def close(self) -> None:
        """End all workers, at once: what they have not finished is lost."""
        with self._changed:
            self._closing = True
            for worker in self._workers.values():
                worker.life.close()
                worker.process.kill()
            workers, self._workers = self._workers, {}
        for worker in workers.values():
            worker.process.join()
            worker.pipe.close()
        self._server.join()

    def _ready(self) -> _Worker:
        with self._changed:
            while True:
                for worker in self._workers.values():
                    if worker.spec is not None:
                        return worker
                if not self._workers:
                    raise self._all_lost()
                self._changed.wait(_LOOK_S)

    def _all_lost(self) -> WorkerError:
        return WorkerError(
            f"all workers are lost ({'; '.join(self._lost)}); finished chunks are kept, and the "
            "same command resumes"
        )

    def _wait(self, scene: _Scene, watch: Watch) -> None:
        while True:
            with self._changed:
                over = scene.shares.all_done or scene.error is not None
                if not over and not self._workers:
                    raise self._all_lost()
                if not over:
                    self._changed.wait(_LOOK_S)
                scene.made.px_under_way = 0 if over else sum(scene.under_way.values())
            watch(scene.made)
            if over:
                return

    def _leave(self, number: int, scene: _Scene) -> None:
        until = time.monotonic() + _LEAVE_S
        with self._changed:
            scene.shares.close()
            # Nobody may write into a folder that is about to be deleted.
            while scene.inside and self._workers and time.monotonic() < until:
                self._changed.wait(_LOOK_S)
        self._kill(scene)
        with self._changed:
            scene.made.remarks.extend(f"{words}." for words in self._lost[self._told :])
            self._told = len(self._lost)
            del self._scenes[number]

    def _kill(self, scene: _Scene) -> None:
        with self._changed:
            for k in sorted(scene.inside & set(self._workers)):
                self._lose(self._workers[k], "it was stopped")

    def _serve(self) -> None:
        """Answer the workers; a thread of its own."""
        while True:
            with self._changed:
                if self._closing:
                    return
                pipes = {worker.pipe: worker for worker in self._workers.values()}
            for pipe in connection.wait(list(pipes), timeout=_LOOK_S):
                worker = pipes[pipe]  # type: ignore[index]  # these are what was waited for
                with self._changed:
                    if self._closing:
                        return
                    try:
                        self._answer(worker, worker.pipe.recv())
                    except (EOFError, OSError):
                        self._lose(worker)
                    self._changed.notify_all()

    def _answer(self, worker: _Worker, message: tuple[Any, ...]) -> None:
        kind, *rest = message
        if kind == "ready":
            worker.spec, worker.kept_bytes = rest
            self._check_same(worker)
        elif kind == "idle":
            worker.idle = True
            self._employ()
        elif kind == "lost":
            self._lose(worker, rest[0])
        else:
            number, *rest = rest
            scene = self._scenes.get(number)
            if kind == "take":
                given = None if scene is None else scene.shares.take(worker.number)
                worker.pipe.send(given)
            elif scene is not None:
                self._note(worker, scene, kind, rest)

    def _note(self, worker: _Worker, scene: _Scene, kind: str, rest: list[Any]) -> None:
        if kind == "done":
            px = scene.order[rest[0]].pixels
            scene.under_way[worker.number] = max(0, scene.under_way.get(worker.number, 0) - px)
            if scene.shares.finish(worker.number, rest[0]):
                scene.made.chunks += 1
                scene.made.px += px
        elif kind == "under way":
            scene.under_way[worker.number] = rest[0]
        elif kind == "left":
            made: Made = rest[0]
            scene.made.tiles_run += made.tiles_run
            scene.made.empty |= made.empty
            scene.made.remarks.extend(made.remarks)
            scene.inside.discard(worker.number)
            scene.under_way.pop(worker.number, None)
        elif kind == "error":
            scene.error = scene.error or rest[0]
            scene.shares.close()

    def _check_same(self, worker: _Worker) -> None:
        others = [w.spec for w in self._workers.values() if w.spec is not None]
        if any(spec != worker.spec for spec in others):
            self._lose(worker, "it would compute other pixels than the first: cards of one kind?")

    def _employ(self) -> None:
        for worker in self._workers.values():
            if not worker.idle:
                continue
            for number, scene in self._scenes.items():
                if scene.shares.has_work and scene.error is None:
                    worker.idle = False
                    scene.inside.add(worker.number)
                    with suppress(OSError):  # it is lost, as will be seen
                        worker.pipe.send((number, scene.work, scene.order))
                    break

    def _lose(self, worker: _Worker, reason: str = "") -> None:
        if self._workers.pop(worker.number, None) is None:
            return
        worker.life.close()
        if reason:
            worker.process.kill()
        worker.process.join()
        code = worker.process.exitcode
        ending = f"killed by signal {-code}" if code < 0 else f"ended with status {code}"
        self._lost.append(f"{worker.name} was lost: {reason or ending}")
        for scene in self._scenes.values():
            scene.inside.discard(worker.number)
            scene.under_way.pop(worker.number, None)
            scene.shares.lose(worker.number)
        self._employ()


@contextmanager
def open_workers(plans: Sequence[WorkerPlan]) -> Iterator[Workers]:
    """Start worker processes, and end them."""
    workers = Workers(plans)
    try:
        yield workers
    finally:
        workers.close()


def _start(number: int, plan: WorkerPlan) -> _Worker:
    spawn = get_context("spawn")  # a card does not survive a fork
    pipe, its_pipe = spawn.Pipe()
    its_life, life = spawn.Pipe(duplex=False)
    # Pickled here, so that nothing is imported there before the threads are set.
    make = pickle.dumps(plan.make)
    process = spawn.Process(
        target=_work, args=(its_pipe, its_life, make, plan.threads), name=plan.name, daemon=True
    )
    process.start()
    its_pipe.close()
    its_life.close()
    return _Worker(number, plan.name, process, pipe, life)


# ---------------------------------------------------------------------------------------------
# In the worker's process


def _work(
    pipe: connection.Connection, life: connection.Connection, make: bytes, threads: int | None
) -> None:
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

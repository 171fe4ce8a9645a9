"""Several processes make the chunks of scenes: one a card, or one for some of the cores.

The command's process hands out chunks, one at a time, over a pipe to each worker; chunks go to
the store, never through the pipe. A worker that is lost, killed or failed, costs what it had not
finished, and that is made by the others.
"""

from __future__ import annotations

import pickle
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing import connection, get_context
from typing import Any

from slimdiffsr.errors import SlimDiffSRError, WorkerError
from slimdiffsr.geo.crew import Made, Watch, Work
from slimdiffsr.geo.grid import Region
from slimdiffsr.geo.job import Job
from slimdiffsr.geo.order import in_order
from slimdiffsr.geo.shares import Shares
from slimdiffsr.geo.spec import Network, NetworkSpec
from slimdiffsr.geo.worker_process import work

__all__ = ["WorkerPlan", "Workers", "open_workers"]

_LOOK_S = 0.1  # how often a waiting command looks up
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
        target=work, args=(its_pipe, its_life, make, plan.threads), name=plan.name, daemon=True
    )
    process.start()
    its_pipe.close()
    its_life.close()
    return _Worker(number, plan.name, process, pipe, life)

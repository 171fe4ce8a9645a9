"""Ray: one actor a card or a share of cores, each with the network loaded once.

Ray Core, not Ray Data: what flows here is not rows but the names of units, some hundred bytes each,
and pixels go from the worker straight to the store. Ray Data would add blocks, its own back-pressure
on bytes that do not pass through it, and a second record of what is done, beside the chunks
themselves, that can disagree with them.
"""

from __future__ import annotations

import logging
import os
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slimdiffsr.errors import ConfigError, JobError, SlimDiffSRError, WorkerError
from slimdiffsr.geo.crew import Alone, Made, Watch, Work
from slimdiffsr.geo.environment import gdal
from slimdiffsr.geo.grid import Region
from slimdiffsr.geo.job import Job, decide
from slimdiffsr.geo.order import in_order
from slimdiffsr.geo.raster import open_source
from slimdiffsr.geo.spec import Network, NetworkSpec

__all__ = ["RayCrew", "RayShare", "connect", "open_ray_crew", "run_on_ray"]

_UNIT_CHUNKS = 2  # handed out at a time: small, for the end of a scene is waited for
_AHEAD = 2  # units that wait at an actor, so that it never waits for the driver
_TRIES = 3  # of a unit whose worker died
_LOOK_S = 0.5


@dataclass(frozen=True, slots=True)
class RayShare:
    """What a worker is given of the cluster."""

    cpus: float = 2
    gpus: float = 0
    workers: int | None = None  # None: as many as fit the cluster now


@contextmanager
def connect(address: str | None) -> Iterator[Any]:
    """Ray, connected to a cluster, or to one of this machine alone.

    address: ``auto`` for the cluster that this machine is part of, ``ray://host:10001``, or None.
    Raises ConfigError when Ray is not installed, WorkerError when the cluster does not answer.
    """
    try:
        import ray
    except ImportError:
        raise ConfigError("the engine ray needs Ray: pip install 'slimdiffsr[ray]'") from None
    started = not ray.is_initialized()
    try:
        if started:
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise WorkerError(
            f"no Ray cluster at {address}: {str(error).splitlines()[0]}; start one with "
            "'ray start --head', or leave --address out"
        ) from None
    try:
        yield ray
    finally:
        if started:
            ray.shutdown()


class _Actor:
    """In the worker's process: the network, and chunks of whichever scene it is told."""

    def __init__(self, make: Callable[[], Network], threads: int) -> None:
        os.environ["OMP_NUM_THREADS"] = str(max(1, threads))
        self._network = make()

    def spec(self) -> NetworkSpec:
        """The network's, without its weights."""
        names = NetworkSpec.__dataclass_fields__
        return NetworkSpec(**{name: getattr(self._network, name) for name in names})

    def pid(self) -> int:
        """The worker's process, on its node."""
        return os.getpid()

    def make(self, work: Work) -> Made | SlimDiffSRError:
        """Make some chunks. Errors of ours come back as values: Ray would wrap them in its own."""
        try:
            options = work.options
            with gdal(), open_source(work.src, options.nodata, options.alpha) as source:
                job = decide(source, self._network, options)
                made = Alone(self._network).make(job, work, lambda _: None)
                made.empty = set(made.empty)
                return made
        except SlimDiffSRError as error:
            return error


@contextmanager
def open_ray_crew(
    make: Callable[[], Network], share: RayShare, address: str | None
) -> Iterator[RayCrew]:
    """Connect, start a crew, and end both in the end. Raises what ``connect`` raises."""
    with connect(address) as ray:
        crew = RayCrew(ray, make, share)
        try:
            yield crew
        finally:
            crew.close()


class RayCrew:
    """A crew (``geo.crew.Crew``) of Ray actors. The store must be one that all nodes see."""

    def __init__(self, ray: Any, make: Callable[[], Network], share: RayShare) -> None:  # noqa: ANN401
        """make: builds a worker's network, in its process; ray: from ``connect``."""
        self._ray = ray
        count = share.workers or fitting_workers(ray, share)
        actor = ray.remote(
            num_cpus=share.cpus, num_gpus=share.gpus, max_restarts=-1, max_task_retries=0
        )(_Actor)
        self.actors = [actor.remote(make, int(share.cpus)) for _ in range(count)]
        self._spec: NetworkSpec | None = None

    @property
    def size(self) -> int:
        """How many workers."""
        return len(self.actors)

    @property
    def spec(self) -> NetworkSpec:
        """See ``Crew``; waits for the first actor. Raises WorkerError."""
        if self._spec is None:
            try:
                self._spec = self._ray.get(self.actors[0].spec.remote())
            except self._ray.exceptions.RayError as error:
                raise _translated(error) from None
        return self._spec

    def make(self, job: Job, work: Work, watch: Watch) -> Made:
        """See ``Crew``. Units of a worker that died are given to others; a unit that three died of
        ends the run with WorkerError.
        """
        order = in_order(work.chunks_hr, job.grid, job.scale, 0)
        waiting = deque(
            (order[k : k + _UNIT_CHUNKS], 0) for k in range(0, len(order), _UNIT_CHUNKS)
        )
        run = _RayRun(self._ray, self.actors, work, waiting, Made())
        try:
            run.run(watch)
        finally:
            run.cancel()
        return run.made

    def close(self) -> None:
        """End the actors."""
        for actor in self.actors:
            self._ray.kill(actor)


class _RayRun:
    """Units under way: at most some an actor, so the driver never holds more than their names."""

    def __init__(
        self,
        ray: Any,  # noqa: ANN401  the module, which is an extra
        actors: Sequence[Any],
        work: Work,
        waiting: deque[tuple[list[Region], int]],
        made: Made,
    ) -> None:
        self.ray, self.actors, self.work, self.waiting, self.made = ray, actors, work, waiting, made
        self.under_way: dict[Any, tuple[int, list[Region], int]] = {}  # in the order handed out
        self.pings: dict[Any, int] = {}  # to actors that are to come back

    def run(self, watch: Watch) -> None:
        for number in range(len(self.actors)):
            self._fill(number)
        while self.under_way or self.pings:
            tasks = [*self.under_way, *self.pings]
            ready, _ = self.ray.wait(tasks, num_returns=len(tasks), timeout=_LOOK_S)
            for task in ready:
                if task in self.pings:
                    self._answered(task)
                else:
                    self._take_back(task)
            watch(self.made)
            if not self.waiting and not self.under_way:
                return

    def _fill(self, number: int) -> None:
        """Hand an actor what it does next, and what it will do then."""
        has = sum(owner == number for owner, *_ in self.under_way.values())
        for _ in range(_AHEAD - has):
            if not self.waiting:
                return
            chunks, tries = self.waiting.popleft()
            part = Work(self.work.src, self.work.options, self.work.store, chunks)
            self.under_way[self.actors[number].make.remote(part)] = number, chunks, tries

    def _take_back(self, task: Any) -> None:  # noqa: ANN401  Ray's reference
        number, chunks, tries = self.under_way[task]
        first = next(t for t, (owner, *_) in self.under_way.items() if owner == number)
        del self.under_way[task]
        try:
            answer = self.ray.get(task)
        except self.ray.exceptions.RayActorError:
            # What waited at the actor is not to blame; what it was doing may be.
            self._give_back(chunks, tries + (task == first))
            if number not in self.pings.values():
                self.pings[self.actors[number].pid.remote()] = number
            return
        except self.ray.exceptions.RayError as error:
            raise _translated(error) from None
        if isinstance(answer, SlimDiffSRError):
            raise answer
        self._add(answer)
        if number not in self.pings.values():
            self._fill(number)

    def _give_back(self, chunks: list[Region], tries: int) -> None:
        if tries >= _TRIES:
            raise WorkerError(
                f"{_TRIES} workers died of the chunk at column {chunks[0].col}, row "
                f"{chunks[0].row}; finished chunks are kept, and the same command goes on"
            )
        self.waiting.appendleft((chunks, tries))
        for number in range(len(self.actors)):  # another may be idle
            if number not in self.pings.values():
                self._fill(number)

    def _answered(self, task: Any) -> None:  # noqa: ANN401  Ray's reference
        """An actor that had died is back, or is not yet."""
        number = self.pings.pop(task)
        try:
            self.ray.get(task)
        except self.ray.exceptions.RayActorError as error:
            if isinstance(error, self.ray.exceptions.ActorUnavailableError):
                time.sleep(_LOOK_S)
                self.pings[self.actors[number].pid.remote()] = number
            elif not self.under_way and not self.pings:
                raise WorkerError(
                    "all Ray workers are lost; finished chunks are kept, and the same command goes on"
                ) from error
            return
        self._fill(number)

    def _add(self, part: Made) -> None:
        self.made.chunks += part.chunks
        self.made.px += part.px
        self.made.tiles_run += part.tiles_run
        self.made.empty |= part.empty
        self.made.remarks += [words for words in part.remarks if words not in self.made.remarks]

    def cancel(self) -> None:
        for task in self.under_way:
            self.ray.cancel(task, force=False)


def _translated(error: BaseException) -> SlimDiffSRError:
    cause = getattr(error, "cause", None)
    if isinstance(cause, SlimDiffSRError):
        return cause
    lines = [line for line in str(error).splitlines() if line.strip()]
    return WorkerError(f"a Ray worker failed: {lines[-1] if lines else type(error).__name__}")


def fitting_workers(ray: Any, share: RayShare) -> int:  # noqa: ANN401  the module
    """How many workers the cluster has room for. Raises WorkerError for none."""
    there = ray.cluster_resources()
    counts = [
        int(there.get(name, 0) // wanted)
        for name, wanted in (("CPU", share.cpus), ("GPU", share.gpus))
        if wanted
    ]
    fitting = min(counts, default=1)
    if fitting < 1:
        raise WorkerError(
            f"no worker with {share.cpus:g} CPUs and {share.gpus:g} GPUs fits a cluster of "
            f"{there.get('CPU', 0):g} CPUs and {there.get('GPU', 0):g} GPUs: ask for less"
        )
    return fitting


def run_on_ray(
    ray: Any,  # noqa: ANN401  the module
    share: RayShare,
    work: Callable[[Path], Any],
    on_done: Callable[[int], None],
) -> list[Any]:
    """Run a whole worker (``work``, given a scratch folder) in each of the cluster's shares.

    A worker that dies is started again by Ray, up to a hundred times. Returns what they returned.
    """

    def in_worker() -> Any:  # noqa: ANN401  whatever work returns
        with tempfile.TemporaryDirectory(prefix="slimdiffsr-") as scratch:
            try:
                return work(Path(scratch))
            except SlimDiffSRError as error:
                return error

    count = share.workers or fitting_workers(ray, share)
    task = ray.remote(num_cpus=share.cpus, num_gpus=share.gpus, max_retries=100)(in_worker)
    left = [task.remote() for _ in range(count)]
    answers = []
    while left:
        ready, left = ray.wait(left, timeout=_LOOK_S)
        for one in ready:
            try:
                answers.append(ray.get(one))
            except ray.exceptions.RayError as error:
                raise _translated(error) from None
        on_done(len(answers))
    failed = next((answer for answer in answers if isinstance(answer, JobError)), None)
    if failed is not None:
        raise failed
    return answers

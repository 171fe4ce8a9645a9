"""A worker: takes units until none are left, whatever becomes of the others."""

from __future__ import annotations

import os
import socket
import time
import uuid
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from slimdiffsr.errors import JobError, PlaceError, SlimDiffSRError
from slimdiffsr.geo.crew import Alone, Work
from slimdiffsr.geo.environment import gdal
from slimdiffsr.geo.inputs import Inputs, look_at
from slimdiffsr.geo.job import Job, decide, fingerprint
from slimdiffsr.geo.known import as_known
from slimdiffsr.geo.partial import job_key
from slimdiffsr.geo.raster import open_source
from slimdiffsr.geo.spec import Network
from slimdiffsr.scale_out.claims import Picker, Taken, Wait
from slimdiffsr.scale_out.jobfile import JobFile, PlannedScene, Unit
from slimdiffsr.scale_out.places import Place
from slimdiffsr.scale_out.request import options_from
from slimdiffsr.scale_out.stores import store_of

__all__ = ["Done", "Worker", "worker_name"]

LONGEST_WAIT_S = 30.0


@dataclass(slots=True)
class Done:
    """What a worker has done so far."""

    units: int = 0
    chunks: int = 0
    px: int = 0
    failures: list[str] = field(default_factory=list)


def worker_name() -> str:
    """A name that no other worker has."""
    return f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:6]}"


@dataclass(slots=True)
class _OpenScene:
    scene: PlannedScene
    job: Job
    inputs: Inputs
    closing: ExitStack


class Worker:
    """One process and its network, at work on a job."""

    def __init__(self, place: Place, job: JobFile, network: Network, scratch: Path) -> None:
        """network: already fitted to the job (``fit_network``); scratch: a folder of its own."""
        self.place, self.job, self.scratch = place, job, scratch
        self.crew = Alone(network)
        self.options = options_from(job.options)
        self.done = Done()
        self._open: _OpenScene | None = None

    def run(
        self,
        picker: Picker,
        on_unit: Callable[[Done], None] | None = None,
        *,
        clock: Callable[[], float] = time.time,
        sleep: Callable[[float], None] = time.sleep,
    ) -> Done:
        """Work until there is nothing left to take. A unit that fails is noted, and the next taken.

        Raises PlaceError when the job's place fails, and JobError when another job is in it.
        """
        try:
            while (choice := picker.choose(clock())) is not None:
                if isinstance(choice, Wait):
                    sleep(min(choice.seconds, LONGEST_WAIT_S))
                    continue
                started = clock()
                self._take(picker, choice)
                picker.took(clock() - started)
                if on_unit is not None:
                    on_unit(self.done)
        finally:
            self.close()
        return self.done

    def _take(self, picker: Picker, taken: Taken) -> None:
        unit = next(self.job.find_units(self.place, [taken.unit]))
        try:
            chunks = self.make(unit)
        except PlaceError:
            raise
        except SlimDiffSRError as error:
            self.close()
            self.done.failures.append(f"{unit.scene.src}: {error}")
            picker.claims.note_failure(
                taken.shard, taken.unit, taken.attempt, str(error), unit.scene.number
            )
            return
        picker.claims.mark_done(taken.shard, taken.unit, {"chunks": chunks, "by": picker.me})
        self.done.units += 1

    def make(self, unit: Unit) -> int:
        """Make the chunks of a unit that are not there yet. Returns how many the unit has.

        Raises what reading, the network and writing raise, and JobError when the input is not the
        one that the job was planned for.
        """
        with gdal():
            opened = self._scene(unit.scene)
            store = store_of(self.place, unit.scene, opened.inputs, self.scratch)
            chunks = unit.scene.chunks(unit.part, self.job.unit_chunks)
            todo = [chunk for chunk in chunks if not store.is_done(chunk)]
            if todo:
                work = Work(as_known(unit.scene.src), self.options, store, todo)
                self.crew.make(opened.job, work, lambda _: None)
            self.done.chunks += len(todo)
            self.done.px += sum(chunk.pixels for chunk in todo)
        return len(chunks)

    def close(self) -> None:
        """Let go of the raster that is open."""
        if self._open is not None:
            self._open.closing.close()
            self._open = None

    def _scene(self, scene: PlannedScene) -> _OpenScene:
        # Neighbouring units are of one scene: its header is read once.
        if self._open is None or self._open.scene.number != scene.number:
            self.close()
            self._open = self._opened(scene)
        return self._open

    def _opened(self, scene: PlannedScene) -> _OpenScene:
        with ExitStack() as closing:
            options = self.options
            source = closing.enter_context(open_source(scene.src, options.nodata, options.alpha))
            inputs = look_at(*source.files)
            job = decide(source, self.crew.spec, options)
            if job_key(fingerprint(job, inputs)) != scene.key:
                raise JobError(
                    f"{scene.src} is not what it was when the job was planned, or this worker "
                    "reads it in another way: plan a new job"
                )
            return _OpenScene(scene, job, inputs, closing.pop_all())

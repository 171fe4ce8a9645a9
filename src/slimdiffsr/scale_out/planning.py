"""Planning a job: every header once, in parallel, in parts that need not be read again."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice

from slimdiffsr.errors import ConfigError, JobError, ScaleError, SlimDiffSRError
from slimdiffsr.geo.environment import gdal
from slimdiffsr.geo.inputs import look_at
from slimdiffsr.geo.job import decide, fingerprint, package_version
from slimdiffsr.geo.partial import job_key
from slimdiffsr.geo.raster import open_source
from slimdiffsr.scale_out.jobfile import (
    PART_SCENES,
    JobFile,
    Part,
    PlannedScene,
    read_part,
    write_job,
    write_part,
)
from slimdiffsr.scale_out.places import Place
from slimdiffsr.scale_out.request import Request, options_to, spec_to

__all__ = ["Sources", "plan_job"]

_MOST_READERS = 32
Sources = Iterable[tuple[str, str]]
"""(input, name of its output below the job's output place), in a fixed order."""


@dataclass(slots=True)
class _Totals:
    scenes: int = 0
    failed: int = 0
    chunks: int = 0
    tiles: int = 0
    pixels_hr: int = 0
    bytes_in: int = 0
    bytes_out: int = 0

    def add(self, scene: PlannedScene) -> None:
        self.scenes += 1
        self.failed += bool(scene.error)
        self.chunks += scene.chunk_count
        self.tiles += scene.tiles
        self.pixels_hr += scene.region.pixels
        self.bytes_in += sum(max(0, int(file["bytes"])) for file in scene.files)
        self.bytes_out += scene.bytes_hr


def plan_job(
    place: Place,
    sources: Sources,
    output: str,
    request: Request,
    *,
    shards: int = 1,
    unit_chunks: int = 4,
    on_scene: Callable[[int], None] | None = None,
) -> JobFile:
    """Look at all inputs and write the job; the same call again goes on where it was stopped.

    output: where the outputs go, a folder or a store. on_scene: told how many inputs are done.
    An input that cannot be read or does not fit is in the job with its reason, and no reason to
    stop. Raises ConfigError for wrong numbers, JobError when the place holds another job or when no
    input can be read, PlaceError and OutputError when the place cannot be written.
    """
    if shards < 1 or unit_chunks < 1:
        raise ConfigError(f"shards and chunks a unit must be positive: {shards}, {unit_chunks}")
    totals = _Totals()
    parts: list[Part] = []
    works: list[int] = []
    waiting = iter(enumerate(sources))
    with ThreadPoolExecutor(min(_MOST_READERS, 4 * (os.cpu_count() or 1))) as readers:
        while numbered := list(islice(waiting, PART_SCENES)):
            scenes = _planned_before(place, len(parts), numbered)
            if scenes is None:
                scenes = list(_plan_all(readers, numbered, request, on_scene))
                write_part(place, len(parts), scenes)
            for scene in scenes:
                totals.add(scene)
                works += _unit_works(scene, unit_chunks)
            parts.append(Part(len(scenes), sum(s.unit_count(unit_chunks) for s in scenes)))
            if on_scene is not None:
                on_scene(totals.scenes)
    if totals.scenes == totals.failed:
        reason = next((s.error for s in read_part(place, 0)), "") if parts else ""
        raise JobError(f"none of {totals.scenes} inputs can be worked on. {reason}".strip())
    job = JobFile(
        version=package_version(),
        model=request.model,
        spec=spec_to(request.spec),
        options=options_to(request.options),
        colour=request.colour,
        output=output,
        unit_chunks=unit_chunks,
        shards=equal_shards(works, shards),
        parts=tuple(parts),
        scenes=totals.scenes,
        failed=totals.failed,
        chunks=totals.chunks,
        pixels_hr=totals.pixels_hr,
        facts={"tiles": totals.tiles, "bytes_in": totals.bytes_in, "bytes_out": totals.bytes_out},
    )
    write_job(place, job)
    return job


def equal_shards(works: Sequence[int], shards: int) -> tuple[int, ...]:
    """First unit of each shard, and the end: contiguous, of equal work as nearly as units allow."""
    total, done, bounds = sum(works), 0, [0]
    for unit, work in enumerate(works):
        done += work
        while len(bounds) < shards and done * shards >= total * len(bounds):
            bounds.append(unit + 1)
    return (*bounds, *[len(works)] * (shards - len(bounds)), len(works))


def _unit_works(scene: PlannedScene, unit_chunks: int) -> list[int]:
    # 8 bytes a unit: with four chunks of 4 million pixels, a trillion pixels take half a megabyte.
    return [
        sum(chunk.pixels for chunk in scene.chunks(part, unit_chunks))
        for part in range(scene.unit_count(unit_chunks))
    ]


def _planned_before(
    place: Place, number: int, wanted: list[tuple[int, tuple[str, str]]]
) -> list[PlannedScene] | None:
    """A part that an interrupted plan of the same inputs has written."""
    try:
        scenes = list(read_part(place, number))
    except JobError:
        return None
    same = [(s.number, (s.src, s.output)) for s in scenes] == wanted
    return scenes if same and not any(scene.error for scene in scenes) else None


def _plan_all(
    readers: ThreadPoolExecutor,
    numbered: list[tuple[int, tuple[str, str]]],
    request: Request,
    on_scene: Callable[[int], None] | None,
) -> Iterator[PlannedScene]:
    def plan(one: tuple[int, tuple[str, str]]) -> PlannedScene:
        number, (src, output) = one
        return plan_scene(PlannedScene(number, src, output), request)

    for scene in readers.map(plan, numbered):
        if on_scene is not None:
            on_scene(scene.number + 1)
        yield scene


def plan_scene(scene: PlannedScene, request: Request) -> PlannedScene:
    """What a job says of one input; its error where it cannot be worked on."""
    try:
        options = request.options
        with gdal(), open_source(scene.src, options.nodata, options.alpha) as source:
            inputs = look_at(*source.files)
            job = decide(source, request.spec, options)
            if job.ratio != 1:
                raise ScaleError("a job has the scale of its model: leave scale and resolution out")
            region_hr = job.header.region_hr
            area_lr = job.region_lr.grown(job.halo_lr_px).clipped(source.region_lr)
            return dataclasses.replace(
                scene,
                key=job_key(fingerprint(job, inputs)),
                files=tuple(inputs.facts()),
                region_hr=(region_hr.col, region_hr.row, region_hr.width, region_hr.height),
                chunk_hr_px=job.chunk_hr_px,
                bytes_hr=job.header.bytes,
                tiles=job.grid.count_touching(area_lr),
            )
    except SlimDiffSRError as error:
        return dataclasses.replace(scene, error=str(error))

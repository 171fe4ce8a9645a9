"""The end of a job: every chunk checked, every scene put together, and a mosaic over them."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from slimdiffsr.errors import JobError, OutputError, PlaceError, SlimDiffSRError
from slimdiffsr.geo.chunks import ChunkStore
from slimdiffsr.geo.crew import Made, Watch, Work
from slimdiffsr.geo.destination import partial_path
from slimdiffsr.geo.grid import Region
from slimdiffsr.geo.inputs import Inputs
from slimdiffsr.geo.job import Job
from slimdiffsr.geo.scene import upscale_scene
from slimdiffsr.geo.spec import NetworkSpec
from slimdiffsr.scale_out.claims import Claims
from slimdiffsr.scale_out.jobfile import JobFile, PlannedScene, read_part
from slimdiffsr.scale_out.mosaic import write_mosaic
from slimdiffsr.scale_out.places import FolderPlace, Place, open_place
from slimdiffsr.scale_out.request import options_from, spec_from
from slimdiffsr.scale_out.stores import chunk_prefix, fetch_chunk

__all__ = ["Finished", "finish_job"]


_AGAIN = "run 'slimdiffsr work', then 'finish' again"


@dataclass(slots=True)
class Finished:
    """What ``finish_job`` has made."""

    outputs: list[str] = field(default_factory=list)
    failures: dict[str, str] = field(default_factory=dict)  # input -> reason
    mosaic: str = ""


@dataclass(slots=True)
class _Nobody:
    """A crew that makes no chunk: all of them must be there already."""

    spec: NetworkSpec
    damaged: list[Region] = field(default_factory=list)

    def make(self, job: Job, work: Work, watch: Watch) -> Made:
        """Raise JobError, for there is something to make."""
        self.damaged = list(work.chunks_hr)
        raise JobError(
            f"{len(self.damaged)} chunks were damaged and are to be made again: {_AGAIN}"
        )


def finish_job(
    place: Place,
    job: JobFile,
    *,
    scratch: Path | None = None,
    keep_chunks: bool = False,
    on_scene: Callable[[int], None] | None = None,
) -> Finished:
    """Make the outputs of all scenes whose chunks are there; the same call again goes on.

    Each chunk's checksum is looked at. A scene that lacks some is reported, and made by a later
    call. scratch: where outputs are put together that go to a store. Chunks are deleted once their
    output is in its place, unless they are to be kept. on_scene: told how many scenes are done.
    Raises PlaceError and OutputError when a place fails.
    """
    found, output, first_unit = Finished(), open_place(job.output), 0
    for number in range(len(job.parts)):
        for scene in read_part(place, number):
            try:
                if scene.error:
                    raise JobError(scene.error)
                _finish_scene(place, job, (first_unit, scene), output, scratch)
                if not keep_chunks:
                    _delete_chunks(place, scene)
                found.outputs.append(scene.output)
            except (PlaceError, OutputError):
                raise
            except SlimDiffSRError as error:
                found.failures[scene.src] = str(error)
            first_unit += scene.unit_count(job.unit_chunks)
            if on_scene is not None:
                on_scene(scene.number + 1)
    if len(found.outputs) > 1:
        found.mosaic = write_mosaic(output, found.outputs)
    return found


def _finish_scene(
    place: Place,
    job: JobFile,
    numbered: tuple[int, PlannedScene],
    output: Place,
    scratch: Path | None,
) -> None:
    first_unit, scene = numbered
    mark = f"finished/{scene.number:07d}.json"
    if _is_finished(place.get(mark), scene, output):
        return
    with _target(output, scene, scratch) as target:
        facts = _assemble(place, job, scene, first_unit, target)
        if not isinstance(output, FolderPlace):
            output.put_file(scene.output, target)
    place.put(mark, json.dumps({"key": scene.key, **facts}).encode(), replace=True)


def _is_finished(mark: bytes | None, scene: PlannedScene, output: Place) -> bool:
    if mark is None or not output.has(scene.output):
        return False
    try:
        return bool(json.loads(mark)["key"] == scene.key)
    except (ValueError, KeyError, TypeError):
        return False


@contextmanager
def _target(output: Place, scene: PlannedScene, scratch: Path | None) -> Iterator[Path]:
    """The local file that an output is made as: the output itself, or one to be sent away."""
    if isinstance(output, FolderPlace):
        path = output.path(scene.output)
        path.parent.mkdir(parents=True, exist_ok=True)
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="slimdiffsr-", dir=scratch) as folder:
        yield Path(folder) / Path(scene.output).name


def _assemble(
    place: Place, job: JobFile, scene: PlannedScene, first_unit: int, target: Path
) -> dict[str, Any]:
    """The output from its chunks, by the same code as ``upscale``, which finds them all done."""
    folder = partial_path(target)
    here = ChunkStore(folder, scene.key, Inputs((), ()))
    paths = [here.chunk_path(chunk) for chunk in scene.chunks(0, scene.chunk_count)]
    there = {key.rpartition("/")[2] for key in place.keys(chunk_prefix(scene))}
    missing = [path for path in paths if path.name not in there and not path.exists()]
    if missing:
        raise JobError(f"{len(missing)} of {len(paths)} chunks are not made yet: {_AGAIN}")
    folder.mkdir(exist_ok=True)
    (folder / "lock").touch()  # makes the folder ours
    for path in paths:
        if not path.exists():
            fetch_chunk(place, scene, path.name, path)
    options = options_from({**job.options, "overwrite": True})
    crew = _Nobody(spec_from(job.spec))
    try:
        upscale_scene(scene.src, target, crew, options)
    finally:
        _reopen(place, job, scene, first_unit, crew.damaged)
    return {"bytes": os.path.getsize(target)}


def _reopen(
    place: Place, job: JobFile, scene: PlannedScene, first_unit: int, damaged: list[Region]
) -> None:
    """Delete damaged chunks and what says that they are done, so that a worker makes them again."""
    if not damaged:
        return
    store = ChunkStore(Path(), scene.key, Inputs((), ()))
    order = scene.chunks(0, scene.chunk_count)
    for chunk in damaged:
        place.delete(chunk_prefix(scene) + store.chunk_path(chunk).name)
        unit = first_unit + order.index(chunk) // job.unit_chunks
        Claims(place).reopen(job.shard_of(unit), unit)


def _delete_chunks(place: Place, scene: PlannedScene) -> None:
    for key in list(place.keys(chunk_prefix(scene))):
        place.delete(key)

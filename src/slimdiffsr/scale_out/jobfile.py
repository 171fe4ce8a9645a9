"""A job on disk or in a store: written once, then only read, never held whole.

``job.json`` says what is to be done and how many scenes there are; it is written last, so a job
that has it is planned to the end. ``scenes/00000.jsonl``, ``scenes/00001.jsonl``, ... hold a line a
scene, a thousand to a part.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from slimdiffsr.errors import JobError
from slimdiffsr.geo.grid import Region, chunk_count
from slimdiffsr.scale_out.order import ordered_chunks
from slimdiffsr.scale_out.places import Place

__all__ = [
    "PART_SCENES",
    "JobFile",
    "PlannedScene",
    "Unit",
    "read_job",
    "read_part",
    "write_job",
    "write_part",
]

FORMAT = 1
PART_SCENES = 1000
JOB_KEY = "job.json"


@dataclass(frozen=True, slots=True)
class PlannedScene:
    """One input, as it was when the job was planned. An input that failed has its reason alone."""

    number: int
    src: str
    output: str  # name below the job's output place
    key: str = ""  # of all that its chunks depend on, as in ``geo.partial.job_key``
    files: tuple[Mapping[str, Any], ...] = ()  # state of the input's files
    region_hr: tuple[int, int, int, int] = (0, 0, 0, 0)  # column, row, width, height
    chunk_hr_px: int = 0
    bytes_hr: int = 0  # of the output before compression
    tiles: int = 0
    error: str = ""

    @property
    def region(self) -> Region:
        """The output's region on the grid of the whole scene."""
        return Region(*self.region_hr)

    @property
    def chunk_count(self) -> int:
        """How many chunks it has."""
        if self.error:
            return 0
        return chunk_count(self.region, self.chunk_hr_px)

    def unit_count(self, unit_chunks: int) -> int:
        """How many units of work it is cut into."""
        return -(-self.chunk_count // unit_chunks)

    def chunks(self, part: int, unit_chunks: int) -> tuple[Region, ...]:
        """The chunks of one of its units, neighbours together."""
        ordered = ordered_chunks(self.region, self.chunk_hr_px)
        return ordered[part * unit_chunks : (part + 1) * unit_chunks]


@dataclass(frozen=True, slots=True)
class Part:
    """A part of the list of scenes, in numbers."""

    scenes: int
    units: int


@dataclass(frozen=True, slots=True)
class Unit:
    """What a worker takes at a time: some neighbouring chunks of one scene."""

    number: int
    shard: int
    scene: PlannedScene
    part: int  # which of the scene's units

    @property
    def name(self) -> str:
        """Its name in keys, the same in every process."""
        return f"{self.shard:05d}/{self.number:09d}"


@dataclass(frozen=True, kw_only=True)
class JobFile:
    """All that is the same for every scene of a job."""

    version: str  # of this package
    model: str  # as ``Upscaler.from_pretrained`` takes it
    spec: Mapping[str, Any]  # ``geo.NetworkSpec``: how scenes are cut, and the shared arithmetic
    options: Mapping[str, Any]  # of ``geo.SceneOptions``, those that are not the default
    colour: str
    output: str  # place of the outputs
    unit_chunks: int
    shards: tuple[int, ...]  # first unit of each shard, and the end of the last
    parts: tuple[Part, ...]
    scenes: int
    failed: int  # scenes that could not be planned
    chunks: int
    pixels_hr: int
    format: int = FORMAT
    facts: Mapping[str, Any] = field(default_factory=dict)  # what was estimated, for people

    @property
    def shard_count(self) -> int:
        """Number of shards."""
        return len(self.shards) - 1

    @property
    def units(self) -> int:
        """Number of units."""
        return self.shards[-1]

    def shard_of(self, unit: int) -> int:
        """The shard that a unit belongs to."""
        low, high = 0, self.shard_count
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if self.shards[middle] <= unit else (low, middle)
        return low

    def find_units(self, place: Place, wanted: Iterable[int]) -> Iterator[Unit]:
        """Units by number, in rising order; of the list of scenes only the parts needed are read."""
        for number, part in _by_part(self.parts, sorted(set(wanted))):
            first_scene = PART_SCENES * number
            yield from self._in_part(read_part(place, number), first_scene, part)

    def _in_part(
        self, scenes: Iterable[PlannedScene], first_scene: int, wanted: tuple[int, list[int]]
    ) -> Iterator[Unit]:
        at, numbers = wanted
        waiting = iter(numbers)
        number = next(waiting, None)
        for scene in scenes:
            count = scene.unit_count(self.unit_chunks)
            while number is not None and number < at + count:
                yield Unit(number, self.shard_of(number), scene, number - at)
                number = next(waiting, None)
            at += count


def _by_part(
    parts: tuple[Part, ...], wanted: list[int]
) -> Iterator[tuple[int, tuple[int, list[int]]]]:
    """(number of the part, (its first unit, the units wanted of it)) of each part that is needed."""
    at = 0
    for number, part in enumerate(parts):
        here = [unit for unit in wanted if at <= unit < at + part.units]
        if here:
            yield number, (at, here)
        at += part.units


def _part_key(number: int) -> str:
    return f"scenes/{number:05d}.jsonl"


def write_part(place: Place, number: int, scenes: Iterable[PlannedScene]) -> None:
    """Write a part of the list of scenes, whole."""
    lines = "".join(json.dumps(asdict(scene), sort_keys=True) + "\n" for scene in scenes)
    place.put(_part_key(number), lines.encode(), replace=True)


def read_part(place: Place, number: int) -> Iterator[PlannedScene]:
    """The scenes of a part. Raises JobError when it is missing or damaged."""
    data = place.get(_part_key(number))
    if data is None:
        raise JobError(f"{place.address} lacks {_part_key(number)}: plan the job again")
    try:
        for line in data.decode().splitlines():
            yield _scene(json.loads(line))
    except (ValueError, TypeError, KeyError):
        raise JobError(
            f"{place.address}/{_part_key(number)} is damaged: plan the job again"
        ) from None


def _scene(values: dict[str, Any]) -> PlannedScene:
    values["region_hr"] = tuple(values["region_hr"])
    values["files"] = tuple(values["files"])
    return PlannedScene(**values)


def write_job(place: Place, job: JobFile) -> None:
    """Write ``job.json``: the job is planned. Raises JobError when there is one already."""
    text = json.dumps(asdict(job), sort_keys=True, indent=1)
    if not place.put(JOB_KEY, text.encode()) and place.get(JOB_KEY) != text.encode():
        raise JobError(f"{place.address} holds another job: give another place, or delete it first")


def read_job(place: Place, version: str) -> JobFile:
    """A job. Raises JobError when there is none, or when another version made it."""
    data = place.get(JOB_KEY)
    if data is None:
        raise JobError(
            f"{place.address} holds no job, or one that was not planned to its end: "
            "run 'slimdiffsr plan' (again)"
        )
    try:
        values = json.loads(data)
        found = (values.get("version"), values.get("format"))
        if found != (version, FORMAT):
            raise JobError(
                f"{place.address} was planned by slimdiffsr {found[0]} (format {found[1]}), and "
                f"this is {version} (format {FORMAT}): use that version, or plan a new job"
            )
        values["parts"] = tuple(Part(**part) for part in values["parts"])
        values["shards"] = tuple(values["shards"])
        return JobFile(**values)
    except (ValueError, TypeError, KeyError, AttributeError):
        raise JobError(f"{place.address}/{JOB_KEY} is damaged: plan a new job") from None

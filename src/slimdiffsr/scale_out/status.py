"""How far a job is: done, failed, left, at which rate, until when."""

from __future__ import annotations

from dataclasses import dataclass

from slimdiffsr.scale_out.claims import Claims, set_aside
from slimdiffsr.scale_out.jobfile import JobFile, read_part
from slimdiffsr.scale_out.places import Place

__all__ = ["Failure", "Status", "look_at_job"]

_RATE_WINDOW_UNITS = 50  # the youngest claims tell the rate


@dataclass(frozen=True, slots=True)
class Failure:
    """An input, or a part of one, that could not be worked on."""

    src: str
    reason: str
    unit: int | None  # None: the input as a whole, when the job was planned
    set_aside: bool  # no longer tried


@dataclass(frozen=True, slots=True)
class Status:
    """A job in numbers."""

    scenes: int
    units: int
    units_done: int
    units_begun: int  # and not done
    units_set_aside: int
    chunks: int
    pixels_hr: int
    units_per_hour: float | None  # of late; None until two units were begun
    seconds_left: float | None
    shards_left: tuple[int, ...]  # with units that are neither done nor set aside
    failures: tuple[Failure, ...]

    @property
    def is_complete(self) -> bool:
        """Whether nothing is left that would still be tried."""
        return self.units_done + self.units_set_aside == self.units


def look_at_job(place: Place, job: JobFile) -> Status:
    """Read the marks of a job: three listings, and a few objects. Raises PlaceError."""
    claims = Claims(place)
    done, begun, failed = claims.done(), claims.claimed(), claims.failed()
    aside = {u for u in begun if u not in done and set_aside(begun[u], failed.get(u, 0))}
    open_units = set(range(job.units)) - done - aside
    rate = _rate(claims, job, begun)
    return Status(
        scenes=job.scenes,
        units=job.units,
        units_done=len(done),
        units_begun=len(begun.keys() - done - aside),
        units_set_aside=len(aside),
        chunks=job.chunks,
        pixels_hr=job.pixels_hr,
        units_per_hour=None if rate is None else rate * 3600,
        seconds_left=None if not rate else len(open_units) / rate,
        shards_left=tuple(sorted({job.shard_of(unit) for unit in open_units})),
        failures=(*_unplanned(place, job), *_failures(place, job, claims, begun, aside)),
    )


def _rate(claims: Claims, job: JobFile, begun: dict[int, int]) -> float | None:
    """Units a second, from when the youngest units of each shard were begun."""
    sample = sorted(begun)[:: max(1, len(begun) // _RATE_WINDOW_UNITS)]
    times = sorted(claims.begun_at(job.shard_of(unit), unit, begun[unit]) for unit in sample)
    if len(times) < 2 or times[-1] <= times[0]:
        return None
    return (len(begun) - 1) / (times[-1] - times[0])


def _unplanned(place: Place, job: JobFile) -> list[Failure]:
    if not job.failed:
        return []
    return [
        Failure(scene.src, scene.error, None, True)
        for number in range(len(job.parts))
        for scene in read_part(place, number)
        if scene.error
    ]


def _failures(
    place: Place, job: JobFile, claims: Claims, begun: dict[int, int], aside: set[int]
) -> list[Failure]:
    found = []
    failed = claims.failed()
    for unit in job.find_units(place, [*failed, *aside]):
        reason = "workers died of it without a word"
        for attempt in range(1, begun.get(unit.number, 0) + 1):
            told = claims.reason(unit.shard, unit.number, attempt)
            if told is not None:
                reason = told
                break
        found.append(Failure(unit.scene.src, reason, unit.number, unit.number in aside))
    return found

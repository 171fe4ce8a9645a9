"""Who does what, without a master: claims and marks in the job's place, and what to take next.

A claim says that somebody began a unit, a mark that its chunks are there. Both are objects that are
put only if there is none, so of two workers that claim the same attempt one is told no. A claim is
no lock: when nothing else is left, a unit that was begun long ago and never marked is begun again
by another, and whoever ends first has done it. Doing a chunk twice harms nothing: its bytes are the
same.
"""

from __future__ import annotations

import json
import statistics
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from numpy.random import Generator

from slimdiffsr.scale_out.jobfile import JobFile
from slimdiffsr.scale_out.places import Place

__all__ = ["Claims", "Picker", "Taken", "Wait", "set_aside"]

FAILURES = 3  # after so many a unit is set aside
ATTEMPTS = 8  # likewise, where workers died of it without a word
PATIENCE = 3.0  # typical times of a unit, before a silent claim is doubted
LEAST_PATIENCE_S = 5.0
FIRST_PATIENCE_S = 600.0  # of a worker that has done nothing yet and knows no typical time
LOOKED_AT = 4  # shards compared before helping one of them


@dataclass(frozen=True, slots=True)
class Claims:
    """The claims, marks and failures of a job, as objects."""

    place: Place

    def claim(self, shard: int, unit: int, attempt: int, by: str, now_s: float) -> bool:
        """Whether the attempt is ours now."""
        data = json.dumps({"by": by, "at": now_s}).encode()
        return self.place.put(f"claims/{shard:05d}/{unit:09d}.{attempt}", data)

    def claimed(self, shard: int | None = None) -> dict[int, int]:
        """Units of a shard, or of all, that were begun, and how often."""
        return self._last("claims", shard)

    def begun_at(self, shard: int, unit: int, attempt: int) -> float:
        """When an attempt was claimed, in seconds of the claimer's clock."""
        data = self.place.get(f"claims/{shard:05d}/{unit:09d}.{attempt}")
        try:
            return float(json.loads(data or b"")["at"])
        except (ValueError, KeyError, TypeError):
            return 0.0

    def mark_done(self, shard: int, unit: int, facts: dict[str, Any]) -> None:
        """All chunks of a unit are there."""
        self.place.put(f"done/{shard:05d}/{unit:09d}.1", json.dumps(facts).encode())

    def done(self, shard: int | None = None) -> set[int]:
        """Units of a shard, or of all, whose chunks are there."""
        return set(self._last("done", shard))

    def note_failure(self, shard: int, unit: int, attempt: int, reason: str, scene: int) -> None:
        """An attempt ended in an error."""
        data = json.dumps({"reason": reason, "scene": scene}).encode()
        self.place.put(f"failed/{shard:05d}/{unit:09d}.{attempt}", data)

    def failed(self, shard: int | None = None) -> dict[int, int]:
        """Units of a shard, or of all, that failed, and how often."""
        return dict(Counter(unit for unit, _ in self._attempts("failed", shard)))

    def reason(self, shard: int, unit: int, attempt: int) -> str | None:
        """Why an attempt failed; None when it did not, or not yet."""
        data = self.place.get(f"failed/{shard:05d}/{unit:09d}.{attempt}")
        try:
            return None if data is None else str(json.loads(data)["reason"])
        except (ValueError, KeyError, TypeError):
            return "unknown"

    def reopen(self, shard: int, unit: int) -> None:
        """Forget what was said of a unit: it is as if nobody had begun it."""
        self.place.delete(f"done/{shard:05d}/{unit:09d}.1")
        for attempt in range(1, self.claimed(shard).get(unit, 0) + 1):
            for kind in ("failed", "claims"):
                self.place.delete(f"{kind}/{shard:05d}/{unit:09d}.{attempt}")

    def _last(self, kind: str, shard: int | None) -> dict[int, int]:
        found: dict[int, int] = {}
        for unit, attempt in self._attempts(kind, shard):
            found[unit] = max(found.get(unit, 0), attempt)
        return found

    def _attempts(self, kind: str, shard: int | None) -> Iterator[tuple[int, int]]:
        prefix = f"{kind}/" if shard is None else f"{kind}/{shard:05d}/"
        for key in self.place.keys(prefix):
            unit, _, attempt = key.rpartition("/")[2].partition(".")
            if unit.isdecimal() and attempt.isdecimal():
                yield int(unit), int(attempt)


@dataclass(frozen=True, slots=True)
class Wait:
    """Nothing to do for so many seconds, but others are not done yet."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Taken:
    """A unit, and which attempt at it this is."""

    unit: int
    shard: int
    attempt: int


@dataclass(slots=True)
class Picker:
    """What one worker does next: its own shard, then what others left, then what they dropped.

    rng: which of the others' shards are looked at. help_others: without it a worker ends with its
    shard.
    """

    job: JobFile
    claims: Claims
    me: str
    own: int | None  # of the shards; None for a worker that helps wherever it is needed
    rng: Generator
    help_others: bool = True
    _own_left: list[int] | None = None
    _times_s: list[float] = field(default_factory=list)
    _undone: set[int] | None = None  # shards that others may still drop something of
    _finished: set[int] = field(default_factory=set)  # shards with nothing left to claim or doubt

    def choose(self, now_s: float) -> Taken | Wait | None:
        """The next unit, claimed; or how long to wait; or None when there is nothing left."""
        taken = self._of_own_shard(now_s)
        if taken is None and self.help_others:
            taken = self._of_another_shard(now_s)
        if taken is not None:
            return taken
        return self._dropped(None if self.help_others else self.own, now_s)

    def took(self, seconds: float) -> None:
        """How long the last unit took here."""
        self._times_s.append(seconds)

    @property
    def patience_s(self) -> float:
        """How old a claim without a mark must be before it is doubted."""
        if not self._times_s:
            return FIRST_PATIENCE_S
        return max(LEAST_PATIENCE_S, PATIENCE * statistics.median(self._times_s[-20:]))

    def _of_own_shard(self, now_s: float) -> Taken | None:
        if self.own is None:
            return None
        if self._own_left is None:
            self._own_left = self._unclaimed(self.own)[::-1]
        while self._own_left:
            taken = self._claim(self.own, self._own_left.pop(), now_s)
            if taken is not None:
                return taken
        return None

    def _of_another_shard(self, now_s: float) -> Taken | None:
        """From the far end of the shard with the most left, of a few that chance looks at."""
        others = [s for s in range(self.job.shard_count) if s not in self._finished]
        self.rng.shuffle(others)
        for start in range(0, len(others), LOOKED_AT):
            left = {shard: self._unclaimed(shard) for shard in others[start : start + LOOKED_AT]}
            self._finished |= {shard for shard, units in left.items() if not units}
            for shard in sorted(left, key=lambda s: -len(left[s])):
                for unit in reversed(left[shard]):
                    taken = self._claim(shard, unit, now_s)
                    if taken is not None:
                        return taken
        return None

    def _unclaimed(self, shard: int) -> list[int]:
        begun = self.claims.claimed(shard)
        first, end = self.job.shards[shard], self.job.shards[shard + 1]
        return [unit for unit in range(first, end) if unit not in begun]

    def _claim(self, shard: int, unit: int, now_s: float, attempt: int = 1) -> Taken | None:
        ours = self.claims.claim(shard, unit, attempt, self.me, now_s)
        return Taken(unit, shard, attempt) if ours else None

    def _dropped(self, shard: int | None, now_s: float) -> Taken | Wait | None:
        """A unit that was begun long ago and not ended, or that failed and may be tried again.

        The whole job is listed once; from then on only the shards that were not done then.
        """
        if shard is not None or self._undone is None:
            open_units = self._open(shard)
        else:
            open_units = [unit for home in sorted(self._undone) for unit in self._open(home)]
        self._undone = {self.job.shard_of(unit) for unit, *_ in open_units}
        self.rng.shuffle(open_units)  # or all would doubt the same one
        oldest: float | None = None
        for unit, attempt, ended in open_units:
            home = self.job.shard_of(unit)
            age_s = now_s - self.claims.begun_at(home, unit, attempt)
            if ended or age_s >= self.patience_s:
                taken = self._claim(home, unit, now_s, attempt + 1)
                if taken is not None:
                    return taken
                age_s = 0.0
            oldest = age_s if oldest is None else max(oldest, age_s)
        return None if oldest is None else Wait(max(1.0, self.patience_s - oldest))

    def _open(self, shard: int | None) -> list[tuple[int, int, bool]]:
        """(unit, its last attempt, whether it failed) of what is begun and may be tried again."""
        begun = self.claims.claimed(shard)
        done, failed = self.claims.done(shard), self.claims.failed(shard)
        return [
            (unit, attempt, failed.get(unit, 0) >= attempt)
            for unit, attempt in sorted(begun.items())
            if unit not in done and not set_aside(attempt, failed.get(unit, 0))
        ]


def set_aside(attempts: int, failures: int) -> bool:
    """Whether a unit is tried no more."""
    return failures >= FAILURES or attempts >= ATTEMPTS

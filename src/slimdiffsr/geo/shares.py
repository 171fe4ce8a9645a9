"""The chunks of a scene shared out among workers: pure bookkeeping.

Every worker has a run of neighbours, so that few tiles are run by two of them. Who has none left
takes the second half of the longest run there is; what a lost worker had is shared out again.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field
from itertools import pairwise

__all__ = ["Shares"]


@dataclass(slots=True)
class Shares:
    """Which of ``count`` things, by number, are free, promised, under way and done."""

    count: int
    parts: int  # workers to be expected
    done: set[int] = field(default_factory=set)
    _free: list[range] = field(default_factory=list)
    _promised: dict[Hashable, range] = field(default_factory=dict)
    _under_way: dict[Hashable, set[int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        ends = [self.count * k // self.parts for k in range(self.parts + 1)]
        runs = [range(a, b) for a, b in pairwise(ends) if a < b]
        self._free = runs[::-1]

    @property
    def all_done(self) -> bool:
        """Whether nothing is left."""
        return len(self.done) == self.count

    @property
    def has_work(self) -> bool:
        """Whether ``take`` would give anybody something."""
        return bool(self._free) or any(self._promised.values())

    def take(self, worker: Hashable) -> tuple[int, range] | None:
        """The next number for a worker, and those promised to it after that; None if none is."""
        run = self._promised.get(worker) or self._next_run(worker)
        if not run:
            return None
        self._promised[worker] = run[1:]
        self._under_way.setdefault(worker, set()).add(run[0])
        return run[0], run[1:]

    def finish(self, worker: Hashable, number: int) -> bool:
        """Note that a number is done; False if it was already."""
        self._under_way.get(worker, set()).discard(number)
        new = number not in self.done
        self.done.add(number)
        return new

    def lose(self, worker: Hashable) -> int:
        """Free what a worker had; returns how many numbers it had begun."""
        begun = sorted(self._under_way.pop(worker, set()) - self.done)
        left = self._promised.pop(worker, range(0))
        self._free += [range(number, number + 1) for number in reversed(begun)]
        if left:
            self._free.insert(0, left)
        return len(begun)

    def close(self) -> None:
        """Give out nothing more."""
        self._free.clear()
        self._promised.clear()

    def _next_run(self, worker: Hashable) -> range:
        if self._free:
            return self._free.pop()
        owner = max(self._promised, key=lambda other: len(self._promised[other]), default=None)
        if owner is None or owner == worker:
            return range(0)
        run = self._promised[owner]
        kept = len(run) // 2
        self._promised[owner] = run[:kept]
        return run[kept:]

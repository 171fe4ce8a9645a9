"""A thousand workers on one job, in simulated time: how near to ideal, how long the tail.

    python benchmarks/scale_simulation.py [--workers 1000] [--tera-pixels 1.6] [--times FILE]

The workers run the real claiming code (``scale_out.claims.Picker``) over a place that lives in
memory and charges an object store's latency for each request. What is simulated is time: of a chunk
(resampled from measured times, one number a line, by default log-normal with a spread of 0.25),
stragglers (one in twenty, ten times slower), preemption (each worker is lost once an hour on
average, in the middle of a unit, and comes back after two minutes).

Prints a JSON line: efficiency (time of the ideal, which shares the work out by speed without any
loss, by the time until the last unit is done), how often a chunk was done on average, the tail
(time from 95 % done to the end, by the whole), requests an hour and a worker.
"""

from __future__ import annotations

import argparse
import heapq
import json
import math
import platform
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from slimdiffsr.scale_out.claims import Claims, Picker, Taken, Wait
from slimdiffsr.scale_out.jobfile import JobFile, Part

CHUNK_PX = 2048 * 2048
PAGE = 1000  # keys a request lists


@dataclass
class MemoryPlace:
    """A store that counts what its requests cost."""

    address: str = "memory"
    folders: dict[str, dict[str, bytes]] = field(default_factory=dict)
    requests: int = 0

    def put(self, key: str, data: bytes, *, replace: bool = False) -> bool:
        self.requests += 1
        folder, _, name = key.rpartition("/")
        objects = self.folders.setdefault(folder, {})
        if name in objects and not replace:
            return False
        objects[name] = data
        return True

    def get(self, key: str) -> bytes | None:
        self.requests += 1
        folder, _, name = key.rpartition("/")
        return self.folders.get(folder, {}).get(name)

    def has(self, key: str) -> bool:
        return self.get(key) is not None

    def keys(self, prefix: str) -> Iterator[str]:
        wanted = prefix.rstrip("/")
        exact = self.folders.get(wanted)
        chosen = (
            [(wanted, exact)]
            if exact is not None
            else [(f, o) for f, o in self.folders.items() if f.startswith(wanted + "/")]
        )
        self.requests += 1 + sum(len(objects) for _, objects in chosen) // PAGE
        for folder, objects in chosen:
            yield from (f"{folder}/{name}" for name in list(objects))

    def delete(self, key: str) -> None:
        raise NotImplementedError


def make_job(units: int, shards: int, unit_chunks: int) -> JobFile:
    bounds = tuple(units * k // shards for k in range(shards + 1))
    return JobFile(
        version="simulated", model="", spec={}, options={}, colour="", output="", unit_chunks=unit_chunks, shards=bounds,
        parts=(Part(1, units),), scenes=1, failed=0, chunks=units * unit_chunks,
        pixels_hr=units * unit_chunks * CHUNK_PX,
    )  # fmt: skip


class Simulation:
    """Events in order of time: a worker asks, ends a unit, or comes back."""

    def __init__(self, args: argparse.Namespace, times_s: NDArray[np.float64]) -> None:
        self.args, self.times_s = args, times_s
        self.rng = np.random.default_rng(args.seed)
        units = math.ceil(args.tera_pixels * 1e12 / CHUNK_PX / args.unit)
        self.job = make_job(units, args.workers, args.unit)
        self.place = MemoryPlace()
        slow = self.rng.random(args.workers) < args.slow_share
        self.slowness = np.where(slow, args.slow_factor, 1.0)
        self.pickers = [self._picker(worker) for worker in range(args.workers)]
        self.lives = np.zeros(args.workers, int)
        self.times_done = np.zeros(units, int)
        self.ended_s = np.full(units, np.inf)

    def _picker(self, worker: int) -> Picker:
        rng = np.random.default_rng([self.args.seed, worker])
        return Picker(self.job, Claims(self.place), f"worker {worker}", worker, rng)

    def run(self) -> None:
        events: list[tuple[float, int, Taken | None]] = [
            (float(self.rng.uniform(0, 60)), worker, None) for worker in range(self.args.workers)
        ]
        heapq.heapify(events)
        while events:
            now_s, worker, taken = heapq.heappop(events)
            if taken is not None:
                now_s = self._end(now_s, worker, taken)
            following = self._next(now_s, worker)
            if following is not None:
                heapq.heappush(events, following)

    def _end(self, now_s: float, worker: int, taken: Taken) -> float:
        self.times_done[taken.unit] += 1
        self.ended_s[taken.unit] = min(self.ended_s[taken.unit], now_s)
        Claims(self.place).mark_done(taken.shard, taken.unit, {})
        return now_s + self.args.latency_s

    def _next(self, now_s: float, worker: int) -> tuple[float, int, Taken | None] | None:
        before = self.place.requests
        choice = self.pickers[worker].choose(now_s)
        now_s += (self.place.requests - before) * self.args.latency_s
        if choice is None:
            return None
        if isinstance(choice, Wait):
            return now_s + min(choice.seconds, 60.0), worker, None
        chunks = self.rng.choice(self.times_s, self.args.unit)
        took_s = float(chunks.sum() * self.slowness[worker]) + self.args.unit * self.args.latency_s
        lost_s = float(self.rng.exponential(self.args.lost_every_s))
        if lost_s < took_s:
            self.pickers[worker] = self._picker(worker)  # a new process knows nothing
            return now_s + lost_s + self.args.back_after_s, worker, None
        self.pickers[worker].took(took_s)
        return now_s + took_s, worker, choice

    def figures(self) -> dict[str, object]:
        end_s = float(self.ended_s.max())
        speed = (1 / self.slowness).sum()
        up = self.args.lost_every_s / (self.args.lost_every_s + self.args.back_after_s)
        ideal_s = float(self.times_s.mean() * self.job.chunks / speed / up)
        most_s = float(np.quantile(self.ended_s, 0.95))
        return {
            "workers": self.args.workers,
            "units": self.job.units,
            "chunks": self.job.chunks,
            "ideal_h": round(ideal_s / 3600, 3),
            "simulated_h": round(end_s / 3600, 3),
            "efficiency": round(ideal_s / end_s, 4),
            "times_a_chunk_was_done": round(float(self.times_done.mean()), 4),
            "tail": round((end_s - most_s) / end_s, 4),
            "requests_a_worker_and_hour": round(
                self.place.requests / self.args.workers / (end_s / 3600), 1
            ),
            "unfinished": int(np.isinf(self.ended_s).sum()),
            "python": platform.python_version(),
        }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--workers", type=int, default=1000)
    parser.add_argument("--tera-pixels", type=float, default=1.6)
    parser.add_argument("--unit", type=int, default=4, help="chunks a unit")
    parser.add_argument("--times", type=Path, help="measured seconds of chunks, one a line")
    parser.add_argument("--chunk-s", type=float, default=30.0, help="typical time without --times")
    parser.add_argument("--latency-s", type=float, default=0.05, help="of one request")
    parser.add_argument("--slow-share", type=float, default=0.05)
    parser.add_argument("--slow-factor", type=float, default=10.0)
    parser.add_argument("--lost-every-s", type=float, default=3600.0)
    parser.add_argument("--back-after-s", type=float, default=120.0)
    parser.add_argument("--seed", type=int, default=20260)
    args = parser.parse_args()
    times_s = (
        np.loadtxt(args.times)
        if args.times
        else args.chunk_s * np.random.default_rng(args.seed).lognormal(0, 0.25, 4096)
    )
    simulation = Simulation(args, times_s)
    simulation.run()
    print(json.dumps(simulation.figures()))


if __name__ == "__main__":
    main()

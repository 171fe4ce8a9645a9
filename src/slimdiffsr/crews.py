"""Which processes work on a command's scenes: one a card, or one for some of the cores."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch

from slimdiffsr import geo
from slimdiffsr.errors import ConfigError
from slimdiffsr.runtime.devices import pick_device
from slimdiffsr.upscale import Colour, Upscaler

__all__ = ["ModelPlan", "cores", "devices_of", "open_crew", "open_workers_of", "worker_plans"]


@dataclass(frozen=True, slots=True)
class ModelPlan:
    """A model as ``Upscaler.from_pretrained`` loads it. Can be handed to another process."""

    source: str = "tiny-x4"
    scale: int | None = None
    device: str = "auto"
    precision: str = "auto"
    runtime: str = "auto"
    batch: int | None = None
    revision: str | None = None
    colour: Colour = "low-frequency"
    tiles: int = (
        1  # of the scene, by which 'auto' chooses the runtime; of several that of a small one
    )

    def upscaler(self) -> Upscaler:
        """The model, loaded."""
        return Upscaler.from_pretrained(
            self.source,
            scale=self.scale,
            device=self.device,
            precision=self.precision,
            runtime=self.runtime,
            batch=self.batch,
            revision=self.revision,
        )

    def upscaler_here(self, workers: int | None = None) -> Upscaler:
        """The model for this process: on the CPU where others do the work."""
        names = devices_of(self.device)
        others = len(names) > 1 or (workers or 1) > 1
        return replace(self, device="cpu" if others else names[0]).upscaler()

    def __call__(self) -> geo.Network:
        """The model as the scene engine sees it, in a process that has nothing else to do."""
        if self.device.startswith("cuda:"):
            torch.cuda.set_device(self.device)  # else pinned memory touches the first card too
        return self.upscaler().network(self.colour, self.tiles)


def devices_of(device: str) -> list[str]:
    """The devices of 'all', or of a list with commas. Raises ConfigError for one not there."""
    if device == "all":
        return [f"cuda:{k}" for k in range(torch.cuda.device_count())] or ["cpu"]
    names = [name.strip() for name in device.split(",")]
    if len(set(names)) < len(names):
        raise ConfigError(f"a device stands twice in {device!r}: give each once")
    for name in names:
        pick_device(name)
    return names


def cores() -> int:
    """How many cores this process may use, or the number that OMP_NUM_THREADS allows."""
    told = os.environ.get("OMP_NUM_THREADS", "")
    here = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(here, int(told)) if told.isdecimal() and int(told) > 0 else here


def worker_plans(plan: ModelPlan, workers: int | None) -> list[geo.WorkerPlan]:
    """One process for each card of ``plan.device``, or ``workers`` that share cores or cards.

    Several processes a card pay where one cannot compress and write as fast as the card computes.

    Empty where one process is enough: it is then this one. Raises ConfigError for numbers and
    devices that do not fit together.
    """
    names = devices_of(plan.device)
    if workers is not None and workers < 1:
        raise ConfigError(f"workers must be at least 1, got {workers}")
    if len(names) == 1 and (workers or 1) == 1:
        return []
    kinds = {pick_device(name).type for name in names}
    if kinds == {"cpu"} and workers is not None:
        threads = max(1, cores() // workers)
        one = replace(plan, device="cpu")
        return [geo.WorkerPlan(f"worker {k}", one, threads) for k in range(1, workers + 1)]
    many: int = workers or len(names)
    each, left = divmod(many, len(names))
    if kinds != {"cuda"} or left or not each:
        raise ConfigError(
            "several workers share the cores of a CPU, or are the same number for each card: give "
            f"--workers with --device cpu, or a multiple of the cards; got {workers} workers and "
            f"{', '.join(names)}"
        )
    share = max(1, cores() // many) if each > 1 else None
    return [
        geo.WorkerPlan(
            name if each == 1 else f"{name} ({k + 1})", replace(plan, device=name), share
        )
        for k in range(each)
        for name in names
    ]


@contextmanager
def open_workers_of(plan: ModelPlan, workers: int | None = None) -> Iterator[geo.Workers | None]:
    """Start the processes of ``worker_plans``; None where this process is enough."""
    plans = worker_plans(plan, workers)
    if not plans:
        yield None
        return
    with geo.open_workers(plans) as crew:
        yield crew


@contextmanager
def open_crew(plan: ModelPlan, workers: int | None = None) -> Iterator[geo.Network | geo.Workers]:
    """What ``geo.upscale_scene`` is to be given: several processes, or this one's network."""
    with open_workers_of(plan, workers) as crew:
        yield crew or plan.upscaler_here(workers).network(plan.colour, plan.tiles)

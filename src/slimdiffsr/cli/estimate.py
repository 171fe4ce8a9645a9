"""How long a run will take, and what it needs: a short measurement and the plan's numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from slimdiffsr import geo
    from slimdiffsr.upscale import Upscaler

__all__ = ["Estimate", "estimate_run"]

_FEW_TILES = 60  # for fewer a measurement would cost more than it tells
_ENGINE = 1.1  # what the engine takes beside the network


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a run is expected to take."""

    seconds: float | None  # None: not measured
    disk_bytes: int  # while it works: chunks and output
    memory_bytes: int


def estimate_run(upscaler: Upscaler, plan: geo.ScenePlan, *, always: bool = False) -> Estimate:
    """Estimate from the time of a few tiles on this machine, as it is now.

    always: measure even for a run that is over sooner than the measurement.
    """
    seconds = None
    if always or plan.tiles > _FEW_TILES:
        seconds = _ENGINE * plan.tiles * upscaler.seconds_per_tile(plan.tiles)
    return Estimate(seconds, plan.scratch_bytes, plan.memory_bytes)

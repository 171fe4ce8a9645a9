"""Timing: rows take turns, so whatever else the machine does hits all alike."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from slimdiffsr.bench.diffusion import StableDiffusion
from slimdiffsr.bench.rows import Row
from slimdiffsr.errors import ConfigError, SlimDiffSRError
from slimdiffsr.runtime.choose import Runtimes
from slimdiffsr.runtime.guarded import GuardedRuntime

__all__ = [
    "Cell",
    "Quartiles",
    "cuda_peak_mib",
    "explain",
    "make_cell",
    "make_input",
    "quartiles",
    "runner",
    "take_turns",
    "time_once",
]

# Of a cell that has used up its time, unless each takes all of it.
LEAST_WARMUPS = 3
LEAST_RUNS = 3


@dataclass(slots=True)
class Cell:
    """One row at one batch size: how to time a run of it, and the times so far.

    ``extrapolated``: the runs are one step each, and the others' time is added from the UNet's.
    """

    row: Row
    batch: int
    sample: Callable[[], float]
    extrapolated: bool = False
    warmed: int = 0
    seconds: list[float] = field(default_factory=list)
    spent_s: float = 0.0
    peak_mib: float | None = None
    error: str | None = None
    runtime: str = "torch"


@dataclass(frozen=True, slots=True)
class Quartiles:
    """Median and quartiles of a cell's runs, in seconds."""

    q1: float
    median: float
    q3: float


def quartiles(seconds: list[float]) -> Quartiles:
    """Of at least one run; between two runs linearly."""
    q1, median, q3 = np.quantile(seconds, (0.25, 0.5, 0.75))
    return Quartiles(float(q1), float(median), float(q3))


def runner(
    module: nn.Module, device: torch.device, precision: str, runtime: str
) -> Callable[[Tensor], Tensor]:
    """The bare network as a runtime runs it, without the guard of lower precisions.

    Raises ConfigError for a runtime that cannot run it here.
    """
    if isinstance(module, StableDiffusion) and runtime != "torch":
        raise ConfigError(f"Stable Diffusion is run by torch alone here, got runtime {runtime}")
    made = Runtimes(module, device, precision, runtime).for_tiles()
    return made.inner if isinstance(made, GuardedRuntime) else made


def make_input(batch: int, side_lr_px: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """Noise in [-1, 1], (b, 3, side, side), channels last; the same for every row."""
    rng = torch.Generator().manual_seed(0)
    rgb_lr = torch.rand(batch, 3, side_lr_px, side_lr_px, generator=rng) * 2 - 1
    return rgb_lr.to(device, dtype).contiguous(memory_format=torch.channels_last)


def time_once(run: Callable[[], object], device: torch.device) -> float:
    """Seconds of one run: by CUDA events where they are, else by the clock."""
    if device.type != "cuda":
        start = time.perf_counter()
        run()
        return time.perf_counter() - start
    begin: Any = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
    end: Any = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
    torch.cuda.synchronize(device)
    begin.record()
    run()
    end.record()
    torch.cuda.synchronize(device)
    milliseconds: float = begin.elapsed_time(end)
    return milliseconds / 1000


def make_cell(row: Row, module: nn.Module, run: Callable[[Tensor], Tensor], rgb_lr: Tensor) -> Cell:
    """A cell of a module's run on this input. On a CPU many steps are extrapolated from one."""
    device = rgb_lr.device
    if not isinstance(module, StableDiffusion):
        return Cell(row, len(rgb_lr), lambda: time_once(lambda: run(rgb_lr), device))
    if row.steps == 1 or device.type == "cuda":
        return Cell(row, len(rgb_lr), lambda: time_once(lambda: module(rgb_lr, row.steps), device))
    z = torch.zeros(len(rgb_lr), 4, *(side * module.scale // 8 for side in rgb_lr.shape[-2:]))
    z = z.to(rgb_lr)

    def sample() -> float:
        whole = time_once(lambda: module(rgb_lr), device)
        return whole + (row.steps - 1) * time_once(lambda: module.step(z), device)

    return Cell(row, len(rgb_lr), sample, extrapolated=True)


def take_turns(
    cells: list[Cell],
    runs: int,
    warmup: int,
    seconds: float | None = None,
    tell: Callable[[str], None] = lambda text: None,
) -> None:
    """Warm all cells up, then time one run of each in turn, ``runs`` times over.

    seconds: time for all of them; each may use its equal share, a fifth of that to warm up. Each
    makes at least LEAST_WARMUPS warm-ups and LEAST_RUNS runs of those asked for (one, if it takes
    longer than the share). A cell that fails keeps the error and the others go on.
    """
    share = float("inf") if seconds is None else seconds / max(len(cells), 1)
    for cell in cells:
        while cell.error is None and cell.warmed < warmup and _is_cold(cell, share):
            _attempt(cell, keep=False)
        tell(f"warm-up {cell.warmed}/{warmup}: {cell.row.name}, batch {cell.batch}")
    for done in range(runs):
        for cell in cells:
            if cell.error is None and _goes_on(cell, share):
                _attempt(cell, keep=True)
        if (done + 1) % max(1, runs // 10) == 0:
            tell(f"round {done + 1}/{runs}")


def _is_cold(cell: Cell, share_s: float) -> bool:
    if cell.spent_s <= share_s / 5 or not cell.warmed:
        return True
    return cell.warmed < LEAST_WARMUPS and cell.spent_s < cell.warmed * share_s


def _goes_on(cell: Cell, share_s: float) -> bool:
    if cell.spent_s < share_s or not cell.seconds:
        return True
    return len(cell.seconds) < LEAST_RUNS and cell.seconds[0] < share_s


def _attempt(cell: Cell, *, keep: bool) -> None:
    start = time.perf_counter()
    try:
        with torch.inference_mode():
            seconds = cell.sample()
    except Exception as error:  # one row's failure must not lose the others
        cell.error = explain(error)
        return
    finally:
        cell.spent_s += time.perf_counter() - start
    if keep:
        cell.seconds.append(seconds)
    else:
        cell.warmed += 1


def explain(error: Exception) -> str:
    """An error in one line; ours says enough without the name of its class."""
    text = str(error).strip().splitlines()
    if isinstance(error, SlimDiffSRError):
        return text[0]
    return f"{type(error).__name__}: {text[0][:300]}" if text else type(error).__name__


def cuda_peak_mib(cell: Cell, device: torch.device, before: int) -> None:
    """Peak of allocated memory during one run, over what was allocated before the row was built.

    That run loads the row's kernels and may take seconds: it is no warm-up, and not charged to the
    row's share of the time.
    """
    torch.cuda.reset_peak_memory_stats(device)
    _attempt(cell, keep=False)
    cell.warmed, cell.spent_s = 0, 0.0
    cell.peak_mib = (torch.cuda.max_memory_allocated(device) - before) / 2**20

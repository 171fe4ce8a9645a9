"""One benchmark: count, build, take turns, measure memory and cold start; one record a cell."""

from __future__ import annotations

import copy
import gc
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import nn

from slimdiffsr.bench.counts import Cost, count_row
from slimdiffsr.bench.fresh import Fresh, Task, run_fresh
from slimdiffsr.bench.measure import (
    Cell,
    cuda_peak_mib,
    explain,
    make_cell,
    make_input,
    quartiles,
    runner,
    take_turns,
)
from slimdiffsr.bench.memory import check_memory
from slimdiffsr.bench.protocol import BenchConfig, Precision, protocol
from slimdiffsr.bench.rows import Row
from slimdiffsr.bench.scene import measure_scene
from slimdiffsr.errors import ConfigError
from slimdiffsr.runtime.devices import DTYPES, pick_device

__all__ = ["Record", "bench"]

Record = dict[str, Any]  # one line of JSON


def bench(
    rows: list[Row],
    config: BenchConfig,
    keep: Callable[[list[Record]], None] = lambda records: None,
    tell: Callable[[str], None] = lambda text: None,
) -> list[Record]:
    """Measure rows. ``keep`` gets the records of each precision as soon as they are there.

    A row that fails has its reason in ``error``; the others are measured. What a run that is
    interrupted has timed is kept. Raises ConfigError for a device that is not there, before
    anything is run.
    """
    device = pick_device(config.device)
    if device.type not in ("cpu", "cuda"):
        raise ConfigError(f"bench measures on cpu or cuda, got {config.device}")
    about = protocol(config, device)
    counts = {row.name: _count(row, config, tell) for row in rows}
    records: list[Record] = []
    for precision in config.precisions:
        # Before this process holds the networks, so that both need not fit.
        fresh: dict[tuple[str, int, str], Record] = {
            (row.name, batch, runtime): _from_fresh(
                row, batch, config, (precision, runtime), device, tell
            )
            for row in rows
            for batch in config.batches
            for runtime in config.runtimes
            if not isinstance(counts[row.name], str)
        }
        cells = _build(rows, config, precision, device, tell)
        seconds = config.max_minutes and config.max_minutes * 60 / len(config.precisions)
        try:
            take_turns(cells, config.runs, config.warmup, seconds, tell)
        finally:
            done = [
                about
                | {"precision": precision, "batch": cell.batch, "runtime": cell.runtime}
                | _describe(cell.row, counts[cell.row.name])
                | fresh.get((cell.row.name, cell.batch, cell.runtime), {})
                | _results(cell, config.out_px)
                for cell in cells
            ]
            keep(done)
        records += done
        _let_go(cells, device)
        records += _scenes(rows, config, precision, about, keep, tell)
    return records


def _scenes(
    rows: list[Row],
    config: BenchConfig,
    precision: Precision,
    about: Record,
    keep: Callable[[list[Record]], None],
    tell: Callable[[str], None],
) -> list[Record]:
    done = []
    for row in rows if config.scene_px else []:
        for runtime in config.runtimes:
            record = about | measure_scene(row, config, precision, runtime, tell)
            keep([record])
            done.append(record)
    return done


def _count(row: Row, config: BenchConfig, tell: Callable[[str], None]) -> Cost | str:
    tell(f"count: {row.name}")
    try:
        return count_row(row, config.scale, config.out_px)
    except Exception as error:  # one row's failure must not lose the others
        return explain(error)


def _describe(row: Row, cost: Cost | str) -> Record:
    about: Record = {"row": row.name, "title": row.title, "steps": row.steps}
    if isinstance(cost, str):
        return about | {"count_error": cost}
    return about | {
        "parameters_used": cost.parameters_used,
        "parameters_paper": cost.parameters_paper,
        "gmacs": round(cost.macs.total / 1e9, 3),
        "gmacs_layers": round(cost.macs.layers / 1e9, 3),
    }


def _build(
    rows: list[Row],
    config: BenchConfig,
    precision: Precision,
    device: torch.device,
    tell: Callable[[str], None],
) -> list[Cell]:
    """The cells of a precision, ready to run."""
    cells: list[Cell] = []
    networks: dict[str, nn.Module] = {}
    if device.type == "cuda":  # workspaces of cuBLAS are no row's memory
        torch.ones(8, 8, device=device, dtype=DTYPES[precision]) @ torch.ones(
            8, 8, device=device, dtype=DTYPES[precision]
        )
    for row in rows:
        tell(f"build: {row.name}, {precision}")
        cells += _cells(row, networks, config, precision, device)
    return cells


def _let_go(cells: list[Cell], device: torch.device) -> None:
    for cell in cells:
        cell.sample = _gone  # it holds the network
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def _cells(
    row: Row,
    networks: dict[str, nn.Module],
    config: BenchConfig,
    precision: Precision,
    device: torch.device,
) -> Iterator[Cell]:
    before = torch.cuda.memory_allocated(device) if device.type == "cuda" else 0
    try:
        if row.network not in networks:
            batch = max(config.batches)
            check_memory(row, config.scale, config.out_px, batch, precision, device)
            with device:
                networks[row.network] = row.build(config.scale)
        else:
            before -= _bytes(networks[row.network])
        module = networks[row.network]
    except Exception as error:  # one row's failure must not lose the others
        yield from _failed(row, config, config.runtimes, error)
        return
    for runtime in config.runtimes:
        try:
            # Each has its own: another runtime may move or convert what it is given.
            own = module if len(config.runtimes) == 1 else copy.deepcopy(module)
            run = runner(own, device, precision, runtime)
        except Exception as error:  # as above
            yield from _failed(row, config, (runtime,), error)
            continue
        for batch in config.batches:
            rgb_lr = make_input(batch, config.out_px // config.scale, device, DTYPES[precision])
            cell = make_cell(row, own, run, rgb_lr)
            cell.runtime = runtime
            if device.type == "cuda":
                cuda_peak_mib(cell, device, before)
            yield cell


def _failed(
    row: Row, config: BenchConfig, runtimes: Sequence[str], error: Exception
) -> Iterator[Cell]:
    for runtime in runtimes:
        for batch in config.batches:
            yield Cell(row, batch, _gone, error=explain(error), runtime=runtime)


def _gone() -> float:
    raise RuntimeError("the network of this cell is gone")


def _bytes(module: nn.Module) -> int:
    tensors = [*module.parameters(), *module.buffers()]
    return sum(t.numel() * t.element_size() for t in tensors)


def _results(cell: Cell, out_px: int) -> Record:
    out: Record = {"warmup": cell.warmed, "runs": len(cell.seconds), "error": cell.error}
    if cell.peak_mib is not None:
        out["peak_mib"] = round(cell.peak_mib, 1)
    if not cell.seconds:
        return out
    q = quartiles(cell.seconds)
    return out | {
        "median_s": q.median,
        "q1_s": q.q1,
        "q3_s": q.q3,
        "mpx_per_s": cell.batch * out_px**2 / 1e6 / q.median,
        "extrapolated": cell.extrapolated,
    }


def _from_fresh(
    row: Row,
    batch: int,
    config: BenchConfig,
    how: tuple[Precision, str],
    device: torch.device,
    tell: Callable[[str], None],
) -> Record:
    """Cold start at batch 1, and on a CPU the peak memory of any batch."""
    precision, runtime = how
    pointless = device.type == "cuda" and batch > 1
    if not config.fresh or row.steps > 1 or pointless:
        return {}
    tell(f"fresh process: {row.name}, {precision}, {runtime}, batch {batch}")
    task = Task(
        row=row.name,
        source=row.source,
        scale=config.scale,
        out_px=config.out_px,
        batch=batch,
        precision=precision,
        device=str(device),
        threads=torch.get_num_threads(),
        runtime=runtime,
    )
    try:
        fresh: Fresh = run_fresh(task, timeout_s=300)
    except ConfigError as error:
        return {"fresh_error": explain(error)}
    out: Record = {"peak_mib": round(fresh.peak_mib, 1)} if device.type == "cpu" else {}
    return out | ({"cold_start_s": round(fresh.cold_start_s, 3)} if batch == 1 else {})

"""One benchmark: count, build, take turns, measure memory and cold start; one record a cell."""

from __future__ import annotations

import gc
import platform
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from slimdiffsr.bench.counts import Cost, count_row
from slimdiffsr.bench.fresh import Fresh, Task, run_fresh
from slimdiffsr.bench.measure import (
    DTYPES,
    Cell,
    cuda_peak_mib,
    explain,
    make_cell,
    make_input,
    place,
    quartiles,
    take_turns,
)
from slimdiffsr.bench.rows import Row
from slimdiffsr.errors import ConfigError
from slimdiffsr.upscale import pick_device

__all__ = ["BenchConfig", "Precision", "Record", "bench", "count_only", "protocol"]

Precision = Literal["fp32", "fp16", "bf16"]
Record = dict[str, Any]  # one line of JSON
GIB = 2**30


@dataclass(frozen=True, slots=True)
class BenchConfig:
    """What is run and how often; the defaults are the paper's protocol (MS 13)."""

    device: str = "cpu"
    precisions: tuple[Precision, ...] = ("fp32",)
    batches: tuple[int, ...] = (1,)
    out_px: int = 512
    scale: int = 4
    runs: int = 100
    warmup: int = 20
    max_minutes: float | None = None  # for the timing of all rows; building comes on top
    fresh: bool = True  # cold start and, on a CPU, peak memory, in child processes

    def __post_init__(self) -> None:
        if self.runs < 1 or self.warmup < 1:
            raise ConfigError(
                f"runs and warmup must be at least 1, got runs={self.runs}, warmup={self.warmup}"
            )
        if self.scale not in (2, 4, 8):
            raise ConfigError(f"scale must be 2, 4 or 8, got {self.scale}")
        if self.out_px < 64 or self.out_px % 64:
            raise ConfigError(
                f"out_px must be a multiple of 64, which every row can make, got {self.out_px}"
            )
        if not self.batches or min(self.batches) < 1:
            raise ConfigError(f"a batch must be at least 1, got {self.batches}")
        unknown = [p for p in self.precisions if p not in DTYPES]
        if unknown or not self.precisions:
            raise ConfigError(
                f"precision must be one of {', '.join(DTYPES)}, got {self.precisions}"
            )
        if self.max_minutes is not None and self.max_minutes <= 0:
            raise ConfigError(f"max_minutes must be positive, got {self.max_minutes}")


def bench(
    rows: list[Row],
    config: BenchConfig,
    keep: Callable[[list[Record]], None] = lambda records: None,
    tell: Callable[[str], None] = lambda text: None,
) -> list[Record]:
    """Measure rows. ``keep`` gets the records of each precision as soon as they are there.

    A row that fails has its reason in ``error``; the others are measured. Raises ConfigError for a
    device that is not there, before anything is run.
    """
    device = pick_device(config.device)
    if device.type not in ("cpu", "cuda"):
        raise ConfigError(f"bench measures on cpu or cuda, got {config.device}")
    about = protocol(config, device)
    counts = {row.name: _count(row, config, tell) for row in rows}
    records = []
    for precision in config.precisions:
        cells = _measure(rows, config, precision, device, tell)
        done = [
            about
            | {"precision": precision, "batch": cell.batch}
            | _describe(cell.row, counts[cell.row.name])
            | _results(cell, config.out_px)
            | _from_fresh(cell, config, precision, device, tell)
            for cell in cells
        ]
        keep(done)
        records += done
    return records


def count_only(rows: list[Row], config: BenchConfig) -> list[Record]:
    """Records of parameters and MACs alone; nothing is run."""
    return [
        {"row": row.name, "scale": config.scale, "out_px": config.out_px}
        | _describe(row, _count(row, config, lambda text: None))
        for row in rows
    ]


def protocol(config: BenchConfig, device: torch.device) -> Record:
    """Everything that a number depends on besides its row: machine, versions, sizes."""
    cuda = device.type == "cuda"
    about: Record = {
        "device": torch.cuda.get_device_name(device) if cuda else _cpu_name(),
        "device_type": device.type,
        "threads": torch.get_num_threads(),
        "cores": len(_cores()),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda if cuda else None,
        "memory_format": "channels_last",
        "scale": config.scale,
        "input_px": config.out_px // config.scale,
        "out_px": config.out_px,
        "asked_runs": config.runs,
        "asked_warmup": config.warmup,
        "max_minutes": config.max_minutes,
        "date": time.strftime("%Y-%m-%d"),
    }
    for package in ("slimdiffsr", "diffusers", "spandrel"):
        about[package] = _version(package)
    if cuda:
        about["tf32"] = {
            "convolutions": torch.backends.cudnn.allow_tf32,
            "products": torch.backends.cuda.matmul.allow_tf32,
        }
        about["cudnn_benchmark"] = torch.backends.cudnn.benchmark
    return about


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


def _measure(
    rows: list[Row],
    config: BenchConfig,
    precision: Precision,
    device: torch.device,
    tell: Callable[[str], None],
) -> list[Cell]:
    """The cells of a precision, timed; the networks live only as long as this runs."""
    cells: list[Cell] = []
    networks: dict[str, nn.Module] = {}
    if device.type == "cuda":  # workspaces of cuBLAS are no row's memory
        torch.ones(8, 8, device=device, dtype=DTYPES[precision]) @ torch.ones(
            8, 8, device=device, dtype=DTYPES[precision]
        )
    for row in rows:
        tell(f"build: {row.name}, {precision}")
        cells += _cells(row, networks, config, precision, device)
    seconds = config.max_minutes and config.max_minutes * 60 / len(config.precisions)
    take_turns(cells, config.runs, config.warmup, seconds, tell)
    for cell in cells:
        cell.sample = _gone  # lets go of the network
    networks.clear()
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
    return cells


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
            _check_memory(row, config, precision, device)
            with device:
                module = row.build(config.scale)
            networks[row.network] = place(module, device, DTYPES[precision])
        else:
            before -= _bytes(networks[row.network])
        module = networks[row.network]
    except Exception as error:  # one row's failure must not lose the others
        reason = explain(error)
        for batch in config.batches:
            yield Cell(row, batch, _gone, error=reason)
        return
    for batch in config.batches:
        rgb_lr = make_input(batch, config.out_px // config.scale, device, DTYPES[precision])
        cell = make_cell(row, module, rgb_lr)
        if device.type == "cuda":
            cuda_peak_mib(cell, device, before)
        yield cell


def _gone() -> float:
    raise RuntimeError("the network of this cell is gone")


def _bytes(module: nn.Module) -> int:
    tensors = [*module.parameters(), *module.buffers()]
    return sum(t.numel() * t.element_size() for t in tensors)


def _check_memory(
    row: Row, config: BenchConfig, precision: Precision, device: torch.device
) -> None:
    """Refuse a row that would not fit. Raises ConfigError, with both figures."""
    free = free_bytes(device)
    with torch.device("meta"):
        parameters = sum(p.numel() for p in row.build(config.scale).parameters())
    # Weights are made in float32 whatever they are run in.
    mpx = max(config.batches) * config.out_px**2 / 1e6
    width = DTYPES[precision].itemsize / 4
    needed = 4 * parameters + row.gib_per_mpx * GIB * mpx * width
    if free is not None and needed > free:
        raise ConfigError(
            f"{row.name} needs about {needed / GIB:.1f} GiB at batch {max(config.batches)}, "
            f"{free / GIB:.1f} GiB are free: close other programs or give a smaller --batch"
        )


def free_bytes(device: torch.device) -> int | None:
    """Memory that can still be had on a device; None where the system does not tell."""
    if device.type == "cuda":
        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + kept  # torch uses again what it keeps
    try:
        text = Path("/proc/meminfo").read_text()
    except OSError:
        return None
    lines = dict(line.split(":", 1) for line in text.splitlines())
    return int(lines["MemAvailable"].split()[0]) * 2**10


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
    cell: Cell,
    config: BenchConfig,
    precision: Precision,
    device: torch.device,
    tell: Callable[[str], None],
) -> Record:
    """Cold start at batch 1, and on a CPU the peak memory of any batch."""
    row = cell.row
    pointless = device.type == "cuda" and cell.batch > 1
    if not config.fresh or cell.error is not None or row.steps > 1 or pointless:
        return {}
    tell(f"fresh process: {row.name}, {precision}, batch {cell.batch}")
    task = Task(
        row=row.name,
        source=row.source,
        scale=config.scale,
        out_px=config.out_px,
        batch=cell.batch,
        precision=precision,
        device=str(device),
        threads=torch.get_num_threads(),
    )
    try:
        fresh: Fresh = run_fresh(task, timeout_s=300)
    except ConfigError as error:
        return {"fresh_error": explain(error)}
    out: Record = {"peak_mib": round(fresh.peak_mib, 1)} if device.type == "cpu" else {}
    return out | ({"cold_start_s": round(fresh.cold_start_s, 3)} if cell.batch == 1 else {})


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _cores() -> set[int]:
    import os

    if hasattr(os, "sched_getaffinity"):
        return os.sched_getaffinity(0)
    return set(range(os.cpu_count() or 1))


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None

"""One result from a fresh process: the time to it, and the most memory it took.

``run_fresh`` starts this file's own ``main``, which prints one line of JSON to its parent.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from slimdiffsr.errors import ConfigError, SlimDiffSRError

__all__ = ["Fresh", "Task", "main", "memory_mib", "run_fresh"]


@dataclass(frozen=True, slots=True)
class Task:
    """What a fresh process does: builds a row (or loads its model) and enlarges one batch."""

    row: str
    source: str | None
    scale: int
    out_px: int
    batch: int
    precision: str
    device: str
    threads: int
    runtime: str = "torch"


@dataclass(frozen=True, slots=True)
class Fresh:
    """Seconds from the process's start to its result; MiB of memory over those after imports."""

    cold_start_s: float
    peak_mib: float


def run_fresh(task: Task, timeout_s: float) -> Fresh:
    """Do a task in a child process. Raises ConfigError, with the child's last words."""
    command = [sys.executable, "-m", "slimdiffsr.bench.fresh", json.dumps(asdict(task))]
    start = time.perf_counter()
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=_environment()
    ) as child:
        try:
            out, errors = child.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            child.kill()
            raise ConfigError(f"no first result after {timeout_s:.0f} s") from None
    if child.returncode != 0:
        words = errors.strip().splitlines() or [f"exit status {child.returncode}"]
        raise ConfigError(f"no result from a fresh process: {words[-1][:300]}")
    answer = json.loads(out.splitlines()[-1])
    return Fresh(answer["at"] - start, answer["peak_mib"])


def _environment() -> dict[str, str]:
    # So that the child finds this very package, installed or not.
    root = str(Path(__file__).parents[2])
    path = os.environ.get("PYTHONPATH")
    return os.environ | {"PYTHONPATH": root if not path else root + os.pathsep + path}


def main(text: str) -> str:
    """A task as JSON; returns the answer as JSON: when the result was there, and the peak."""
    import torch

    from slimdiffsr.bench.measure import make_input, runner
    from slimdiffsr.bench.memory import check_memory
    from slimdiffsr.bench.rows import ROWS, model_row
    from slimdiffsr.runtime.devices import DTYPES

    task = Task(**json.loads(text))
    torch.set_num_threads(task.threads)
    device = torch.device(task.device)
    row = ROWS[task.row] if task.source is None else model_row(task.source)
    check_memory(row, task.scale, task.out_px, task.batch, task.precision, device)
    before = memory_mib("VmRSS")
    with torch.inference_mode():
        with device:
            module = row.build(task.scale)
        run = runner(module, device, task.precision, task.runtime)
        side_lr_px = task.out_px // task.scale
        given = make_input(task.batch, side_lr_px, device, DTYPES[task.precision])
        run(given).float().cpu()
    # perf_counter is the system's monotonic clock, which parent and child share.
    return json.dumps({"at": time.perf_counter(), "peak_mib": memory_mib("VmHWM") - before})


def memory_mib(field: str) -> float:
    """Resident memory now (VmRSS) or its peak (VmHWM), from Linux; elsewhere the peak for both."""
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        import resource

        unit = 2**20 if sys.platform == "darwin" else 2**10
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
    lines = dict(line.split(":", 1) for line in status.splitlines() if ":" in line)
    return int(lines[field].split()[0]) / 2**10


if __name__ == "__main__":
    try:
        sys.stdout.write(main(sys.argv[1]) + "\n")
    except SlimDiffSRError as error:
        sys.exit(str(error))

"""Whether a row fits into the memory that is free: a row that does not is refused, not killed."""

from __future__ import annotations

from pathlib import Path

import torch

from slimdiffsr.bench.rows import Row
from slimdiffsr.errors import ConfigError
from slimdiffsr.runtime.devices import DTYPES

__all__ = ["check_memory", "free_bytes"]

GIB = 2**30


def check_memory(
    row: Row, scale: int, out_px: int, batch: int, precision: str, device: torch.device
) -> None:
    """Raise ConfigError, with both figures, for a row that would not fit."""
    free = free_bytes(device)
    with torch.device("meta"):
        parameters = sum(p.numel() for p in row.build(scale).parameters())
    mpx = batch * out_px**2 / 1e6
    width = DTYPES[precision].itemsize / 4
    # Weights are made in float32 whatever they are run in.
    needed = 4 * parameters + row.gib_per_mpx * GIB * mpx * width
    if free is not None and needed > free:
        raise ConfigError(
            f"{row.name} needs about {needed / GIB:.1f} GiB at batch {batch}, "
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

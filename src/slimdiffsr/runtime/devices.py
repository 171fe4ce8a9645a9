"""Which device and which precision: what was asked for, or the best there is."""

from __future__ import annotations

import torch

from slimdiffsr.errors import ConfigError
from slimdiffsr.runtime.protocol import Precision

__all__ = ["DTYPES", "describe_device", "pick_device", "pick_precision"]

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def pick_device(device: str = "auto") -> torch.device:
    """The best device there is, or the one asked for. Raises ConfigError when it is not there."""
    if device == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    there = {
        "cpu": True,
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
    }
    found = ", ".join(name for name, yes in there.items() if yes)
    try:
        chosen = torch.device(device)
    except RuntimeError:  # no such kind, or no number after the colon
        raise ConfigError(f"no device {device!r}: give auto, or one of {found}") from None
    count = torch.cuda.device_count() if chosen.type == "cuda" else 1
    if not there.get(chosen.type, False) or (chosen.index or 0) >= count:
        raise ConfigError(f"no device {device!r} here: found {found}")
    return chosen


def pick_precision(precision: str, device: torch.device) -> Precision:
    """fp32 but on CUDA, where bf16 if the chip has it, else fp16; or the one asked for.

    Raises ConfigError for a name that is none.
    """
    if precision == "auto":
        if device.type != "cuda":
            return "fp32"
        return "bf16" if torch.cuda.is_bf16_supported(False) else "fp16"
    for name in (*DTYPES, "int8"):
        if name == precision:
            return name  # type: ignore[return-value]  # these are the Literal's values
    known = ", ".join((*DTYPES, "int8"))
    raise ConfigError(f"precision must be auto or one of {known}, got {precision!r}")


def describe_device(device: torch.device) -> str:
    """The kind of a device, by what its arithmetic depends on: a card's name, a CPU's vectors."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    if device.type == "cpu":
        return f"cpu {torch.backends.cpu.get_cpu_capability()}"
    return device.type

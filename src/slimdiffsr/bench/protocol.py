"""How a benchmark is run, and everything that its numbers depend on besides the row."""

from __future__ import annotations

import os
import platform
import time
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch

from slimdiffsr.bench.machine import cpu_name, package_version
from slimdiffsr.errors import ConfigError
from slimdiffsr.runtime.devices import DTYPES
from slimdiffsr.runtime.protocol import RuntimeName

__all__ = ["BenchConfig", "Precision", "protocol"]

Precision = Literal["fp32", "fp16", "bf16"]


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
    runtimes: tuple[RuntimeName, ...] = ("torch",)
    scene_px: int = 0  # side of a whole scene's output; 0: none
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
        strange = [name for name in self.runtimes if name not in get_args(RuntimeName)]
        if strange or not self.runtimes:
            raise ConfigError(
                f"runtime must be one of {', '.join(get_args(RuntimeName))}, got {self.runtimes}"
            )
        if self.scene_px and (self.scene_px < self.out_px or self.scene_px % self.scale):
            raise ConfigError(
                f"a scene must have a side of at least {self.out_px} output pixels, a multiple of "
                f"{self.scale}, got {self.scene_px}"
            )
        if self.max_minutes is not None and self.max_minutes <= 0:
            raise ConfigError(f"max_minutes must be positive, got {self.max_minutes}")


def protocol(config: BenchConfig, device: torch.device) -> dict[str, Any]:
    """Everything that a number depends on besides its row: machine, versions, sizes."""
    cuda = device.type == "cuda"
    about: dict[str, Any] = {
        "device": torch.cuda.get_device_name(device) if cuda else cpu_name(),
        "device_type": device.type,
        "threads": torch.get_num_threads(),
        "cores": len(_cores()),
        "load_average": _load(),
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
    for package in ("slimdiffsr", "diffusers", "spandrel", "openvino", "onnxruntime"):
        about[package] = package_version(package)
    if cuda:
        about["tf32"] = {
            "convolutions": torch.backends.cudnn.allow_tf32,
            "products": torch.backends.cuda.matmul.allow_tf32,
        }
        about["cudnn_benchmark"] = torch.backends.cudnn.benchmark
    return about


def _cores() -> set[int]:
    if hasattr(os, "sched_getaffinity"):
        return os.sched_getaffinity(0)
    return set(range(os.cpu_count() or 1))


def _load() -> float | None:
    """Processes that wanted to run in the last minute, where the system counts them."""
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None

"""The machine and the versions that figures are measured with."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

__all__ = ["cpu_name", "describe_machine", "package_version"]

PACKAGES = ("slimdiffsr", "torch", "numpy", "pillow", "spandrel", "onnxruntime", "pyiqa", "lpips")


def describe_machine() -> dict[str, str]:
    """``versions`` of the packages that are there, and ``machine``: system, processors."""
    found = {package: package_version(package) for package in PACKAGES}
    chips = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    parts = (
        f"{platform.system()} {platform.machine()}",
        f"Python {platform.python_version()}",
        f"{torch.get_num_threads()} threads on {cpu_name()}",
        *chips,
    )
    versions = ", ".join(f"{name} {text}" for name, text in found.items() if text is not None)
    return {"versions": versions, "machine": ", ".join(parts)}


def cpu_name() -> str:
    """The processor's model, or where the system does not tell it, its architecture."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def package_version(package: str) -> str | None:
    """An installed package's version; None where it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None

"""The machine and the versions that figures were measured with."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version

import torch

__all__ = ["describe_machine"]

PACKAGES = ("slimdiffsr", "torch", "numpy", "pillow", "spandrel", "onnxruntime", "pyiqa", "lpips")


def describe_machine() -> dict[str, str]:
    """Versions of the packages that are there, system, processors."""
    found = []
    for package in PACKAGES:
        try:
            found.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            continue
    chips = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    parts = (
        f"{platform.system()} {platform.machine()}",
        f"Python {platform.python_version()}",
        f"{torch.get_num_threads()} CPU threads",
        *chips,
    )
    return {"versions": ", ".join(found), "machine": ", ".join(parts)}

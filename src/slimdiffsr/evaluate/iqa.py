"""Learned and statistical quality without a truth, through the package pyiqa.

pyiqa is under the PolyForm Noncommercial licence, which is not ours: it comes with the extra
``iqa-noncommercial`` and nothing else needs it. It fetches its own weights.
"""

from __future__ import annotations

import contextlib
import sys
import warnings
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any, Literal

import torch

from slimdiffsr.errors import ConfigError, WeightsError
from slimdiffsr.evaluate.report import Metric, Sample

__all__ = ["IQA_NAMES", "LICENCE", "iqa_metric", "licence_note"]

LICENCE = "PolyForm Noncommercial 1.0.0"

# Which way is better, and the file that pyiqa needs for it.
_KNOWN: dict[str, tuple[Literal["higher", "lower"], str]] = {
    "niqe": ("lower", "niqe_modelparameters.mat"),
    "musiq": ("higher", "musiq_koniq_ckpt-e95806b9.pth"),
    "maniqa": ("higher", "ckpt_koniq10k.pt"),
    "clipiqa": ("higher", "RN50.pt of CLIP"),
}
IQA_NAMES = tuple(_KNOWN)


def licence_note(metrics: Sequence[Metric]) -> str | None:
    """What whoever chose metrics of pyiqa must be told; None if nobody did."""
    names = [metric.name for metric in metrics if metric.name in IQA_NAMES]
    if not names:
        return None
    return f"{', '.join(names)}: by pyiqa, under {LICENCE}, which forbids commercial use"


def iqa_metric(name: str, device: torch.device | str = "cpu") -> Metric:
    """NIQE, MUSIQ, MANIQA or CLIPIQA as pyiqa computes them with its own defaults (MS 13).

    They look at the result alone: RGB in [0, 1] (NIQE on BT.601 Y), whole images, float32. Lower is
    better for NIQE, higher for the others; no measure of distance, so neither symmetric nor 0 for
    the truth. MUSIQ and MANIQA were trained on KonIQ-10k, photographs of everyday scenes: on
    overhead imagery they compare methods and say little by themselves.

    Raises:
        ConfigError: pyiqa is not installed.
        WeightsError: pyiqa cannot get the weights.
    """
    better, file = _KNOWN[name]
    try:
        import pyiqa
    except ImportError:
        raise ConfigError(
            f"{name} needs the package pyiqa, whose licence ({LICENCE}) forbids commercial use: "
            "pip install 'slimdiffsr[iqa-noncommercial]', or leave the metric out"
        ) from None
    try:
        # It writes to stdout what it loads.
        with contextlib.redirect_stdout(sys.stderr), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            measure: Any = pyiqa.create_metric(name, device=torch.device(device))
    except Exception as error:  # what a download and an unpickler raise is anybody's guess
        raise WeightsError(
            f"pyiqa cannot load {name}, for which it needs {file}: {type(error).__name__}: {error}"
        ) from None

    def compute(sample: Sample) -> float:
        rgb = torch.tensor(sample.sr, device=device).permute(2, 0, 1)[None].float() / 255
        with torch.inference_mode():
            return float(measure(rgb))

    about = f"pyiqa {version('pyiqa')} ({LICENCE}: no commercial use), RGB in [0, 1], no truth"
    return Metric(name, better, about, compute, uses_truth=False, digits=3)

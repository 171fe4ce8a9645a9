"""The metrics of a comparison."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from slimdiffsr import metrics as measure
from slimdiffsr.evaluate.report import Metric, Sample

__all__ = ["Distance", "default_metrics", "lpips_metric"]

Rgb8 = NDArray[np.uint8]
Distance = Callable[[Tensor, Tensor], Tensor]  # two (1, 3, h, w) in [-1, 1] -> one value


def lpips_metric(
    distance: Distance, name: str = "lpips_squeeze", device: torch.device | str = "cpu"
) -> Metric:
    """A learned distance of (1, 3, h, w) RGB tensors in [-1, 1] as a metric."""

    def compute(sample: Sample) -> float:
        with torch.inference_mode():
            value = distance(_to_tensor(sample.sr, device), _to_tensor(sample.truth, device))
        return float(value)

    about = "learned distance of RGB in [-1, 1], no border crop"
    return Metric(name, "lower", about, compute, digits=4)


def default_metrics(lpips: Distance | None = None) -> tuple[Metric, ...]:
    """PSNR-Y, SSIM-Y, LPIPS where its network is given, and the two that keep LPIPS honest."""
    perceptual = () if lpips is None else (lpips_metric(lpips),)
    return (
        Metric(
            "psnr_y", "higher", "dB on BT.601 Y in 16..235, data range 255, no border crop",
            lambda s: measure.psnr_y(s.sr, s.truth),
        ),
        Metric(
            "ssim_y", "higher", "BT.601 Y in 16..235, 11x11 Gaussian sigma 1.5, valid region",
            lambda s: measure.ssim_y(s.sr, s.truth),
            digits=4,
        ),
        *perceptual,
        Metric(
            "grid_energy_db", "lower",
            "dB at the upsampler's lattice frequencies over those beside them, 8-bit grey; "
            "true images: about -1, visible grids: above 4",
            lambda s: measure.grid_energy_db(measure.grey8(s.sr), s.scale),
            uses_truth=False,
        ),
        Metric(
            "consistency", "lower",
            "mean absolute difference of the result averaged back to the input, in grey levels",
            lambda s: measure.reflectance_consistency(s.sr, s.lr, s.scale),
            uses_truth=False,
        ),
    )  # fmt: skip


def _to_tensor(rgb: Rgb8, device: torch.device | str) -> Tensor:
    # (h, w, 3) uint8 -> (1, 3, h, w) in [-1, 1]
    tensor = torch.tensor(rgb, device=device)
    return tensor.permute(2, 0, 1)[None].float() / 127.5 - 1

"""The metrics of a comparison, chosen by name.

Quality is chosen; trust is always measured: metrics that a painted grid, a shifted or an invented
picture cannot please.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from slimdiffsr import metrics as measure
from slimdiffsr.errors import ConfigError, WeightsError
from slimdiffsr.evaluate.distances import dists_metric, lpips_metric, lpips_name
from slimdiffsr.evaluate.iqa import IQA_NAMES, iqa_metric
from slimdiffsr.evaluate.report import Metric, Sample

__all__ = ["METRIC_NAMES", "choose_metrics", "trust_metrics"]

_FILES = ("lpips_alex", "lpips_vgg", "lpips_squeeze", "dists")  # NAME.safetensors holds the weights
_TRUST = (
    "grid_energy_db", "canvas_db", "spectrum_gap_db", "consistency", "shift_lr_px",
    "mean_drift_pct", "contrast_drift_pct", "improvement", "omission", "hallucination",
)  # fmt: skip
METRIC_NAMES = ("psnr_y", "ssim_y", *_FILES, *IQA_NAMES, *_TRUST)


def choose_metrics(
    names: Sequence[str] | None = None,
    *,
    lpips: Path | None = None,
    weights: Path | None = None,
    device: torch.device | str = "cpu",
) -> tuple[Metric, ...]:
    """The metrics of that name, in that order, and after them all of ``trust_metrics``.

    Args:
        names: of ``METRIC_NAMES``; None is PSNR-Y, SSIM-Y, and LPIPS and DISTS where their weights
            are given.
        lpips: a weight file of LPIPS over any of its networks; it tells which.
        weights: a folder of weight files, lpips_alex.safetensors, ... and dists.safetensors.
        device: where networks run.

    Raises:
        ConfigError: an unknown name, or a package that is not installed.
        WeightsError: weights are missing or do not fit.
    """
    files = _weight_files(lpips, weights)
    wanted = ("psnr_y", "ssim_y", *files) if names is None else tuple(dict.fromkeys(names))
    unknown = [name for name in wanted if name not in METRIC_NAMES]
    if unknown:
        raise ConfigError(f"no metric {unknown[0]!r}: choose of {', '.join(METRIC_NAMES)}")
    chosen = (_quality(name, files, device) for name in wanted if name not in _TRUST)
    return (*chosen, *trust_metrics())


def trust_metrics() -> tuple[Metric, ...]:
    """Lattices and hatches, spectrum gap, consistency in value, tone and place, true new detail."""
    last = _LastCorrectness()
    shares = "share of the detail, opensr-test's formulas on RGB in [0, 1], 16 px border cropped"
    return (
        Metric(
            "grid_energy_db", "lower",
            "dB at the upsampler's lattice frequencies over those beside them, 8-bit grey, no "
            "border crop; true images: about -1, visible grids: above 4",
            lambda s: measure.grid_energy_db(measure.grey8(s.sr), s.scale),
            uses_truth=False,
        ),
        Metric(
            "canvas_db", "lower",
            "dB by which any narrow band of the spectrum, at any angle, stands out on the plainest "
            "eighth of the input, 8-bit grey; true images: about 2, visible hatches: above 8",
            lambda s: measure.canvas_db(s.sr, s.lr, s.scale),
            uses_truth=False,
        ),
        Metric(
            "spectrum_gap_db", "lower",
            "mean absolute difference of radial power spectra to the truth's in dB, BT.601 Y, from "
            "0.5 / scale to 0.5 cycles per pixel: what the input cannot hold",
            lambda s: measure.radial_spectrum_gap_db(s.sr, s.truth, lowest=0.5 / s.scale),
        ),
        Metric(
            "consistency", "lower",
            "mean absolute difference of the result averaged back to the input, in grey levels, RGB",
            lambda s: measure.reflectance_consistency(s.sr, s.lr, s.scale),
            uses_truth=False,
        ),
        Metric(
            "shift_lr_px", "lower",
            "displacement of the result averaged back, against the input, in input pixels, BT.601 Y",
            lambda s: measure.spatial_shift_lr_px(s.sr, s.lr, s.scale),
            uses_truth=False,
            digits=3,
        ),
        Metric(
            "mean_drift_pct", "lower", "change of the mean against the truth's, in percent, 8-bit grey",
            lambda s: measure.mean_drift_pct(s.sr, s.truth),
        ),
        Metric(
            "contrast_drift_pct", "lower",
            "change of the standard deviation against the truth's, in percent, 8-bit grey, both "
            "averaged down to the input's grid",
            lambda s: measure.contrast_drift_pct(s.sr, s.truth, s.scale),
        ),
        Metric("improvement", "higher", f"true {shares}", lambda s: last(s).improvement, digits=3),
        Metric("omission", "lower", f"missing {shares}", lambda s: last(s).omission, digits=3),
        Metric(
            "hallucination", "lower", f"invented {shares}", lambda s: last(s).hallucination, digits=3
        ),
    )  # fmt: skip


class _LastCorrectness:
    """Three metrics ask for the same sample in a row: it is measured once."""

    def __init__(self) -> None:
        self.sample: Sample | None = None

    def __call__(self, sample: Sample) -> measure.Correctness:
        if self.sample is not sample:
            self.shares = measure.correctness(sample.sr, sample.truth, sample.lr, sample.scale)
            self.sample = sample
        return self.shares


def _quality(name: str, files: dict[str, Path], device: torch.device | str) -> Metric:
    if name == "psnr_y":
        about = "dB on BT.601 Y in 16..235, data range 255, no border crop"
        return Metric(name, "higher", about, lambda s: measure.psnr_y(s.sr, s.truth))
    if name == "ssim_y":
        about = "BT.601 Y in 16..235, data range 255, 11x11 Gaussian sigma 1.5, valid region"
        return Metric(name, "higher", about, lambda s: measure.ssim_y(s.sr, s.truth), digits=4)
    if name in IQA_NAMES:
        return iqa_metric(name, device)
    if name not in files:
        raise WeightsError(f"{name} needs its weights, {_how_to_get(name)}")
    make = dists_metric if name == "dists" else lpips_metric
    metric = make(files[name], device)
    if metric.name != name:
        raise WeightsError(f"{files[name]} holds {metric.name}: rename the file or ask for that")
    return metric


def _weight_files(lpips: Path | None, weights: Path | None) -> dict[str, Path]:
    # By metric, in the order of METRIC_NAMES; a file of its own goes before the folder.
    if weights is not None and not weights.is_dir():
        raise WeightsError(f"no folder of weights {weights}")
    found = {}
    if weights is not None:
        found = {name: weights / f"{name}.safetensors" for name in _FILES}
    if lpips is not None:
        found[lpips_name(lpips)] = lpips
    return {name: found[name] for name in _FILES if name in found and found[name].is_file()}


def _how_to_get(name: str) -> str:
    if name == "dists":
        command = "slimdiffsr import-dists weights.pt lpips_vgg.safetensors dists.safetensors"
    else:
        net = name.removeprefix("lpips_")
        command = f"slimdiffsr import-lpips {name}.safetensors --net {net}"
    return f"{name}.safetensors in the folder of weights: {command}"

"""Runs restorers over pairs of images and measures what comes out."""

from __future__ import annotations

import platform
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from slimdiffsr import metrics as measure
from slimdiffsr.errors import DataError, OutputError
from slimdiffsr.evaluate.pairs import PairedFolder, Pairs
from slimdiffsr.evaluate.report import (
    BOOTSTRAP_DRAWS,
    Failure,
    Metric,
    Report,
    Sample,
    report_json,
    report_markdown,
)

__all__ = [
    "TRUTH",
    "Distance",
    "Restore",
    "default_metrics",
    "evaluate",
    "evaluate_folder",
    "lpips_metric",
    "restore_with",
]

Rgb8 = NDArray[np.uint8]
Restore = Callable[[Rgb8], Rgb8]  # (h, w, 3) -> (scale*h, scale*w, 3)
Distance = Callable[[Tensor, Tensor], Tensor]  # two (1, 3, h, w) in [-1, 1] -> one value

TRUTH = "truth"  # the row of the true images, for the metrics that need no truth


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


def restore_with(net: Callable[[Tensor], Tensor], device: torch.device | str = "cpu") -> Restore:
    """A network from and to (1, 3, h, w) in [-1, 1] as a restorer; rounds to 8 bits."""

    def restore(rgb_lr: Rgb8) -> Rgb8:
        with torch.inference_mode():
            rgb = net(_to_tensor(rgb_lr, device))[0].float()
        levels = ((rgb + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
        return np.asarray(levels.permute(1, 2, 0).cpu().numpy())

    return restore


def evaluate(
    restorers: Mapping[str, Restore],
    pairs: Pairs,
    metrics: Sequence[Metric],
    *,
    save_to: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Report:
    """Score each restorer on each pair with each metric.

    A pair that cannot be read, and a restorer or metric that fails on one image, is noted in the
    report's failures; all other scores stand. Metrics that need no truth are also taken of the true
    images, in the row ``TRUTH``.

    Args:
        restorers: by name; the name is also the folder of its outputs.
        pairs: what to score on.
        metrics: what to measure.
        save_to: write each output to ``save_to/NAME/IMAGE.png``.
        progress: called with (images done, images in all).

    Raises:
        DataError: no restorer, a name that cannot be used, or not one score in the end.
        OutputError: an output cannot be written.
    """
    _check_names(restorers, metrics)
    empty: dict[str, dict[str, dict[str, float]]] = {
        model: {metric.name: {} for metric in metrics} for model in (*restorers, TRUTH)
    }
    report = Report(tuple(metrics), empty, protocol=_protocol(pairs))
    for done, name in enumerate(pairs.names):
        if progress is not None:
            progress(done, len(pairs.names))
        try:
            lr, hr = pairs.read(name)
        except DataError as error:
            report.failures.append(Failure(name, "", str(error)))
            continue
        if hr is not None:
            _score(report, name, TRUTH, Sample(hr, hr, lr, pairs.scale))
        for model, restore in restorers.items():
            sr = _restored(report, name, model, restore, (lr, hr, pairs.scale))
            if sr is not None and save_to is not None:
                _save_png(sr, save_to / model / f"{name}.png")
    if progress is not None:
        progress(len(pairs.names), len(pairs.names))
    if not any(values for model in restorers for values in report.scores[model].values()):
        first = report.failures[0].message if report.failures else "there are no pairs"
        raise DataError(f"nothing could be scored: {first}")
    return report


def evaluate_folder(
    restorers: Mapping[str, Restore],
    lr_dir: Path,
    hr_dir: Path,
    *,
    scale: int | None = None,
    lpips: Distance | None = None,
    out_dir: Path | None = None,
) -> Report:
    """Evaluate on two folders; with ``out_dir``, write report.md, report.json and outputs/ there.

    Raises:
        DataError: see ``PairedFolder.open`` and ``evaluate``.
        OutputError: ``out_dir`` cannot be written.
    """
    pairs = PairedFolder.open(lr_dir, hr_dir, scale)
    save_to = None if out_dir is None else out_dir / "outputs"
    report = evaluate(restorers, pairs, default_metrics(lpips), save_to=save_to)
    if out_dir is not None:
        try:
            out_dir.mkdir(parents=True, exist_ok=True)
            (out_dir / "report.md").write_text(report_markdown(report))
            (out_dir / "report.json").write_text(report_json(report))
        except OSError as error:
            raise OutputError(f"cannot write the report to {out_dir}: {error}") from None
    return report


def _restored(
    report: Report, image: str, model: str, restore: Restore, pair: tuple[Rgb8, Rgb8 | None, int]
) -> Rgb8 | None:
    # One restorer on one image, scored into the report; None and a failure where it cannot.
    lr, hr, scale = pair
    try:
        sr = restore(lr)
    except Exception as error:  # a restorer may be anybody's code: one failure must not end a run
        report.failures.append(Failure(image, model, f"{type(error).__name__}: {error}"))
        return None
    expected = (scale * lr.shape[0], scale * lr.shape[1], 3)
    if sr.dtype != np.uint8 or sr.shape != expected:
        message = f"returned {sr.shape} {sr.dtype} instead of {expected} uint8"
        report.failures.append(Failure(image, model, message))
        return None
    _score(report, image, model, Sample(sr, hr, lr, scale))
    return sr


def _score(report: Report, image: str, model: str, sample: Sample) -> None:
    for metric in report.metrics:
        if metric.uses_truth and (model == TRUTH or sample.hr is None):
            continue
        try:
            value = float(metric.compute(sample))
            if np.isnan(value):
                raise DataError("the score is not a number")
        except Exception as error:  # as above: metrics are arguments too
            message = f"{metric.name}: {type(error).__name__}: {error}"
            report.failures.append(Failure(image, model, message))
        else:
            report.scores[model][metric.name][image] = value


def _to_tensor(rgb: Rgb8, device: torch.device | str) -> Tensor:
    # (h, w, 3) uint8 -> (1, 3, h, w) in [-1, 1]
    tensor = torch.tensor(rgb, device=device)
    return tensor.permute(2, 0, 1)[None].float() / 127.5 - 1


def _save_png(rgb: Rgb8, path: Path) -> None:
    from PIL import Image

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rgb).save(path)
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error}") from None


def _check_names(restorers: Mapping[str, Restore], metrics: Sequence[Metric]) -> None:
    if not restorers or not metrics:
        raise DataError("evaluation needs at least one restorer and one metric")
    for name in restorers:
        if name in (TRUTH, "", "..") or Path(name).name != name:
            raise DataError(f"a restorer cannot be named {name!r}: its name becomes a folder")
    names = [metric.name for metric in metrics]
    if len(set(names)) != len(names):
        raise DataError(f"metric names must differ, got {', '.join(names)}")


def _protocol(pairs: Pairs) -> dict[str, str]:
    packages = ("slimdiffsr", "torch", "numpy", "pillow")
    return {
        "pairs": f"{len(pairs.names)}, {pairs.scale}x, whole images",
        "interval": f"percentile bootstrap over images, {BOOTSTRAP_DRAWS} draws, seed 0",
        "versions": ", ".join(f"{package} {version(package)}" for package in packages),
        "machine": f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
    }

"""Scores by model, metric and image, their means with intervals, and how they are shown."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from slimdiffsr.errors import DataError

__all__ = [
    "BOOTSTRAP_DRAWS",
    "Estimate",
    "Failure",
    "Metric",
    "Report",
    "Sample",
    "bootstrap_mean",
    "report_json",
    "report_markdown",
]

Rgb8 = NDArray[np.uint8]

BOOTSTRAP_DRAWS = 2000


@dataclass(frozen=True, slots=True)
class Sample:
    """One restored image with all that a metric may ask for, each (height, width, 3) uint8."""

    sr: Rgb8
    hr: Rgb8 | None  # None for real inputs without a truth
    lr: Rgb8
    scale: int

    @property
    def truth(self) -> Rgb8:
        """``hr``, for metrics that need it. Raises DataError where there is none."""
        if self.hr is None:
            raise DataError("there is no true image to compare with: leave this metric out")
        return self.hr


@dataclass(frozen=True, slots=True)
class Metric:
    """A named measure of a sample. ``uses_truth``: it looks at ``hr``."""

    name: str
    better: Literal["higher", "lower"]
    about: str  # one line of protocol: unit, range, colour space
    compute: Callable[[Sample], float]
    uses_truth: bool = True
    digits: int = 2  # shown behind the decimal point


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean over ``n`` images and its 95 % bootstrap interval."""

    mean: float
    low: float
    high: float
    n: int


@dataclass(frozen=True, slots=True)
class Failure:
    """What went wrong with one image; ``model`` is empty when the pair itself is bad."""

    image: str
    model: str
    message: str


@dataclass(slots=True)
class Report:
    """Scores by model, metric and image, with what went wrong and how it was measured."""

    metrics: tuple[Metric, ...]
    scores: dict[str, dict[str, dict[str, float]]]
    failures: list[Failure] = field(default_factory=list)
    protocol: dict[str, str] = field(default_factory=dict)

    def estimate(self, model: str, metric: str) -> Estimate | None:
        """Mean and interval over the images that were scored; None if there are none."""
        values = list(self.scores[model].get(metric, {}).values())
        return bootstrap_mean(np.array(values)) if values else None


def bootstrap_mean(values: NDArray[np.float64], seed: int = 0) -> Estimate:
    """Mean with its percentile bootstrap interval (Efron 1979), over (n,) values, n >= 1.

    The same seed draws the same images for each model, so intervals are comparable.
    """
    rng = np.random.default_rng(seed)
    draws = rng.integers(len(values), size=(BOOTSTRAP_DRAWS, len(values)))
    # inverted_cdf picks and never interpolates: an infinite PSNR stays infinite.
    low, high = np.quantile(values[draws].mean(axis=1), (0.025, 0.975), method="inverted_cdf")
    return Estimate(float(values.mean()), float(low), float(high), len(values))


def report_markdown(report: Report) -> str:
    """A table of means with intervals, then failures, then the protocol."""
    arrow = {"higher": "↑", "lower": "↓"}
    titles = ["model", "images", *(f"{m.name} {arrow[m.better]}" for m in report.metrics)]
    lines = [f"| {' | '.join(titles)} |", f"|{' --- |' * len(titles)}"]
    for model in report.scores:
        estimates = [report.estimate(model, metric.name) for metric in report.metrics]
        images = max((e.n for e in estimates if e is not None), default=0)
        cells = [model, str(images), *map(_cell, estimates, report.metrics)]
        lines.append(f"| {' | '.join(cells)} |")
    lines += ["", "Mean over images [95 % bootstrap interval]."]
    if report.failures:
        lines += ["", f"Not scored ({len(report.failures)}):", ""]
        lines += [f"- {f.image} {f.model}: {f.message}" for f in report.failures]
    lines += ["", "Protocol:", ""]
    lines += [f"- {metric.name}: {metric.about}" for metric in report.metrics]
    lines += [f"- {key}: {value}" for key, value in report.protocol.items()]
    return "\n".join(lines) + "\n"


def report_json(report: Report) -> str:
    """Everything in the report as JSON; an infinite value is the string "inf"."""
    content = {
        "protocol": report.protocol,
        "metrics": {m.name: {"better": m.better, "about": m.about} for m in report.metrics},
        "means": {
            model: {
                metric.name: asdict(estimate)
                for metric in report.metrics
                if (estimate := report.estimate(model, metric.name)) is not None
            }
            for model in report.scores
        },
        "images": report.scores,
        "failures": [asdict(failure) for failure in report.failures],
    }
    return json.dumps(_finite(content), indent=1, allow_nan=False) + "\n"


def _cell(estimate: Estimate | None, metric: Metric) -> str:
    if estimate is None:
        return "–"  # noqa: RUF001  an empty cell
    mean, low, high = (
        f"{v:.{metric.digits}f}" for v in (estimate.mean, estimate.low, estimate.high)
    )
    return f"{mean} [{low}, {high}]"


def _finite(value: Any) -> Any:  # noqa: ANN401  any JSON value
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    return str(value) if isinstance(value, float) and not np.isfinite(value) else value

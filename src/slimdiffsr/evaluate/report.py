"""Scores by model, metric and image, and their means with intervals."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from slimdiffsr.datasets.images import Rgb8
from slimdiffsr.errors import DataError

__all__ = [
    "BOOTSTRAP_DRAWS",
    "TRUTH",
    "Estimate",
    "Failure",
    "Metric",
    "Report",
    "Sample",
    "bootstrap_mean",
    "pool",
]


BOOTSTRAP_DRAWS = 2000
TRUTH = "truth"  # the row of the true images, for the metrics that need no truth


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
    weights: str = ""  # sha256 of the weights, if it has any

    @property
    def identity(self) -> str:
        """A hash of all that decides the value: what a kept score is known by."""
        about = (self.name, self.about, self.weights, version("slimdiffsr"))
        return hashlib.sha256("\n".join(about).encode()).hexdigest()


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
    """Scores by model, metric and image on one set, with what went wrong and how it was measured.

    ``methods`` and ``data`` describe both for the protocol; ``pooled`` is of several sets together.
    """

    name: str
    scale: int
    metrics: tuple[Metric, ...]
    scores: dict[str, dict[str, dict[str, float]]]
    failures: list[Failure] = field(default_factory=list)
    methods: dict[str, str] = field(default_factory=dict)
    data: dict[str, str] = field(default_factory=dict)
    pooled: bool = False

    @property
    def measured(self) -> tuple[Metric, ...]:
        """The metrics of which there is any score: a set without truth lacks some."""
        return tuple(
            metric
            for metric in self.metrics
            if any(scores.get(metric.name) for scores in self.scores.values())
        )

    def estimate(self, model: str, metric: str) -> Estimate | None:
        """Mean and interval over the images that were scored; None if there are none."""
        values = list(self.scores[model].get(metric, {}).values())
        return bootstrap_mean(np.array(values)) if values else None

    def best(self, metric: Metric) -> str | None:
        """The model with the best mean, to the digits shown; None if there is none or a tie.

        And none where it would beat the true images: there less, or more, is no longer better.
        """
        sign = 1 if metric.better == "higher" else -1
        goodness = {
            model: sign * round(estimate.mean, metric.digits)
            for model in self.scores
            if (estimate := self.estimate(model, metric.name)) is not None
        }
        truth = goodness.pop(TRUTH, float("inf"))
        winners = [m for m, value in goodness.items() if value == max(goodness.values())]
        if len(winners) != 1 or goodness[winners[0]] > truth:
            return None
        return winners[0]


def pool(reports: Sequence[Report]) -> Report:
    """All images of several sets as one; they are called SET/IMAGE there."""
    first = reports[0]
    # Sets without a truth have no row of it, which comes last.
    rows = dict.fromkeys(row for report in reports for row in report.scores if row != TRUTH)
    if any(TRUTH in report.scores for report in reports):
        rows[TRUTH] = None
    scores: dict[str, dict[str, dict[str, float]]] = {
        row: {metric.name: {} for metric in first.metrics} for row in rows
    }
    for report in reports:
        for model, by_metric in report.scores.items():
            for metric, by_image in by_metric.items():
                scores[model][metric] |= {f"{report.name}/{i}": v for i, v in by_image.items()}
    failures = [
        Failure(f"{report.name}/{f.image}", f.model, f.message)
        for report in reports
        for f in report.failures
    ]
    name = "all: " + ", ".join(report.name for report in reports)
    return Report(
        name, first.scale, first.metrics, scores, failures, first.methods, {}, pooled=True
    )


def bootstrap_mean(values: NDArray[np.float64], seed: int = 0) -> Estimate:
    """Mean with its percentile bootstrap interval (Efron 1979), over (n,) values, n >= 1.

    The same seed draws the same images for each model, so intervals are comparable.
    """
    rng = np.random.default_rng(seed)
    draws = rng.integers(len(values), size=(BOOTSTRAP_DRAWS, len(values)))
    # inverted_cdf picks and never interpolates: an infinite PSNR stays infinite.
    low, high = np.quantile(values[draws].mean(axis=1), (0.025, 0.975), method="inverted_cdf")
    return Estimate(float(values.mean()), float(low), float(high), len(values))

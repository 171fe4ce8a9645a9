"""What a report shows of a set: some of its images as each method restored them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from slimdiffsr.datasets.images import Rgb8, read_rgb8
from slimdiffsr.errors import DataError
from slimdiffsr.evaluate.pairs import Pairs
from slimdiffsr.evaluate.report import TRUTH, Report
from slimdiffsr.evaluate.run import output_path
from slimdiffsr.figures.detail import Box, cut, most_detailed

__all__ = ["Picture", "captions", "read_pictures", "spread"]


@dataclass(frozen=True, slots=True)
class Picture:
    """One image, its input and its results by method, the truth last where there is one.

    ``box``: the part that is shown of an image too large to be shown whole, in input pixels.
    """

    set_name: str
    name: str
    scale: int
    lr: Rgb8
    results: Mapping[str, Rgb8]
    box: Box | None = None


def spread(names: Sequence[str], count: int) -> list[str]:
    """``count`` names evenly over all of them, in order: no choice by how well they came out."""
    if count >= len(names):
        return list(names)
    return [names[round(i)] for i in np.linspace(0, len(names) - 1, count)] if count > 0 else []


def read_pictures(
    pairs: Pairs,
    report: Report,
    saved: Path,
    names: Sequence[str],
    *,
    largest_hr_px: int | None = None,
) -> Iterator[Picture]:
    """Read images and their saved outputs; what cannot be read is left out of its picture.

    saved: where ``evaluate`` saved the outputs. largest_hr_px: of larger images the most detailed
    square of this side is shown.
    """
    methods = [name for name in report.scores if name != TRUTH]
    for name in names:
        try:
            lr, hr = pairs.read(name)
        except DataError:
            continue
        results = {}
        for method in methods:
            try:
                results[method] = read_rgb8(output_path(saved, method, name))
            except DataError:
                continue
        if hr is not None:
            results[TRUTH] = hr
        if results:
            whole = Picture(report.name, name, pairs.scale, lr, results)
            yield whole if largest_hr_px is None else _cropped(whole, largest_hr_px)


def captions(
    report: Report, image: str, metrics: Sequence[str] | None = None, between: str = " · "
) -> dict[str, str]:
    """Scores of one image by method, in words; the first four metrics unless named."""
    names = [m.name for m in report.measured][:4] if metrics is None else metrics
    return {
        method: between.join(
            f"{metric.name} {scores[metric.name][image]:.{metric.digits}f}"
            for metric in report.metrics
            if metric.name in names and image in scores.get(metric.name, {})
        )
        for method, scores in report.scores.items()
    }


def _cropped(picture: Picture, largest_hr_px: int) -> Picture:
    # The truth, or else the last method's result, tells where most detail is.
    last = list(picture.results.values())[-1]
    if max(last.shape[:2]) <= largest_hr_px:
        return picture
    box = most_detailed(last, largest_hr_px, unit=picture.scale)
    box_lr = Box(*(length // picture.scale for length in box))
    results = {name: cut(rgb, box) for name, rgb in picture.results.items()}
    return Picture(
        picture.set_name, picture.name, picture.scale, cut(picture.lr, box_lr), results, box_lr
    )

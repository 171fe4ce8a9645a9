"""Runs methods over pairs of images and measures what comes out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from slimdiffsr.datasets.images import Rgb8, encode_png, read_rgb8
from slimdiffsr.errors import DataError, DiskFullError, InterruptedRunError, SlimDiffSRError
from slimdiffsr.evaluate.methods import Method, check_scale
from slimdiffsr.evaluate.pairs import Pairs, pixels_sha256
from slimdiffsr.evaluate.report import TRUTH, Failure, Metric, Report, Sample
from slimdiffsr.evaluate.store import Store
from slimdiffsr.files.tensors import write_atomically

__all__ = ["Progress", "evaluate", "output_path"]


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a set is: images times methods done and in all, and which method comes next."""

    done: int
    total: int
    method: str


@dataclass(slots=True)
class _Images:
    # One pair with its hashes.
    name: str
    lr: Rgb8
    hr: Rgb8 | None
    lr_sha: str = field(init=False)
    hr_sha: str = field(init=False)

    def __post_init__(self) -> None:
        self.lr_sha = pixels_sha256(self.lr)
        self.hr_sha = "" if self.hr is None else pixels_sha256(self.hr)


def evaluate(
    methods: Sequence[Method],
    pairs: Pairs,
    metrics: Sequence[Metric],
    *,
    store: Store | None = None,
    save_to: Path | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> Report:
    """Score each method on each pair with each metric.

    A pair that cannot be read, and a method or metric that fails on one image, is noted in the
    report's failures; all other scores stand. Metrics that need no truth are also taken of the true
    images, in the row ``TRUTH``; those that need it are left out where a set has none.

    Args:
        methods: what to score.
        pairs: what to score on.
        metrics: what to measure.
        store: what was made and scored before; new results are noted there as they come.
        save_to: write each output to ``output_path(save_to, METHOD, IMAGE)``.
        progress: called before each method's turn at an image.

    Raises:
        DataError: no method, names that are not different, or not one score in the end.
        ScaleError: a method enlarges by another scale than the pairs have.
        OutputError: an output cannot be written.
    """
    _check(methods, metrics)
    check_scale(methods, pairs.scale)
    about = pairs.describe()
    run = _Run(
        Report(
            about["name"],
            pairs.scale,
            tuple(metrics),
            {},
            methods={m.name: m.about for m in methods if m.about},
            data=about,
        ),
        Store() if store is None else store,
        save_to,
    )
    rows = [method.name for method in methods] + ([TRUTH] if pairs.has_truth else [])
    run.report.scores = {row: {m.name: {} for m in run.report.metrics} for row in rows}
    total = len(pairs.names) * len(methods)
    for index, name in enumerate(pairs.names):
        try:
            images = _Images(name, *pairs.read(name))
        except DataError as error:
            run.report.failures.append(Failure(name, "", str(error)))
            continue
        for turn, method in enumerate(methods):
            if progress is not None:
                progress(Progress(index * len(methods) + turn, total, method.name))
            run.score_method(method, images)
        if images.hr is not None:
            run.score(TRUTH, images, images.hr, images.hr_sha)
    if progress is not None:
        progress(Progress(total, total, ""))
    if not any(v for m in methods for v in run.report.scores[m.name].values()):
        failures = run.report.failures
        raise DataError(
            f"nothing could be scored: {failures[0].message if failures else 'there are no pairs'}"
        )
    return run.report


def output_path(folder: Path, method: str, image: str) -> Path:
    """Where an output is saved."""
    return folder / method / f"{image}.png"


@dataclass(slots=True)
class _Run:
    report: Report
    store: Store
    save_to: Path | None

    def score_method(self, method: Method, images: _Images) -> None:
        # One method on one image; made again only where the outcome is not known.
        sr_sha = self.store.output(method.identity, images.lr_sha) if method.identity else None
        saved = (
            None if self.save_to is None else output_path(self.save_to, method.name, images.name)
        )
        sr = None if saved is None else _read_saved(saved, sr_sha)
        known = sr_sha is not None and all(
            self._known(metric, sr_sha, images) is not None
            for metric in self._metrics(method.name, images)
        )
        if sr_sha is None or (sr is None and (saved is not None or not known)):
            sr = self._restored(method, images)
            if sr is None:
                return
            sr_sha = pixels_sha256(sr)
            if saved is not None:
                write_atomically(saved, encode_png(sr))
            about = {"model": method.name, "image": images.name}
            if method.identity:
                self.store.note_output(method.identity, images.lr_sha, sr_sha, **about)
        self.score(method.name, images, sr, sr_sha)

    def score(self, row: str, images: _Images, sr: Rgb8 | None, sr_sha: str) -> None:
        # sr may be None where all scores are known. One sample for all: some share their work.
        sample = None if sr is None else Sample(sr, images.hr, images.lr, self.report.scale)
        for metric in self._metrics(row, images):
            value = self._known(metric, sr_sha, images)
            if value is None and sample is not None:
                value = self._measured(metric, row, images, sample, sr_sha)
            if value is not None:
                self.report.scores[row][metric.name][images.name] = value

    def _metrics(self, row: str, images: _Images) -> list[Metric]:
        # The truth is not compared with itself, and nothing with a truth that is not there.
        without = row == TRUTH or images.hr is None
        return [m for m in self.report.metrics if not (m.uses_truth and without)]

    def _known(self, metric: Metric, sr_sha: str, images: _Images) -> float | None:
        compared = (sr_sha, images.hr_sha, images.lr_sha)
        return self.store.score(metric.identity, self.report.scale, compared)

    def _measured(
        self, metric: Metric, row: str, images: _Images, sample: Sample, sr_sha: str
    ) -> float | None:
        try:
            value = float(metric.compute(sample))
            if np.isnan(value):
                raise DataError("the score is not a number")
        except Exception as error:  # a metric may be anybody's code: one failure must not end a run
            message = f"{metric.name}: {_explain(error)}"
            self.report.failures.append(Failure(images.name, row, message))
            return None
        self.store.note_score(
            metric.identity, self.report.scale, (sr_sha, images.hr_sha, images.lr_sha), value,
            model=row, image=images.name, measure=metric.name,
        )  # fmt: skip
        return value

    def _restored(self, method: Method, images: _Images) -> Rgb8 | None:
        try:
            sr = method.restore(images.lr, images.name)
        except (DiskFullError, InterruptedRunError):
            raise  # not the method's fault, and of no use to go on
        except Exception as error:  # as above
            self.report.failures.append(Failure(images.name, method.name, _explain(error)))
            return None
        scale = self.report.scale
        expected = (scale * images.lr.shape[0], scale * images.lr.shape[1], 3)
        if sr.dtype != np.uint8 or sr.shape != expected:
            message = f"returned {sr.shape} {sr.dtype} instead of {expected} uint8"
            self.report.failures.append(Failure(images.name, method.name, message))
            return None
        return sr


def _read_saved(path: Path, sr_sha: str | None) -> Rgb8 | None:
    # A saved output, if it is the one that is known of.
    if sr_sha is None or not path.is_file():
        return None
    try:
        sr = read_rgb8(path)
    except DataError:
        return None
    return sr if pixels_sha256(sr) == sr_sha else None


def _explain(error: Exception) -> str:
    # Errors of ours are sentences.
    return str(error) if isinstance(error, SlimDiffSRError) else f"{type(error).__name__}: {error}"


def _check(methods: Sequence[Method], metrics: Sequence[Metric]) -> None:
    if not methods or not metrics:
        raise DataError("evaluation needs at least one model and one metric")
    for what, names in (
        ("model", [method.name for method in methods]),
        ("metric", [metric.name for metric in metrics]),
    ):
        if len(set(names)) != len(names):
            raise DataError(f"{what} names must differ, got {', '.join(names)}")

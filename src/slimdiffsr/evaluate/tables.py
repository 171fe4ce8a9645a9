"""Reports as Markdown, CSV and JSON."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from slimdiffsr.bench.machine import describe_machine
from slimdiffsr.errors import DataError
from slimdiffsr.evaluate.report import (
    BOOTSTRAP_DRAWS,
    Estimate,
    Failure,
    Metric,
    Report,
    Sample,
    pool,
)
from slimdiffsr.files.tensors import write_atomically

__all__ = [
    "ARROWS",
    "format_estimate",
    "images_csv",
    "means_csv",
    "protocol_lines",
    "read_reports",
    "report_json",
    "report_markdown",
    "write_tables",
]

ARROWS = {"higher": "↑", "lower": "↓"}
NONE = "–"  # noqa: RUF001  an empty cell


def report_markdown(reports: Sequence[Report]) -> str:
    """A table of means with intervals for each report, then failures, then the protocol."""
    lines: list[str] = []
    for report in reports:
        if len(reports) > 1:
            lines += [f"## {report.name}", ""]
        lines += [*_table(report), ""]
    lines += [
        "Mean over images [95 % bootstrap interval]; bold: the best that does not beat the truth.",
        "",
    ]
    failures = _failures(reports)
    if failures:
        lines += [f"Not scored ({len(failures)}):", ""]
        lines += [f"- {where}{f.image} {f.model}: {f.message}" for where, f in failures]
        lines.append("")
    lines += ["Protocol:", "", *(f"- {name}: {text}" for name, text in protocol_lines(reports))]
    return "\n".join(lines) + "\n"


def means_csv(reports: Sequence[Report]) -> str:
    """One line for each set and model: mean, low and high of each metric, in full precision."""
    metrics = reports[0].metrics
    names = [f"{metric.name}{part}" for metric in metrics for part in ("", "_low", "_high")]
    rows: list[list[Any]] = [["set", "model", "images", *names]]
    for report in reports:
        for model in report.scores:
            found = [report.estimate(model, metric.name) for metric in metrics]
            cells = [part for e in found for part in _parts(e)]
            rows.append([report.name, model, _images(found), *cells])
    return _csv(rows)


def images_csv(reports: Sequence[Report]) -> str:
    """One line for each image and model with the value of each metric; pooled reports left out."""
    metrics = reports[0].metrics
    rows: list[list[Any]] = [["set", "image", "model", *(metric.name for metric in metrics)]]
    for report in reports:
        if report.pooled:
            continue
        for image in sorted({i for m in report.scores.values() for v in m.values() for i in v}):
            for model, scores in report.scores.items():
                values = [scores.get(metric.name, {}).get(image, "") for metric in metrics]
                if any(value != "" for value in values):
                    rows.append([report.name, image, model, *values])
    return _csv(rows)


def report_json(reports: Sequence[Report]) -> str:
    """Everything in the reports as JSON; an infinite value is the string "inf"."""
    first = reports[0]
    content = {
        "protocol": dict(protocol_lines(reports)),
        "models": first.methods,
        "metrics": {
            metric.name: {
                "better": metric.better,
                "about": metric.about,
                "uses_truth": metric.uses_truth,
                "digits": metric.digits,
                "weights_sha256": metric.weights,
                "identity": metric.identity,
            }
            for metric in first.metrics
        },
        "sets": [_json_set(report) for report in reports],
    }
    return json.dumps(_finite(content), indent=1, allow_nan=False, ensure_ascii=False) + "\n"


def read_reports(path: Path) -> list[Report]:
    """The reports of a report.json, the pooled one made again; their metrics cannot measure.

    Raises DataError.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        metrics = tuple(
            Metric(
                name, about["better"], about["about"], _cannot_measure, about["uses_truth"],
                about["digits"], about["weights_sha256"],
            )
            for name, about in content["metrics"].items()
        )  # fmt: skip
        reports = [
            Report(
                one["name"],
                one["scale"],
                metrics,
                {
                    model: {
                        metric: {image: float(value) for image, value in values.items()}
                        for metric, values in scores.items()
                    }
                    for model, scores in one["images"].items()
                },
                methods=content["models"],
                data=one["data"],
            )
            for one in content["sets"]
            if "images" in one
        ]
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path} is no report.json of evaluate ({error!r})") from None
    return [*reports, pool(reports)] if len(reports) > 1 else reports


def write_tables(out: Path, reports: Sequence[Report]) -> None:
    """report.md, report.csv, images.csv and report.json, each whole or not at all.

    Raises OutputError.
    """
    files = {
        "report.md": report_markdown(reports),
        "report.csv": means_csv(reports),
        "images.csv": images_csv(reports),
        "report.json": report_json(reports),
    }
    for name, text in files.items():
        write_atomically(out / name, text.encode())


def protocol_lines(reports: Sequence[Report]) -> list[tuple[str, str]]:
    """What was measured on what, how and where, as (name, text)."""
    first = reports[0]
    lines = [(f"model {name}", about) for name, about in first.methods.items()]
    for report in reports:
        if not report.pooled:
            lines.append((f"data {report.name}", describe_data(report.data)))
    measured = {metric.name for report in reports for metric in report.measured}
    for metric in first.metrics:
        if metric.name not in measured:
            continue
        weights = f"; weights sha256 {metric.weights[:16]}..." if metric.weights else ""
        lines.append((f"metric {metric.name}", f"{metric.about}{weights}"))
    interval = f"percentile bootstrap over images, {BOOTSTRAP_DRAWS} draws, seed 0"
    return [*lines, ("interval", interval), *describe_machine().items()]


def describe_data(about: dict[str, str]) -> str:
    """One line of what a set says of itself."""
    facts = {key: value for key, value in about.items() if key != "name"}
    if "sha256" in facts:
        facts["sha256"] = f"{facts['sha256'][:16]}..."
    return "; ".join(f"{key} {value}" for key, value in facts.items())


def format_estimate(estimate: Estimate | None, metric: Metric) -> str:
    """Mean and interval to the metric's digits."""
    if estimate is None:
        return NONE
    # A zero added takes the sign from a zero.
    mean, low, high = (
        f"{round(v, metric.digits) + 0.0:.{metric.digits}f}"
        for v in (estimate.mean, estimate.low, estimate.high)
    )
    return f"{mean} [{low}, {high}]"


def _cannot_measure(_: Sample) -> float:
    raise DataError("a metric of a report that was read cannot measure")


def _table(report: Report) -> list[str]:
    titles = ["model", "images", *(f"{m.name} {ARROWS[m.better]}" for m in report.measured)]
    lines = [f"| {' | '.join(titles)} |", f"|{' --- |' * len(titles)}"]
    best = {metric.name: report.best(metric) for metric in report.measured}
    for model in report.scores:
        found = [report.estimate(model, metric.name) for metric in report.measured]
        cells = []
        for estimate, metric in zip(found, report.measured, strict=True):
            mean, space, interval = format_estimate(estimate, metric).partition(" ")
            mark = "**" if best[metric.name] == model else ""
            cells.append(f"{mark}{mean}{mark}{space}{interval}")
        lines.append(f"| {' | '.join([model, str(_images(found)), *cells])} |")
    return lines


def _json_set(report: Report) -> dict[str, Any]:
    means = {
        model: {
            metric.name: asdict(estimate)
            for metric in report.metrics
            if (estimate := report.estimate(model, metric.name)) is not None
        }
        for model in report.scores
    }
    about = {"name": report.name, "scale": report.scale, "data": report.data, "means": means}
    if report.pooled:
        return about
    return {
        **about,
        "images": report.scores,
        "failures": [asdict(failure) for failure in report.failures],
    }


def _failures(reports: Sequence[Report]) -> list[tuple[str, Failure]]:
    single = [report for report in reports if not report.pooled]
    several = len(single) > 1
    return [(f"{r.name}: " if several else "", f) for r in single for f in r.failures]


def _images(found: Sequence[Estimate | None]) -> int:
    return max((e.n for e in found if e is not None), default=0)


def _parts(estimate: Estimate | None) -> tuple[float | str, ...]:
    return ("", "", "") if estimate is None else (estimate.mean, estimate.low, estimate.high)


def _csv(rows: Sequence[Sequence[Any]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


def _finite(value: Any) -> Any:  # noqa: ANN401  any JSON value
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    return str(value) if isinstance(value, float) and not np.isfinite(value) else value

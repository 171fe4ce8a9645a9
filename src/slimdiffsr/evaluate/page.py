"""The report as one HTML file: tables, pictures with a slider each, protocol. It loads nothing."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from importlib import resources

import numpy as np

from slimdiffsr.datasets.images import Rgb8
from slimdiffsr.evaluate.pictures import Picture, captions
from slimdiffsr.evaluate.report import TRUTH, Estimate, Metric, Report
from slimdiffsr.evaluate.tables import ARROWS, format_estimate, protocol_lines

__all__ = ["INPUT", "Page", "build_page"]


INPUT = "input"  # the low-resolution image, enlarged by the browser without smoothing


@dataclass(frozen=True, slots=True)
class Page:
    """An HTML file, and how many pictures it shows of how many images."""

    html: bytes
    pictures: int
    images: int


def build_page(reports: Sequence[Report], pictures: Iterable[Picture]) -> Page:
    """One file with everything in it; pictures are kept without loss.

    reports: pooled ones too, in the order of their tables. pictures: of the reports' sets.
    """
    single = {report.name: report for report in reports if not report.pooled}
    blocks = [_picture(picture, single[picture.set_name], len(single) > 1) for picture in pictures]
    methods = [name for name in reports[0].scores if name != TRUTH]
    has_truth = any(TRUTH in report.scores for report in reports)
    names = [INPUT, *methods, *([TRUTH] if has_truth else [])]
    images = sum(int(report.data.get("n", 0)) for report in single.values())
    parts = {
        "TITLE": f"Super-resolution {reports[0].scale}x on {escape(', '.join(single))}",
        "SUMMARY": f"{len(methods)} models, {images} images. {escape(_machine(reports))}",
        "TABLES": "\n".join(_table(report, titled=len(reports) > 1) for report in reports),
        "FAILURES": _failures(list(single.values())),
        "SHOWN": _shown(len(blocks), images),
        "PROTOCOL": "\n".join(
            f"<dt>{escape(name)}</dt><dd>{escape(text)}</dd>"
            for name, text in protocol_lines(reports)
        ),
        "STYLE": _part("page.css"),
        "SCRIPT": _part("page.js"),
        "PICTURES": "\n".join([_json_script(names, 'id="names"'), *blocks]),
    }
    return Page(_fill(_part("page.html"), parts).encode(), len(blocks), images)


def _fill(template: str, parts: Mapping[str, str]) -> str:
    # One pass: what is filled in may look like a placeholder.
    pieces = template.split("@")
    return "".join(parts.get(piece, piece) if i % 2 else piece for i, piece in enumerate(pieces))


def _part(name: str) -> str:
    return (resources.files("slimdiffsr.evaluate") / name).read_text(encoding="utf-8")


def _table(report: Report, *, titled: bool) -> str:
    heads = [("model", "ascending"), ("images", "descending")]
    for metric in report.measured:
        first = "descending" if metric.better == "higher" else "ascending"
        heads.append((f"{metric.name} {ARROWS[metric.better]}", first))
    head = "".join(
        f'<th scope="col" data-first="{first}"><button type="button">{escape(text)}</button></th>'
        for text, first in heads
    )
    best = {metric.name: report.best(metric) for metric in report.measured}
    rows = []
    for model in report.scores:
        found = [report.estimate(model, metric.name) for metric in report.measured]
        count = max((e.n for e in found if e is not None), default=0)
        cells = "".join(
            _cell(estimate, metric, bold=best[metric.name] == model)
            for estimate, metric in zip(found, report.measured, strict=True)
        )
        name = escape(model)
        rows.append(
            f'<tr><th scope="row" data-value="{name}">{name}</th>'
            f'<td data-value="{count}">{count}</td>{cells}</tr>'
        )
    title = f"<h3>{escape(report.name)}</h3>\n" if titled else ""
    body = "\n".join(rows)
    return (
        f'{title}<div class="wide"><table><thead><tr>{head}</tr></thead>\n'
        f"<tbody>\n{body}\n</tbody></table></div>"
    )


def _cell(estimate: Estimate | None, metric: Metric, *, bold: bool) -> str:
    text = format_estimate(estimate, metric)
    if estimate is None:
        return f'<td data-value="">{text}</td>'
    mean, _, interval = text.partition(" ")
    shown = f"<b>{mean}</b>" if bold else mean
    # JavaScript knows no "inf".
    value = "Infinity" if estimate.mean == float("inf") else repr(estimate.mean)
    return f'<td data-value="{value}">{shown}<small>{interval}</small></td>'


def _failures(reports: Sequence[Report]) -> str:
    items = [
        f"<li>{escape(f'{report.name} {f.image} {f.model}: {f.message}')}</li>"
        for report in reports
        for f in report.failures
    ]
    if not items:
        return ""
    return f"<details open><summary>Not scored ({len(items)})</summary><ul>{''.join(items)}</ul></details>"


def _picture(picture: Picture, report: Report, several: bool) -> str:
    scores = captions(report, picture.name)
    shown: dict[str, Rgb8] = {INPUT: picture.lr, **picture.results}
    images = {
        name: {"src": _data_uri(rgb), "width": rgb.shape[1], "scores": scores.get(name, "")}
        for name, rgb in shown.items()
    }
    title = f"{picture.set_name}/{picture.name}" if several else picture.name
    if picture.box is not None:
        title += (
            f" (a part of it, from column {picture.box.column}, row {picture.box.row} of the input)"
        )
    height, width = picture.lr.shape[:2]
    about = (
        f'class="picture" data-title="{escape(title)}" data-width="{width}" data-height="{height}"'
    )
    return _json_script({"title": title, "images": images}, about)


def _json_script(value: object, attributes: str) -> str:
    text = json.dumps(value, ensure_ascii=False).replace("<", "\\u003c")
    return f'<script type="application/json" {attributes}>{text}</script>'


def _data_uri(rgb: Rgb8) -> str:
    from PIL import Image, features

    kind = "webp" if features.check("webp") else "png"
    buffer = io.BytesIO()
    options = {"lossless": True, "quality": 60} if kind == "webp" else {"optimize": True}
    Image.fromarray(np.ascontiguousarray(rgb)).save(buffer, kind.upper(), **options)
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _shown(count: int, images: int) -> str:
    if count == 0:
        return "None were kept."
    if count >= images:
        return f"All {images} images."
    return f"{count} of {images} images, evenly spread over their names."


def _machine(reports: Sequence[Report]) -> str:
    return dict(protocol_lines(reports))["machine"]

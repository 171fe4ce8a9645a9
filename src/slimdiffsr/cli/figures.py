"""Commands that draw the paper's figures."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from slimdiffsr.cli.options import DeviceOption, integers
from slimdiffsr.errors import ConfigError, DataError, ScaleError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.figure import Figure

    from slimdiffsr.evaluate import Metric, Report
    from slimdiffsr.figures.canvas import Rgb8
    from slimdiffsr.figures.maps import Shown
    from slimdiffsr.models.student import Student

__all__ = ["draw_cost", "draw_crops", "draw_maps", "draw_radar"]


def draw_maps(
    images: Annotated[list[Path], typer.Argument(help="Low-resolution images, one row each.")],
    out: Annotated[Path, typer.Option(help="Folder for the figures.")],
    hr: Annotated[Path | None, typer.Option(help="Folder of true images of these names.")] = None,
    teacher: Annotated[
        list[Path] | None, typer.Option(help="File of merge-teacher; repeat to compare.")
    ] = None,
    student: Annotated[str | None, typer.Option(help="Model whose attention is shown.")] = None,
    scale: Annotated[
        int | None, typer.Option("--scale", "-s", help="Default: the student's, or as --hr tells.")
    ] = None,
    block: Annotated[str | None, typer.Option(help="Which attention; default: the last.")] = None,
    query: Annotated[
        list[int] | None, typer.Option(help="Query to show; repeat; else six.")
    ] = None,
    crop: Annotated[int, typer.Option(min=16, help="Show the middle, up to these input px.")] = 128,
    device: DeviceOption = "auto",
) -> None:
    """Draw what goes on inside: a teacher's uncertainty, timestep, features; a student's attention.

    A teacher looks at the truth; without --hr its estimator's mean stands for it.
    """
    from slimdiffsr.figures.canvas import write_png

    if not teacher and student is None:
        raise ConfigError("nothing to look into: give --teacher FILE, --student MODEL, or both")
    figures: dict[str, Figure] = {}
    if student is not None:
        loaded = _load_student(student, scale, device)
        scale = loaded.config.scale
        figures |= _student_figures(loaded, _read(images, None, scale, crop), block, query)
    if teacher:
        figures |= _teacher_figures(teacher, _read(images, hr, scale, crop), scale, device)
    for name, figure in figures.items():
        print(write_png(figure, out / name))


def draw_crops(
    report: Annotated[Path, typer.Argument(help="Folder that evaluate wrote, with its outputs.")],
    image: Annotated[list[str], typer.Option(help="Name without suffix; repeat.")],
    out: Annotated[Path, typer.Option(help="The PNG to write.")],
    data: Annotated[Path | None, typer.Option(help="The test set that was evaluated.")] = None,
    lr: Annotated[Path | None, typer.Option(help="Without --data: folder of inputs.")] = None,
    hr: Annotated[Path | None, typer.Option(help="Folder of true images.")] = None,
    model: Annotated[
        list[str] | None, typer.Option("--model", "-m", help="Only these, in this order; repeat.")
    ] = None,
    box: Annotated[
        str | None,
        typer.Option(help="Place to magnify: row,column,side in input pixels; else the busiest."),
    ] = None,
) -> None:
    """Draw results side by side with a place magnified (Figs. 10 to 12)."""
    from slimdiffsr.cli.evaluate import crops_figure, open_sets
    from slimdiffsr.evaluate.report import TRUTH
    from slimdiffsr.figures.canvas import write_png
    from slimdiffsr.figures.detail import Box

    (pairs,) = open_sets([data] if data is not None else [], lr, hr, _single(report, None).scale)
    unknown = [name for name in image if name not in pairs.names]
    if unknown:
        raise ConfigError(
            f"no image {unknown[0]!r} in the set: there is {', '.join(pairs.names[:8])}"
            + (" and more" if len(pairs.names) > 8 else "")
        )
    found = _single(report, pairs.describe()["name"])
    if model:
        _check_models(found, model)
        kept = [*model, *([TRUTH] if TRUTH in found.scores else [])]
        found = dataclasses.replace(found, scores={name: found.scores[name] for name in kept})
    corner = integers("--box", box)
    if corner is not None and (len(corner) != 3 or min(corner) < 0 or corner[2] < 1):
        raise ConfigError(f"--box must be row,column,side, got {box!r}")
    place = None if corner is None else Box(*corner)
    print(write_png(crops_figure(pairs, found, report, image, place), out))


def draw_cost(
    report: Annotated[Path, typer.Argument(help="Folder that evaluate wrote.")],
    bench: Annotated[Path, typer.Argument(help="JSON lines of bench --json.")],
    out: Annotated[Path, typer.Option(help="The PNG to write.")],
    metric: Annotated[str | None, typer.Option(help="Default: LPIPS, else the first.")] = None,
    row: Annotated[
        list[str] | None,
        typer.Option(metavar="MODEL=ROW", help="Bench row of a model if names differ; repeat."),
    ] = None,
    set_name: Annotated[
        str | None, typer.Option("--testset", help="Name of one set; default: all images.")
    ] = None,
    precision: Annotated[
        str | None, typer.Option(help="Of bench's rows; default: the first.")
    ] = None,
) -> None:
    """Draw quality against time and size (Fig. 2), from an evaluation and a benchmark."""
    from slimdiffsr.figures.canvas import write_png
    from slimdiffsr.figures.cost import Bubble, draw_cost, read_timings

    found = _single(report, set_name)
    chosen = _metric_of(found, metric)
    rows = dict(_pair("--row", text) for text in row or [])
    timings, about = read_timings(bench, precision)
    bubbles = []
    for model in found.scores:
        estimate = found.estimate(model, chosen.name)
        timing = timings.get(rows.get(model, model))
        if estimate is not None and timing is not None:
            bubbles.append(Bubble(model, estimate.mean, estimate.low, estimate.high, *timing))
    if not bubbles:
        raise ConfigError(
            f"no model is both in {report} ({', '.join(found.scores)}) and in {bench} "
            f"({', '.join(timings)}): give --row MODEL=ROW"
        )
    arrow = "↑" if chosen.better == "higher" else "↓"
    print(write_png(draw_cost(bubbles, f"{chosen.name} {arrow}", about), out))


def draw_radar(
    report: Annotated[Path, typer.Argument(help="Folder that evaluate wrote.")],
    out: Annotated[Path, typer.Option(help="The PNG to write.")],
    model: Annotated[
        list[str] | None, typer.Option("--model", "-m", help="Repeat; default: all.")
    ] = None,
    metric: Annotated[list[str] | None, typer.Option(help="Repeat, three or more.")] = None,
    set_name: Annotated[
        str | None, typer.Option("--testset", help="Name of one set; default: all images.")
    ] = None,
) -> None:
    """Draw several metrics of a few models at once, as of an ablation (Fig. 13)."""
    from slimdiffsr.evaluate.report import TRUTH
    from slimdiffsr.figures.canvas import write_png
    from slimdiffsr.figures.radar import Spoke, draw_radar

    found = _single(report, set_name)
    models = model or [name for name in found.scores if name != TRUTH]
    _check_models(found, models)
    names = metric or [m.name for m in found.measured]
    if len(set(names)) < 3:
        raise ConfigError(f"a radar needs three metrics or more, got {', '.join(names)}")
    chosen = [_metric_of(found, name) for name in names]
    values: dict[str, list[float]] = {name: [] for name in models}
    for name in models:
        for one in chosen:
            estimate = found.estimate(name, one.name)
            if estimate is None:
                raise DataError(f"{name} has no {one.name} in {report}: leave one of them out")
            values[name].append(estimate.mean)
    spokes = [Spoke(one.name, one.better, one.digits) for one in chosen]
    print(write_png(draw_radar(spokes, values), out))


def _single(folder: Path, set_name: str | None) -> Report:
    # The report of one set, or without a name of all images.
    from slimdiffsr.evaluate.tables import read_reports

    path = folder / "report.json" if folder.is_dir() else folder
    reports = read_reports(path)
    if set_name is None:
        return reports[-1]
    for one in reports:
        if one.name == set_name:
            return one
    raise ConfigError(
        f"no set {set_name!r} in {path}: there is {', '.join(r.name for r in reports)}"
    )


def _metric_of(report: Report, name: str | None) -> Metric:
    names = [metric.name for metric in report.metrics]
    if name is None:
        name = next((n for n in names if n.startswith("lpips")), names[0])
    if name not in names:
        raise ConfigError(f"no metric {name!r} in the report: there is {', '.join(names)}")
    return report.metrics[names.index(name)]


def _check_models(report: Report, models: Sequence[str]) -> None:
    for name in models:
        if name not in report.scores:
            raise ConfigError(
                f"no model {name!r} in the report: there is {', '.join(report.scores)}"
            )


def _pair(option: str, text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals:
        raise ConfigError(f"{option} must be MODEL=ROW, got {text!r}")
    return name, value


def _load_student(source: str, scale: int | None, device: str) -> Student:
    from slimdiffsr.files.students import load_model
    from slimdiffsr.runtime.devices import pick_device

    return load_model(source, scale=scale).model.to(pick_device(device))


def _student_figures(
    model: Student, shown: Sequence[Shown], block: str | None, query: list[int] | None
) -> dict[str, Figure]:
    from slimdiffsr.figures.inside import attention_blocks, attention_maps, choose_queries
    from slimdiffsr.figures.maps import draw_attention

    maps = [attention_maps(model, one.lr, block) for one in shown]
    queries = query or choose_queries(maps, 6)
    if not all(0 <= q < len(maps[0]) for q in queries):
        raise ConfigError(f"--query must be in 0..{len(maps[0]) - 1}, got {queries}")
    name = block or list(attention_blocks(model))[-1]
    return {"attention.png": draw_attention(shown, maps, queries, name)}


def _teacher_figures(
    files: list[Path], shown: Sequence[Shown], scale: int | None, device: str
) -> dict[str, Figure]:
    from slimdiffsr.figures.inside import FeatureMaps, guidance_maps, teacher_features
    from slimdiffsr.figures.maps import draw_features, draw_guidance
    from slimdiffsr.files.teachers import load_teacher
    from slimdiffsr.runtime.devices import pick_device

    times = _scale_of(shown, scale)
    figures: dict[str, Figure] = {}
    features: list[dict[str, FeatureMaps]] = [{} for _ in shown]
    for file in files:
        teacher = load_teacher(file).to(pick_device(device))
        maps = [guidance_maps(teacher, one.lr, one.hr, times) for one in shown]
        name = "guidance.png" if len(files) == 1 else f"guidance_{file.stem}.png"
        figures[name] = draw_guidance(shown, maps)
        for one, made in zip(shown, features, strict=True):
            ways = teacher_features(teacher, one.lr, one.hr, times)
            # Teachers are compared as they were trained: the last way is a teacher's own.
            made |= ways if len(files) == 1 else {file.stem: list(ways.values())[-1]}
    return {**figures, "features.png": draw_features(shown, features)}


def _read(files: list[Path], hr: Path | None, scale: int | None, crop_lr_px: int) -> list[Shown]:
    # Images with their truths, the middle of both.
    from slimdiffsr.datasets.images import read_rgb8
    from slimdiffsr.figures.maps import Shown

    shown = []
    for file in files:
        lr = read_rgb8(file)
        height, width = (min(crop_lr_px, side) for side in lr.shape[:2])
        y, x = (lr.shape[0] - height) // 2, (lr.shape[1] - width) // 2
        truth = None
        if hr is not None:
            truth, times = _truth_of(file, lr.shape[:2], hr, scale)
            truth = truth[times * y : times * (y + height), times * x : times * (x + width)]
        shown.append(Shown(file.stem, lr[y : y + height, x : x + width], truth))
    return shown


def _truth_of(
    file: Path, size_lr_px: tuple[int, ...], hr: Path, scale: int | None
) -> tuple[Rgb8, int]:
    from slimdiffsr.datasets.images import read_rgb8

    found = sorted(p for p in hr.glob("*") if p.stem == file.stem)
    if len(found) != 1:
        raise DataError(f"{hr} should hold one image called {file.stem}, but holds {len(found)}")
    truth = read_rgb8(found[0])
    times = int(scale or truth.shape[0] // size_lr_px[0])
    if times < 2 or truth.shape[:2] != tuple(times * side for side in size_lr_px):
        wanted = "a whole number of times" if scale is None else f"{scale} times"
        raise DataError(
            f"{found[0]} is {truth.shape[1]} x {truth.shape[0]} px, which is not {wanted} the "
            f"{size_lr_px[1]} x {size_lr_px[0]} of {file}"
        )
    return truth, times


def _scale_of(shown: Sequence[Shown], scale: int | None) -> int:
    found: set[int] = {one.hr.shape[0] // one.lr.shape[0] for one in shown if one.hr is not None}
    if scale is not None:
        return scale
    if len(found) != 1:
        raise ScaleError(
            f"the images' scale cannot be told ({sorted(found) or 'no --hr'}): give --scale"
        )
    return found.pop()

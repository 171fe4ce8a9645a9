"""Commands that draw the paper's figures."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from slimdiffsr.cli.options import DeviceOption
from slimdiffsr.errors import ConfigError, DataError, ScaleError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.figure import Figure

    from slimdiffsr.figures.canvas import Rgb8
    from slimdiffsr.figures.maps import Shown

__all__ = ["draw_maps"]


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
        figures |= _student_figures(student, _read(images, None, scale, crop), block, query, device)
    if teacher:
        figures |= _teacher_figures(teacher, _read(images, hr, scale, crop), scale, device)
    for name, figure in figures.items():
        print(write_png(figure, out / name))


def _student_figures(
    source: str, shown: Sequence[Shown], block: str | None, query: list[int] | None, device: str
) -> dict[str, Figure]:
    from slimdiffsr.checkpoint import load_model
    from slimdiffsr.figures.inside import attention_maps, choose_queries
    from slimdiffsr.figures.maps import draw_attention
    from slimdiffsr.upscale import pick_device

    model = load_model(source).model.to(pick_device(device))
    maps = [attention_maps(model, one.lr, block) for one in shown]
    queries = query or choose_queries(maps, 6)
    if not all(0 <= q < len(maps[0]) for q in queries):
        raise ConfigError(f"--query must be in 0..{len(maps[0]) - 1}, got {queries}")
    return {"attention.png": draw_attention(shown, maps, queries)}


def _teacher_figures(
    files: list[Path], shown: Sequence[Shown], scale: int | None, device: str
) -> dict[str, Figure]:
    from slimdiffsr.figures.inside import FeatureMaps, guidance_maps, teacher_features
    from slimdiffsr.figures.maps import draw_features, draw_guidance
    from slimdiffsr.stages.teacher_files import load_teacher
    from slimdiffsr.upscale import pick_device

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
    from slimdiffsr.evaluate import read_rgb8
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
    from slimdiffsr.evaluate import read_rgb8

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

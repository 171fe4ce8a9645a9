"""What the commands say: notes and progress on stderr, results on stdout."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)

from slimdiffsr.errors import SlimDiffSRError

if TYPE_CHECKING:
    from slimdiffsr import geo
    from slimdiffsr.training.loop import Progress as TrainingProgress
    from slimdiffsr.training.loop import TrainResult

__all__ = [
    "counting_progress",
    "note",
    "plain",
    "report",
    "scene_progress",
    "sentence",
    "tell",
    "tell_training",
    "training_progress",
]

# What the library's messages call an option, and what it is called here.
OPTION_NAMES = {
    "chunk_hr_px": "--chunk",
    "overlap_hr_px": "--overlap",
    "value_range": "--range",
    "allow overwriting": "give --overwrite",
}


def note(text: str) -> None:
    """One line on stderr."""
    print(text, file=sys.stderr)


def sentence(error: SlimDiffSRError) -> str:
    """An error's message, with the names that options have here."""
    text = str(error)
    for name, option in OPTION_NAMES.items():
        text = text.replace(name, option)
    return text


def tell(done: geo.SceneReport) -> None:
    """What was done, and what was assumed."""
    for remark in (*done.assumptions, *done.warnings):
        note(f"note: {remark}")
    resumed = f", {done.chunks_resumed} chunks kept" if done.chunks_resumed else ""
    note(
        f"{done.dst}: {done.plan.output_width_hr_px} x {done.plan.output_height_hr_px} pixels "
        f"in {done.seconds:.1f} s ({done.mpx_per_s:.2f} Mpx/s{resumed})"
    )


def tell_training(result: TrainResult, steps: int, written: Path) -> None:
    """How a training run ended; of several processes the first tells it."""
    if os.environ.get("RANK", "0") != "0":
        return
    ending = "" if result.finished else "; the same command goes on from here"
    note(f"step {result.step} of {steps} after {result.seconds:.0f} s{ending}")
    if result.unreadable:
        note(f"passed over images that cannot be read, {result.unreadable} times")
    if result.too_small:
        note(f"{result.too_small} images smaller than the crop were passed over")
    if result.changed:
        note(f"went on with other settings than before: {'; '.join(result.changed)}")
    print(written)


def report(facts: dict[str, Any], as_json: bool) -> None:
    """Facts on stdout, as JSON or as a table."""
    if as_json:
        print(json.dumps(facts, indent=1, allow_nan=False))
        return
    for name, value in facts.items():
        lines = value if isinstance(value, list) and value and isinstance(value[0], str) else None
        print(f"{name:22s} {value if lines is None else lines[0]}")
        for line in (lines or [])[1:]:
            print(f"{'':22s} {line}")


def plain(record: Any) -> dict[str, Any]:  # noqa: ANN401  any dataclass
    """A dataclass as JSON would have it; what JSON cannot hold, as NaN, becomes text."""
    text = json.dumps(dataclasses.asdict(record), default=str)
    plain: dict[str, Any] = json.loads(text, parse_constant=str)
    return plain


@contextmanager
def scene_progress(source: str, quiet: bool) -> Iterator[Callable[[geo.Progress], None] | None]:
    """A progress bar for a scene on a terminal; lines for a program that asks for them.

    Such a program sets SLIMDIFFSR_PROGRESS_S to the seconds between lines.
    """
    console = Console(stderr=True)
    every_s = os.environ.get("SLIMDIFFSR_PROGRESS_S", "")
    if quiet or not (console.is_terminal or every_s):
        yield None
        return
    if not console.is_terminal:
        yield _lines(Path(source).name, float(every_s))
        return
    columns = (
        TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(),
        TextColumn("{task.fields[speed]}"), TimeRemainingColumn(),
    )  # fmt: skip
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(Path(source).name, total=None, speed="")

        def show(progress: geo.Progress) -> None:
            fresh = progress.output_px_done - progress.output_px_resumed
            elapsed = bar.tasks[0].elapsed or 0.0
            speed = f"{fresh / elapsed / 1e6:.2f} Mpx/s" if elapsed > 0 else ""
            bar.update(
                task, completed=progress.output_px_done, total=progress.output_px, speed=speed,
                description=Path(source).name if progress.stage == "tiles" else progress.stage,
            )  # fmt: skip

        yield show


def _lines(name: str, every_s: float) -> Callable[[geo.Progress], None]:
    told_at = -math.inf

    def show(progress: geo.Progress) -> None:
        nonlocal told_at
        if time.monotonic() - told_at >= every_s:
            told_at = time.monotonic()
            note(f"{name}: {100 * progress.output_px_done / progress.output_px:.0f} %")

    return show


@contextmanager
def counting_progress(what: str) -> Iterator[Callable[..., None]]:
    """A progress bar for things one by one, on a terminal only.

    Called with how many are done, how many there are, and perhaps what comes next.
    """
    console = Console(stderr=True)
    columns = (
        TextColumn(what), BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"),
        TimeRemainingColumn(),
    )  # fmt: skip
    shown = console.is_terminal
    with Progress(*columns, console=console, transient=True, disable=not shown) as bar:
        task = bar.add_task("", total=None)
        yield lambda done, total, following="": bar.update(
            task, completed=done, total=total, description=following
        )


@contextmanager
def training_progress(steps: int) -> Iterator[Callable[[TrainingProgress], None]]:
    """A progress bar for a training run; plain lines where there is no terminal."""
    console = Console(stderr=True)
    columns = (
        TextColumn("step {task.completed}/{task.total}"), BarColumn(),
        TextColumn("{task.fields[text]}"), TimeRemainingColumn(),
    )  # fmt: skip
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("train", total=steps, text="")

        def show(progress: TrainingProgress) -> None:
            losses = " ".join(f"{name} {value:.4f}" for name, value in progress.losses.items())
            memory = f"{progress.memory_gib:.1f} GiB " if progress.memory_gib else ""
            text = f"{progress.images_per_s:.1f} images/s {memory}{losses}"
            bar.update(task, completed=progress.step, text=text)
            if not console.is_terminal:
                note(f"step {progress.step} {text}")

        yield show

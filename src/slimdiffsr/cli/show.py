"""What the commands say: notes and progress on stderr, results on stdout."""

from __future__ import annotations

import dataclasses
import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

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
    from slimdiffsr.training.notices import Notice

__all__ = [
    "TrainingConsole",
    "counting_progress",
    "note",
    "plain",
    "report",
    "scene_progress",
    "sentence",
    "tell",
    "tell_training",
]

SILENCE_S = 30.0  # without a terminal a line is due then

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
    left_out = [
        f"{count} {why}"
        for count, why in (
            (result.unreadable, "that cannot be read"),
            (result.too_small, "smaller than the crop"),
        )
        if count
    ]
    if left_out:
        note(f"images passed over: {', '.join(left_out)}; see left-out.txt beside {written.name}")
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
    """A progress bar for a scene, on a terminal only."""
    console = Console(stderr=True)
    if quiet or not console.is_terminal:
        yield None
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


class TrainingConsole:
    """What a training run says: a bar on a terminal, elsewhere lines, one at least every 30 s.

    Both of its methods are meant to be handed to a stage, as ``on_progress`` and as ``tell``.
    """

    def __init__(self, steps: int) -> None:
        self.console = Console(stderr=True)
        speaks = os.environ.get("RANK", "0") == "0"  # of several processes the first
        self.shown = self.console.is_terminal and speaks
        self.silent = not speaks
        columns = (
            TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[text]}"),
            TimeRemainingColumn(),
        )  # fmt: skip
        self.bar = Progress(*columns, console=self.console, disable=not self.shown)
        self.task = self.bar.add_task("starting", total=None, text="")
        self.steps = steps
        self.doing = "starting"
        self.last_line = time.monotonic()
        self.logged = False
        self.ended = threading.Event()
        self.pulse = threading.Thread(target=self._beat, daemon=True)

    def __enter__(self) -> Self:
        self.bar.start()
        if not self.shown and not self.silent:
            self.pulse.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.ended.set()
        self.bar.stop()

    def progress(self, progress: TrainingProgress) -> None:
        """A step that was logged."""
        losses = " ".join(f"{name} {value:.4f}" for name, value in progress.losses.items())
        memory = f"{progress.memory_gib:.1f} GiB " if progress.memory_gib else ""
        text = f"{progress.images_per_s:.1f} images/s {memory}{losses}"
        self.bar.update(
            self.task, completed=progress.step, total=self.steps, text=text,
            description=f"step {progress.step}/{self.steps}",
        )  # fmt: skip
        self.doing = f"step {progress.step} {text}"
        if not self.logged or progress.step == progress.steps or self._due():
            self._say(self.doing)
        self.logged = True

    def notice(self, notice: Notice) -> None:
        """A sentence, or how much of something is done."""
        if not notice.total:
            self.doing = notice.text
            if self.shown:
                self.console.print(notice.text, markup=False, highlight=False)
            self._say(notice.text)
            return
        self.doing = f"{notice.text} {notice.done} of {notice.total}"
        what = f"{notice.text} {notice.done}/{notice.total}"
        self.bar.update(self.task, completed=notice.done, total=notice.total, description=what)
        if notice.done and self._due():
            self._say(self.doing)

    def _due(self) -> bool:
        return time.monotonic() - self.last_line >= SILENCE_S

    def _say(self, line: str) -> None:
        if not self.shown and not self.silent:
            note(line)
            self.last_line = time.monotonic()

    def _beat(self) -> None:
        # For what takes long in one piece: reading large weights, a first step that compiles.
        while not self.ended.wait(min(1.0, SILENCE_S)):
            if self._due():
                self._say(f"still at it: {self.doing}")

"""What the commands say: notes and progress on stderr, results on stdout."""

from __future__ import annotations

import dataclasses
import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)

if TYPE_CHECKING:
    from slimdiffsr import geo
    from slimdiffsr.cli.estimate import Estimate
    from slimdiffsr.training.loop import Progress as TrainingProgress
    from slimdiffsr.training.loop import TrainResult
    from slimdiffsr.training.notices import Notice

__all__ = [
    "TrainingConsole",
    "counting_progress",
    "duration",
    "is_out_of_memory",
    "note",
    "plain",
    "print_json",
    "report",
    "scene_progress",
    "scenes_progress",
    "sentence",
    "size",
    "tell",
    "tell_plan",
    "tell_training",
]

LINE_EVERY_S = 30.0
SHORT_S = 10.0  # what takes less needs no estimate

_NO_MEMORY = ("can't allocate memory", "out of memory", "not enough memory", "bad_alloc")

# What the library's messages call an option, and what it is called here.
OPTION_NAMES = {
    "chunk_hr_px": "--chunk",
    "overlap_hr_px": "--overlap",
    "value_range": "--range",
    "bounds_crs": "--bounds-crs",
    "allow overwriting": "give --overwrite",
    "the format ": "--format ",
}


def note(text: str) -> None:
    """One line on stderr; nowhere when that is closed."""
    if sys.stderr is not None:
        with suppress(OSError):
            print(text, file=sys.stderr, flush=True)


def print_json(facts: Any) -> None:  # noqa: ANN401  what JSON can hold
    """A summary for scripts on stdout."""
    print(json.dumps(facts, indent=1, allow_nan=False), flush=True)


def sentence(error: BaseException) -> str:
    """An error's message, with the names that options have here."""
    if is_out_of_memory(error):
        return (
            "the memory is used up: give --chunk 512, --device cpu, or close other programs; "
            "what is finished is kept, and the same command goes on"
        )
    text = str(error)
    for name, option in OPTION_NAMES.items():
        text = text.replace(name, option)
    return text


def is_out_of_memory(error: BaseException) -> bool:
    """Whether numpy, Python, PyTorch's allocator or a card found no room."""
    if isinstance(error, MemoryError):
        return True
    words = str(error)
    return isinstance(error, RuntimeError) and any(sign in words for sign in _NO_MEMORY)


def tell_plan(plan: geo.ScenePlan, estimate: Estimate, place: str = "") -> None:
    """What will be done and what is assumed, before the first tile is run."""
    for remark in plan.assumptions:
        note(f"note: {remark}")
    if estimate.seconds is None or estimate.seconds < SHORT_S:
        return
    note(
        f"{place}{Path(plan.src).name}: {plan.output_width_hr_px} x {plan.output_height_hr_px} "
        f"pixels, {plan.tiles} tiles, about {duration(estimate.seconds)}; up to "
        f"{size(estimate.disk_bytes)} on the disk, about {size(estimate.memory_bytes)} of memory"
    )


def tell(done: geo.SceneReport, place: str = "") -> None:
    """What was done."""
    for remark in done.warnings:
        note(f"note: {remark}")
    resumed = f", {done.chunks_resumed} chunks kept" if done.chunks_resumed else ""
    note(
        f"{place}{done.dst}: {done.plan.output_width_hr_px} x {done.plan.output_height_hr_px} "
        f"pixels in {done.seconds:.1f} s ({done.mpx_per_s:.2f} Mpx/s{resumed})"
    )


def duration(seconds: float) -> str:
    """Seconds as people say them."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


def size(count: float) -> str:
    """Bytes as people say them."""
    return f"{count / 1e9:.1f} GB" if count >= 1e8 else f"{count / 1e6:.1f} MB"


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
        print_json(facts)
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
def scene_progress(
    source: str, quiet: bool, place: str = ""
) -> Iterator[Callable[[geo.Progress], None] | None]:
    """A progress bar for a scene; where there is no terminal, a line now and then."""
    console = Console(stderr=True)
    name = f"{place}{Path(source).name}"
    if quiet:
        yield None
        return
    if not console.is_terminal:
        with _Lines(name) as lines:
            yield lines.show
        return
    columns = (
        SpinnerColumn(), TextColumn("{task.description}", markup=False), BarColumn(),
        TaskProgressColumn(), TextColumn("{task.fields[speed]}"), TimeRemainingColumn(),
    )  # fmt: skip
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(f"{name}: reading", total=None, speed="")

        def show(progress: geo.Progress) -> None:
            bar.update(
                task, completed=progress.output_px_done, total=progress.output_px,
                speed=_speed(progress, bar.tasks[0].elapsed or 0.0),
                description=name if progress.stage == "tiles" else f"{name}: {progress.stage}",
            )  # fmt: skip

        yield show


@contextmanager
def scenes_progress(
    scenes: int, quiet: bool
) -> Iterator[Callable[[str], Callable[[geo.Progress], None]] | None]:
    """One progress bar for scenes that are worked on at the same time; on a terminal only.

    Called with a scene's name it gives what is to be told of that scene's progress.
    """
    console = Console(stderr=True)
    if quiet or not console.is_terminal:
        yield None
        return
    done: dict[str, float] = {}
    columns = (
        SpinnerColumn(), TextColumn("{task.description}", markup=False), BarColumn(),
        TaskProgressColumn(), TimeRemainingColumn(),
    )  # fmt: skip
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(f"{scenes} scenes", total=scenes)

        def of_scene(name: str) -> Callable[[geo.Progress], None]:
            def show(progress: geo.Progress) -> None:
                done[name] = progress.output_px_done / progress.output_px
                bar.update(task, completed=sum(done.values()))

            return show

        yield of_scene


def _speed(progress: geo.Progress, elapsed_s: float) -> str:
    fresh = progress.output_px_done - progress.output_px_resumed
    return f"{fresh / elapsed_s / 1e6:.2f} Mpx/s" if elapsed_s > 0 else ""


def _line_every_s() -> float:
    """What a program that shows progress has set, as the QGIS plugin does; else half a minute."""
    asked = os.environ.get("SLIMDIFFSR_PROGRESS_S", "")
    return float(asked) if asked.replace(".", "", 1).isdigit() else LINE_EVERY_S


class _Lines:
    """A line every half minute, also while nothing is heard of a run."""

    def __init__(self, name: str) -> None:
        self.name, self.started = name, time.monotonic()
        self.last: geo.Progress | None = None
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self._tell, daemon=True)

    def __enter__(self) -> Self:
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.ended.set()
        self.thread.join()

    def show(self, progress: geo.Progress) -> None:
        """Remember where the run stands."""
        self.last = progress

    def _tell(self) -> None:
        while not self.ended.wait(_line_every_s()):
            elapsed_s, last = time.monotonic() - self.started, self.last
            if last is None:
                note(f"{self.name}: reading, {duration(elapsed_s)}")
                continue
            share = 100 * last.output_px_done / last.output_px
            stage = "" if last.stage == "tiles" else f" {last.stage},"
            fresh = last.output_px_done - last.output_px_resumed
            left = last.output_px - last.output_px_done
            ahead = f", {duration(elapsed_s * left / fresh)} left" if fresh and left else ""
            note(
                f"{self.name}:{stage} {share:.0f} %, {last.chunks_done} of {last.chunks} chunks, "
                f"{_speed(last, elapsed_s)}, {duration(elapsed_s)}{ahead}"
            )


@contextmanager
def counting_progress(what: str, *, quiet: bool = False) -> Iterator[Callable[..., None]]:
    """A progress bar for things one by one, on a terminal only.

    Called with how many are done, how many there are, and perhaps what comes next.
    """
    console = Console(stderr=True)
    columns = (
        TextColumn(what), BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"),
        TimeRemainingColumn(),
    )  # fmt: skip
    hidden = quiet or not console.is_terminal
    with Progress(*columns, console=console, transient=True, disable=hidden) as bar:
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
        return time.monotonic() - self.last_line >= LINE_EVERY_S

    def _say(self, line: str) -> None:
        if not self.shown and not self.silent:
            note(line)
            self.last_line = time.monotonic()

    def _beat(self) -> None:
        # For what takes long in one piece: reading large weights, a first step that compiles.
        while not self.ended.wait(min(1.0, LINE_EVERY_S)):
            if self._due():
                self._say(f"still at it: {self.doing}")

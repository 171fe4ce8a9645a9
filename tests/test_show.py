"""What the commands say while they run."""

from __future__ import annotations

import time
from functools import partial
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from slimdiffsr.cli.show import TrainingConsole, counting_progress, tell_training
from slimdiffsr.training.loop import Progress, TrainResult
from slimdiffsr.training.notices import Notice

STEP = Progress(3, 10, images_per_s=12.5, memory_gib=1.5, losses={"l1": 0.25, "gan": 1.0})


def test_a_pipe_gets_a_line_with_speed_memory_and_losses(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with TrainingConsole(10) as console:
        console.progress(STEP)
    assert capsys.readouterr().err == "step 3 12.5 images/s 1.5 GiB l1 0.2500 gan 1.0000\n"


def test_a_terminal_gets_a_bar_with_speed_memory_and_losses(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    screen = StringIO()
    terminal = partial(Console, file=screen, force_terminal=True, width=200)
    monkeypatch.setattr("slimdiffsr.cli.show.Console", lambda stderr: terminal())
    with TrainingConsole(10) as console:
        console.notice(Notice("validated: psnr_y 23"))
        console.notice(Notice("preparing the pool, pair", 64, 128))
        assert "preparing the pool, pair 64/128" in console.bar.tasks[0].description
        console.progress(STEP)
    told = ("step 3/10", "12.5 images/s 1.5 GiB l1 0.2500 gan 1.0000", "validated: psnr_y 23")
    for part in told:
        assert part in screen.getvalue()
    with counting_progress("images") as count:
        count(2, 48, "tiny-x4")
    for part in ("images", "2/48", "tiny-x4"):
        assert part in screen.getvalue()


def test_a_pipe_gets_no_bar_of_what_is_counted(capsys: pytest.CaptureFixture[str]) -> None:
    with counting_progress("images") as count:
        count(2, 48)
    assert capsys.readouterr() == ("", "")


def test_a_pipe_gets_sentences_at_once_and_counts_every_thirty_seconds(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [100.0]
    monkeypatch.setattr("slimdiffsr.cli.show.time.monotonic", lambda: clock[0])
    with TrainingConsole(100) as console:
        for second in range(0, 80, 5):
            clock[0] = 100.0 + second
            console.notice(Notice("reading headers, image", second, 1000))
        console.notice(Notice("20 images to train on"))
        for step in (50, 51, 100):
            console.progress(Progress(step, 100, 1.0, 0.0, {"l1": 0.5}))
    assert capsys.readouterr().err.splitlines() == [
        "reading headers, image 30 of 1000",
        "reading headers, image 60 of 1000",
        "20 images to train on",
        "step 50 1.0 images/s l1 0.5000",
        "step 100 1.0 images/s l1 0.5000",
    ]


def test_of_several_processes_the_first_alone_speaks(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("slimdiffsr.cli.show.LINE_EVERY_S", 0.1)
    monkeypatch.setenv("RANK", "1")
    with TrainingConsole(10) as console:
        console.notice(Notice("reading weights"))
        console.progress(STEP)
        time.sleep(0.3)
    assert capsys.readouterr() == ("", "")


def test_a_pipe_gets_a_line_although_nothing_is_said(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("slimdiffsr.cli.show.LINE_EVERY_S", 0.5)
    with TrainingConsole(10) as console:
        console.notice(Notice("reading weights"))
        time.sleep(1.3)
    first, *others = capsys.readouterr().err.splitlines()
    assert first == "reading weights"
    assert set(others) == {"still at it: reading weights"}


def test_the_end_of_a_run_is_told_once_with_what_was_passed_over(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    result = TrainResult(4, False, 8, 12.4, unreadable=2, too_small=3, changed=("lr: 1 -> 2",))
    tell_training(result, 9, Path("model.safetensors"))
    told = capsys.readouterr()
    assert told.out == "model.safetensors\n"
    assert told.err.splitlines() == [
        "step 4 of 9 after 12 s; the same command goes on from here",
        "images passed over: 2 that cannot be read, 3 smaller than the crop; see left-out.txt beside "
        "model.safetensors",
    ]
    monkeypatch.setenv("RANK", "1")
    tell_training(result, 9, Path("model.safetensors"))
    assert capsys.readouterr() == ("", "")

"""What the commands say while they run."""

from __future__ import annotations

from functools import partial
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from slimdiffsr.cli.show import counting_progress, tell_training, training_progress
from slimdiffsr.training.loop import Progress, TrainResult

STEP = Progress(3, 10, images_per_s=12.5, memory_gib=1.5, losses={"l1": 0.25, "gan": 1.0})


def test_a_pipe_gets_a_line_with_speed_memory_and_losses(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with training_progress(10) as show:
        show(STEP)
    assert capsys.readouterr().err == "step 3 12.5 images/s 1.5 GiB l1 0.2500 gan 1.0000\n"


def test_a_terminal_gets_a_bar_with_speed_memory_and_losses(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    screen = StringIO()
    terminal = partial(Console, file=screen, force_terminal=True, width=200)
    monkeypatch.setattr("slimdiffsr.cli.show.Console", lambda stderr: terminal())
    with training_progress(10) as show:
        show(STEP)
    for part in ("step 3/10", "12.5 images/s 1.5 GiB l1 0.2500 gan 1.0000"):
        assert part in screen.getvalue()
    with counting_progress("images") as count:
        count(2, 48, "tiny-x4")
    for part in ("images", "2/48", "tiny-x4"):
        assert part in screen.getvalue()


def test_a_pipe_gets_no_bar_of_what_is_counted(capsys: pytest.CaptureFixture[str]) -> None:
    with counting_progress("images") as count:
        count(2, 48)
    assert capsys.readouterr() == ("", "")


def test_the_end_of_a_run_is_told_once_with_what_was_passed_over(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    result = TrainResult(4, False, 8, 12.4, unreadable=2, too_small=3, changed=("lr: 1 -> 2",))
    tell_training(result, 9, Path("model.safetensors"))
    told = capsys.readouterr()
    assert told.out == "model.safetensors\n"
    assert told.err.splitlines() == [
        "step 4 of 9 after 12 s; the same command goes on from here",
        "passed over images that cannot be read, 2 times",
        "3 images smaller than the crop were passed over",
        "went on with other settings than before: lr: 1 -> 2",
    ]
    monkeypatch.setenv("RANK", "1")
    tell_training(result, 9, Path("model.safetensors"))
    assert capsys.readouterr() == ("", "")

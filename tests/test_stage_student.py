"""A student, with its adversary and LPIPS."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from students import micro_training, write_images, write_lpips
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from test_training_loop import scalars

from slimdiffsr.files.students import load_model
from slimdiffsr.settings.config import StudentLoss, TrainConfig
from slimdiffsr.stages import RunPaths, train_student
from slimdiffsr.training.loop import STATE_FILE, Progress, learning_rate_factor
from slimdiffsr.training.notices import Notice
from slimdiffsr.training.state import load_state

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def paths(tmp_path: Path) -> RunPaths:
    # Validation images of unequal, odd sizes, all smaller than the usual picture.
    write_images(tmp_path / "data", [(100, 70), (90, 130)])
    (tmp_path / "data" / "broken.png").write_bytes(b"")
    lpips = write_lpips(tmp_path / "lpips.safetensors")
    return RunPaths(data=(tmp_path / "data",), out=tmp_path / "whole", lpips=lpips)


def test_a_student_cut_and_resumed_ends_with_the_same_weights(paths: RunPaths) -> None:
    config = micro_training()
    losses: list[Progress] = []
    result = train_student(config, paths, on_progress=losses.append)
    assert (result.step, result.finished, result.unreadable) == (6, True, 1)
    # LPIPS joins after one step and the adversary after two.
    assert [sorted(p.losses) for p in losses[:3]] == [
        ["l1"], ["l1", "lpips"], ["adversary", "gan", "l1", "lpips"],
    ]  # fmt: skip

    def stop(progress: Progress) -> None:
        if progress.step == 4:
            raise KeyboardInterrupt

    torch.rand(7)  # the global generator must not matter
    cut = dataclasses.replace(paths, out=paths.out.with_name("cut"))
    with pytest.raises(KeyboardInterrupt):
        train_student(config, cut, on_progress=stop)
    rest: list[Progress] = []
    resumed = train_student(config, cut, on_progress=rest.append)
    assert resumed.finished
    assert resumed.changed == ()
    assert [dict(p.losses) for p in rest] == [dict(p.losses) for p in losses[4:]]

    for name in ("model.safetensors", STATE_FILE):
        first, second = load_file(paths.out / name), load_file(cut.out / name)
        assert first.keys() == second.keys()
        for key, value in first.items():
            assert torch.equal(value, second[key]), (name, key)

    check_outputs(paths.out, config)


def test_a_run_that_goes_on_otherwise_than_it_began_says_so(paths: RunPaths) -> None:
    config = micro_training(steps=1, ema=0.0)
    assert train_student(config, paths).changed == ()
    other = dataclasses.replace(config, lr=1e-4, loss=dataclasses.replace(config.loss, l1=0.5))
    said: list[Notice | Progress] = []
    changed = train_student(
        dataclasses.replace(other, steps=2), paths, tell=said.append, on_progress=said.append
    ).changed
    expected = (f"loss.l1: {config.loss.l1} -> 0.5", f"lr: {config.lr} -> 0.0001")
    assert changed == (*expected, "steps: 1 -> 2")
    # Before the first step, when there is still time to stop it.
    told = [isinstance(one, Notice) and "goes on with other settings" in one.text for one in said]
    assert told.index(True) < next(i for i, one in enumerate(said) if isinstance(one, Progress))
    assert any(isinstance(one, Notice) and expected[0] in one.text for one in said)


def check_outputs(out: Path, config: TrainConfig) -> None:
    """What a finished run leaves: pictures, curves, the config, and averaged weights."""
    for step in (3, 6):
        with Image.open(out / "validation" / f"{step:07d}.png") as picture:
            # LR, SR and HR side by side, sides cut to multiples of 32; narrower rows are filled.
            assert picture.size == (3 * 96, 64 + 128)
            assert np.asarray(picture).std() > 10
    curves = scalars(out)
    assert {"l1", "lpips", "gan", "adversary", "val/psnr_y", "val/lpips"} <= curves.keys()
    rates = [value for _, value in curves["lr/student"]]
    expected = [config.lr * learning_rate_factor(step, config) for step in range(6)]
    np.testing.assert_allclose(rates, expected, rtol=1e-6)
    accumulator: Any = EventAccumulator
    events = accumulator(str(out / "tensorboard"))
    events.Reload()
    assert [event.step for event in events.Images("validation")] == [3, 6]
    assert [step for step, _ in curves["val/ssim_y"]] == [3, 6]
    assert json.loads((out / "config.json").read_text())["steps"] == 6
    loaded = load_model(str(out))
    assert loaded.config == config.model
    assert loaded.metadata["step"] == "6"
    state = load_state(out / STATE_FILE)
    weights, raw = loaded.model.state_dict(), state["modules"]["student"]
    for key, value in state["averages"]["student"].items():
        assert torch.equal(weights[key], value)
    assert any(not torch.equal(weights[key], raw[key]) for key in weights)


def test_training_starts_from_given_weights(
    paths: RunPaths,
) -> None:
    config = micro_training(steps=1, lr=1e-9, lr_adversary=1e-9, lr_final=None, ema=0.0)
    train_student(dataclasses.replace(config, seed=5), paths)
    start = paths.out / "model.safetensors"
    other = dataclasses.replace(paths, out=paths.out.with_name("other"), start=start)
    train_student(config, other)
    given = load_file(start)
    for key, value in load_file(other.out / "model.safetensors").items():
        torch.testing.assert_close(value, given[key], rtol=0, atol=1e-6)


def test_l1_alone_needs_no_lpips_weights(paths: RunPaths) -> None:
    config = micro_training(steps=3, loss=StudentLoss(lpips=0, gan=0))
    without = dataclasses.replace(paths, lpips=None)
    train_student(config, without)
    curves = scalars(paths.out)
    assert "val/psnr_y" in curves
    assert "val/lpips" not in curves
    # With its weights it is measured all the same.
    train_student(dataclasses.replace(config, steps=6), paths)
    assert "val/lpips" in scalars(paths.out)

"""What can go wrong while training, through the command line: one sentence, and nothing lost."""

from __future__ import annotations

import errno
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from students import write_images, write_lpips
from teachers import write_base
from torch import Tensor
from typer.testing import CliRunner, Result

from slimdiffsr.cli import app
from slimdiffsr.files.teachers import TeacherBase
from slimdiffsr.stages.uncertainty import UncertaintyTask
from slimdiffsr.training.loop import STATE_FILE
from slimdiffsr.training.state import load_state

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> TeacherBase:
    return write_base(tmp_path_factory.mktemp("errors") / "base")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    write_images(tmp_path / "data", [(80, 96), (96, 72)])
    return tmp_path / "data"


def train(stage: str, data: Path, out: Path, *more: object) -> Result:
    """The command at its smallest, saved every second step."""
    few = ("steps=4", "batch=2", "log_every=1", "save_every=2", "validate_every=4")
    settings = [word for setting in few for word in ("--set", setting)]
    command = ["train", stage, "--config", "micro", "--data", data, "--out", out, *settings, *more]
    return CliRunner().invoke(app, [str(word) for word in command])


def uncertainty(base: TeacherBase, data: Path, out: Path, *more: object) -> Result:
    return train("uncertainty", data, out, "--codec-folder", base.codec_folder, *more)


def refused(result: Result) -> str:
    """The last line of what was said, the only one that is an error."""
    assert result.exit_code == 2, result.output
    *before, error = result.stderr.strip().splitlines()
    assert error.startswith("error: ")
    assert not any("error" in line.lower() or "Traceback" in line for line in before)
    return str(error)


def saved_step(out: Path) -> int:
    return int(load_state(out / STATE_FILE)["step"])


def test_what_is_not_finite_is_named_and_the_last_good_state_goes_on(
    base: TeacherBase, data: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    assert uncertainty(base, data, out, "--set", "steps=2").exit_code == 0
    error = refused(uncertainty(base, data, out, "--set", "lr=1e30"))
    assert "not finite at step 3, whose batch was from " in error
    assert str(data) in error
    assert f"the last good state is in {out / STATE_FILE}: lower the learning rate" in error
    assert saved_step(out) == 2
    assert uncertainty(base, data, out).exit_code == 0
    assert saved_step(out) == 4


def test_a_full_disk_keeps_the_state_before(
    base: TeacherBase, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, writes = tmp_path / "out", []

    def full(file: int) -> None:
        writes.append(file)
        if len(writes) > 3:  # config, base and the state of step 2
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr("slimdiffsr.files.tensors.os.fsync", full)
        error = refused(uncertainty(base, data, out))
    assert error.endswith(f"{STATE_FILE}: No space left on device; the previous file is kept")
    assert saved_step(out) == 2
    left = {"base.json", "config.json", STATE_FILE, "tensorboard"}
    assert {path.name for path in out.iterdir()} == left
    assert uncertainty(base, data, out).exit_code == 0


def test_logs_that_cannot_be_written_are_one_sentence(
    base: TeacherBase, data: Path, tmp_path: Path
) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "tensorboard").write_text("a file in the logs' place")
    assert "cannot write logs into" in refused(uncertainty(base, data, tmp_path / "out"))


def test_images_that_are_too_small_are_counted(
    base: TeacherBase, data: Path, tmp_path: Path
) -> None:
    error = refused(uncertainty(base, data, tmp_path / "out", "--set", "crop_hr_px=88"))
    assert "0 unreadable, 2 smaller than the 88 px crop" in error
    assert not (tmp_path / "out").exists()
    write_images(data / "small", [(40, 96)])
    some = uncertainty(base, data, tmp_path / "out", "--set", "steps=1")
    assert some.exit_code == 0
    assert "2 images to train on, 1 are smaller than the crop" in some.stderr
    small = data / "small" / "image0.png"
    why = f"{small} has 40 x 96 pixels, less than the 64 px crop"
    assert f"passed over: {why}" in some.stderr
    assert (tmp_path / "out" / "left-out.txt").read_text() == f"{why}\n"


def test_unreadable_images_are_named_with_the_reason_and_passed_over(
    base: TeacherBase, data: Path, tmp_path: Path
) -> None:
    (data / "no_image.png").write_bytes(b"nothing")
    picture = write_images(data / "cut", [(400, 400)])[0]
    picture.write_bytes(picture.read_bytes()[:2000])  # its header is whole, its pixels are not
    result = uncertainty(base, data, tmp_path / "out", "--set", "validate_every=9")
    assert result.exit_code == 0, result.output
    told = [line for line in result.stderr.splitlines() if line.startswith("passed over: ")]
    assert [
        str(path) in line for path, line in zip((data / "no_image.png", picture), told, strict=True)
    ]
    assert "image file is truncated" in told[1]
    named = (tmp_path / "out" / "left-out.txt").read_text().splitlines()
    assert named == [line.removeprefix("passed over: ") for line in told]
    assert "images passed over: 2 that cannot be read; see left-out.txt" in result.stderr


def test_ctrl_c_saves_leaves_with_130_and_the_same_command_ends_the_same(
    base: TeacherBase, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    update: Any = UncertaintyTask.update

    def interrupted(task: UncertaintyTask, lr: Tensor, hr: Tensor, step: int) -> Any:
        if step == 3:
            signal.raise_signal(signal.SIGINT)
        return update(task, lr, hr, step)

    with monkeypatch.context() as patch:
        patch.setattr(UncertaintyTask, "update", interrupted)
        result = uncertainty(base, data, tmp_path / "cut")
    assert result.exit_code == 130
    assert result.stderr.strip().endswith("stopped; the same command goes on from here")
    assert saved_step(tmp_path / "cut") == 3
    for out in ("cut", "whole"):
        assert uncertainty(base, data, tmp_path / out).exit_code == 0
    first, second = (load_file(tmp_path / out / STATE_FILE) for out in ("cut", "whole"))
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_weights_that_are_missing_or_do_not_fit_are_named(
    base: TeacherBase, data: Path, tmp_path: Path
) -> None:
    none, out = tmp_path / "none.safetensors", tmp_path / "out"
    lpips = write_lpips(tmp_path / "lpips.safetensors")
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(b"nothing")
    codec = ("--codec-folder", base.codec_folder)
    parts = (*codec, "--lpips", lpips, "--estimator", base.estimator, "--unet", base.unet)
    for stage, options, words in (
        ("uncertainty", ("--codec-folder", data), "has no diffusion_pytorch_model.safetensors"),
        ("uncertainty", ("--codec-folder", none), f"there is no folder {none}: it should be"),
        ("uncertainty", ("--codec-folder", none), "or hold taesd_encoder.safetensors and taesd_de"),
        ("uncertainty", (*codec, "--start", base.unet), "of kind estimator, but it holds: unet"),
        (
            "uncertainty",
            (*codec, "--start", base.estimator, "--set", "estimator.width=8"),
            "does not fit the model: 0 missing; 1 unexpected",
        ),
        ("prior", (*codec, "--start", broken), "not a readable safetensors file"),
        ("teacher", (*parts, "--estimator", none), f"no weight file {none}"),
        ("teacher", (*parts, "--unet", none), f"no weight file {none}"),
        ("teacher", (*parts, "--unet", data), "has no unet.safetensors of train prior"),
        ("teacher", (*parts, "--unet", base.estimator), "kind unet, but it holds: estimator"),
        ("teacher", (*parts, "--lpips", none), f"no weight file {none}"),
        ("teacher", (*parts, "--lpips", base.unet), "does not fit the model"),
        ("teacher", (*parts, "--set", "loss.lpips_net=vgg"), "import-lpips"),
        ("student", ("--lpips", lpips), "needs a teacher: give --teacher FILE"),
        ("student", ("--lpips", lpips, "--teacher", base.unet), "of kind teacher, but"),
        ("student", ("--lpips", lpips, "--set", "model.ablation=none"), "model.ablation"),
    ):
        assert words in refused(train(stage, data, out, *options)), (stage, options)
    assert not (out / STATE_FILE).exists()


def test_an_output_folder_that_cannot_be_is_named(
    base: TeacherBase, data: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("no folder")
    error = refused(uncertainty(base, data, tmp_path / "file" / "out"))
    assert "cannot write" in error

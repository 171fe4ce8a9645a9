"""Runs that go on: with the same weights, their own settings, and nothing lost where they cannot."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from students import write_images
from teachers import micro_teacher, run_paths, write_base, write_merged
from test_stage_distillation import MODEL, micro_distillation
from test_stage_uncertainty import micro, random_codec

from slimdiffsr.errors import ConfigError, OutputError, WeightsError
from slimdiffsr.files.stages import EstimatorSpec
from slimdiffsr.files.tensors import encode, load_tensors
from slimdiffsr.models.sd_vae import Taesd
from slimdiffsr.settings.config import Recipe
from slimdiffsr.stages import RunPaths, train_student, train_teacher, train_uncertainty
from slimdiffsr.stages.run import BASE_FILE, CONFIG_FILE, fresh
from slimdiffsr.training.loop import STATE_FILE, TrainResult
from slimdiffsr.training.state import load_state

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def paths(tmp_path: Path) -> RunPaths:
    """Of a run that has made two steps."""
    write_images(tmp_path / "data", [(100, 70), (72, 90)])
    paths = RunPaths(data=(tmp_path / "data",), out=tmp_path / "run")
    assert go_on(paths, steps=2).changed == ()
    return paths


def go_on(paths: RunPaths, codec: Taesd | None = None, **changes: Any) -> TrainResult:
    config = micro(validate_every=100, **changes)
    return train_uncertainty(config, paths, codec or random_codec())


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_run_that_cannot_go_on_leaves_its_folder_as_it_was(paths: RunPaths) -> None:
    before = content(paths.out)
    assert {CONFIG_FILE, BASE_FILE, STATE_FILE} <= before.keys()
    with pytest.raises(WeightsError, match="does not fit the model"):
        go_on(paths, steps=3, estimator=EstimatorSpec(width=16))
    assert content(paths.out) == before


def test_a_run_does_not_go_on_with_another_codec(paths: RunPaths) -> None:
    before = content(paths.out)
    with pytest.raises(WeightsError, match="stands on another codec_sha256 than the one given"):
        go_on(paths, fresh(Taesd, 2), steps=3)
    assert content(paths.out) == before


def test_a_student_does_not_go_on_with_another_teacher(tmp_path: Path) -> None:
    given = dataclasses.replace(run_paths(tmp_path), out=tmp_path / "student")
    teachers = []
    for seed in (0, 1):
        folder = tmp_path / str(seed)
        folder.mkdir()
        teachers.append(write_merged(folder, write_base(folder / "base", seed=seed)))
    config = micro_distillation(steps=1, validate_every=100)
    train_student(config, dataclasses.replace(given, teacher=teachers[0]))
    before = content(given.out)
    with pytest.raises(WeightsError, match="stands on another teacher than the one given"):
        train_student(
            dataclasses.replace(config, steps=2), dataclasses.replace(given, teacher=teachers[1])
        )
    assert content(given.out) == before


def test_a_run_that_goes_on_with_other_images_says_so(paths: RunPaths) -> None:
    write_images(paths.data[0] / "more", [(80, 80)])
    (change,) = (line for line in go_on(paths, steps=3).changed if line.startswith("data: "))
    assert "2 images" in change
    assert "-> 3 images" in change


def test_settings_of_the_optimiser_hold_from_where_the_run_goes_on(paths: RunPaths) -> None:
    changes: dict[str, Any] = {"betas": (0.5, 0.8), "weight_decay": 0.25}
    go_on(paths, steps=3, **changes)
    (group,) = load_state(paths.out / STATE_FILE)["optimizers"]["estimator"]["param_groups"]
    assert tuple(group["betas"]) == changes["betas"]
    assert group["weight_decay"] == changes["weight_decay"]


@pytest.mark.parametrize("name", [CONFIG_FILE, BASE_FILE])
def test_a_damaged_note_is_a_clear_error(paths: RunPaths, name: str) -> None:
    (paths.out / name).write_text('{"steps": 2')
    with pytest.raises(OutputError, match=f"{name} is damaged: delete it to go on"):
        go_on(paths, steps=3)
    (paths.out / name).unlink()
    assert go_on(paths, steps=3).finished


def test_a_stage_does_not_stand_on_another_enlargement(paths: RunPaths, tmp_path: Path) -> None:
    base = dataclasses.replace(write_base(tmp_path / "base"), estimator=paths.out)
    eight = dataclasses.replace(micro_teacher(), recipe=Recipe(scale=8))
    with pytest.raises(ConfigError, match="was trained for 4x, this run is for 8x"):
        train_teacher(eight, dataclasses.replace(paths, out=tmp_path / "teacher"), base)


def test_a_student_is_not_taught_at_another_enlargement(tmp_path: Path) -> None:
    model = dataclasses.replace(MODEL, scale=8, tile_hr_px=128)
    taught = dataclasses.replace(micro_distillation(), recipe=Recipe(scale=8), model=model)
    merged = write_merged(tmp_path, write_base(tmp_path / "base"))
    tensors, about = load_tensors(merged)
    about["train_config"] = '{"recipe": {"scale": 4}}'
    merged.write_bytes(encode(tensors, about))
    given = dataclasses.replace(run_paths(tmp_path), out=tmp_path / "student", teacher=merged)
    with pytest.raises(ConfigError, match="was trained for 4x, this run is for 8x"):
        train_student(taught, given)

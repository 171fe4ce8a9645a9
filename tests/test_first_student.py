"""Where a student begins: at random, as the pruned base, or as its pruned teacher."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from teachers import run_paths, unsettled, write_base, write_merged
from test_stage_distillation import micro_distillation

from slimdiffsr.errors import ConfigError, WeightsError
from slimdiffsr.files.teachers import load_base_unet, load_teacher
from slimdiffsr.models.pruning import prune
from slimdiffsr.models.student import BaseStudent
from slimdiffsr.stages import RunPaths, train_student
from slimdiffsr.stages.student import first_student

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def paths(tmp_path: Path) -> RunPaths:
    base = write_base(tmp_path / "base")
    teacher = write_merged(tmp_path, base)
    return dataclasses.replace(
        run_paths(tmp_path), teacher=teacher, unet=base.unet, codec_folder=base.codec_folder
    )


def test_a_student_begins_as_the_base_and_not_as_its_teacher(paths: RunPaths) -> None:
    assert paths.teacher is not None
    teacher = unsettled(load_teacher(paths.teacher))
    with torch.no_grad():
        for weight in teacher.unet.parameters():
            weight.add_(1)  # what stage 1 taught it
    config = micro_distillation(init="sd")
    student = first_student(config, paths, teacher)
    base, _ = load_base_unet(paths.unet, None)
    fresh = first_student(dataclasses.replace(config, init="fresh"), without_base(paths), teacher)
    assert isinstance(student, BaseStudent)
    spec = student.unet.spec
    wanted = prune(fresh.state_dict(), spec, base.state_dict(), teacher.codec.state_dict()).weights
    made = student.state_dict()
    assert made.keys() == wanted.keys()
    assert all(torch.equal(made[key], wanted[key]) for key in made)
    taught = first_student(
        dataclasses.replace(config, init="teacher"), without_base(paths), teacher
    )
    assert any(not torch.equal(made[key], value) for key, value in taught.state_dict().items())


def without_base(paths: RunPaths) -> RunPaths:
    return dataclasses.replace(paths, unet=None)


def test_without_a_teacher_it_may_begin_as_the_base(paths: RunPaths) -> None:
    alone = micro_distillation(init="sd", distill=None, steps=1)
    assert train_student(alone, dataclasses.replace(paths, teacher=None)).finished


def test_a_base_without_a_use_is_a_clear_error(paths: RunPaths) -> None:
    config = micro_distillation(init="teacher", steps=1)
    with pytest.raises(ConfigError, match="are where init=sd begins, this config has init=teacher"):
        train_student(config, paths)


def test_a_teacher_that_is_not_merged_says_what_to_do(paths: RunPaths) -> None:
    assert paths.teacher is not None
    adapted = dataclasses.replace(paths, teacher=paths.teacher.with_name("adapted.safetensors"))
    config = micro_distillation(init="sd", steps=1)
    with pytest.raises(WeightsError, match="run 'slimdiffsr merge-teacher' on it first"):
        train_student(config, adapted)

"""What reaches the networks in a step: the enlarged input, and the truth where it may be seen."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from accelerate.accelerator import Accelerator
from students import write_images
from teachers import micro_teacher, run_paths, write_base, write_merged
from test_stage_distillation import micro_distillation
from test_stage_uncertainty import make_task, micro
from torch import Tensor

from slimdiffsr.models.student import enlarge_bicubic
from slimdiffsr.stages import RunPaths
from slimdiffsr.stages.student import StudentTask
from slimdiffsr.stages.teacher import TeacherTask
from slimdiffsr.teacher_files import Adaptation, build_teacher

pytestmark = pytest.mark.usefixtures("one_thread")


def batch() -> tuple[Tensor, Tensor]:
    rng = torch.Generator().manual_seed(4)
    return torch.rand(2, 3, 16, 16, generator=rng), torch.rand(2, 3, 64, 64, generator=rng)


def test_the_estimator_sees_the_latent_of_the_enlarged_input(tmp_path: Path) -> None:
    write_images(tmp_path / "data", [(100, 70)])
    task = make_task(micro(), RunPaths(data=(tmp_path / "data",), out=tmp_path / "run"))
    seen: list[Tensor] = []
    task.learner.bare.register_forward_pre_hook(lambda _, args: seen.append(args[0].clone()))
    lr, hr = batch()
    task.update(lr, hr, 1)
    with torch.no_grad():
        wanted = task.codec.encode(enlarge_bicubic(lr, 4))
    torch.testing.assert_close(seen[0], wanted)


def test_the_teacher_sees_the_enlarged_input_and_the_truth(tmp_path: Path) -> None:
    config = micro_teacher()
    teacher = build_teacher(write_base(tmp_path / "base"), config.predictor)
    Adaptation(config.predictor, config.unet_rank, config.decoder_rank).apply(
        teacher, torch.Generator().manual_seed(0)
    )
    task = TeacherTask(config, run_paths(tmp_path), teacher, Accelerator())
    seen: list[tuple[Tensor, ...]] = []
    task.bare.register_forward_pre_hook(lambda _, args: seen.append(args))
    lr, hr = batch()
    task.update(lr, hr, 1)
    torch.testing.assert_close(seen[0][0], enlarge_bicubic(lr, 4))
    torch.testing.assert_close(seen[0][1], hr)


def test_a_distilling_teacher_sees_the_enlarged_input_and_the_truth(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    merged = write_merged(tmp_path, write_base(tmp_path / "base"))
    paths = dataclasses.replace(run_paths(tmp_path), teacher=merged)
    task = StudentTask(micro_distillation(), paths, Accelerator())
    assert task.distillation is not None
    seen: list[tuple[Tensor, Tensor]] = []
    theirs = task.distillation.loss

    def watched(adapted: list[Tensor], enlarged: Tensor, hr: Tensor, step: int) -> object:
        seen.append((enlarged, hr))
        return theirs(adapted, enlarged, hr, step)

    monkeypatch.setattr(task.distillation, "loss", watched)
    lr, hr = batch()
    task.update(lr, hr, 1)
    torch.testing.assert_close(seen[0][0], enlarge_bicubic(lr, 4))
    torch.testing.assert_close(seen[0][1], hr)

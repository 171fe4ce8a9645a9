"""What reaches the networks in a step: the enlarged input, and the truth where it may be seen."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from accelerate.accelerator import Accelerator
from students import write_images
from teachers import PRIOR, micro_teacher, run_paths, unsettled, write_base, write_merged
from test_stage_distillation import DISTIL, micro_distillation
from test_stage_uncertainty import make_task, micro
from torch import Tensor

from slimdiffsr.files.teachers import Adaptation, build_teacher, load_teacher
from slimdiffsr.models.sd_vae import build_kl
from slimdiffsr.models.student import enlarge_bicubic
from slimdiffsr.models.unet import UNet
from slimdiffsr.stages import RunPaths
from slimdiffsr.stages.distilled import Distillation
from slimdiffsr.stages.run import recompute_blocks
from slimdiffsr.stages.student import StudentTask
from slimdiffsr.stages.teacher import TeacherTask
from slimdiffsr.stages.validation import score

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
        _, truth = task.encode(lr, hr)
        torch.testing.assert_close(truth, task.codec.encode(hr))
    torch.testing.assert_close(seen[0], wanted)


def a_teachers_task(folder: Path) -> TeacherTask:
    config = micro_teacher()
    teacher = build_teacher(write_base(folder / "base"), config.predictor)
    Adaptation(config.predictor, config.unet_rank, config.decoder_rank).apply(
        teacher, torch.Generator().manual_seed(0)
    )
    return TeacherTask(config, run_paths(folder), unsettled(teacher), Accelerator())


def test_the_teacher_sees_the_enlarged_input_and_the_truth(tmp_path: Path) -> None:
    task = a_teachers_task(tmp_path)
    seen: list[tuple[Tensor, ...]] = []
    task.bare.register_forward_pre_hook(lambda _, args: seen.append(args))
    lr, hr = batch()
    task.update(lr, hr, 1)
    torch.testing.assert_close(seen[0][0], enlarge_bicubic(lr, 4))
    torch.testing.assert_close(seen[0][1], hr)


def test_the_blind_validation_sees_no_truth(tmp_path: Path) -> None:
    task = a_teachers_task(tmp_path)
    values = task.validate(1, tmp_path)
    blind = score(
        lambda lr, _: task.bare(enlarge_bicubic(lr, 4), None).sr,
        task.validation,
        task.reconstruction.lpips,
        tmp_path / "blind.png",
        torch.device("cpu"),
    )
    for key, value in blind.items():
        assert values[key.replace("val/", "val_mean/")] == pytest.approx(value)
        assert values[key] != pytest.approx(value)


def test_mmd_looks_at_other_places_each_step(tmp_path: Path) -> None:
    teacher = load_teacher(write_merged(tmp_path, write_base(tmp_path / "base")))
    lr, hr = batch()
    enlarged = enlarge_bicubic(lr, 4)
    rng = torch.Generator().manual_seed(1)
    adapted = [
        torch.randn(feature.shape, generator=rng)
        for feature in teacher.blocks(enlarged, hr).matched
    ]

    def mmd(seed: int, step: int) -> float:
        distillation = Distillation(DISTIL, teacher, seed, Accelerator())
        return float(distillation.loss(adapted, enlarged, hr, step)[1]["mmd"])

    assert mmd(5, 7) == mmd(5, 7)
    assert len({mmd(5, 7), mmd(5, 8), mmd(6, 7)}) == 3


def test_recomputing_covers_unet_and_autoencoder() -> None:
    unet, codec = UNet(PRIOR), build_kl((32,) * 4)
    assert not unet.checkpointing
    assert not codec.vae.is_gradient_checkpointing
    recompute_blocks(unet, codec)
    assert unet.checkpointing
    assert codec.vae.is_gradient_checkpointing


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

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from accelerate.accelerator import Accelerator
from safetensors.torch import load_file
from students import micro_training, seeded
from teachers import PRIOR, micro_teacher, run_paths, write_base
from torch import Tensor, nn

from slimdiffsr.errors import ConfigError, WeightsError
from slimdiffsr.files.students import load_model
from slimdiffsr.files.teachers import load_teacher, merge_teacher
from slimdiffsr.method.distillation import compare_features
from slimdiffsr.models.sd_vae import build_kl
from slimdiffsr.models.student import BaseStudent, build_student, enlarge_bicubic
from slimdiffsr.models.unet import BlockOutputs
from slimdiffsr.settings.config import (
    Ablation,
    DistillConfig,
    ModelConfig,
    Recipe,
    StudentLoss,
    TrainConfig,
    UNetConfig,
)
from slimdiffsr.stages import RunPaths, train_student, train_teacher
from slimdiffsr.stages.distilled import Distillation, Imitator
from slimdiffsr.stages.graphs import Recorded
from slimdiffsr.stages.run import fresh
from slimdiffsr.stages.student import StudentTask, first_student
from slimdiffsr.training.loop import STATE_FILE, Progress
from slimdiffsr.upscale import Upscaler

pytestmark = pytest.mark.usefixtures("one_thread")

UNET = UNetConfig(
    widths=(16, 32), mid_width=32, layers=1, groups=8, ff_mult=1, queries=4, squeeze=8
)
MODEL = ModelConfig(
    name="micro-base", scale=4, unet=UNET, taesd_affine=True, tile_hr_px=64, overlap_hr_px=32
)
WIDE = dataclasses.replace(MODEL, unet=dataclasses.replace(UNET, widths=(32, 64)))
DISTIL = DistillConfig(samples=64)


def micro_distillation(**changes: Any) -> TrainConfig:
    config = micro_training(
        model=MODEL,
        loss=StudentLoss(lpips=0.5, gan=0.1, gan_from=1),
        steps=4,
        validate_every=4,
        ema=0.0,
        distill=DISTIL,
    )
    return dataclasses.replace(config, **changes)


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> RunPaths:
    """Images and a merged teacher of one step."""
    place = tmp_path_factory.mktemp("distillation")
    base, paths = write_base(place / "base"), run_paths(place)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    config = micro_teacher(steps=1, loss=StudentLoss(lpips=0, gan=0), validation_images=1)
    train_teacher(config, dataclasses.replace(paths, out=place / "teacher"), base)
    torch.set_num_threads(threads)
    merge_teacher(place / "teacher" / "teacher.safetensors", base, place / "merged.safetensors")
    return dataclasses.replace(paths, teacher=place / "merged.safetensors")


def batch() -> tuple[Tensor, Tensor]:
    rng = torch.Generator().manual_seed(4)
    hr = torch.rand(2, 3, 64, 64, generator=rng) * 2 - 1
    return nn.functional.avg_pool2d(hr, 4), hr


@pytest.mark.parametrize(
    ("distill", "names"),
    [
        (None, {"l1"}),
        (dataclasses.replace(DISTIL, mmd_weight=0.0), {"l1", "mse", "mmd", "raw_mse"}),
        (dataclasses.replace(DISTIL, mid=True), {"l1", "mse", "mmd", "raw_mse"}),
        (DISTIL, {"l1", "mse", "mmd", "raw_mse"}),
    ],
)
def test_table_7s_variants_descend_on_their_terms(
    paths: RunPaths, distill: DistillConfig | None, names: set[str]
) -> None:
    config = micro_distillation(distill=distill, init="teacher", loss=StudentLoss(lpips=0, gan=0))
    task = StudentTask(config, paths, Accelerator())
    _, loss, terms = task._attempt(1, *batch())
    assert set(terms) == names
    expected = terms["l1"]
    if distill is not None:
        assert terms["mse"] > 0
        assert terms["mmd"] > 0
        expected = expected + terms["mse"] + distill.mmd_weight * terms["mmd"]
    torch.testing.assert_close(loss, expected)


def test_gradients_reach_student_and_adapters_but_not_the_teacher(paths: RunPaths) -> None:
    config = micro_distillation(loss=StudentLoss(l1=0, lpips=0, gan=0))
    task = StudentTask(config, paths, Accelerator())
    assert task.distillation is not None
    teacher, adapters = task.distillation.teacher, task.modules["adapters"]
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    start = {name: p.detach().clone() for name, p in task.student.named_parameters()}
    first = [p.detach().clone() for p in adapters.parameters()]
    assert not teacher.training
    task.update(*batch(), 1)
    for name, value in teacher.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert all(p.grad is None and not p.requires_grad for p in teacher.parameters())
    moved = {n for n, p in task.student.named_parameters() if not torch.equal(p, start[n])}
    # Blocks before the last one compared; behind it nothing was asked for.
    assert not any(n.startswith(("decoder", "merge_out", "unet.norm_out")) for n in moved)
    assert any(n.startswith("encoder") for n in moved)
    assert {n.split(".")[1] for n in moved if n.startswith("unet.")} == {
        "down_blocks", "mid_block", "up_blocks",
    }  # fmt: skip
    for parameter, value in zip(adapters.parameters(), first, strict=True):
        assert not torch.equal(parameter, value)


class Echo(nn.Module):
    """Makes the student's own blocks."""

    def __init__(self, student: BaseStudent) -> None:
        super().__init__()
        self.student = student

    def blocks(self, enlarged: Tensor, hr: Tensor | None) -> BlockOutputs:
        return self.student.restore_with_blocks(enlarged)[1]


@pytest.mark.parametrize("mid", [False, True])
def test_a_teacher_that_is_the_student_has_nothing_to_teach(mid: bool) -> None:
    student = fresh(lambda: build_student(MODEL), 0)
    assert isinstance(student, BaseStudent)
    echo: Any = Echo(student)
    distillation = Distillation(dataclasses.replace(DISTIL, mid=mid), echo, 0, Accelerator())
    imitator = Imitator(student, PRIOR, mid=mid)
    assert len(imitator.adapters) == 4 + mid
    lr, hr = batch()
    sr, adapted = imitator(lr)
    torch.testing.assert_close(sr, student(lr))
    loss, terms = distillation.loss(adapted, enlarge_bicubic(lr, 4), hr, 1)
    assert loss < 1e-10
    assert all(value < 1e-10 for value in terms.values())


def test_the_teacher_runs_no_further_than_its_last_matched_block(paths: RunPaths) -> None:
    assert paths.teacher is not None
    teacher = load_teacher(paths.teacher)
    teacher.unet.conv_out = None
    teacher.codec.decoder = nn.Identity()  # would not fit if run
    nn.init.normal_(teacher.predictor.head.out.weight, std=5, generator=seeded())
    student = fresh(lambda: build_student(MODEL), 0)
    assert isinstance(student, BaseStudent)
    lr, hr = batch()
    _, adapted = Imitator(student, teacher.unet.spec)(lr)
    loss, terms = Distillation(DISTIL, teacher, 5, Accelerator()).loss(
        adapted, enlarge_bicubic(lr, 4), hr, 7
    )
    assert loss == terms["mse"] + 0.1 * terms["mmd"]
    # The truth moves the teacher's features, so the student hears of it.
    other, _ = Distillation(DISTIL, teacher, 5, Accelerator()).loss(
        adapted, enlarge_bicubic(lr, 4), -hr, 7
    )
    assert other != loss
    theirs = teacher.blocks(enlarge_bicubic(lr, 4), hr).matched
    assert [f.shape for f in adapted] == [f.shape for f in theirs]
    assert compare_features(theirs, theirs, torch.Generator()).total == 0


def test_the_student_inherits_what_pruning_keeps(paths: RunPaths) -> None:
    assert paths.teacher is not None
    teacher = load_teacher(paths.teacher)
    student = first_student(micro_distillation(init="teacher"), paths, teacher).state_dict()
    theirs = teacher.unet.state_dict()
    name = "resnets.0.norm1.weight"
    for ours, source in (
        (f"unet.down_blocks.1.{name}", f"down_blocks.1.{name}"),
        ("unet.mid_block.norm1.weight", f"down_blocks.2.{name}"),
        ("unet.up_blocks.1.attentions.0.proj_in.weight", "up_blocks.3.attentions.0.proj_in.weight"),
    ):
        assert torch.equal(student[ours], theirs[source])
    assert torch.equal(student["encoder.0.weight"], teacher.state_dict()["codec.encoder.0.weight"])
    plain = first_student(micro_distillation(), paths, teacher).state_dict()
    for key in ("merge_in.weight", "unet.down_blocks.0.resnets.0.conv1.low.weight"):
        assert torch.equal(student[key], plain[key])
    assert not torch.equal(student["encoder.0.weight"], plain["encoder.0.weight"])


@pytest.mark.slow
def test_a_distilled_run_cut_and_resumed_ends_the_same(paths: RunPaths) -> None:
    config = micro_distillation(
        init="teacher", accumulate=2, checkpointing=True, steps=3, validate_every=3
    )
    whole = dataclasses.replace(paths, out=paths.out.with_name("whole"))
    seen: list[Progress] = []
    assert train_student(config, whole, on_progress=seen.append).finished
    assert set(seen[-1].losses) == {
        "l1", "lpips", "gan", "adversary", "mse", "mmd", "raw_mse",
    }  # fmt: skip

    def stop(progress: Progress) -> None:
        if progress.step == 2:
            raise KeyboardInterrupt

    cut = dataclasses.replace(paths, out=paths.out.with_name("cut"))
    with pytest.raises(KeyboardInterrupt):
        train_student(config, cut, on_progress=stop)
    rest: list[Progress] = []
    assert train_student(config, cut, on_progress=rest.append).finished
    assert [dict(p.losses) for p in rest] == [dict(seen[2].losses)]
    for name in ("model.safetensors", STATE_FILE):
        first, second = load_file(whole.out / name), load_file(cut.out / name)
        assert first.keys() == second.keys()
        for key, value in first.items():
            assert torch.equal(value, second[key]), (name, key)
    # The adapters are thrown away: what is left is a student like any other.
    model = load_model(str(whole.out)).model
    assert isinstance(model, BaseStudent)
    assert model.state_dict().keys() == build_student(MODEL).state_dict().keys()


def test_a_teacher_of_other_widths_is_matched_but_not_inherited_from(paths: RunPaths) -> None:
    task = StudentTask(micro_distillation(model=WIDE), paths, Accelerator())
    assert set(task.update(*batch(), 1)) >= {"mse", "mmd"}
    with pytest.raises(WeightsError, match="need the same widths and layers"):
        StudentTask(micro_distillation(model=WIDE, init="teacher"), paths, Accelerator())


def test_configs_and_files_that_do_not_go_together_are_refused(paths: RunPaths) -> None:
    none = dataclasses.replace(paths, teacher=None)
    for changes in ({}, {"distill": None, "init": "teacher"}):
        with pytest.raises(ConfigError, match="needs a teacher: give --teacher FILE"):
            StudentTask(micro_distillation(**changes), none, Accelerator())
    with pytest.raises(ConfigError, match="no use for a teacher"):
        StudentTask(micro_distillation(distill=None), paths, Accelerator())
    with pytest.raises(ConfigError, match="crop_hr_px 96 is no multiple of 64"):
        StudentTask(micro_distillation(crop_hr_px=96), paths, Accelerator())
    assert paths.lpips is not None
    with pytest.raises(WeightsError, match="should hold a network of kind teacher"):
        StudentTask(
            micro_distillation(), dataclasses.replace(paths, teacher=paths.lpips), Accelerator()
        )
    with pytest.raises(ValueError, match="tiny student has none of the teacher's parts"):
        micro_training(init="teacher")
    with pytest.raises(ValueError, match="tiny 8x student works on another grid"):
        micro_training(
            model=dataclasses.replace(
                micro_training().model,
                scale=8,
                decoder_widths=(8, 8, 8, 8),
                tile_hr_px=128,
                overlap_hr_px=64,
            ),
            recipe=Recipe(scale=8),
            distill=DISTIL,
        )


def test_a_tiny_student_imitates_on_the_grid_of_the_latents(paths: RunPaths) -> None:
    config = micro_training(distill=DISTIL, loss=StudentLoss(l1=0, lpips=0, gan=0))
    task = StudentTask(config, paths, Accelerator())
    lr, hr = batch()
    sr, adapted = task.learner(lr)
    torch.testing.assert_close(sr, task.student(lr))
    assert task.distillation is not None
    theirs = task.distillation.matched(enlarge_bicubic(lr, 4), hr)
    assert [tuple(f.shape) for f in adapted] == [tuple(f.shape) for f in theirs]
    start = {name: p.detach().clone() for name, p in task.student.named_parameters()}
    losses = [float(task.update(lr, hr, step)["mse"]) for step in range(1, 9)]
    assert losses[-1] < losses[0]
    moved = {n for n, p in task.student.named_parameters() if not torch.equal(p, start[n])}
    assert any(n.startswith("stem") for n in moved)
    assert not any(n.startswith(("doublings", "out")) for n in moved)


def test_recording_is_refused_where_it_cannot_work_and_changes_nothing_on_a_cpu(
    paths: RunPaths,
) -> None:
    for changes in ({"compile": True}, {"accumulate": 2}, {"checkpointing": True}):
        with pytest.raises(ValueError, match="graphs=true needs compile=false, check"):
            micro_distillation(graphs=True, **changes)
    losses = []
    for graphs in (False, True):
        task = StudentTask(micro_distillation(graphs=graphs), paths, Accelerator())
        assert isinstance(task.learner, Recorded) == graphs
        losses.append([task.update(*batch(), step)["l1"] for step in (1, 2, 3)])
    torch.testing.assert_close(losses[0], losses[1], rtol=0, atol=0)


def test_without_a_teacher_nothing_has_changed(paths: RunPaths) -> None:
    task = StudentTask(
        micro_distillation(distill=None), dataclasses.replace(paths, teacher=None), Accelerator()
    )
    assert set(task.modules) == {"student", "adversary"}
    assert task.distillation is None
    assert task.learner is task.student


@pytest.mark.parametrize("name", [name for name in get_args(Ablation) if name != "ours"])
def test_an_ablation_is_trained_saved_and_used_like_any_student(
    paths: RunPaths, tmp_path: Path, name: Ablation
) -> None:
    model = dataclasses.replace(MODEL, ablation=name, kl_widths=(32,) * 4)
    config = micro_distillation(
        model=model, init="teacher", steps=1, loss=StudentLoss(lpips=0, gan=0), checkpointing=True
    )
    if name == "kl":  # whose weights are from a copy of Stable Diffusion
        vae = fresh(lambda: build_kl(model.kl_widths), 2).vae
        vae.save_pretrained(tmp_path / "sd" / "vae")
        paths = dataclasses.replace(paths, codec_folder=tmp_path / "sd")
    teacher = load_teacher(paths.teacher or Path())
    first = first_student(config, paths, teacher).state_dict()
    if name == "kl":
        for key, value in vae.state_dict().items():
            assert torch.equal(first[f"codec.vae.{key}"], value)
    assert train_student(config, dataclasses.replace(paths, out=tmp_path / "run")).finished
    loaded = load_model(str(tmp_path / "run"))
    assert (loaded.config, loaded.model_id) == (model, f"micro-base ({name})")
    now = loaded.model.state_dict()
    assert now.keys() == first.keys()
    assert any(not torch.equal(now[key], first[key]) for key in now if key.startswith("unet."))
    image = (torch.rand(16, 16, 3, generator=seeded()) * 255).byte().numpy()
    assert Upscaler.from_pretrained(tmp_path / "run").upscale(image).shape == (64, 64, 3)


def test_a_fresh_start_hangs_on_the_seed_alone(paths: RunPaths) -> None:
    starts = []
    for _ in range(2):
        torch.rand(3)
        task = StudentTask(micro_distillation(model=WIDE), paths, Accelerator())
        starts.append(task.modules["adapters"].state_dict() | task.student.state_dict())
    for name, value in starts[0].items():
        assert torch.equal(value, starts[1][name]), name

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from scipy import stats
from students import MICRO_UNET
from teachers import unsettled, write_base, write_merged
from torch.nn import functional as F
from typer.testing import CliRunner

from slimdiffsr.cli import app
from slimdiffsr.errors import ConfigError, OutputError
from slimdiffsr.figures.canvas import new_figure, write_png
from slimdiffsr.figures.inside import (
    GuidanceMaps,
    attention_blocks,
    attention_maps,
    choose_queries,
    guidance_maps,
    teacher_features,
)
from slimdiffsr.figures.maps import Shown, draw_attention, draw_features, draw_guidance
from slimdiffsr.files.students import save_model
from slimdiffsr.files.teachers import (
    TeacherBase,
    build_teacher,
    load_teacher,
)
from slimdiffsr.method.teacher import Teacher
from slimdiffsr.models.slim import QGAM
from slimdiffsr.models.spec import PredictorSpec
from slimdiffsr.models.student import BaseStudent, build_student, enlarge_bicubic
from slimdiffsr.settings.config import ModelConfig
from slimdiffsr.stages.run import fresh

STUDENT = ModelConfig(
    name="micro-base",
    scale=4,
    kind="base",
    unet=dataclasses.replace(MICRO_UNET, norm="group", window_px=None),
)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> TeacherBase:
    return write_base(tmp_path_factory.mktemp("teacher") / "base")


@pytest.fixture(scope="module")
def teacher_file(base: TeacherBase, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_merged(tmp_path_factory.mktemp("merged"), base)


@pytest.fixture(scope="module")
def teacher(teacher_file: Path) -> Teacher:
    return load_teacher(teacher_file)


@pytest.fixture(scope="module")
def student() -> Any:
    return fresh(lambda: build_student(STUDENT), 0).eval()


def picture(height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_attention_weights_are_those_that_the_forward_pass_aggregates_with() -> None:
    tokens = torch.randn(2, 8, 12, 16, generator=torch.Generator().manual_seed(0))
    whole = fresh(lambda: QGAM(16, queries=5, squeeze=8), 0)
    weights = whole.attention(tokens)
    assert weights.shape == (2, 5, 8, 12)
    torch.testing.assert_close(weights.sum((2, 3)), torch.ones(2, 5))
    values = whole.to_v(tokens.flatten(1, 2)[:, None])
    context = weights.flatten(2)[:, None] @ values
    torch.testing.assert_close(context, whole.aggregate(tokens.flatten(1, 2)[:, None]))


def test_windowed_attention_sums_to_one_in_each_window() -> None:
    tokens = torch.randn(1, 8, 12, 16, generator=torch.Generator().manual_seed(0))
    windowed = fresh(lambda: QGAM(16, queries=5, squeeze=8, window=4), 0)
    weights = windowed.attention(tokens)
    sums = F.avg_pool2d(weights, 4) * 16
    torch.testing.assert_close(sums, torch.ones(1, 5, 2, 3))
    alone = windowed.attention(tokens[:, 4:8, 8:12])
    torch.testing.assert_close(weights[..., 4:8, 8:12], alone)


def test_attention_maps_are_relative_to_indifference_and_cut_to_the_image(student: Any) -> None:
    names = list(attention_blocks(student))
    assert names[0] == "down_blocks.0.attentions.0"
    maps = attention_maps(student, picture(16, 24))
    assert maps.shape == (4, 8, 12)  # latent cells of a 64 x 96 image
    np.testing.assert_allclose(maps.mean(axis=(1, 2)), 1, rtol=1e-5)
    assert attention_maps(student, picture(13, 18)).shape == (4, 7, 9)
    assert attention_maps(student, picture(16, 24), names[1]).shape == (4, 4, 6)
    with pytest.raises(ConfigError, match=r"no attention 'mid': there is down_blocks\.0"):
        attention_maps(student, picture(16, 24), "mid")


def test_looking_leaves_the_student_as_it_was(student: Any) -> None:
    before = student(torch.zeros(1, 3, 16, 16))
    attention_maps(student, picture(16, 16))
    assert not any(module._forward_pre_hooks for module in student.modules())
    torch.testing.assert_close(student(torch.zeros(1, 3, 16, 16)), before)


def test_the_chosen_queries_are_selective_and_unlike_each_other() -> None:
    rng = np.random.default_rng(0)
    left = np.where(np.arange(10) < 5, 1.9, 0.1) * np.ones((10, 1))
    maps = np.stack([np.ones((10, 10)), left, left + 0.001, left.T])
    maps += 1e-3 * rng.random(maps.shape)
    chosen = choose_queries([maps.astype(np.float32)], 2)
    assert chosen[0] in (1, 2, 3)
    assert len(set(chosen)) == 2
    assert set(chosen) != {1, 2}
    assert sorted(choose_queries([maps.astype(np.float32)], 9)) == [0, 1, 2, 3]


def test_guidance_maps_are_what_the_teacher_is_guided_by(teacher: Teacher) -> None:
    lr, hr = picture(16, 16), picture(64, 64, 1)
    enlarged = enlarge_bicubic(torch.tensor(lr).permute(2, 0, 1)[None] / 127.5 - 1, 4)
    truth = torch.tensor(hr).permute(2, 0, 1)[None] / 127.5 - 1
    for hr8, hr_tensor in ((hr, truth), (None, None)):
        maps = guidance_maps(teacher, lr, hr8, 4)
        z_lr, guidance = teacher.guide(enlarged, hr_tensor)
        np.testing.assert_allclose(maps.timestep, guidance.timestep[0, 0], rtol=1e-5)
        variance = teacher.estimator(z_lr).log_var.exp()
        np.testing.assert_allclose(maps.uncertainty, variance.sqrt().mean(1)[0], rtol=1e-5)
    assert maps.timestep.std() > 1


def test_maps_of_odd_images_are_cut_to_the_image(teacher: Teacher) -> None:
    maps = guidance_maps(teacher, picture(13, 21), picture(52, 84), 4)
    assert maps.uncertainty.shape == maps.timestep.shape == (7, 11)
    features = teacher_features(teacher, picture(13, 21), None, 4)
    assert features["fixed"].up0.shape == (7, 11)
    assert features["fixed"].up1.shape == (4, 6)


def test_features_are_those_of_each_way_to_choose_the_timestep(teacher: Teacher) -> None:
    lr, hr = picture(16, 16), picture(64, 64, 1)
    made = teacher_features(teacher, lr, hr, 4)
    assert list(made) == ["fixed", "truth only", "adaptive"]
    enlarged = enlarge_bicubic(torch.tensor(lr).permute(2, 0, 1)[None] / 127.5 - 1, 4)
    truth = torch.tensor(hr).permute(2, 0, 1)[None] / 127.5 - 1
    blocks = teacher.blocks(enlarged, truth).matched
    np.testing.assert_allclose(made["adaptive"].up0, blocks[3].mean(1)[0], atol=1e-5)
    np.testing.assert_allclose(made["adaptive"].up1, blocks[2].mean(1)[0], atol=1e-5)
    for way in ("fixed", "truth only"):
        assert np.abs(made[way].up0 - made["adaptive"].up0).max() > 1e-4


@pytest.mark.parametrize(("mode", "ways"), [("fixed", 1), ("gt_only", 2), ("scalar", 3)])
def test_a_teacher_trained_without_uncertainty_has_only_its_own_ways(
    base: TeacherBase, mode: Any, ways: int
) -> None:
    spec = PredictorSpec(mode=mode, width=8, blocks=1)
    teacher = unsettled(build_teacher(base, spec))
    assert len(teacher_features(teacher, picture(16, 16), None, 4)) == ways
    maps = guidance_maps(teacher, picture(16, 16), None, 4)
    assert maps.timestep.shape == (8, 8)
    if mode == "fixed":
        np.testing.assert_allclose(maps.timestep, 200, atol=1e-2)
        assert math.isnan(maps.rank_correlation)


def test_the_rank_correlation_is_spearmans() -> None:
    rng = np.random.default_rng(0)
    a = rng.integers(0, 5, (6, 7)).astype(np.float32)
    b = (a + rng.normal(size=(6, 7))).astype(np.float32)
    expected = stats.spearmanr(a.ravel(), b.ravel()).statistic
    assert GuidanceMaps(a, b).rank_correlation == pytest.approx(expected, abs=1e-5)


def test_figures_label_every_column_image_and_bar(teacher: Teacher, student: Any) -> None:
    shown = [Shown("one", picture(16, 16), picture(64, 64)), Shown("two", picture(16, 24))]
    guidance = draw_guidance(shown, [guidance_maps(teacher, s.lr, s.hr, 4) for s in shown])
    features = draw_features(shown, [teacher_features(teacher, s.lr, s.hr, 4) for s in shown])
    maps = [attention_maps(student, s.lr) for s in shown]
    attention = draw_attention(shown, maps, [2, 0], "up_blocks.1")
    words = {
        guidance: ("input", "truth", "uncertainty", "timestep", "one", "two", "timestep t*"),
        features: ("up block 1\nfixed", "up block 0\nadaptive", "in standard deviations"),
        attention: ("query 2", "query 0", "mean of all", "attention of up_blocks.1, times"),
    }
    for figure, expected in words.items():
        texts = [
            text
            for axes in figure.axes
            for text in (axes.get_title(), axes.get_xlabel(), axes.get_ylabel())
        ]
        for word in expected:
            assert any(word in text for text in texts), word


def test_the_command_draws_all_three_figures(teacher_file: Path, tmp_path: Path) -> None:
    save_model(tmp_path / "student.safetensors", fresh(lambda: BaseStudent(STUDENT), 0), STUDENT)
    (tmp_path / "hr").mkdir()
    Image.fromarray(picture(24, 20)).save(tmp_path / "a.png")
    Image.fromarray(picture(96, 80)).save(tmp_path / "hr" / "a.tif")

    def draw(*arguments: object) -> Any:
        return CliRunner().invoke(app, ["draw", "maps", *map(str, arguments)])

    inputs = (tmp_path / "a.png", "--out", tmp_path / "out")
    both = ("--teacher", teacher_file, "--student", tmp_path / "student.safetensors")
    result = draw(*inputs, *both, "--hr", tmp_path / "hr", "--crop", 16)
    assert result.exit_code == 0, result.output
    for name in ("attention", "features", "guidance"):
        with Image.open(tmp_path / "out" / f"{name}.png") as image:
            assert image.width > 800
    result = draw(*inputs, "--teacher", teacher_file)
    assert (result.exit_code, "give --scale" in result.stderr) == (2, True)
    result = draw(*inputs)
    assert (result.exit_code, "nothing to look into" in result.stderr) == (2, True)
    wrong = draw(*inputs, *both[2:], "--query", 9)
    assert (wrong.exit_code, "--query must be in 0..3" in wrong.stderr) == (2, True)
    nowhere = draw(*inputs, *both, "--hr", tmp_path)
    assert "which is not 4 times the 20 x 24 of" in nowhere.stderr


def test_a_figure_is_the_same_bytes_each_time_and_written_whole(tmp_path: Path) -> None:
    def draw() -> bytes:
        figure = new_figure(2, 1)
        figure.subplots().plot([0, 1])
        return write_png(figure, tmp_path / "deep" / "figure.png").read_bytes()

    assert draw() == draw()
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["figure.png"]
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot write"):
        write_png(new_figure(2, 1), tmp_path / "file" / "figure.png")

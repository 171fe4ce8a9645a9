from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from teachers import write_base, write_merged
from test_cli_evaluate import fails, run, write_set

from slimdiffsr.datasets.images import to_rgb8, to_signed
from slimdiffsr.errors import ConfigError, DataError
from slimdiffsr.evaluate import PairedFolder, open_testset
from slimdiffsr.evaluate.teachers import TeacherFile, load_teacher_file
from slimdiffsr.files.teachers import load_teacher
from slimdiffsr.models.student import enlarge_bicubic

pytestmark = pytest.mark.usefixtures("one_thread")

Rgb8 = NDArray[np.uint8]


@pytest.fixture(scope="module")
def merged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("teacher")
    return write_merged(place, write_base(place / "base"))


@pytest.fixture
def pairs(tmp_path: Path) -> PairedFolder:
    return open_testset(write_set(tmp_path / "set", 2), 4)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("runs/merged.safetensors", TeacherFile(Path("runs/merged.safetensors"), "merged")),
        ("a=b.safetensors", TeacherFile(Path("b.safetensors"), "a")),
        ("b.safetensors,mean", TeacherFile(Path("b.safetensors"), "b-mean", blind=True)),
        ("a=b.safetensors,mean", TeacherFile(Path("b.safetensors"), "a", blind=True)),
    ],
)
def test_a_teacher_is_told_by_its_file_and_what_it_sees(text: str, expected: TeacherFile) -> None:
    assert TeacherFile.parse(text) == expected


def test_other_settings_of_a_teacher_are_errors() -> None:
    with pytest.raises(ConfigError, match=r"perhaps with ,mean behind it: got 'a=b,blind'"):
        TeacherFile.parse("a=b,blind")


@pytest.mark.parametrize("blind", [False, True])
def test_a_teacher_as_a_method_is_the_network_on_the_pair(
    merged: Path, pairs: PairedFolder, blind: bool
) -> None:
    method = load_teacher_file(TeacherFile(merged, "teacher", blind), "cpu")(pairs)
    lr, hr = pairs.read("1")
    assert hr is not None
    teacher = load_teacher(merged)
    with torch.no_grad():
        made = teacher(enlarge_bicubic(to_signed(lr), 4), None if blind else to_signed(hr)).sr[0]
    np.testing.assert_array_equal(method.restore(lr, "1"), to_rgb8(made))
    assert ("mean for the truth" in method.about) == blind
    # What hangs on the truth too is not to be found again by its input alone.
    assert bool(method.identity) == blind
    other = method.restore(lr, "0")
    assert np.array_equal(other, method.restore(lr, "1")) == blind


def test_images_of_any_size_are_padded_and_cropped(merged: Path, pairs: PairedFolder) -> None:
    method = load_teacher_file(TeacherFile(merged, "teacher", blind=True), "cpu")(pairs)
    odd: Rgb8 = np.random.default_rng(1).integers(0, 256, (13, 17, 3), dtype=np.uint8)
    assert method.restore(odd, "odd").shape == (52, 68, 3)


def test_a_teacher_that_looks_at_the_truth_needs_one(merged: Path, pairs: PairedFolder) -> None:
    real = PairedFolder(pairs.lr_files, {}, 4, about={"name": "real"})
    method = load_teacher_file(TeacherFile(merged, "teacher"), "cpu")(real)
    with pytest.raises(DataError, match="no truth for teacher to look at: add ,mean"):
        method.restore(real.read("0")[0], "0")


def test_the_command_scores_a_teacher_with_the_truth_and_without(
    merged: Path, tmp_path: Path
) -> None:
    data, out = write_set(tmp_path / "set", 2), tmp_path / "out"
    both = ("--teacher", f"seeing={merged}", "--teacher", f"blind={merged},mean")
    result = run("evaluate", *both, "--data", data, "--out", out, "--pictures", 0)
    assert result.exit_code == 0, result.output
    found = json.loads((out / "report.json").read_text())
    means = found["sets"][0]["means"]
    assert list(means) == ["seeing", "blind", "truth"]
    assert means["seeing"]["psnr_y"]["mean"] != means["blind"]["psnr_y"]["mean"]
    assert "looks at the truth" in found["models"]["seeing"]
    wrong = ("--teacher", tmp_path / "none.safetensors", "--data", data, "--out", out)
    fails(run("evaluate", *wrong), "no weight file")

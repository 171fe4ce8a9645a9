"""The paper's stages one after the other, from a folder of images to an enlarged raster."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import rasterio
import torch
from rasters import byte_picture, write_raster
from safetensors.torch import load_file
from students import write_images, write_lpips
from teachers import write_taesd
from typer.testing import CliRunner

from slimdiffsr.cli import app
from slimdiffsr.files.students import load_model

pytestmark = pytest.mark.usefixtures("one_thread")


def slimdiffsr(*arguments: object, status: int = 0) -> Any:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == status, result.output
    return result


@pytest.mark.slow
def test_the_commands_lead_from_a_folder_of_images_to_an_enlarged_raster(tmp_path: Path) -> None:
    write_images(tmp_path / "data", [(80, 96), (96, 64), (40, 40)])
    lpips = write_lpips(tmp_path / "lpips.safetensors")
    taesd = write_taesd(tmp_path / "taesd")

    def train(stage: str, *arguments: object, status: int = 0) -> Any:
        return slimdiffsr(
            "train", stage, "--config", "micro", "--data", tmp_path / "data",
            "--out", tmp_path / stage, "--set", "steps=2", "--set", "validation_images=1",
            "--set", "validate_every=2", *arguments, status=status,
        )  # fmt: skip

    codec = ("--codec-folder", taesd)
    estimator = train("uncertainty", *codec).stdout.strip()
    assert estimator == str(tmp_path / "uncertainty" / "estimator.safetensors")
    unet = train("prior", *codec).stdout.strip()
    parts = ("--estimator", estimator, "--unet", unet, *codec)
    shown = train("teacher", *parts, "--lpips", lpips, "--dry-run")
    assert json.loads(shown.stdout)["predictor"]["mode"] == "map"
    assert not (tmp_path / "teacher").exists()
    made = train("teacher", *parts, "--lpips", lpips)
    assert "step 2 of 2" in made.stderr
    assert "3 images" not in made.stderr
    assert "2 images to train on, 1 are smaller than the crop" in made.stderr
    merged = tmp_path / "merged.safetensors"
    told = slimdiffsr("merge-teacher", made.stdout.strip(), merged, *parts).stdout
    assert told.startswith(f"{merged}  sha256 ")
    without = train("student", "--lpips", lpips, status=2)
    assert without.stderr.strip().endswith("or set distill=none and init=fresh")
    student = train("student", "--teacher", merged, "--lpips", lpips).stdout.strip()
    assert load_model(student).config.name == "micro"
    inherits_from(load_file(unet), load_file(student))

    write_raster(tmp_path / "scene.tif", byte_picture(3, 20, 24))
    slimdiffsr("upscale", tmp_path / "scene.tif", tmp_path / "out.tif", "--model", student)
    with rasterio.open(tmp_path / "out.tif") as result:
        assert (result.height, result.width) == (80, 96)


def inherits_from(prior: dict[str, torch.Tensor], student: dict[str, torch.Tensor]) -> None:
    """Two steps of 1e-3 away from the prior's weights, where another start would be far away."""
    for theirs, ours in (
        ("down_blocks.1.resnets.0.conv_shortcut.weight",) * 2,
        ("up_blocks.3.attentions.0.proj_in.weight", "up_blocks.1.attentions.0.proj_in.weight"),
    ):
        weight = student[f"unet.{ours}"]
        assert (prior[theirs] - weight).abs().median() < 5e-3 < weight.abs().median() / 5

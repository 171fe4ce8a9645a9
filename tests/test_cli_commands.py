"""Commands beside upscale, and rio."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner as ClickRunner
from PIL import Image
from rasters import byte_picture, read, write_raster
from students import write_images
from test_cli import BICUBIC, fails, run

from slimdiffsr.cli import rio_command
from slimdiffsr.files.students import load_model

# ---------------------------------------------------------------------------------------------
# Other commands


def test_info_plans_a_raster(scene: Path) -> None:
    result = run("info", scene, "--window", "0 0 30 20", "--scale", 8, "--model", "tiny", "--json")
    plan = json.loads(result.stdout)
    assert (plan["output_width_hr_px"], plan["output_height_hr_px"]) == (240, 160)
    assert (plan["tiles"], plan["chunks"], plan["output_bytes"]) == (1, 1, 240 * 160 * 3)
    assert "output_bytes           96000" in run("info", scene).stdout
    assert [p.name for p in scene.parent.iterdir()] == ["in.tif"]


@pytest.mark.parametrize(
    ("name", "more", "scale"), [("tiny", [], 4), ("tiny-x8", [], 8), ("bicubic", ["-s", "2"], 2)]
)
def test_info_describes_a_model(name: str, more: list[str], scale: int) -> None:
    facts = json.loads(run("info", name, *more, "--json").stdout)
    assert facts["scale"] == scale
    assert (facts["parameters"] > 1e6) == name.startswith("tiny")
    assert len(facts["weights_sha256"]) == (64 if name.startswith("tiny") else 0)
    assert f"scale                  {scale}" in run("info", name, *more).stdout


def test_info_of_nothing() -> None:
    fails(run("info", "tinny"), "no model 'tinny': give a bundled name")
    fails(run("info", "gone.tif"), "gone.tif does not exist")


def test_import_weights_refuses_what_is_none(tmp_path: Path) -> None:
    target = tmp_path / "base-x4.safetensors"
    wrong = tmp_path / "wrong.pkl"
    wrong.write_bytes(b"not a pickle")
    fails(run("import-weights", wrong, target, "--scale", 4), "not a PyTorch weight file")
    fails(run("import-weights", tmp_path / "no.pkl", target, "--scale", 4), "no weight file")
    fails(run("import-weights", wrong, target, "--scale", 3), "2, 4 or 8, got 3")
    assert not target.exists()
    target.write_text("mine")
    fails(run("import-weights", wrong, target, "--scale", 4), "or --overwrite")
    assert target.read_text() == "mine"


def test_interpolate_makes_a_model_between(scene: Path, tmp_path: Path) -> None:
    target = tmp_path / "half.safetensors"
    arguments = ["interpolate", "tiny-x4-faithful", "tiny-x4", target]
    result = run(*arguments, "--amount", 0.5)
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith(f"{target}  sha256 ")
    outputs: list[Any] = []
    for model in ("tiny-x4-faithful", target, "tiny-x4"):
        out = tmp_path / f"{len(outputs)}.tif"
        assert run("upscale", scene, out, "--model", model).exit_code == 0
        outputs.append(read(out).astype(float))
    faithful, between, sharp = outputs
    whole = np.abs(sharp - faithful).mean()
    assert 0 < np.abs(between - faithful).mean() < whole
    assert 0 < np.abs(between - sharp).mean() < whole
    fails(run(*arguments, "--amount", 0.5), "exists: give another name or --overwrite")
    fails(run(*arguments, "--amount", 2, "--overwrite"), "amount must be in [0, 1], got 2")


SMALL = ("loss.lpips=0", "batch=1", "crop_hr_px=64", "workers=0", "loss.gan=0")


def test_train_shows_the_config_it_would_use(tmp_path: Path) -> None:
    base = [
        "train",
        "student",
        "--config",
        "tiny-x4",
        "--data",
        tmp_path,
        "--out",
        tmp_path / "run",
    ]
    write_images(tmp_path, [(64, 64), (80, 64), (64, 32)])
    small = [word for s in SMALL for word in ("--set", s)]
    result = run(*base, "--dry-run", "--set", "steps=7", *small)
    assert result.exit_code == 0, result.output
    config = json.loads(result.stdout)
    assert (config["steps"], config["loss"]["lpips"]) == (7, 0.0)
    assert config["model"]["name"] == "tiny-x4"
    # It counts the images and times a few steps.
    assert "2 images to train on, 1 are smaller than the crop" in result.stderr
    assert re.search(
        r"\n[\d.e-]+ s a step: about [\d.e-]+ (seconds|minutes) for 7 steps\n$", result.stderr
    )
    without = run(*base, "--dry-run", "--set", "loss.lpips=1", *small[2:])
    assert without.exit_code == 2
    assert without.stderr.splitlines()[-1].startswith("error: LPIPS needs weights")
    fails(run(*base, "--dry-run", "--set", "stepps=7"), "stepps: Unexpected keyword argument")
    fails(run(*base, "--dry-run", "--set", "steps"), "expected key=value, got 'steps'")
    fails(run(*base, "--dry-run", "--set", "steps=-1"), "steps")
    base[3] = "tiny-x5"
    fails(run(*base, "--dry-run"), "no preset 'tiny-x5': there are compact-x4")
    assert not (tmp_path / "run").exists()


def test_training_without_images(tmp_path: Path) -> None:
    result = run(
        "train", "student", "--config", "tiny-x4", "--data", tmp_path / "no", "--out", tmp_path
    )
    fails(result, "no folder")


def test_demo_with_a_scene_of_ones_own(tmp_path: Path) -> None:
    src = write_raster(tmp_path / "mine.tif", byte_picture(3, 60, 60), photometric="RGB")
    result = run("demo", "--out", tmp_path / "demo", "--scene", src, *BICUBIC)
    assert result.exit_code == 0, result.output
    assert f"GeoTIFF       {tmp_path / 'demo' / 'mine_x4.tif'}" in result.stdout
    assert read(tmp_path / "demo" / "mine_x4.tif").shape == (3, 240, 240)
    with Image.open(tmp_path / "demo" / "before_after.png") as image:
        assert image.width > 1000
    fails(run("demo", "--out", src), "cannot make the folder")


def test_a_shipped_model_is_fine_tuned_by_its_name_with_l1_alone(tmp_path: Path) -> None:
    write_images(tmp_path / "data", [(64, 64)])
    (tmp_path / "my.toml").write_text("final_sinc_prob = 0.0\n[first]\njpeg_quality = [90, 100]\n")
    base = ["train", "student", "--config", "tiny-x4-faithful", "--data", tmp_path / "data",
            "--out", tmp_path / "run", "--recipe", tmp_path / "my.toml"]  # fmt: skip
    settings = (
        "steps=1",
        "batch=1",
        "crop_hr_px=64",
        "workers=0",
        "lr=1e-9",
        "ema=0",
        "lr_final=none",
    )
    small = [word for s in (*settings, "validation_images=0") for word in ("--set", s)]
    fails(run(*base, *small, "--start", "tiny-x5"), "no model 'tiny-x5'")
    result = run(*base, *small, "--start", "tiny-x4")
    assert result.exit_code == 0, result.output
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["recipe"]["first"]["jpeg_quality"] == [90, 100]
    assert config["recipe"]["final_sinc_prob"] == 0
    shipped, tuned = (
        load_model(name).model.state_dict() for name in ("tiny-x4", str(tmp_path / "run"))
    )
    for key, value in shipped.items():
        torch.testing.assert_close(tuned[key], value, rtol=0, atol=1e-5)
    fails(run(*base[:4], "--out", tmp_path / "run"), "give --data FOLDER, or --pairs LR_FOLDER HR")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], "Missing option '--config': see slimdiffsr train student --help"),
        (["--config", "tiny-x4", "--out", "x", "--max-minutes", "soon"], "'--max-minutes'"),
        (["--foo"], "No such option: --foo"),
    ],
)
def test_a_wrong_use_is_one_sentence(words: list[str], told: str) -> None:
    fails(run("train", "student", *words), told)


@pytest.mark.slow
def test_the_generated_demo(tmp_path: Path) -> None:
    result = run("demo", "--out", tmp_path)
    assert result.exit_code == 0, result.output
    names = {"scene.tif", "scene_x4.tif", "before_after.png"}
    assert names == {path.name for path in tmp_path.iterdir()}
    assert read(tmp_path / "scene_x4.tif").shape == (3, 1280, 1280)


def test_version_and_help() -> None:
    assert run("--version").stdout.startswith("slimdiffsr 0.")
    assert run().exit_code == 2
    for command in (
        "upscale",
        "info",
        "import-weights",
        "interpolate",
        "evaluate",
        "draw",
        "demo",
        "train",
    ):
        assert command in run("--help").stdout
        assert run(command, "--help").exit_code == 0
    assert run("frobnicate").exit_code == 2
    assert run("upscale", "--frobnicate").exit_code == 2


# ---------------------------------------------------------------------------------------------
# rio slimdiffsr


def test_rio_runs_the_same_commands(scene: Path) -> None:
    def rio(*arguments: object) -> Any:
        return ClickRunner().invoke(rio_command, [str(argument) for argument in arguments])

    help_text = rio("--help")
    assert help_text.exit_code == 0
    assert "rio slimdiffsr" in help_text.output
    assert "upscale" in help_text.output
    out = scene.with_name("out.tif")
    assert rio("upscale", scene, out, *BICUBIC).exit_code == 0
    assert read(out).shape == (3, 160, 200)
    fails(
        rio("upscale", scene.with_name("gone.tif"), scene.with_name("o.tif")),
        "gone.tif does not exist",
    )


def test_rio_finds_the_plugin() -> None:
    from importlib.metadata import entry_points

    (found,) = entry_points(group="rasterio.rio_plugins", name="slimdiffsr")
    assert found.load() is rio_command

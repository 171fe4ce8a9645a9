"""upscale as a command: what it does, what it says, and what it refuses."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from PIL import Image
from rasters import byte_picture, picture, read, write_raster
from test_geo_errors import complex_numbers, no_bands, text, truncated
from typer.testing import CliRunner

from slimdiffsr.cli import app
from slimdiffsr.files import students
from slimdiffsr.geo import SceneReport

SLIMDIFFSR = [sys.executable, "-m", "slimdiffsr"]
BICUBIC = ["--model", "bicubic"]


def run(*arguments: object) -> Any:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def fails(result: Any, words: str, status: int = 2) -> None:
    """One sentence on stderr, nothing on stdout, no traceback."""
    assert result.exit_code == status, result.output
    assert result.stdout == ""
    lines = result.stderr.splitlines()
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith("error: ")
    assert words in lines[0]
    assert "Traceback" not in result.output


# ---------------------------------------------------------------------------------------------
# upscale


def test_one_file_with_the_model_that_ships(scene: Path) -> None:
    out = scene.with_name("out.tif")
    result = run("upscale", scene, out)
    assert result.exit_code == 0, result.output
    assert result.stdout == ""
    assert "200 x 160 pixels" in result.stderr
    with rasterio.open(scene) as src, rasterio.open(out) as dst:
        assert (dst.width, dst.height) == (200, 160)
        assert dst.bounds == src.bounds
        assert dst.tags()["SLIMDIFFSR_MODEL"] == "tiny-x4"
        assert dst.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
    assert sorted(p.name for p in scene.parent.iterdir()) == ["in.tif", "out.tif"]


def test_options_arrive(tmp_path: Path) -> None:
    values = (picture(4, 40, 50) * 9000).astype(np.uint16)
    src = write_raster(tmp_path / "in.tif", values)
    result = run(
        "upscale", src, tmp_path / "out.tif", "-m", "lanczos", "-s", 2, "--bands", "3,2,1",
        "--all-bands", "bicubic", "--range", "100,8000", "--window", "8 4 20 10", "--format", "gtiff",
        "--colour", "none", "--overlap", 64, "--chunk", 512, "--co", "COMPRESS=LZW", "--json",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    (report,) = json.loads(result.stdout)
    plan = report["plan"]
    assert plan["window"] == [8, 4, 20, 10]
    assert plan["rgb_bands"] == [3, 2, 1]
    assert len(plan["output_bands"]) == 4
    assert plan["value_range"] == [100, 8000]
    assert (plan["scale"], plan["overlap_hr_px"], plan["chunk_hr_px"]) == (2, 64, 512)
    with rasterio.open(tmp_path / "out.tif") as dst:
        assert (dst.width, dst.height, dst.count) == (40, 20, 4)
        assert dst.compression.name == "lzw"
        assert dst.tags()["SLIMDIFFSR_COLOUR"] == "none"
        assert "LAYOUT" not in dst.tags(ns="IMAGE_STRUCTURE")


def test_bounds_are_map_coordinates(scene: Path) -> None:
    with rasterio.open(scene) as src:
        (left, top), (right, bottom) = src.transform @ (10, 5), src.transform @ (30, 13)
    out = scene.with_name("out.tif")
    result = run("upscale", scene, out, *BICUBIC, "--bounds", f"{left} {bottom} {right} {top}")
    assert result.exit_code == 0, result.output
    with rasterio.open(out) as dst:
        np.testing.assert_allclose(dst.bounds, (left, bottom, right, top), atol=1e-6)


def test_json_is_all_of_stdout_and_holds_no_nan(tmp_path: Path) -> None:
    values = picture(1, 20, 20).astype(np.float32)
    values[0, 3, 3] = np.nan
    src = write_raster(tmp_path / "in.tif", values, nodata=np.nan)

    def never(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    for command in (["upscale", src, tmp_path / "out.tif"], ["info", src]):
        result = run(*command, *BICUBIC, "--json")
        assert result.exit_code == 0, result.output
        facts = json.loads(result.stdout, parse_constant=never)
        plan = facts[0]["plan"] if isinstance(facts, list) else facts
        assert plan["nodata"] == "NaN"
    assert {f.name for f in SceneReport.__dataclass_fields__.values()} == set(
        json.loads(run("upscale", src, tmp_path / "o2.tif", *BICUBIC, "--json").stdout)[0]
    )


def test_assumptions_are_said_unless_quiet(tmp_path: Path) -> None:
    src = write_raster(tmp_path / "in.tif", (picture(3, 20, 20) * 9000).astype(np.uint16))
    result = run("upscale", src, tmp_path / "loud.tif", *BICUBIC)
    assert "note: The network sees band 1, 2, 3" in result.stderr
    assert "as black to white" in result.stderr
    result = run("upscale", src, tmp_path / "quiet.tif", *BICUBIC, "--quiet")
    assert (result.exit_code, result.output) == (0, "")
    np.testing.assert_array_equal(read(tmp_path / "loud.tif"), read(tmp_path / "quiet.tif"))


def test_several_inputs_with_a_bad_one(scene: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.tif"
    bad.write_text("not a raster")
    other = write_raster(tmp_path / "other.tif", byte_picture(3, 9, 9))
    result = run("upscale", scene, bad, other, tmp_path / "out", *BICUBIC, "--json")
    assert result.exit_code == 1
    assert f"error: {bad} is not a raster" in result.stderr
    assert "1 of 3 inputs failed" in result.stderr
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["in_x4.tif", "other_x4.tif"]
    first, second, third = json.loads(result.stdout)
    assert "not a raster" in second["error"]
    assert Path(third["dst"]).name == "other_x4.tif"
    assert "error" not in first


def test_a_folder_and_the_same_command_again(tmp_path: Path) -> None:
    folder = tmp_path / "scenes"
    folder.mkdir()
    for name in ("a.tif", "b.TIF"):
        write_raster(folder / name, byte_picture(3, 9, 9))
    (folder / "notes.txt").write_text("no raster, not looked at")
    out = tmp_path / "out"
    assert run("upscale", folder, out, *BICUBIC).exit_code == 0
    assert sorted(p.name for p in out.iterdir()) == ["a_x4.tif", "b_x4.tif"]
    (out / "b_x4.tif").unlink()
    kept = (out / "a_x4.tif").stat()
    result = run("upscale", folder, out, *BICUBIC)
    assert result.exit_code == 0, result.output
    assert "kept: " in result.stderr
    assert (out / "b_x4.tif").exists()
    assert (out / "a_x4.tif").stat().st_mtime_ns == kept.st_mtime_ns
    assert run("upscale", folder, out, *BICUBIC, "--overwrite").exit_code == 0
    assert (out / "a_x4.tif").stat().st_ino != kept.st_ino


def test_an_output_folder_names_the_file(scene: Path, tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    for target in ("there", "new/"):
        assert run("upscale", scene, f"{tmp_path}/{target}", *BICUBIC).exit_code == 0
        assert (tmp_path / target / "in_x4.tif").exists()


def test_names_with_spaces_and_umlauts(scene: Path, tmp_path: Path) -> None:
    folder = tmp_path / "mit Leerzeichen äöü 東京"
    folder.mkdir()
    src = folder / "größe 1.tif"
    scene.rename(src)
    assert run("upscale", src, folder / "größe 4.tif", *BICUBIC).exit_code == 0
    assert read(folder / "größe 4.tif").shape == (3, 160, 200)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 70), (70, 1)])
def test_rasters_of_one_row_or_column(tmp_path: Path, height: int, width: int) -> None:
    src = write_raster(tmp_path / "in.tif", np.full((3, height, width), 90, np.uint8))
    assert run("upscale", src, tmp_path / "out.tif", *BICUBIC).exit_code == 0
    assert (read(tmp_path / "out.tif") == 90).all()
    assert read(tmp_path / "out.tif").shape == (3, 4 * height, 4 * width)


def test_the_name_says_png(scene: Path) -> None:
    out = scene.with_name("out.png")
    assert run("upscale", scene, out, *BICUBIC).exit_code == 0
    with Image.open(out) as image:
        assert (image.format, image.size) == ("PNG", (200, 160))


# ---------------------------------------------------------------------------------------------
# What cannot be done: one sentence, exit status 2, and nothing written


def missing(folder: Path) -> Path:
    return folder / "gone.tif"


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (missing, "gone.tif does not exist"),
        (text, "in.tif is not a raster that GDAL can read"),
        (truncated, "in.tif is damaged: cannot read columns 0 to"),
        (complex_numbers, "holds complex numbers"),
        (no_bands, "has no bands"),
    ],
)
@pytest.mark.parametrize("command", ["upscale", "info"])
def test_bad_input(tmp_path: Path, make: Any, words: str, command: str) -> None:
    src = make(tmp_path)
    before = sorted(tmp_path.iterdir())
    outputs = [tmp_path / "out.tif"] if command == "upscale" else []
    result = run(command, src, *outputs, *BICUBIC)
    if (command, make) == ("info", truncated):  # the header alone is whole
        assert result.exit_code == 0
    else:
        fails(result, words)
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--bands", "9,9,9"], "three different ones"),
        (["--bands", "1,2,9"], "band 9 was asked for, but the raster has 3"),
        (["--bands", "red"], "--bands must be numbers, got 'red'"),
        (["--bands", ""], "one band or three"),
        (["--range", "5"], "--range must be auto, shared or lo,hi, got '5'"),
        (["--range", "5,1"], "--range must be finite and ascending, got 5, 1"),
        (["--range", "nan,1"], "finite"),
        (["--window", "999 999 5 5"], "outside the raster, which is 50 x 40"),
        (["--window", "1 2 3"], "--window must be four numbers"),
        (["--bounds", "0 0 1 1"], "outside the raster, which covers"),
        (["--bounds", "a b c d"], "--bounds must be numbers"),
        (["--window", "0 0 9 9", "--bounds", "0 0 1 1"], "either bounds or window"),
        (["--chunk", "100"], "--chunk must be a multiple of 512, got 100"),
        (["--overlap", "13"], "--overlap must be a multiple of 4"),
        (["--format", "jpeg"], "cog, gtiff or png, got 'jpeg'"),
        (["--format", "png"], "--format png does not fit the name"),
        (["--colour", "vivid"], "low-frequency, official or none, got 'vivid'"),
        (["--co", "COMPRESS"], "--co must be NAME=VALUE, got 'COMPRESS'"),
        (["--device", "gpu"], "no device 'gpu'"),
        (["--precision", "half"], "got 'half'"),
        (["--model", "huge"], "no model 'huge'"),
        (["--model", "huge.safetensors"], "no model 'huge.safetensors'"),
        (["--scale", "9"], "a scale of 9 is 9 times, and this model makes more than 1 up to 8"),
        (["--model", "tiny-x4", "--scale", "8"], "tiny-x4 enlarges 4 times, not 8"),
        (["--scale", "0.5"], "a scale of 0.5 is 0.5 times"),
    ],
)
def test_bad_options(scene: Path, options: list[str], words: str) -> None:
    fails(run("upscale", scene, scene.with_name("out.tif"), *BICUBIC, *options), words)
    assert [p.name for p in scene.parent.iterdir()] == ["in.tif"]


def test_bad_outputs(scene: Path, tmp_path: Path) -> None:
    before = scene.read_bytes()
    (tmp_path / "there.tif").write_text("mine")
    (tmp_path / "link.tif").symlink_to(scene)
    for target, words in [
        ("in.tif", "is the input itself"),
        ("link.tif", "is the input itself"),
        ("there.tif", "exists already: choose another name or give --overwrite"),
        ("nowhere/out.tif", "does not exist: make it first"),
        ("out.jpg", "name "),
        ("there.tif/x/", "cannot make the folder"),
    ]:
        fails(run("upscale", scene, f"{tmp_path}/{target}", *BICUBIC), words)
    fails(run("upscale", scene, "-", *BICUBIC), "cannot be written to a pipe")
    fails(run("upscale", scene, "ftp://host/out.tif", *BICUBIC), "no place that is known")
    fails(run("upscale", scene), "at least one input and the output")
    assert scene.read_bytes() == before
    assert (tmp_path / "there.tif").read_text() == "mine"
    assert len(list(tmp_path.iterdir())) == 3


def test_a_folder_that_cannot_be_written_to(scene: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.access", lambda *_: False)  # root may write anywhere
    fails(run("upscale", scene, scene.with_name("o.tif"), *BICUBIC), "cannot be written to")


def test_inputs_that_would_become_one_file(scene: Path, tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    twin = write_raster(tmp_path / "b" / "in.tif", byte_picture(3, 9, 9))
    result = run("upscale", scene, twin, tmp_path / "out", *BICUBIC)
    assert result.exit_code == 1
    assert f"error: {twin} would become" in result.stderr
    assert "1 of 2 inputs failed" in result.stderr
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["in_x4.tif"]
    fails(run("upscale", scene, twin, scene, *BICUBIC), "several inputs need a folder as output")
    fails(run("upscale", scene, twin, tmp_path / "o.tif", *BICUBIC), "o.tif is the name of a file")
    assert not (tmp_path / "o.tif").exists()


def test_a_folder_without_rasters(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    fails(run("upscale", tmp_path / "empty", tmp_path / "out", *BICUBIC), "no raster in the folder")


def test_bundled_weights_that_changed(scene: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(students.BUNDLED, "tiny-x4", "0" * 64)
    fails(run("upscale", scene, scene.with_name("out.tif")), "is not the published tiny-x4")


def test_a_missing_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(_: str) -> None:
        raise ModuleNotFoundError(name="accelerate.accelerator")

    monkeypatch.setattr("slimdiffsr.settings.presets.load_preset", absent)
    result = run("train", "student", "--config", "tiny-x4", "--data", tmp_path, "--out", tmp_path)
    fails(result, "needs the package accelerate: pip install 'slimdiffsr[train]'")


def test_an_error_of_ours_is_no_sentence(scene: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise ZeroDivisionError("our own mistake")

    monkeypatch.setattr("slimdiffsr.upscale.Upscaler.upscale_scene", broken)
    result = run("upscale", scene, scene.with_name("out.tif"), *BICUBIC)
    assert isinstance(result.exception, ZeroDivisionError)

"""What is said before and while a run works, and small helps: pictures, bounds, names."""

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from PIL import Image
from rasterio.warp import transform_bounds
from rasters import byte_picture, nearest, picture, read, write_raster
from test_cli import BICUBIC, fails, run

import slimdiffsr
from slimdiffsr.cli.show import duration, scene_progress, size
from slimdiffsr.errors import ConfigError, TilingError
from slimdiffsr.geo import Progress, SceneOptions, plan_scene, upscale_scene
from slimdiffsr.upscale import Upscaler


def test_the_roots_public_names() -> None:
    assert slimdiffsr.__all__ == ["SceneOptions", "Upscaler", "__version__", "show"]
    assert slimdiffsr.SceneOptions is SceneOptions
    assert slimdiffsr.Upscaler is Upscaler
    assert slimdiffsr.__version__[0].isdigit()


def test_choices_one_by_one_are_the_options(tmp_path: Path) -> None:
    path = write_raster(tmp_path / "in.tif", (9000 * picture(4, 20, 20)).astype(np.uint16))
    upscaler = Upscaler.from_pretrained("bicubic")
    options = SceneOptions(bands=(3, 2, 1), value_range=(0, 3000), overwrite=True)
    whole = upscaler.upscale_scene(path, tmp_path / "a.tif", options)
    single = upscaler.upscale_scene(
        path, tmp_path / "b.tif", bands=(3, 2, 1), value_range=(0, 3000)
    )
    assert (single.plan.rgb_bands, single.plan.value_range) == ((3, 2, 1), (0, 3000))
    np.testing.assert_array_equal(read(whole.dst), read(single.dst))
    both = upscaler.plan_scene(path, options, bands=(1,))
    assert (both.rgb_bands, both.value_range) == ((1,), (0, 3000))
    with pytest.raises(ConfigError, match=r"no option band: there are all_bands, .*bands, bounds"):
        upscaler.upscale_scene(path, tmp_path / "c.tif", band=(1,))


def test_assumptions_and_plan_come_before_the_first_tile(tmp_path: Path) -> None:
    path = write_raster(tmp_path / "in.tif", (9000 * picture(3, 20, 20)).astype(np.uint16))
    told: list[Any] = []
    report = upscale_scene(
        path, tmp_path / "o.tif", nearest(), on_plan=told.append, on_progress=told.append
    )
    assert told[0] == report.plan
    assert report.plan.assumptions
    assert isinstance(told[1], Progress)
    assert told[1].output_px_done == 0


def test_info_tells_time_disk_and_memory(scene: Path) -> None:
    shown = run("info", scene, *BICUBIC).stdout
    for words in ("on this machine, as it is now", "on the disk while it works", "GB, the model's"):
        assert words in shown
    facts = json.loads(run("info", scene, *BICUBIC, "--json").stdout)
    assert facts["seconds"] >= 0
    assert facts["scratch_bytes"] > facts["output_bytes"]
    assert 1e8 < facts["memory_bytes"] < 2e9


def test_a_long_run_says_first_what_it_will_take(
    scene: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("slimdiffsr.cli.estimate._FEW_TILES", 0)
    monkeypatch.setattr(Upscaler, "seconds_per_tile", lambda *_: 100.0)
    result = run("upscale", scene, scene.with_name("o.tif"), *BICUBIC, "--verbose")
    first, *rest = result.stderr.splitlines()
    assert first.startswith("in.tif: 200 x 160 pixels, 1 tiles, about 2 min; up to ")
    assert any("band_reason" in line for line in rest)


def test_without_a_terminal_a_line_now_and_then(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("slimdiffsr.cli.show.LINE_EVERY_S", 0.05)
    with scene_progress("folder/a.tif", quiet=False, place="2 of 3: ") as show:
        assert show is not None
        time.sleep(0.12)
        show(
            Progress(
                stage="tiles",
                chunks_done=1,
                chunks=4,
                output_px_done=500,
                output_px=1000,
                output_px_resumed=100,
            )
        )
        time.sleep(0.12)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "2 of 3: a.tif: reading, 0 s"
    assert lines[-1].startswith("2 of 3: a.tif: 50 %, 1 of 4 chunks, 0.00 Mpx/s, 0 s, ")
    assert lines[-1].endswith(" left")
    with scene_progress("a.tif", quiet=True) as nothing:
        assert nothing is None


def test_durations_and_sizes_as_people_say_them() -> None:
    assert [duration(s) for s in (5, 89, 91, 3600, 9000)] == [
        "5 s",
        "89 s",
        "2 min",
        "60 min",
        "2.5 h",
    ]
    assert [size(b) for b in (2_800_000, 99_000_000, 1.5e9)] == ["2.8 MB", "99.0 MB", "1.5 GB"]


# ---------------------------------------------------------------------------------------------
# Bounds in degrees


def test_bounds_in_another_crs_hold_the_area(scene: Path) -> None:
    with rasterio.open(scene) as src:
        (left, top), (right, bottom) = src.transform @ (10, 5), src.transform @ (30, 20)
        degrees = transform_bounds(src.crs, "EPSG:4326", left, bottom, right, top)  # type: ignore[no-untyped-call]
    words = " ".join(f"{number:.9f}" for number in degrees)
    facts = json.loads(
        run(
            "info", scene, *BICUBIC, "--bounds", words, "--bounds-crs", "EPSG:4326", "--json"
        ).stdout
    )
    col, row, width, height = facts["window"]
    assert (col, row) <= (10, 5)
    assert col + width >= 30
    assert row + height >= 20
    assert width <= 23
    assert height <= 18
    fails(run("info", scene, *BICUBIC, "--bounds", words), "give --bounds-crs EPSG:4326")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--bounds-crs", "EPSG:4326"], "--bounds-crs EPSG:4326 needs bounds, got none"),
        (["--bounds", "0 0 1 1", "--bounds-crs", "EPSG:99999999"], "cannot be turned into"),
        (["--bounds", "0 0 1 1", "--bounds-crs", "nonsense"], "cannot be turned into"),
        (["--bounds", "0 0 1 1", "--bounds-crs", "EPSG:4326"], "lies outside the raster"),
    ],
)
def test_bounds_that_cannot_be(scene: Path, options: list[str], words: str) -> None:
    fails(run("info", scene, *BICUBIC, *options), words)


def test_a_raster_without_crs_takes_no_other_one(tmp_path: Path) -> None:
    path = write_raster(tmp_path / "in.tif", byte_picture(3, 20, 20), crs=None)
    options = SceneOptions(bounds=(0, 0, 1, 1), bounds_crs="EPSG:4326")
    with pytest.raises(TilingError, match="has no coordinate system"):
        plan_scene(path, nearest(), options)


# ---------------------------------------------------------------------------------------------
# Models and pictures


@pytest.mark.parametrize(
    ("scale", "names"), [(8, "compact-x8, tiny-x8"), (4, "compact-x4, tiny-x4")]
)
def test_a_wrong_scale_names_the_models_that_have_it(scene: Path, scale: int, names: str) -> None:
    model = "tiny-x4" if scale == 8 else "tiny-x8"
    words = f"{model} enlarges {12 - scale} times, not {scale} times; these do: {names}"
    fails(run("upscale", scene, scene.with_name("o.tif"), "-m", model, "-s", scale), words)


def test_models_lists_what_ships() -> None:
    shown = run("models").stdout
    line = next(line for line in shown.splitlines() if line.startswith("tiny-x4 "))
    assert line.split()[1:6] == ["4", "1.2", "M", "2.3", "MB"]
    assert line.endswith("the default")
    rows = {row["name"]: row for row in json.loads(run("models", "--json").stdout)}
    assert rows["compact-x8"]["scale"] == 8
    assert rows["compact-x8"]["parameters"] > 11e6
    assert all(row["purpose"] for row in rows.values())


@pytest.mark.parametrize("more", [[], ["--window", "6 4 30 25"], ["--bands", "3,2,1"]])
def test_a_picture_of_before_and_after(scene: Path, tmp_path: Path, more: list[str]) -> None:
    drawn = tmp_path / "picture.png"
    result = run("upscale", scene, tmp_path / "o.tif", *BICUBIC, *more, "--before-after", drawn)
    assert result.exit_code == 0, result.output
    with Image.open(drawn) as image:
        assert image.size == (1048, 816)


def test_pictures_that_cannot_be_drawn(scene: Path, tmp_path: Path) -> None:
    out, drawn = tmp_path / "o.tif", tmp_path / "picture.png"
    fails(run("upscale", scene, out, *BICUBIC, "--before-after", tmp_path / "p.jpg"), "name ")
    folder = tmp_path / "many"
    result = run("upscale", scene, scene, folder, *BICUBIC, "--before-after", drawn)
    fails(result, "draws one picture")
    drawn.write_text("mine")
    fails(run("upscale", scene, out, *BICUBIC, "--before-after", drawn), "or --overwrite")
    assert drawn.read_text() == "mine"
    assert not out.exists()
    assert not folder.exists()

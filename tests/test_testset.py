from __future__ import annotations

import errno
import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import trees
from numpy.typing import NDArray
from PIL import Image
from typer.testing import CliRunner

from slimdiffsr.cli import app
from slimdiffsr.degrade import degrade, image_generator
from slimdiffsr.errors import ConfigError, DataError, DiskFullError, OutputError
from slimdiffsr.evaluate import (
    PairedFolder,
    TestsetOptions,
    choose_metrics,
    evaluate,
    from_function,
    make_testset,
    open_testset,
)
from slimdiffsr.evaluate import manifest as on_disk
from slimdiffsr.settings.config import Recipe

SHARED = Path(__file__).parents[2] / "shared" / "data" / "val"

Rgb8 = NDArray[np.uint8]

pytestmark = pytest.mark.usefixtures("one_thread")

BOTH = TestsetOptions(scales=(4, 8), seed=7)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Three images of 40, 52 and 64 pixels a side, one of them a folder deeper."""
    folder = tmp_path / "sharp"
    for name, side in (("a.png", 40), ("b.jpg", 52), ("deep/c.png", 64)):
        trees.draw_images([folder / name], side)
    return folder


def files_below(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def nearest(rgb_lr: Rgb8) -> Rgb8:
    return rgb_lr.repeat(8, axis=0).repeat(8, axis=1)


def read(path: Path) -> Rgb8:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


# Making


def test_each_image_is_degraded_with_its_own_seed_after_a_crop_to_the_scales(
    source: Path, tmp_path: Path
) -> None:
    done = make_testset(source, tmp_path / "set", BOTH)
    assert (done.made, done.kept, done.left_out) == (3, 0, {})
    hr = read(tmp_path / "set" / "hr" / "b.png")
    np.testing.assert_array_equal(hr, read(source / "b.jpg")[:48, :48])  # 52 is no multiple of 8
    tensor = torch.from_numpy(hr.copy()).permute(2, 0, 1)[None].double() / 255
    for scale in (4, 8):
        lr = degrade(tensor, Recipe(scale=scale), [image_generator(7, 1)])
        expected = (lr[0] * 255).round().byte().permute(1, 2, 0).numpy()
        np.testing.assert_array_equal(read(tmp_path / "set" / f"lr_x{scale}" / "b.png"), expected)


def test_the_manifest_tells_recipe_seed_versions_sizes_and_hashes(
    source: Path, tmp_path: Path
) -> None:
    make_testset(source, tmp_path / "set", BOTH)
    manifest = json.loads((tmp_path / "set" / "manifest.json").read_text())
    assert (manifest["seed"], manifest["scales"]) == (7, [4, 8])
    assert manifest["recipe"]["lr_x8"]["first"]["jpeg_quality"] == [60, 95]
    assert manifest["versions"]["torch"] == torch.__version__
    assert [record["source"] for record in manifest["images"]] == ["a.png", "b.jpg", "deep/c.png"]
    record = manifest["images"][2]
    assert record["index"] == 2
    assert (
        record["source_sha256"] == hashlib.sha256((source / "deep/c.png").read_bytes()).hexdigest()
    )
    file = record["files"]["lr_x4"]
    path = tmp_path / "set" / file["path"]
    assert (file["width"], file["height"]) == (16, 16)
    assert file["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert file["pixels_sha256"] == hashlib.sha256(read(path).tobytes()).hexdigest()


def test_the_same_call_gives_the_same_bytes_and_another_seed_gives_others(
    source: Path, tmp_path: Path
) -> None:
    for name, seed in (("one", 7), ("two", 7), ("three", 8)):
        make_testset(source, tmp_path / name, TestsetOptions(seed=seed))
    one, two, three = (files_below(tmp_path / name) for name in ("one", "two", "three"))
    assert one == two
    assert one["hr/a.png"] == three["hr/a.png"]
    assert one["lr_x4/a.png"] != three["lr_x4/a.png"]


def test_a_cpu_without_vector_instructions_makes_the_same_bytes(tmp_path: Path) -> None:
    # In float32, 223 of this image's values differ: a pixel more or less decides how many distinct
    # values there are, and so the Poisson noise.
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    (tmp_path / "noise").mkdir()
    Image.fromarray(noise).save(tmp_path / "noise" / "a.png")
    call = (
        "import sys, pathlib; from slimdiffsr.evaluate import make_testset, TestsetOptions as T;"
        "make_testset(pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]), T(seed=29))"
    )
    plain = {"ATEN_CPU_CAPABILITY": "default", "ONEDNN_MAX_CPU_ISA": "SSE41"}
    path = os.pathsep.join(sys.path)
    subprocess.run(
        [sys.executable, "-c", call, str(tmp_path / "noise"), str(tmp_path / "plain")],
        check=True, env={**os.environ, **plain, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    make_testset(tmp_path / "noise", tmp_path / "here", TestsetOptions(seed=29))
    assert files_below(tmp_path / "plain") == files_below(tmp_path / "here")


def test_a_killed_run_goes_on_and_ends_in_the_same_bytes(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_testset(source, tmp_path / "whole", BOTH)

    def killed_at_the_third(index: int, _: int) -> None:
        if index == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make_testset(source, tmp_path / "cut", BOTH, progress=killed_at_the_third)
    with pytest.raises(DataError, match="not finished"):
        open_testset(tmp_path / "cut", 4)
    with (tmp_path / "cut" / on_disk.JOURNAL).open("a") as journal:
        journal.write('{"name": "c", "fil')  # the power went while a line was written
    done = make_testset(source, tmp_path / "cut", BOTH)
    assert (done.made, done.kept) == (1, 2)
    assert files_below(tmp_path / "cut") == files_below(tmp_path / "whole")


def test_a_changed_or_missing_file_is_made_again(source: Path, tmp_path: Path) -> None:
    make_testset(source, tmp_path / "set", BOTH)
    before = files_below(tmp_path / "set")
    (tmp_path / "set" / "lr_x4" / "a.png").write_bytes(b"damaged")
    (tmp_path / "set" / "hr" / "c.png").unlink()
    done = make_testset(source, tmp_path / "set", BOTH)
    assert (done.made, done.kept) == (2, 1)
    assert files_below(tmp_path / "set") == before


def test_another_call_for_the_same_folder_is_an_error_that_says_what_differs(
    source: Path, tmp_path: Path
) -> None:
    make_testset(source, tmp_path / "set", BOTH)
    with pytest.raises(DataError, match=r"differs in seed \(7 there, 8 now\)"):
        make_testset(source, tmp_path / "set", TestsetOptions((4, 8), seed=8))
    with pytest.raises(DataError, match="differs in scales"):
        make_testset(source, tmp_path / "set", TestsetOptions((4,), seed=7))
    trees.draw_images([source / "d.png"])
    with pytest.raises(DataError, match="differs in sources: give another folder"):
        make_testset(source, tmp_path / "set", BOTH)


@pytest.mark.parametrize("mode", ["RGBA", "I;16"])
def test_an_image_that_cannot_be_used_is_told_and_the_others_are_made(
    source: Path, tmp_path: Path, mode: str
) -> None:
    Image.new(mode, (40, 40)).save(source / "a.png")
    (source / "deep" / "c.png").write_bytes(b"no image")
    done = make_testset(source, tmp_path / "set", BOTH)
    assert done.made == 1
    assert list(done.left_out) == ["a.png", "deep/c.png"]
    assert "8-bit RGB" in done.left_out["a.png"]
    pairs = open_testset(tmp_path / "set", 4)
    assert pairs.names == ("b",)
    manifest = json.loads((tmp_path / "set" / "manifest.json").read_text())
    assert manifest["left_out"] == done.left_out
    assert manifest["images"][0]["index"] == 1  # its seed does not move up


def test_no_usable_image_at_all_is_an_error_that_names_one(tmp_path: Path) -> None:
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "x.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"no image of .* could be used: .*x\.png"):
        make_testset(tmp_path / "bad", tmp_path / "set")
    trees.draw_images([tmp_path / "small" / "x.png"], 7)
    with pytest.raises(DataError, match="7 x 7 px is too small for 8x"):
        make_testset(tmp_path / "small", tmp_path / "set2", BOTH)


def test_images_of_one_name_in_different_folders_get_their_path_as_a_name(tmp_path: Path) -> None:
    trees.draw_images([tmp_path / "in" / "x" / "a.png", tmp_path / "in" / "y" / "A.jpg"])
    make_testset(tmp_path / "in", tmp_path / "set")
    assert open_testset(tmp_path / "set", 4).names == ("x-a", "y-A")
    trees.draw_images([tmp_path / "in" / "x" / "a.jpg"])
    with pytest.raises(DataError, match=r"two images of .* are called x-a"):
        make_testset(tmp_path / "in", tmp_path / "set2")


def test_large_images_are_cropped_around_their_centre_on_request(tmp_path: Path) -> None:
    trees.draw_images([tmp_path / "in" / "a.png"], 60)
    make_testset(tmp_path / "in", tmp_path / "set", TestsetOptions(max_side_hr_px=34))
    expected = read(tmp_path / "in" / "a.png")[13:45, 13:45]  # 34 from 13 on, then down to 32
    np.testing.assert_array_equal(read(tmp_path / "set" / "hr" / "a.png"), expected)


@pytest.mark.parametrize(
    "wrong", [{"scales": (3,)}, {"scales": ()}, {"scales": (4, 4)}, {"images": 0},
              {"seed": -1}, {"max_side_hr_px": 2}],
)  # fmt: skip
def test_options_check_themselves(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="must"):
        TestsetOptions(**wrong)


def test_a_full_or_read_only_disk_is_an_error_that_says_what_to_do(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match=r"cannot write .*file/set"):
        make_testset(source, tmp_path / "file" / "set")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(on_disk.Journal, "note", full)
    with pytest.raises(DiskFullError, match="make room and run the same again"):
        make_testset(source, tmp_path / "set")


# Using


def test_a_test_set_opens_with_all_that_a_protocol_needs(source: Path, tmp_path: Path) -> None:
    make_testset(source, tmp_path / "set", BOTH)
    pairs = open_testset(tmp_path / "set", 8)
    assert (pairs.names, pairs.scale, pairs.has_truth) == (("a", "b", "c"), 8, True)
    lr, hr = pairs.read("b")
    assert hr is not None
    assert (lr.shape, hr.shape) == ((6, 6, 3), (48, 48, 3))
    about = pairs.describe()
    assert (about["name"], about["n"], about["scale"], about["seed"]) == ("set", "3", "8", "7")
    assert about["checked"] == "pixels, against the manifest"
    (tmp_path / "set" / "manifest.json").unlink()
    unchecked = open_testset(tmp_path / "set", 8).describe()
    assert unchecked["checked"] == "no, there is no manifest"
    assert unchecked["sha256"] == about["sha256"]  # of the pixels, not of what is written of them


def test_a_changed_pixel_is_an_error_and_another_packing_is_not(
    source: Path, tmp_path: Path
) -> None:
    make_testset(source, tmp_path / "set", BOTH)
    path = tmp_path / "set" / "lr_x4" / "a.png"
    rgb = read(path).copy()
    Image.fromarray(rgb).save(path, compress_level=1)
    np.testing.assert_array_equal(open_testset(tmp_path / "set", 4).read("a")[0], rgb)
    rgb[0, 0, 0] ^= 1
    Image.fromarray(rgb).save(path)
    with pytest.raises(DataError, match=r"lr_x4/a\.png has changed .*make-testset again"):
        open_testset(tmp_path / "set", 4).read("a")


def test_a_changed_image_does_not_lose_the_others_scores(source: Path, tmp_path: Path) -> None:
    make_testset(source, tmp_path / "set", BOTH)
    Image.new("RGB", (5, 5)).save(tmp_path / "set" / "lr_x8" / "a.png")
    report = evaluate(
        [from_function("nearest", nearest)], open_testset(tmp_path / "set", 8), choose_metrics()
    )
    assert set(report.scores["nearest"]["psnr_y"]) == {"b", "c"}
    assert any("lr_x8/a.png has changed" in failure.message for failure in report.failures)


def test_a_full_disk_is_one_error_and_the_same_call_goes_on(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    room = iter(range(5))  # for the journal, an image in three files, and a file of the next

    def full(_: int) -> None:
        if next(room, None) is None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr("slimdiffsr.files.tensors.os.fsync", full)
        with pytest.raises(DiskFullError, match=r"disk is full at .*: make room and run the same"):
            make_testset(source, tmp_path / "set", BOTH)
    done = make_testset(source, tmp_path / "set", BOTH)
    assert (done.kept, done.made, list((tmp_path / "set").rglob(".*"))) == (1, 2, [])


def test_a_missing_file_is_an_error_that_names_it(source: Path, tmp_path: Path) -> None:
    make_testset(source, tmp_path / "set", BOTH)
    (tmp_path / "set" / "hr" / "b.png").unlink()
    with pytest.raises(DataError, match=r"hr/b\.png is missing"):
        open_testset(tmp_path / "set", 4)


def test_folders_that_are_no_test_set_of_this_scale_are_errors(
    source: Path, tmp_path: Path
) -> None:
    make_testset(source, tmp_path / "set", BOTH)
    with pytest.raises(DataError, match="holds lr_x4, lr_x8 and nothing for 2x"):
        open_testset(tmp_path / "set", 2)
    with pytest.raises(DataError, match="is no test set: expected hr/ and lr_x4/"):
        open_testset(source, 4)
    with pytest.raises(DataError, match="no such folder"):
        open_testset(tmp_path / "nowhere", 4)


@pytest.mark.parametrize(
    ("content", "message"),
    [("{", "cannot read"), ('{"a": 1}', "no manifest of make-testset"), ("[1]", "of names"),
     ('[{"name": "a"}]', "differ in b, c"), ('{"format": "slimdiffsr-testset/1"}', "damaged")],
)  # fmt: skip
def test_a_manifest_that_does_not_fit_is_an_error(
    source: Path, tmp_path: Path, content: str, message: str
) -> None:
    make_testset(source, tmp_path / "set", BOTH)
    (tmp_path / "set" / "manifest.json").write_text(content)
    with pytest.raises(DataError, match=message):
        open_testset(tmp_path / "set", 4)


def test_plain_folders_need_every_partner(source: Path, tmp_path: Path) -> None:
    make_testset(source, tmp_path / "set", BOTH)
    (tmp_path / "set" / "manifest.json").unlink()
    (tmp_path / "set" / "hr" / "b.png").unlink()
    with pytest.raises(DataError, match=r"lr_x4/b\.png has no partner"):
        open_testset(tmp_path / "set", 4)


# Without a truth


@pytest.mark.parametrize("repeated", [False, True])
def test_real_inputs_have_no_truth_and_only_measures_that_need_none(
    tmp_path: Path, repeated: bool
) -> None:
    trees.real_refrssrd(tmp_path / "real", repeated=repeated)
    make_testset(tmp_path / "real", tmp_path / "set", TestsetOptions((8,), images=2))
    pairs = open_testset(tmp_path / "set", 8)
    assert (pairs.names, pairs.has_truth) == (("tile_1", "tile_2"), False)
    lr, hr = pairs.read("tile_1")
    assert (lr.shape, hr) == ((48, 48, 3), None)
    report = evaluate([from_function("nearest", nearest)], pairs, choose_metrics())
    assert not report.failures
    scored = {name: values for name, values in report.scores["nearest"].items() if values}
    assert sorted(scored) == ["canvas_db", "consistency", "grid_energy_db", "shift_lr_px"]
    assert {len(values) for values in scored.values()} == {2}
    assert "truth" not in report.scores
    (tmp_path / "set" / "manifest.json").unlink()
    assert open_testset(tmp_path / "set", 8).describe()["truth"] == "none"


# The command, and the pairs that are not ours


def test_the_command_makes_a_set_and_tells_what_it_left_out(source: Path, tmp_path: Path) -> None:
    command = ["make-testset", str(source), str(tmp_path / "set"), "--scale", "4", "--seed", "3"]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0
    assert result.stdout.strip() == str(tmp_path / "set")
    assert "3 images made" in result.stderr
    assert "0 images made, 3 kept" in CliRunner().invoke(app, command).stderr
    (source / "a.png").write_bytes(b"")
    result = CliRunner().invoke(app, [*command[:2], str(tmp_path / "other"), "--images", "3"])
    assert result.exit_code == 1
    assert "left out: cannot read the image a.png" in result.stderr
    result = CliRunner().invoke(app, [*command, "--layout", "nwpu"])
    assert result.exit_code == 2
    assert "NWPU-RESISC45/\n├── airplane/" in result.stderr


def test_the_validation_pairs_open_with_their_own_manifest() -> None:
    if not SHARED.exists():
        pytest.skip("the validation pairs are not here")
    pairs = open_testset(SHARED, 8)
    assert isinstance(pairs, PairedFolder)
    assert len(pairs.names) == 48
    about = pairs.describe()
    assert about["checked"].startswith("names")
    assert about["seed"] == "28260 to 28307, one an image"

"""The commands evaluate and draw, as a user calls them."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from typer.testing import CliRunner

from slimdiffsr.cli import app
from slimdiffsr.files import students
from slimdiffsr.files.tensors import file_sha256


def run(*arguments: object) -> Any:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def fails(result: Any, words: str, status: int = 2) -> None:
    """One sentence on stderr and no traceback."""
    assert result.exit_code == status, result.output
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: ")
    assert words in line


def write_set(folder: Path, images: int = 3, scale: int = 4) -> Path:
    """Pairs of 64 x 64 truths and averages of them."""
    rng = np.random.default_rng(0)
    for name in ("hr", f"lr_x{scale}"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for i in range(images):
        hr = rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)
        blocks = hr.reshape(64 // scale, scale, 64 // scale, scale, 3)
        lr = blocks.mean(axis=(1, 3)).astype(np.uint8)
        Image.fromarray(hr).save(folder / "hr" / f"{i}.png")
        Image.fromarray(lr).save(folder / f"lr_x{scale}" / f"{i}.png")
    return folder


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_set(tmp_path / "set")


class Nearest(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.nn.functional.interpolate(x, scale_factor=4.0)


def write_peer(path: Path) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.script(Nearest()).save(path)  # type: ignore[no-untyped-call]
    return path


def test_one_command_compares_models_peers_and_outputs(data: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine.safetensors"
    mine.write_bytes(Path(students.resolve("tiny-x4")).read_bytes())
    ready = tmp_path / "ready"
    shutil.copytree(data / "hr", ready)
    out = tmp_path / "out"
    compared = (
        "-m", mine, "-m", "bicubic", "--peer", f"near={write_peer(tmp_path / 'net.pt')}",
        "--outputs", f"theirs={ready}", "--data", data, "--out", out,
    )  # fmt: skip
    result = run("evaluate", *compared)
    assert result.exit_code == 0, result.output
    found = json.loads((out / "report.json").read_text())
    assert list(found["sets"][0]["means"]) == ["mine", "bicubic", "near", "theirs", "truth"]
    assert found["sets"][0]["means"]["theirs"]["psnr_y"]["mean"] == "inf"
    assert file_sha256(mine) in found["models"]["mine"]
    for line in (out / "report.md").read_text().splitlines():
        assert line in result.stdout
    assert len(list(csv.reader((out / "images.csv").read_text().splitlines()))) == 1 + 3 * 5
    names = {path.name for path in out.iterdir()}
    assert names == {
        "crops.png", "images.csv", "outputs", "report.csv", "report.html", "report.json",
        "report.md", "scores.jsonl",
    }  # fmt: skip
    assert sorted(p.name for p in (out / "outputs" / "set" / "near").iterdir()) == [
        "0.png", "1.png", "2.png",
    ]  # fmt: skip
    assert "report.html: " in result.stderr
    assert "MB, 3 of 3 images" in result.stderr
    before = (out / "scores.jsonl").read_bytes()
    again = run("evaluate", *compared, "--no-save-outputs")
    assert (again.exit_code, again.stdout) == (0, result.stdout)
    assert (out / "scores.jsonl").read_bytes() == before

    drawn = run("draw", "crops", out, "--data", data, "--image", 1, "-m", "near",
                "--box", "2,3,8", "--out", tmp_path / "crops.png")  # fmt: skip
    assert drawn.exit_code == 0, drawn.output
    some = ("--metric", "ssim_y", "--metric", "consistency", "--metric", "spectrum_gap_db")
    drawn = run("draw", "radar", out, *some, "--out", tmp_path / "radar.png")
    assert drawn.exit_code == 0, drawn.output
    timed = {"row": "quick", "batch": 1, "precision": "fp32", "median_s": 0.1, "out_px": 512}
    (tmp_path / "bench.jsonl").write_text(json.dumps({**timed, "device": "chip"}))
    cost = ("draw", "cost", out, tmp_path / "bench.jsonl", "--out", tmp_path / "cost.png")
    fails(run(*cost), "no model is both in")
    assert run(*cost, "--row", "near=quick").exit_code == 0
    for name in ("crops", "radar", "cost"):
        with Image.open(tmp_path / f"{name}.png") as image:
            assert image.width > 600
    fails(run("draw", "radar", out, "-m", "nobody", "--out", tmp_path / "x"), "no model 'nobody'")
    fails(run("draw", "radar", tmp_path, "--out", tmp_path / "x"), "report.json")
    fails(run("draw", "radar", out, *some[:4], "--out", tmp_path / "x"), "three metrics or more")


def test_crops_of_an_image_that_the_set_lacks(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "report"
    assert run("evaluate", "-m", "bicubic", "--data", data, "--out", out).exit_code == 0
    drawn = run("draw", "crops", out, "--data", data, "--image", "gone", "--out", tmp_path / "x")
    fails(drawn, "no image 'gone' in the set: there is 0, 1, 2")
    assert not (tmp_path / "x").exists()
    fails(
        run("evaluate", "-m", "bicubic", "--data", tmp_path / "nowhere", "--out", tmp_path / "y"),
        "no such folder",
    )
    fails(
        run("evaluate", "-m", "bicubic", "--data", data, "--outputs", "a", "--out", tmp_path / "y"),
        "NAME=FOLDER",
    )
    assert not (tmp_path / "y").exists()


def test_several_sets_give_a_table_each_and_a_pooled_one(data: Path, tmp_path: Path) -> None:
    other = write_set(tmp_path / "other", 2)
    ready = tmp_path / "ready"
    for folder in (data, other):
        shutil.copytree(folder / "hr", ready / folder.name)
    result = run(
        "evaluate", "-m", "bicubic", "--outputs", f"theirs={ready}", "--data", data,
        "--data", other, "--scale", 4, "--out", tmp_path / "out", "--limit", 1,
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    titles = [line for line in result.stdout.splitlines() if line.startswith("## ")]
    assert titles == ["## set", "## other", "## all: set, other"]
    sets = json.loads((tmp_path / "out" / "report.json").read_text())["sets"]
    assert [s["means"]["bicubic"]["psnr_y"]["n"] for s in sets] == [1, 1, 2]
    assert (tmp_path / "out" / "crops_other.png").is_file()
    twice = ("--data", data, "--data", data)
    fails(run("evaluate", "-m", "bicubic", *twice, "--out", tmp_path / "x"), "one name")


def test_plain_folders_of_pairs_do_without_a_test_set(data: Path, tmp_path: Path) -> None:
    folders = ("--lr", data / "lr_x4", "--hr", data / "hr")
    out = tmp_path / "out"
    result = run("evaluate", "-m", "lanczos", *folders, "--out", out, "--no-save-outputs")
    assert result.exit_code == 0, result.output
    assert "| lanczos | 3 |" in result.stdout
    assert not (out / "outputs").exists()
    assert not (out / "report.html").exists()
    wanted = "give --data TESTSET, or both --lr and --hr"
    fails(run("evaluate", "-m", "lanczos", *folders[:2], "--out", out), wanted)
    fails(run("evaluate", "-m", "lanczos", *folders, "--data", data, "--out", out), wanted)


def test_a_model_that_does_not_fit_the_scale_is_an_error(data: Path, tmp_path: Path) -> None:
    out = ("--data", data, "--out", tmp_path / "out")
    fails(run("evaluate", "-m", "tiny-x8", *out), "holds lr_x4 and nothing for 8x")
    both = ("-m", "tiny-x8", "-m", "tiny-x4")
    fails(run("evaluate", *both, *out), "tiny-x4 4 times, tiny-x8 8 times")
    fails(run("evaluate", "-m", "tiny-x8", "--scale", 4, *out), "tiny-x8 enlarges 8 times")
    peer = ("--peer", write_peer(tmp_path / "net.pt"), "--scale", 8)
    write_set(data, scale=8)
    fails(run("evaluate", *peer, *out), "net enlarges 4 times")
    fails(run("evaluate", "-m", "bicubic", *out), "has lr_x4, lr_x8: give --scale")


def test_two_models_of_one_name_are_told_apart_by_names_of_ones_own(
    data: Path, tmp_path: Path
) -> None:
    names = ("-m", "before=tiny-x4", "-m", "after=tiny-x4", "-m", "smooth=bicubic")
    out = tmp_path / "out"
    result = run("evaluate", *names, "--data", data, "--limit", 1, "--out", out)
    assert result.exit_code == 0, result.output
    for name in ("before", "after", "smooth"):
        assert f"| {name} | 1 |" in result.stdout


def test_wrong_arguments_are_one_sentence(data: Path, tmp_path: Path) -> None:
    out = ("--data", data, "--out", tmp_path / "out")
    again = ("-m", tmp_path / "a" / "mine.safetensors", "-m", tmp_path / "mine.safetensors")
    fails(run("evaluate", *out, *again), "two models are called mine")
    fails(run("evaluate", *out, "-m", "a/b=tiny-x4"), "--model must be NAME=FILE")
    fails(run("evaluate", *out), "nothing to compare")
    fails(run("evaluate", *out, "--outputs", data), "--outputs must be NAME=FOLDER")
    fails(run("evaluate", *out, "--outputs", f"x={tmp_path / 'none'}"), "no such folder")
    fails(run("evaluate", *out, "-m", "bicubic", "--metric", "beauty"), "no metric 'beauty'")
    fails(run("evaluate", *out, "-m", "bicubic", "--metric", "dists"), "dists needs its weights")
    fails(run("evaluate", *out, "-m", "bicubic", "--colour", "pink"), "colour must be")
    lpips = ("--lpips", tmp_path / "none.safetensors")
    fails(run("evaluate", *out, "-m", "bicubic", *lpips), "none.safetensors")
    nowhere = ("--data", tmp_path / "nowhere", "--scale", 4, "--out", tmp_path / "out")
    fails(run("evaluate", "-m", "bicubic", *nowhere), "no such folder")
    (tmp_path / "file").write_text("")
    written = ("--data", data, "--out", tmp_path / "file")
    fails(run("evaluate", "-m", "bicubic", *written), "cannot write")


def test_bad_images_are_named_and_the_others_scored(data: Path, tmp_path: Path) -> None:
    Image.new("RGBA", (16, 16)).save(data / "lr_x4" / "0.png")
    Image.new("RGB", (60, 64)).save(data / "hr" / "1.png")
    ready = tmp_path / "ready"
    shutil.copytree(data / "hr", ready)
    Image.new("RGB", (8, 8)).save(ready / "2.png")
    result = run(
        "evaluate", "-m", "bicubic", "--outputs", f"theirs={ready}", "--data", data,
        "--out", tmp_path / "out", "--no-save-outputs",
    )  # fmt: skip
    assert result.exit_code == 1, result.output
    assert "| bicubic | 1 |" in result.stdout
    for words in ("0.png is transparent", "1.png is 60 x 64 px", "2 theirs: returned (8, 8, 3)"):
        assert words in result.stdout
    assert "3 failures: see" in result.stderr
    found = json.loads((tmp_path / "out" / "report.json").read_text())["sets"][0]
    assert [failure["image"] for failure in found["failures"]] == ["0", "1", "2"]


def test_nothing_that_can_be_scored_is_an_error(data: Path, tmp_path: Path) -> None:
    for path in (data / "lr_x4").iterdir():
        path.write_bytes(b"")
    result = run("evaluate", "-m", "bicubic", "--data", data, "--out", tmp_path / "out")
    fails(result, "nothing could be scored: cannot read the image")


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_ctrl_c_keeps_what_is_scored_and_the_same_command_goes_on(
    data: Path, tmp_path: Path
) -> None:
    write_set(data, images=12)
    out = tmp_path / "out"
    command = ["-m", "tiny-x4", "--data", data, "--out", out, "--no-save-outputs"]
    source = Path(__file__).parents[1] / "src"
    process = subprocess.Popen(
        [sys.executable, "-m", "slimdiffsr", "evaluate", *map(str, command)],
        env={**os.environ, "PYTHONPATH": str(source)}, stderr=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip
    store = out / "scores.jsonl"
    give_up = time.monotonic() + 60
    while not store.exists() or store.read_text().count("psnr_y") < 2:
        assert process.poll() is None
        assert time.monotonic() < give_up
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "the same command goes on" in said
    kept = store.read_text().splitlines()
    result = run("evaluate", *command)
    assert result.exit_code == 0, result.output
    assert "| tiny-x4 | 12 |" in result.stdout
    # Only the last line may have been torn; nothing is made or measured twice.
    lines = store.read_text().splitlines()
    assert lines[: len(kept) - 1] == kept[:-1]
    assert len(set(lines)) == len(lines)
    made = [line for line in lines if '"measure"' not in line and line.endswith("}")]
    assert len(made) == 12

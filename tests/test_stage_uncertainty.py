"""Stage 0: the estimator learns from latents of a frozen codec, resumes, and is written."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate.accelerator import Accelerator
from PIL import Image
from safetensors.torch import load_file
from students import seeded, write_images
from teachers import write_taesd
from test_training_loop import scalars
from torch import Tensor, nn
from typer.testing import CliRunner

from slimdiffsr.cli import app
from slimdiffsr.errors import ConfigError, WeightsError
from slimdiffsr.files.stages import (
    ESTIMATOR_FILE,
    EstimatorSpec,
    build_estimator,
    describe_codec,
    load_estimator,
)
from slimdiffsr.files.tensors import load_tensors
from slimdiffsr.models.sd_vae import Taesd
from slimdiffsr.settings.config import override, parse, to_dict
from slimdiffsr.stages import RunPaths, train_uncertainty
from slimdiffsr.stages.pretraining import UNCERTAINTIES, UncertaintyConfig
from slimdiffsr.stages.run import fresh
from slimdiffsr.stages.uncertainty import UncertaintyTask
from slimdiffsr.training.loop import STATE_FILE, Progress

pytestmark = pytest.mark.usefixtures("one_thread")


def micro(**changes: Any) -> UncertaintyConfig:
    few: dict[str, Any] = {
        "steps": 6, "batch": 2, "mean_only_steps": 2, "estimator": EstimatorSpec(width=8),
        "log_every": 1, "save_every": 2, "validate_every": 3,
    }  # fmt: skip
    return dataclasses.replace(UNCERTAINTIES["micro"], **{**few, **changes})


@pytest.fixture
def paths(tmp_path: Path) -> RunPaths:
    write_images(tmp_path / "data", [(100, 70), (72, 90)])
    return RunPaths(data=(tmp_path / "data",), out=tmp_path / "whole")


def random_codec() -> Taesd:
    """Random weights, latents of about unit variance."""
    codec = fresh(Taesd, 1)
    last = codec.encoder[-1]
    assert isinstance(last, nn.Conv2d)
    last.weight.data.mul_(30)
    return codec


def make_task(config: UncertaintyConfig, paths: RunPaths) -> UncertaintyTask:
    return UncertaintyTask(config, paths, random_codec(), Accelerator())


def one_batch(count: int = 2) -> tuple[Tensor, Tensor]:
    """LR and HR that belong to one another, up to noise."""
    coarse = torch.rand(count, 3, 8, 8, generator=seeded()) * 2 - 1
    hr = torch.nn.functional.interpolate(coarse, scale_factor=8, mode="bilinear")
    hr = (hr + 0.2 * torch.randn(hr.shape, generator=seeded(1))).clamp(-1, 1)
    return torch.nn.functional.avg_pool2d(hr, 4), hr


def equal(first: Path, second: Path) -> bool:
    one, two = load_file(first), load_file(second)
    return one.keys() == two.keys() and all(torch.equal(one[k], two[k]) for k in one)


def test_the_loss_falls_on_one_batch_and_the_ratio_comes_near_three(
    paths: RunPaths, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = make_task(micro(lr=3e-3, estimator=EstimatorSpec(width=16)), paths)
    lr, hr = one_batch()
    latents = task.encode(lr, hr)  # once: the codec takes most of the time
    monkeypatch.setattr(task, "encode", lambda *_: latents)
    losses = [{k: float(v) for k, v in task.update(lr, hr, s).items()} for s in range(1, 151)]
    assert losses[-1]["mse"] < 0.9 * losses[0]["mse"]
    assert losses[-1]["nll"] < losses[2]["nll"] - 1
    assert losses[-1]["ratio"] == pytest.approx(3, abs=0.6)


def test_the_mean_learns_first_where_the_config_says_so(paths: RunPaths) -> None:
    task = make_task(micro(weight_decay=0.0), paths)
    last = task.learner.bare.get_parameter("blocks.4.conv2.weight")
    start = last.detach().clone()
    for step in (1, 2):
        task.update(*one_batch(), step)
        assert not torch.equal(last[:4], start[:4])
        assert torch.equal(last[4:], start[4:])
    task.update(*one_batch(), 3)
    assert not torch.equal(last[4:], start[4:])


def test_the_codec_stays_as_it_was(paths: RunPaths) -> None:
    codec = random_codec().train()
    before = {key: value.clone() for key, value in codec.state_dict().items()}
    train_uncertainty(micro(steps=2), paths, codec)
    assert all(torch.equal(value, before[key]) for key, value in codec.state_dict().items())
    assert not any(p.requires_grad for p in codec.parameters())
    assert not codec.training


def test_pieces_of_a_batch_add_up_to_the_whole(paths: RunPaths) -> None:
    results = []
    for pieces in (1, 2):
        task = make_task(micro(accumulate=pieces, mean_only_steps=0), paths)
        terms = task.update(*one_batch(), 1)
        results.append((terms, list(task.learner.bare.parameters())))
    (whole, first), (parts, second) = results
    for name, value in whole.items():
        torch.testing.assert_close(parts[name], value)
    for one, two in zip(first, second, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-6)


def test_a_run_cut_and_resumed_ends_with_the_same_weights(paths: RunPaths) -> None:
    config = micro(ema=0.9)
    losses: list[Progress] = []
    result = train_uncertainty(config, paths, random_codec(), on_progress=losses.append)
    assert (result.step, result.finished) == (6, True)
    assert all(sorted(p.losses) == ["mse", "nll", "ratio"] for p in losses)

    def stop(progress: Progress) -> None:
        if progress.step == 4:
            raise KeyboardInterrupt

    cut = dataclasses.replace(paths, out=paths.out.with_name("cut"))
    with pytest.raises(KeyboardInterrupt):
        train_uncertainty(config, cut, random_codec(), on_progress=stop)
    torch.rand(5)  # the global generator must not matter
    assert train_uncertainty(config, cut, random_codec()).finished
    for name in (ESTIMATOR_FILE, STATE_FILE):
        assert equal(paths.out / name, cut.out / name), name
    check_outputs(paths.out, config)


def check_outputs(out: Path, config: UncertaintyConfig) -> None:
    """Pictures, curves, and averaged weights that load back."""
    for step in (3, 6):
        with Image.open(out / "validation" / f"{step:07d}.png") as picture:
            # LR, decoded mean, HR, uncertainty; sides cut to multiples of 8.
            assert picture.size == (4 * 96, 64 + 88)
            grey = np.asarray(picture)[:64, 3 * 96 :]
            assert (grey[..., 0] == grey[..., 1]).all()
            assert grey.std() > 1
    curves = scalars(out)
    names = ("nll", "mse", "ratio", "psnr_y_lr", "psnr_y_mean")
    assert {f"val/{name}" for name in names} <= curves.keys()
    estimator = load_estimator(out)
    averages = torch.cat([p.flatten() for p in estimator.parameters()])
    start = fresh(lambda: build_estimator(config.estimator), config.seed)
    assert not torch.equal(averages, torch.cat([p.flatten() for p in start.parameters()]))
    metadata = load_tensors(out / ESTIMATOR_FILE)[1]
    assert metadata["step"] == "6"
    assert metadata["codec_sha256"] == describe_codec(random_codec())["codec_sha256"]
    assert parse(UncertaintyConfig, json.loads(metadata["train_config"])) == config


def test_a_run_starts_from_given_weights(paths: RunPaths) -> None:
    train_uncertainty(micro(steps=1, seed=7), paths, random_codec())
    start = paths.out / ESTIMATOR_FILE
    again = dataclasses.replace(paths, start=start)
    task = make_task(micro(), again)
    given = load_file(start)
    assert all(torch.equal(v, given[k]) for k, v in task.learner.bare.state_dict().items())
    wider = micro(estimator=EstimatorSpec(width=16))
    with pytest.raises(WeightsError, match="does not fit the model"):
        make_task(wider, again)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("crop_hr_px=60", "crop_hr_px 60 is no multiple of 8"),
        ("precision=bf16", "learns in float32"),
        ("estimator.var_channels=2", "var_channels"),
        ("mean_only_steps=-1", "mean_only_steps"),
        ("model=tiny", "model: Unexpected keyword"),
    ],
)
def test_wrong_settings_are_named(change: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        override(UNCERTAINTIES["micro"], assignments=(change,))


def test_the_papers_presets_are_section_11s() -> None:
    for scale in (4, 8):
        config = UNCERTAINTIES[f"paper-x{scale}"]
        assert (config.steps, config.batch, config.crop_hr_px, config.lr) == (50_000, 16, 512, 1e-4)
        assert (config.betas, config.weight_decay, config.ema) == ((0.9, 0.999), 1e-2, 0.0)
        assert (config.recipe.scale, config.lr_final, config.precision) == (scale, None, "no")
        assert UNCERTAINTIES[f"compact-x{scale}"].recipe.scale == scale
        # What a teacher of that name stands on, too: Stable Diffusion's own, or TAESD.
        assert (config.codec, UNCERTAINTIES[f"compact-x{scale}"].codec) == ("kl", "taesd")
    for config in UNCERTAINTIES.values():
        assert parse(UncertaintyConfig, to_dict(config)) == config


def test_the_command_trains_resumes_and_says_where(paths: RunPaths, tmp_path: Path) -> None:
    folder = write_taesd(tmp_path / "taesd")
    base = [
        "train", "uncertainty", "--config", "micro", "--data", str(paths.data[0]),
        "--out", str(paths.out), "--codec-folder", str(folder),
    ]  # fmt: skip
    few = ["steps=2", "batch=1", "log_every=1", "validate_every=2", "estimator.width=8"]
    few = [word for change in few for word in ("--set", change)]
    shown = CliRunner().invoke(app, [*base, *few, "--dry-run"])
    assert json.loads(shown.stdout)["estimator"] == {"width": 8, "var_channels": 4}
    assert not paths.out.exists()
    result = CliRunner().invoke(app, [*base, *few, "--max-minutes", "0"])
    assert result.exit_code == 0, result.output
    assert "step 1 of 2" in result.stderr
    result = CliRunner().invoke(app, [*base, *few])
    assert result.exit_code == 0, result.output
    assert "step 2 of 2" in result.stderr
    assert result.stdout.strip() == str(paths.out / ESTIMATOR_FILE)
    assert load_estimator(paths.out).split == (4, 4)
    for wrong, words in (
        (["--codec", "vq"], "codec: Input should be 'taesd' or 'kl', got 'vq'"),
        (["--codec-folder", str(tmp_path / "no")], "it should be a copy of one of madebyollin"),
        (["--config", "tiny-x4"], "there are compact-x4"),
    ):
        result = CliRunner().invoke(app, [*base, *wrong])
        assert result.exit_code == 2
        assert words in result.stderr

"""The prior: a small UNet learns to denoise latents, resumes, samples, and is written."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from accelerate.accelerator import Accelerator
from accelerate.state import AcceleratorState
from PIL import Image
from students import write_images
from teachers import write_taesd
from test_stage_uncertainty import equal, one_batch, random_codec
from test_training_loop import scalars
from torch import Tensor
from typer.testing import CliRunner

from slimdiffsr.cli import app
from slimdiffsr.errors import ConfigError
from slimdiffsr.files.stages import UNET_FILE, load_unet
from slimdiffsr.files.tensors import load_tensors
from slimdiffsr.method.diffusion import PredictionType, add_noise, noise_schedule, prediction_target
from slimdiffsr.models.unet import UNet
from slimdiffsr.settings.config import override, parse, to_dict
from slimdiffsr.stages import RunPaths, train_prior
from slimdiffsr.stages.pretraining import PRIORS, PriorConfig
from slimdiffsr.stages.prior import PriorTask, sample
from slimdiffsr.training.loop import STATE_FILE, Progress

pytestmark = pytest.mark.usefixtures("one_thread")

SCHEDULE = noise_schedule()


TWO_LEVELS = dataclasses.replace(PRIORS["micro"].unet, widths=(8, 16), mid_width=16, head_width=8)


def micro(**changes: Any) -> PriorConfig:
    few: dict[str, Any] = {
        "unet": TWO_LEVELS,
        "steps": 6, "batch": 2, "log_every": 1, "save_every": 2, "validate_every": 3,
        "sample_steps": 2,
    }  # fmt: skip
    return dataclasses.replace(PRIORS["micro"], **{**few, **changes})


@pytest.fixture
def paths(tmp_path: Path) -> RunPaths:
    write_images(tmp_path / "data", [(100, 70), (72, 90)])
    return RunPaths(data=(tmp_path / "data",), out=tmp_path / "whole")


def make_task(config: PriorConfig, paths: RunPaths) -> PriorTask:
    return PriorTask(config, paths, random_codec(), Accelerator())


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
def test_the_loss_falls_on_one_batch(
    paths: RunPaths, monkeypatch: pytest.MonkeyPatch, kind: PredictionType
) -> None:
    task = make_task(micro(lr=5e-3, prediction=kind), paths)
    lr, hr = one_batch()
    latents = task.encode(hr)  # once: the codec takes most of the time
    monkeypatch.setattr(task, "encode", lambda _: latents)
    losses = [float(task.update(lr, hr, step)["loss"]) for step in range(1, 81)]
    assert np.mean(losses[-20:]) < 0.6 * np.mean(losses[:5])


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
def test_the_loss_is_that_of_ho_et_al(paths: RunPaths, kind: PredictionType) -> None:
    task = make_task(micro(prediction=kind), paths)
    z, noise, t = draw(2, 4, 8, 8), draw(2, 4, 8, 8, seed=1), torch.tensor([3, 700])
    expected = []
    for i in range(2):
        share = float(SCHEDULE[t[i]])
        noisy = share**0.5 * z[i : i + 1] + (1 - share) ** 0.5 * noise[i : i + 1]
        made = task.learner.bare(noisy, t[i : i + 1].float())
        target = (
            noise[i] if kind == "epsilon" else share**0.5 * noise[i] - (1 - share) ** 0.5 * z[i]
        )
        expected.append((made[0] - target).square().mean())
    torch.testing.assert_close(
        task.loss(task.learner.bare, z, t, noise), torch.stack(expected).mean()
    )


def test_timesteps_and_noise_hang_on_the_step_and_are_shared_out(paths: RunPaths) -> None:
    task = make_task(micro(batch=4), paths)
    z = draw(4, 4, 8, 8)
    t, noise = task.draw(z, 1)
    again = task.draw(z, 1)
    assert torch.equal(t, again[0])
    assert torch.equal(noise, again[1])
    assert not torch.equal(noise, task.draw(z, 2)[1])
    halves = []
    for process in (0, 1):
        task.accelerator = cast(Accelerator, SimpleNamespace(process_index=process))
        halves.append(task.draw(z[:2], 1))
    assert torch.equal(torch.cat([half[0] for half in halves]), t)
    assert torch.equal(torch.cat([half[1] for half in halves]), noise)


def test_timesteps_are_uniform_over_the_whole_table(paths: RunPaths) -> None:
    task = make_task(micro(batch=5000), paths)
    t, noise = task.draw(draw(5000, 1, 1, 1), 1)
    counts = torch.bincount(t // 100, minlength=10)
    assert 0 <= int(t.min()) <= int(t.max()) <= 999
    assert counts.tolist() == pytest.approx([500] * 10, abs=100)
    assert float(noise.std()) == pytest.approx(1, abs=0.05)


class Oracle(torch.nn.Module):
    """Knows the clean latent, and so what a perfect UNet would say."""

    def __init__(self, clean: Tensor, kind: PredictionType) -> None:
        super().__init__()
        self.clean = clean
        self.kind: PredictionType = kind
        self.asked: list[int] = []

    def forward(self, noisy: Tensor, timestep: Tensor) -> Tensor:
        self.asked.append(int(timestep[0]))
        share = SCHEDULE[timestep[0]]
        noise = (noisy - share.sqrt() * self.clean) / (1 - share).sqrt()
        return prediction_target(self.clean, noise, share, self.kind)


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
def test_sampling_with_perfect_predictions_finds_the_clean_latent(kind: PredictionType) -> None:
    clean = draw(2, 4, 4, 4)
    oracle = Oracle(clean, kind)
    made = sample(cast(UNet, oracle), draw(2, 4, 4, 4, seed=1), 9, SCHEDULE, kind)
    torch.testing.assert_close(made, clean, rtol=1e-3, atol=1e-3)
    assert oracle.asked == list(range(999, 0, -111))


def test_one_stride_of_sampling_is_diffusers() -> None:
    diffusers = pytest.importorskip("diffusers")
    scheduler = diffusers.DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False
    )
    scheduler.set_timesteps(27)  # strides of 37, as ours of 27 steps from 999 to 0
    noise, said = draw(1, 4, 4, 4), draw(1, 4, 4, 4, seed=1)
    seen: list[Tensor] = []

    class Recorder(torch.nn.Module):
        def forward(self, noisy: Tensor, timestep: Tensor) -> Tensor:
            seen.append(noisy)
            return said

    sample(cast(UNet, Recorder()), noise, 27, SCHEDULE, "epsilon")
    expected = scheduler.step(said, 999, noise).prev_sample
    torch.testing.assert_close(seen[1], expected, rtol=1e-4, atol=1e-4)


def test_the_codec_stays_as_it_was(paths: RunPaths) -> None:
    codec = random_codec().train()
    before = {key: value.clone() for key, value in codec.state_dict().items()}
    train_prior(micro(steps=2, validate_every=2), paths, codec)
    assert all(torch.equal(value, before[key]) for key, value in codec.state_dict().items())
    assert not any(p.requires_grad for p in codec.parameters())


def test_pieces_and_recomputation_change_nothing(paths: RunPaths) -> None:
    results = []
    for changes in ({}, {"accumulate": 2}, {"checkpointing": True}):
        task = make_task(micro(**changes), paths)
        terms = task.update(*one_batch(), 1)
        results.append((terms["loss"], list(task.learner.bare.parameters())))
    (loss, first), *others = results
    for other, second in others:
        torch.testing.assert_close(other, loss)
        for one, two in zip(first, second, strict=True):
            torch.testing.assert_close(one, two, rtol=1e-3, atol=2e-5)


def test_a_run_cut_and_resumed_ends_with_the_same_weights(paths: RunPaths) -> None:
    config = micro(pool=3)
    result = train_prior(config, paths, random_codec())
    assert (result.step, result.finished) == (6, True)

    def stop(progress: Progress) -> None:
        if progress.step == 4:
            raise KeyboardInterrupt

    cut = dataclasses.replace(paths, out=paths.out.with_name("cut"))
    with pytest.raises(KeyboardInterrupt):
        train_prior(config, cut, random_codec(), on_progress=stop)
    torch.rand(5)  # the global generator must not matter
    assert train_prior(config, cut, random_codec()).finished
    for name in (UNET_FILE, STATE_FILE):
        assert equal(paths.out / name, cut.out / name), name
    check_outputs(paths.out, config)


def check_outputs(out: Path, config: PriorConfig) -> None:
    """Pictures, curves, and averaged weights that load back."""
    for step in (3, 6):
        with Image.open(out / "validation" / f"{step:07d}.png") as picture:
            # HR, its noisy latent decoded, the estimate; sides cut to multiples of 16.
            assert picture.size == (3 * 96, 64 + 80)
        with Image.open(out / "validation" / f"{step:07d}-samples.png") as picture:
            assert picture.size == (2 * 96, 64)
    curves = scalars(out)
    assert [step for step, _ in curves["val/loss"]] == [3, 6]
    unet, spec, kind = load_unet(out)
    assert (spec, kind) == (config.unet, "epsilon")
    metadata = load_tensors(out / UNET_FILE)[1]
    assert (metadata["step"], metadata["codec"]) == ("6", "taesd")
    assert parse(PriorConfig, json.loads(metadata["train_config"])) == config
    noisy = add_noise(draw(1, 4, 8, 8), draw(1, 4, 8, 8, seed=1), SCHEDULE[200])
    assert unet(noisy, torch.tensor([200])).shape == noisy.shape


def test_validation_does_not_change_with_the_step_and_sees_the_average(paths: RunPaths) -> None:
    task = make_task(micro(ema=0.9), paths)
    first = task.validate(1, paths.out.parent)
    assert task.validate(2, paths.out.parent) == first
    with torch.no_grad():
        for parameter in task.learner.bare.parameters():
            parameter.mul_(3)
    assert task.validate(3, paths.out.parent) == first


@pytest.fixture
def other_precision() -> Iterator[None]:
    """accelerate allows one precision a process."""
    AcceleratorState._reset_state(reset_partial_state=True)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.mark.usefixtures("other_precision")
def test_half_precision_trains_and_saves_float32(paths: RunPaths) -> None:
    config = micro(precision="bf16", steps=2, validate_every=2)
    assert train_prior(config, paths, random_codec()).finished
    assert {v.dtype for v in load_tensors(paths.out / UNET_FILE)[0].values()} == {torch.float32}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("crop_hr_px=72", "crop_hr_px 72 is no multiple of 64"),
        ('unet.attention="text"', "must know the timestep, read no text .*attention='text'"),
        ("unet.time_width=0", "time_width=0"),
        ("unet.latents=0", "latents=0"),
        ("unet.widths=[8]", "at least 2 levels"),
        ("prediction=x0", "prediction"),
        ("sample_steps=0", "sample_steps"),
    ],
)
def test_wrong_settings_are_named(change: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        override(PRIORS["micro"], assignments=(change,))


def test_presets_have_the_sizes_they_promise() -> None:
    for name, config in PRIORS.items():
        assert parse(PriorConfig, to_dict(config)) == config
        with torch.device("meta"):
            count = sum(p.numel() for p in UNet(config.unet).parameters())
        low, high = (100_000, 1_000_000) if name == "micro" else (40_000_000, 120_000_000)
        assert low < count < high, (name, count)
    assert PRIORS["compact-x4"].unet == PRIORS["compact-x8"].unet


def test_the_command_trains_resumes_and_says_where(paths: RunPaths, tmp_path: Path) -> None:
    folder = write_taesd(tmp_path / "taesd")
    base = [
        "train", "prior", "--config", "micro", "--data", str(paths.data[0]),
        "--out", str(paths.out), "--codec-folder", str(folder),
    ]  # fmt: skip
    few = ["steps=2", "batch=1", "log_every=1", "validate_every=2", "sample_steps=1"]
    few = [word for change in few for word in ("--set", change)]
    shown = CliRunner().invoke(app, [*base, *few, "--dry-run"])
    assert json.loads(shown.stdout)["unet"]["widths"] == [16, 32, 32, 32]
    assert not paths.out.exists()
    result = CliRunner().invoke(app, [*base, *few, "--max-minutes", "0"])
    assert result.exit_code == 0, result.output
    assert "step 1 of 2" in result.stderr
    result = CliRunner().invoke(app, [*base, *few, "--validation", str(paths.data[0])])
    assert result.exit_code == 0, result.output
    assert "step 2 of 2" in result.stderr
    assert result.stdout.strip() == str(paths.out / UNET_FILE)
    start = str(paths.out / UNET_FILE)
    other = [*base, *few, "--start", start, "--out", str(tmp_path / "other")]
    assert CliRunner().invoke(app, other).exit_code == 0
    for wrong, words in (
        (["--config", "paper-x4"], "there are compact-x4, compact-x8, micro"),
        (["--set", "crop_hr_px=128"], "smaller than the 128 px crop"),
        (["--start", str(tmp_path / "none.safetensors")], "no weight file"),
    ):
        result = CliRunner().invoke(app, [*base, *wrong])
        assert result.exit_code == 2
        assert words in result.stderr

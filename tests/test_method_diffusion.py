"""The diffusion equations: table values, exact inversion, gradients, round trips."""

from __future__ import annotations

from typing import get_args

import pytest
import torch

from slimdiffsr.errors import ConfigError
from slimdiffsr.method.diffusion import (
    PredictionType,
    add_noise,
    align_noise_level,
    invert_timestep,
    noise_schedule,
    predict_clean,
    prediction_target,
    snr,
    uncertainty_snr,
)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(
    ("t", "alpha_bar"),
    [(0, 0.99915), (10, 0.99043), (100, 0.89422), (200, 0.75369), (400, 0.42448), (999, 0.00466)],
)
def test_the_schedule_is_stable_diffusions(t: int, alpha_bar: float) -> None:
    schedule = noise_schedule()
    assert schedule.shape == (1000,)
    assert schedule[t].item() == pytest.approx(alpha_bar, abs=6e-6)


def test_the_schedule_equals_diffusers() -> None:
    diffusers = pytest.importorskip("diffusers")
    theirs = diffusers.DDPMScheduler(
        num_train_timesteps=1000, beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear"
    ).alphas_cumprod
    torch.testing.assert_close(noise_schedule(), theirs, rtol=2e-5, atol=1e-7)


def test_signal_to_noise_ratios_agree_at_the_aligned_level() -> None:
    signal, z_var = torch.tensor(0.8), torch.rand(2, 1, 4, 4, generator=generator()) + 0.01
    aligned = align_noise_level(signal, z_var)
    torch.testing.assert_close(snr(aligned), uncertainty_snr(signal, z_var), rtol=1e-4, atol=0)


def test_more_uncertainty_gives_a_later_timestep() -> None:
    z_var = torch.linspace(0.01, 20, 50)
    t = invert_timestep(align_noise_level(torch.tensor(1.0), z_var), noise_schedule())
    assert bool((t.diff() > 0).all())


def test_inversion_is_exact_at_every_table_entry() -> None:
    schedule = noise_schedule()
    assert torch.equal(invert_timestep(schedule, schedule), torch.arange(1000.0))


def test_inversion_is_linear_between_entries() -> None:
    schedule = noise_schedule().double()
    between = (schedule[1:] + schedule[:-1]) / 2
    expected = torch.arange(999.0, dtype=torch.float64) + 0.5
    torch.testing.assert_close(invert_timestep(between, schedule), expected)


def test_inversion_clamps_outside_the_table() -> None:
    assert invert_timestep(torch.tensor([0.0, 1.0]), noise_schedule()).tolist() == [999.0, 0.0]


def test_inversion_keeps_the_shape_of_a_map() -> None:
    level = torch.rand(2, 1, 3, 5, generator=generator())
    assert invert_timestep(level, noise_schedule()).shape == level.shape


def test_the_gradient_of_the_inversion_is_its_finite_difference() -> None:
    schedule = noise_schedule().double()
    x = torch.tensor([0.01, 0.2, 0.5, 0.9, 0.99], dtype=torch.float64, requires_grad=True)
    (grad,) = torch.autograd.grad(invert_timestep(x, schedule).sum(), x)
    step = 1e-9
    at = x.detach()
    slope = (invert_timestep(at + step, schedule) - invert_timestep(at - step, schedule)) / 2 / step
    torch.testing.assert_close(grad, slope, rtol=1e-4, atol=0)
    assert grad[2].item() == pytest.approx(-600.17, abs=0.05)  # float32 table


def test_inversion_of_half_precision_levels_is_float32() -> None:
    assert invert_timestep(torch.tensor([0.5]).bfloat16(), noise_schedule()).dtype == torch.float32


@pytest.mark.parametrize("kind", get_args(PredictionType))
def test_the_clean_latent_survives_noise_and_prediction(kind: PredictionType) -> None:
    clean, noise = torch.randn(2, 2, 4, 8, 8, generator=generator()).double()
    level = 0.005 + 0.99 * torch.rand(2, 1, 8, 8, generator=generator(1)).double()
    noisy = add_noise(clean, noise, level)
    prediction = prediction_target(clean, noise, level, kind)
    torch.testing.assert_close(predict_clean(noisy, prediction, level, kind), clean)


@pytest.mark.parametrize("kind", get_args(PredictionType))
def test_a_constant_map_equals_a_one_step_scheduler(kind: PredictionType) -> None:
    diffusers = pytest.importorskip("diffusers")
    scheduler = diffusers.DDPMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type=kind,
        clip_sample=False,
        timestep_spacing="trailing",
    )
    scheduler.set_timesteps(1)
    noisy, prediction = torch.randn(2, 1, 4, 8, 8, generator=generator())
    theirs = scheduler.step(prediction, scheduler.timesteps[0], noisy).prev_sample
    level = noise_schedule()[999].expand(1, 1, 8, 8)
    torch.testing.assert_close(
        predict_clean(noisy, prediction, level, kind), theirs, rtol=1e-4, atol=1e-4
    )


def test_the_targets_equal_diffusers() -> None:
    diffusers = pytest.importorskip("diffusers")
    scheduler = diffusers.DDPMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear"
    )
    clean, noise = torch.randn(2, 3, 4, 8, 8, generator=generator())
    t = torch.tensor([0, 400, 999])
    level = noise_schedule()[t][:, None, None, None]
    for ours, theirs in (
        (add_noise(clean, noise, level), scheduler.add_noise(clean, noise, t)),
        (
            prediction_target(clean, noise, level, "v_prediction"),
            scheduler.get_velocity(clean, noise, t),
        ),
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_predictions_are_never_made_in_half_precision() -> None:
    half = torch.ones(1, 4, 2, 2).bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        clean = predict_clean(half, half, torch.full((1, 1, 2, 2), 0.3), "epsilon")
    assert clean.dtype == torch.float32


def test_an_unknown_prediction_type_is_refused() -> None:
    x = torch.ones(1)
    with pytest.raises(ConfigError, match="sample"):
        predict_clean(x, x, x, "sample")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="sample"):
        prediction_target(x, x, x, "sample")  # type: ignore[arg-type]

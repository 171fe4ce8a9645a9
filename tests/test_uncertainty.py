"""Uncertainty estimator, its loss, and the predictor of the noise level."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest
import torch
from torch import Tensor

from slimdiffsr.method.diffusion import align_noise_level, invert_timestep, noise_schedule
from slimdiffsr.method.losses import total_variation, uncertainty_loss
from slimdiffsr.models.spec import PredictorSpec
from slimdiffsr.models.uncertainty import NoiseLevelPredictor, UncertaintyEstimator

SCHEDULE = noise_schedule()


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(autouse=True)
def fixed_start() -> Any:
    """Fresh networks start from the same weights in each test."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        yield


# Estimator


def test_the_estimator_has_266304_parameters() -> None:
    assert sum(p.numel() for p in UncertaintyEstimator().parameters()) == 266_304


def test_one_variance_channel_is_repeated() -> None:
    estimator = UncertaintyEstimator(var_channels=1)
    mean, log_var = estimator(draw(2, 4, 8, 8))
    assert mean.shape == log_var.shape == (2, 4, 8, 8)
    assert torch.equal(log_var[:, 0], log_var[:, 3])


def test_the_mean_is_the_input_plus_what_the_network_says() -> None:
    estimator = UncertaintyEstimator()
    with torch.no_grad():
        for parameter in estimator.blocks[-1].parameters():
            parameter.zero_()
        z = draw(1, 4, 8, 8)
        mean, log_var = estimator(z)
    assert torch.equal(mean, z)
    assert bool((log_var == 0).all())


def test_the_log_variance_is_clamped() -> None:
    with torch.no_grad():
        log_var = UncertaintyEstimator()(1e6 * draw(1, 4, 16, 16)).log_var
    assert log_var.amin() == -10
    assert log_var.amax() == 6


def test_the_estimator_reaches_ten_cells_around() -> None:
    estimator = UncertaintyEstimator()
    z = draw(1, 4, 33, 33).requires_grad_()
    (grad,) = torch.autograd.grad(estimator(z).mean[0, :, 16, 16].sum(), z)
    seen = grad.abs().sum((0, 1)).nonzero()
    assert seen.amin(0).tolist() == [6, 6]
    assert seen.amax(0).tolist() == [26, 26]


# Eq. 5


@pytest.mark.parametrize("residual", [0.05, 0.5, 3.0])
def test_the_best_variance_is_a_third_of_the_squared_residual(residual: float) -> None:
    s = torch.zeros(1, 4, 2, 2, requires_grad=True)
    z = torch.zeros(1, 4, 2, 2)
    optimum = math.log(residual**2 / 3)
    for _ in range(60):  # Newton's method on a convex function, one step at a time
        (slope,) = torch.autograd.grad(uncertainty_loss(z + residual, z, s), s)
        curvature = 0.5 * (-s.detach()).exp() * residual**2 / s.numel()
        s = (s.detach() - (slope / curvature).clamp(-1, 1)).requires_grad_()
    torch.testing.assert_close(s.detach(), torch.full_like(s, optimum), rtol=1e-4, atol=1e-4)


def test_the_uncertainty_loss_is_half_a_mean() -> None:
    z_gt, mean, s = draw(3, 2, 4, 5, 5)
    by_hand = [
        0.5 * (math.exp(-c) * (a - b) ** 2 + 3 * c)
        for a, b, c in zip(
            z_gt.flatten().tolist(), mean.flatten().tolist(), s.flatten().tolist(), strict=True
        )
    ]
    loss = uncertainty_loss(z_gt, mean, s).item()
    assert loss == pytest.approx(sum(by_hand) / len(by_hand), rel=1e-5)


def test_the_uncertainty_loss_is_float32_for_half_inputs() -> None:
    z = draw(1, 4, 2, 2).bfloat16()
    assert uncertainty_loss(z, z, z).dtype == torch.float32


def test_trained_variances_are_a_third_of_the_residuals_and_follow_them() -> None:
    """Latents that lie 0.1 off where they are negative, and 0.5 where they are positive."""
    rng = torch.Generator().manual_seed(2)

    def pairs(count: int) -> tuple[Tensor, Tensor, Tensor]:
        sides = torch.randn(count, 1, 2, 2, generator=rng).sign()
        z_lr = sides.repeat_interleave(6, 2).repeat_interleave(6, 3).expand(-1, 4, -1, -1)
        spread = torch.where(z_lr[:, :1] > 0, 0.5, 0.1)
        return z_lr, z_lr + spread * torch.randn(z_lr.shape, generator=rng), spread

    estimator = UncertaintyEstimator(width=16)
    parameters = list(estimator.parameters())
    optimiser = torch.optim.Adam(parameters, lr=5e-3)
    for _ in range(200):
        z_lr, z_gt, _ = pairs(16)
        grads = torch.autograd.grad(uncertainty_loss(z_gt, *estimator(z_lr)), parameters)
        for parameter, grad in zip(parameters, grads, strict=True):
            parameter.grad = grad
        optimiser.step()
    with torch.no_grad():
        z_lr, z_gt, spread = pairs(64)
        mean, log_var = estimator(z_lr)
    ratio = ((z_gt - mean).square() / log_var.exp()).mean()
    assert ratio.item() == pytest.approx(3, abs=0.6)
    rough = (spread > 0.3).expand_as(log_var)
    assert log_var[rough].mean() - log_var[~rough].mean() > 2  # ln 25 = 3.2


# Eq. 21


def test_the_total_variation_of_a_ramp_is_the_square_of_its_step() -> None:
    ramp = torch.arange(6.0).mul(0.05).expand(2, 1, 4, 6)
    assert total_variation(ramp).item() == pytest.approx(0.05**2)
    assert total_variation(ramp.transpose(2, 3)).item() == pytest.approx(0.05**2)


def test_constant_maps_and_single_numbers_have_no_variation() -> None:
    assert total_variation(torch.full((1, 1, 4, 4), 0.3)) == 0
    assert total_variation(torch.rand(2, 1, 1, 1)) == 0


# Predictor


def predictor(**changes: Any) -> NoiseLevelPredictor:
    return NoiseLevelPredictor(PredictorSpec(**changes), SCHEDULE)


@pytest.mark.parametrize(
    ("mode", "shape"),
    [
        ("map", (2, 1, 8, 8)),
        ("gt_only", (2, 1, 8, 8)),
        ("scalar", (2, 1, 1, 1)),
        ("fixed", (2, 1, 1, 1)),
    ],
)
def test_every_mode_starts_at_timestep_200_everywhere(mode: str, shape: tuple[int, ...]) -> None:
    level = predictor(mode=mode)(draw(2, 4, 8, 8), draw(2, 4, 8, 8, seed=1))
    assert level.shape == shape
    t = invert_timestep(level, SCHEDULE)
    torch.testing.assert_close(t, torch.full(shape, 200.0), rtol=0, atol=0.01)


def unlike_start(network: NoiseLevelPredictor) -> NoiseLevelPredictor:
    with torch.no_grad():
        network.head.out.weight.copy_(5 * draw(*network.head.out.weight.shape))
    return network


@pytest.mark.parametrize("mode", ["map", "scalar", "gt_only"])
def test_levels_stay_inside_the_table(mode: str) -> None:
    network = unlike_start(predictor(mode=mode))
    z, s = 300 * draw(4, 4, 16, 16), 300 * draw(4, 4, 16, 16, seed=1)
    with torch.no_grad():
        one = network(z, s)
        network.head.out.weight.neg_()
        level = torch.cat((one, network(z, s)))
    assert level.amin() >= SCHEDULE[999]
    assert level.amax() <= SCHEDULE[1]
    assert level.amax() - level.amin() > 0.5


@pytest.mark.parametrize(("mode", "sees"), [("map", True), ("scalar", True), ("gt_only", False)])
def test_only_gt_only_is_blind_to_the_uncertainty(mode: str, sees: bool) -> None:
    network = unlike_start(predictor(mode=mode))
    z = draw(1, 4, 8, 8)
    one, other = network(z, z), network(z, z + 1)
    assert torch.equal(one, other) is not sees


def test_fixed_trains_nothing() -> None:
    assert not any(p.requires_grad for p in predictor(mode="fixed").parameters())


@pytest.mark.parametrize("mode", ["map", "scalar"])
def test_eq9_is_where_its_parametrisation_starts(mode: str) -> None:
    log_var = torch.full((1, 4, 8, 8), -1.3)
    level = predictor(mode=mode, param="eq9", log_signal_variance=0.2)(draw(1, 4, 8, 8), log_var)
    expected = align_noise_level(torch.tensor(math.exp(0.2)), torch.tensor(math.exp(-1.3)))
    # The squeeze into [abar(999), abar(1)] moves it a little.
    torch.testing.assert_close(level, expected.expand_as(level), rtol=0, atol=0.003)


def test_training_moves_the_whole_predictor_after_one_step() -> None:
    network = predictor()
    z, s = draw(1, 4, 8, 8), draw(1, 4, 8, 8, seed=1)
    optimiser = torch.optim.SGD(network.parameters(), lr=1.0)
    for _ in range(2):
        optimiser.zero_grad()
        loss = (network(z, s) - 0.2).square().mean()
        for parameter, grad in zip(
            network.parameters(),
            torch.autograd.grad(loss, list(network.parameters())),
            strict=True,
        ):
            parameter.grad = grad
        optimiser.step()
    assert all(bool((p.grad != 0).any()) for p in network.parameters() if p.grad is not None)


def test_the_level_is_float32_under_autocast() -> None:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert predictor()(draw(1, 4, 8, 8), draw(1, 4, 8, 8)).dtype == torch.float32


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"t_start": 0}, "t_min < t_start"),
        ({"t_max": 1000}, "999"),
        ({"param": "eq9", "mode": "gt_only"}, "eq9"),
    ],
)
def test_a_predictor_spec_checks_itself(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(PredictorSpec(), **change)

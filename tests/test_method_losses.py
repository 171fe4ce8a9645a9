from __future__ import annotations

import math
from typing import Literal

import numpy as np
import pytest
import torch
from students import seeded
from torch import Tensor

from slimdiffsr.method.losses import (
    adversarial_loss,
    coarse_loss,
    discriminator_loss,
    jitter,
    perceptual_loss,
)
from slimdiffsr.models.discriminator import UNetDiscriminator

pytestmark = pytest.mark.usefixtures("one_thread")


def levels(seed: int) -> list[Tensor]:
    rng = seeded(seed)
    return [torch.randn(2, 1, side, side, dtype=torch.float64, generator=rng) for side in (6, 3)]


def cross_entropy(logits: Tensor, target: float) -> float:
    p = 1 / (1 + np.exp(-logits.numpy()))
    return float(-(target * np.log(p) + (1 - target) * np.log(1 - p)).mean())


def test_the_hinge_loss_is_its_closed_form() -> None:
    real, fake = levels(0), levels(1)
    expected = sum(
        np.maximum(0, 1 - r.numpy()).mean() + np.maximum(0, 1 + f.numpy()).mean()
        for r, f in zip(real, fake, strict=True)
    )
    assert float(discriminator_loss(real, fake, "hinge")) == pytest.approx(expected, rel=1e-6)
    generator = sum(-f.numpy().mean() for f in fake)
    assert float(adversarial_loss(fake, "hinge")) == pytest.approx(generator, rel=1e-5)


def test_the_cross_entropy_loss_smooths_the_real_side_alone() -> None:
    real, fake = levels(2), levels(3)
    expected = sum(
        cross_entropy(r, 0.8) + cross_entropy(f, 0.0) for r, f in zip(real, fake, strict=True)
    )
    assert float(discriminator_loss(real, fake, "bce_s")) == pytest.approx(expected, rel=1e-5)
    generator = sum(cross_entropy(f, 0.8) for f in fake)
    assert float(adversarial_loss(fake, "bce_s")) == pytest.approx(generator, rel=1e-5)


@pytest.mark.parametrize("kind", ["hinge", "bce_s"])
def test_an_adversary_that_is_right_pays_less_and_the_generator_more(
    kind: Literal["hinge", "bce_s"],
) -> None:
    high, low = [torch.full((1, 1, 4, 4), 1.2)], [torch.full((1, 1, 4, 4), -1.2)]
    assert discriminator_loss(high, low, kind) < discriminator_loss(low, high, kind)
    assert adversarial_loss(low, kind) > adversarial_loss(high, kind)


def test_levels_must_match() -> None:
    with pytest.raises(ValueError, match="zip"):
        discriminator_loss(levels(0), levels(1)[:1], "hinge")


def test_jitter_gives_both_halves_of_a_batch_the_same_view() -> None:
    image = torch.rand(2, 3, 64, 64, generator=seeded())
    rng = seeded(1)
    shapes = set()
    for _ in range(20):
        first, second = jitter(torch.cat((image, image)), rng).chunk(2)
        torch.testing.assert_close(first, second, rtol=0, atol=0)
        shapes.add(tuple(first.shape[2:]))
    # Few shapes: for each new one an accelerator plans its convolutions anew.
    assert 3 < len(shapes) < 10
    assert all(side % 8 == 0 for shape in shapes for side in shape)


def test_jitter_is_a_function_of_its_generator() -> None:
    image = torch.rand(1, 3, 64, 64, generator=seeded())
    views = [jitter(image, seeded(5)) for _ in range(2)]
    torch.testing.assert_close(views[0], views[1], rtol=0, atol=0)
    others = [jitter(image, seeded(seed)) for seed in range(6, 26)]
    assert sum(o.shape == views[0].shape and torch.equal(o, views[0]) for o in others) < 2


def test_jitter_moves_turns_and_rescales_but_invents_nothing() -> None:
    side = 64
    ramp = torch.linspace(0, 1, side).expand(1, 1, side, side)  # values grow along x
    directions = set()
    for seed in range(60):
        view = jitter(ramp, seeded(seed))[0, 0]
        assert min(view.shape) >= math.floor((side - 8) * 0.75) - 4
        assert max(view.shape) <= side * 1.25
        assert view.min() >= 0
        assert view.max() <= 1
        across, down = float(view[0, -1] - view[0, 0]), float(view[-1, 0] - view[0, 0])
        directions.add((round(across), round(down)))
    assert directions == {(1, 0), (-1, 0), (0, 1), (0, -1)}


def test_the_perceptual_loss_is_the_mean_over_images_of_one_common_view() -> None:
    seen: list[tuple[Tensor, Tensor]] = []

    def distance(a: Tensor, b: Tensor) -> Tensor:
        seen.append((a, b))
        return (a - b).abs().mean((1, 2, 3))

    sr, hr = torch.zeros(2, 3, 40, 40), torch.ones(2, 3, 40, 40)
    hr[1] = 3
    assert float(perceptual_loss(distance, sr, hr)) == pytest.approx(2.0)
    assert float(perceptual_loss(distance, sr, hr, seeded(2))) == pytest.approx(2.0)
    assert [a.shape == b.shape for a, b in seen] == [True, True]
    assert seen[0][0].shape == sr.shape


def test_the_adversary_gives_one_logit_a_pixel_and_a_gradient() -> None:
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        adversary = UNetDiscriminator(8)
    rgb = torch.rand(2, 3, 32, 24, generator=seeded()).requires_grad_()
    logits = adversary(rgb)
    assert [tuple(level.shape) for level in logits] == [(2, 1, 32, 24)]
    adversarial_loss(logits, "hinge").backward()  # type: ignore[no-untyped-call]
    assert rgb.grad is not None
    assert rgb.grad.abs().max() > 0


def test_the_adversarys_inner_convolutions_have_spectral_norm_one() -> None:
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        adversary = UNetDiscriminator(8)
    for _ in range(300):  # power iterations
        adversary(torch.rand(1, 3, 16, 16, generator=seeded()))
    adversary.eval()
    for conv in [*adversary.downs, *adversary.ups]:
        weight = conv.get_parameter("parametrizations.weight.original")
        normed = conv.weight
        assert isinstance(normed, Tensor)
        assert normed.shape == weight.shape
        norm = np.linalg.svd(normed.detach().flatten(1).numpy(), compute_uv=False)[0]
        assert norm == pytest.approx(1.0, abs=0.01)


def test_the_coarse_loss_sees_tone_and_not_fine_detail() -> None:
    hr = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    checks = torch.tensor([[1.0, -1.0], [-1.0, 1.0]]).repeat(8, 8)
    assert float(coarse_loss(hr + 0.3 * checks, hr, 4)) == pytest.approx(0, abs=1e-6)
    assert float(coarse_loss(hr + 0.3, hr, 4)) == pytest.approx(0.3, abs=1e-6)

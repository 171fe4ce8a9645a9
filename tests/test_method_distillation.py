"""Distillation: MMD as Eq. 16 writes it, scale matching, adapters, gradients."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from slimdiffsr.method.distillation import (
    Adapters,
    compare_features,
    draw_positions,
    match_scale,
    mmd_squared,
    sample_vectors,
)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=seeded(seed))


def features(seed: int = 0) -> list[Tensor]:
    """Four blocks at two levels, the second ten times as strong."""
    shapes = ((2, 8, 8, 8), (2, 16, 4, 4), (2, 16, 4, 4), (2, 8, 8, 8))
    return [10**i * draw(*s, seed=seed + i) for i, s in enumerate(shapes)]


# MMD


def mmd_by_hand(x: list[list[float]], y: list[list[float]], factors: tuple[float, ...]) -> float:
    def square(a: list[float], b: list[float]) -> float:
        return sum((p - q) ** 2 for p, q in zip(a, b, strict=True))

    union = x + y
    pairs = [square(a, b) for i, a in enumerate(union) for j, b in enumerate(union) if i != j]
    width = sum(pairs) / len(pairs)

    def mean(p: list[list[float]], q: list[list[float]]) -> float:
        kernels = [
            sum(math.exp(-square(a, b) / (f * width)) for f in factors) / len(factors)
            for a in p
            for b in q
        ]
        return sum(kernels) / len(kernels)

    return mean(x, x) + mean(y, y) - 2 * mean(x, y)


@pytest.mark.parametrize(("kernels", "factors"), [(1, (1.0,)), (5, (0.25, 0.5, 1.0, 2.0, 4.0))])
def test_mmd_is_equation_16(kernels: int, factors: tuple[float, ...]) -> None:
    x, y = draw(6, 3), 1 + draw(7, 3, seed=1)
    expected = mmd_by_hand(x.tolist(), y.tolist(), factors)
    found = mmd_squared(x, y, 5 if kernels == 5 else 1).item()
    assert found == pytest.approx(expected, rel=1e-4)


def test_mmd_of_a_set_with_itself_is_zero() -> None:
    x = draw(200, 32)
    assert mmd_squared(x, x).item() == pytest.approx(0, abs=1e-6)


def test_shifted_gaussians_are_apart_and_more_so_the_further() -> None:
    x, y = draw(512, 16), draw(512, 16, seed=1)
    same, near, far = (mmd_squared(x, y + shift).item() for shift in (0.0, 0.5, 1.0))
    assert same < 2 / 512
    assert near > 5 * same
    assert far > 2 * near


def test_mmd_sees_a_change_of_spread_that_means_do_not() -> None:
    x, y = draw(512, 16), draw(512, 16, seed=1)
    assert mmd_squared(x, 2 * y) > 5 * mmd_squared(x, y)


def test_mmd_does_not_depend_on_the_order_of_samples() -> None:
    x, y = draw(64, 8), draw(64, 8, seed=1)
    shuffled = x[torch.randperm(64, generator=seeded())]
    torch.testing.assert_close(mmd_squared(shuffled, y), mmd_squared(x, y))


def test_mmd_is_symmetric_and_survives_a_large_offset() -> None:
    x, y = draw(64, 8), 0.5 + draw(64, 8, seed=1)
    torch.testing.assert_close(mmd_squared(y, x), mmd_squared(x, y))
    torch.testing.assert_close(
        mmd_squared(x + 1000, y + 1000), mmd_squared(x, y), rtol=1e-2, atol=0
    )


def test_equal_vectors_throughout_give_zero_and_a_finite_gradient() -> None:
    x = torch.ones(8, 4, requires_grad=True)
    mmd = mmd_squared(x, torch.ones(8, 4))
    (grad,) = torch.autograd.grad(mmd, x)
    assert mmd == 0
    assert bool(grad.isfinite().all())


def test_a_step_down_the_gradient_brings_the_sets_together() -> None:
    x, y = draw(64, 8).requires_grad_(), 1 + draw(64, 8, seed=1)
    before = mmd_squared(x, y)
    (grad,) = torch.autograd.grad(before, x)
    assert mmd_squared(x.detach() - 5 * grad, y) < before


# Samples


def test_vectors_are_those_at_the_positions_of_both_maps() -> None:
    f = draw(2, 3, 4, 5)
    position = 1 * 20 + 2 * 5 + 3  # second image, third row, fourth column
    assert torch.equal(sample_vectors(f, torch.tensor([position]))[0], f[1, :, 2, 3])


def test_positions_cover_the_batch_and_come_from_the_generator() -> None:
    f = draw(2, 3, 4, 4)
    positions = draw_positions(f, 1024, seeded())
    assert set(positions.tolist()) == set(range(32))
    assert torch.equal(positions, draw_positions(f, 1024, seeded()))


# Both terms


def test_equal_features_through_identity_adapters_cost_nothing() -> None:
    teacher = features()
    adapters = Adapters([8, 16, 16, 8], [8, 16, 16, 8])
    terms = compare_features(adapters(teacher), teacher, seeded())
    assert terms.total.item() == pytest.approx(0, abs=1e-6)
    assert terms.raw_mse == 0


def test_adapters_change_widths_where_they_differ() -> None:
    adapters = Adapters([4, 8], [8, 8])
    wide = adapters([draw(1, 4, 2, 2), draw(1, 8, 2, 2)])
    assert [f.shape[1] for f in wide] == [8, 8]
    assert all(isinstance(a, nn.Conv2d) and a.kernel_size == (1, 1) for a in adapters)


def test_the_total_is_mse_and_a_tenth_of_mmd() -> None:
    terms = compare_features(features(1), features(), seeded())
    torch.testing.assert_close(terms.total, terms.mse + 0.1 * terms.mmd)
    assert terms.mmd > 0


def test_without_mmd_it_is_mse_alone() -> None:
    terms = compare_features(features(1), features(), seeded(), mmd_weight=0)
    assert torch.equal(terms.total, terms.mse)


def test_normalised_blocks_weigh_alike_whatever_their_strength() -> None:
    ours, theirs = features(9), features()
    plain = compare_features(ours, theirs, seeded())
    louder = compare_features([100 * f for f in ours], [100 * f for f in theirs], seeded())
    torch.testing.assert_close(louder.total, plain.total, rtol=1e-4, atol=1e-6)
    assert louder.raw_mse > 1000 * plain.raw_mse


def test_literal_features_are_the_mean_of_the_blocks_errors() -> None:
    ours, theirs = features(9), features()
    terms = compare_features(ours, theirs, seeded(), norm="none")
    by_hand = [(a - b).square().mean().item() for a, b in zip(ours, theirs, strict=True)]
    assert terms.mse.item() == pytest.approx(sum(by_hand) / 4, rel=1e-5)
    assert torch.equal(terms.mse, terms.raw_mse)


def test_the_scale_is_the_teachers_root_mean_square() -> None:
    _, theirs = match_scale(draw(1, 4, 8, 8), 37 * draw(1, 4, 8, 8, seed=1))
    assert theirs.square().mean().item() == pytest.approx(1, rel=1e-5)


def test_a_silent_teacher_block_gives_finite_losses() -> None:
    zeros = [torch.zeros(1, 4, 4, 4)]
    assert bool(compare_features(zeros, zeros, seeded()).total.isfinite())


def test_gradients_reach_the_student_alone() -> None:
    ours = [f.requires_grad_() for f in features(9)]
    theirs = [f.requires_grad_() for f in features()]
    total = compare_features(ours, theirs, seeded()).total
    grads = torch.autograd.grad(total, [*ours, *theirs], allow_unused=True)
    assert all(g is not None and bool((g != 0).any()) for g in grads[:4])
    assert all(g is None for g in grads[4:])


def test_half_precision_features_are_compared_in_float32() -> None:
    half = [f.bfloat16() for f in features()]
    assert compare_features(half, half, seeded()).total.dtype == torch.float32


def test_autocast_changes_nothing() -> None:
    plain = compare_features(features(1), features(), seeded())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = compare_features(features(1), features(), seeded())
    assert torch.equal(cast.total, plain.total)

from __future__ import annotations

from typing import Any

import pytest
import scipy.stats
import torch

from slimdiffsr.degrade.draws import chance, choose, uniform

stats: Any = scipy.stats  # has no types

DRAWS = 4000
RARE = 1e-4  # generators are seeded, so a p-value below this means wrong odds, not bad luck


@pytest.fixture
def rng() -> torch.Generator:
    return torch.Generator().manual_seed(31)


def test_uniform_follows_the_uniform_law_between_its_bounds(rng: torch.Generator) -> None:
    drawn = [uniform((-1.5, 4.0), rng) for _ in range(DRAWS)]
    assert min(drawn) >= -1.5
    assert max(drawn) < 4.0
    assert stats.kstest(drawn, stats.uniform(-1.5, 5.5).cdf).pvalue > RARE


def test_chance_comes_true_as_often_as_asked(rng: torch.Generator) -> None:
    hits = sum(chance(0.3, rng) for _ in range(DRAWS))
    assert stats.binomtest(hits, DRAWS, 0.3).pvalue > RARE


def test_chance_of_zero_never_and_of_one_always_comes_true(rng: torch.Generator) -> None:
    assert not any(chance(0.0, rng) for _ in range(200))
    assert all(chance(1.0, rng) for _ in range(200))


def test_choose_follows_its_weights_and_never_takes_a_weight_of_zero(rng: torch.Generator) -> None:
    weights = [0.45, 0.0, 0.25, 0.3]
    drawn = [choose(weights, rng) for _ in range(DRAWS)]
    counts = [drawn.count(index) for index in range(4)]
    assert counts[1] == 0
    likely = [counts[0], counts[2], counts[3]]
    assert stats.chisquare(likely, [DRAWS * w for w in (0.45, 0.25, 0.3)]).pvalue > RARE


def test_choose_gives_a_possible_index_when_weights_sum_to_less_than_one(
    rng: torch.Generator,
) -> None:
    assert {choose([0.0, 1e-12, 0.0], rng) for _ in range(50)} == {1}

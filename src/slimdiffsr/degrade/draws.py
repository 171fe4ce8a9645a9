"""The three random draws that every parameter of the degradation is made of."""

from __future__ import annotations

from collections.abc import Sequence

import torch

__all__ = ["chance", "choose", "uniform"]


def uniform(bounds: tuple[float, float], rng: torch.Generator) -> float:
    """A number drawn uniformly between the two bounds."""
    low, high = bounds
    # float64: float32 rounds the largest draws up to 1, that is, onto the open bound.
    unit = torch.rand((), dtype=torch.float64, generator=rng, device=rng.device).item()
    return low + (high - low) * unit


def chance(probability: float, rng: torch.Generator) -> bool:
    """True with the given probability, which may be 0 or 1."""
    return uniform((0.0, 1.0), rng) < probability


def choose(weights: Sequence[float], rng: torch.Generator) -> int:
    """An index drawn with these probabilities, which sum to 1; one of weight 0 never comes."""
    threshold = uniform((0.0, 1.0), rng)
    last = 0
    for index, weight in enumerate(weights):
        if weight > 0:
            last = index
            threshold -= weight
            if threshold < 0:
                break
    # Weights may sum to a little less than 1: what is left goes to the last possible index.
    return last

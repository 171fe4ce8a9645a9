"""Weights of learned distances, random: what they measure is nonsense, how they do it is not."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from slimdiffsr.models.dists import DISTS


def random_dists(seed: int = 0) -> dict[str, Tensor]:
    """A state dict of DISTS whose features neither fade nor explode."""
    rng = torch.Generator().manual_seed(seed)
    weights = {}
    for name, value in DISTS().state_dict().items():
        noise = torch.randn(value.shape, generator=rng)
        if name in ("alpha", "beta"):
            weights[name] = 0.1 + 0.05 * noise.abs()
        elif name.endswith("weight"):
            weights[name] = noise * (2 / value[0].numel()) ** 0.5
        else:
            weights[name] = 0.05 * noise
    return weights


def write_dists(path: Path, seed: int = 0) -> Path:
    save_file(random_dists(seed), path)
    return path

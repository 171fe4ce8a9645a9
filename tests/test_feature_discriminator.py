"""The adversary on LPIPS's features."""

from __future__ import annotations

import pytest
import torch

from slimdiffsr.errors import ConfigError
from slimdiffsr.models.feature_discriminator import FeatureDiscriminator
from slimdiffsr.models.lpips import LPIPS
from slimdiffsr.stages.adversarial import build_adversary
from slimdiffsr.stages.run import fresh


def make() -> FeatureDiscriminator:
    return fresh(lambda: FeatureDiscriminator(LPIPS("squeeze"), 8), 0).eval()


def test_it_judges_by_levels_and_its_gradient_reaches_the_image() -> None:
    rgb = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(1), requires_grad=True)
    levels = make()(rgb, torch.zeros(2, 3, 16, 16))
    assert [level.shape[2] for level in levels] == [16, 15, 3, 3]
    sum(level.mean() for level in levels).backward()
    assert rgb.grad is not None
    assert float(rgb.grad.abs().sum()) > 0


def test_without_its_network_one_is_asked_for() -> None:
    with pytest.raises(ConfigError, match="give --lpips FILE"):
        build_adversary("features", 8, "", None)


def test_it_looks_at_the_input_too() -> None:
    adversary = make()
    rgb = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        inputs = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(2)) * 2 - 1
        first, second = (adversary(rgb, lr[None]) for lr in inputs)
    assert all(not torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_only_its_heads_train_and_are_saved() -> None:
    adversary = make()
    names = adversary.state_dict().keys()
    assert names
    assert all(name.startswith(("pixels.", "heads.")) for name in names)
    assert all(p.requires_grad for p in adversary.parameters())

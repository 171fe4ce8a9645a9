"""LPIPS v0.1 with the SqueezeNet 1.1 backbone (Zhang et al. 2018), without torchvision.

Weights come from a file with ``features.*`` (SqueezeNet) and ``lin{i}.model.1.weight`` (LPIPS).
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

__all__ = ["LPIPS"]

TAPS = (1, 4, 7, 9, 10, 11, 12)
TAP_CHANNELS = (64, 128, 256, 384, 384, 512, 512)


class Fire(nn.Module):
    """SqueezeNet's block: squeeze by 1x1, expand by 1x1 and 3x3 (Iandola et al. 2016)."""

    def __init__(self, inputs: int, squeeze: int, expand: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(inputs, squeeze, 1)
        self.expand1x1 = nn.Conv2d(squeeze, expand, 1)
        self.expand3x3 = nn.Conv2d(squeeze, expand, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """x: (b, inputs, h, w). Returns (b, 2*expand, h, w)."""
        x = self.squeeze(x).relu()
        return torch.cat((self.expand1x1(x).relu(), self.expand3x3(x).relu()), dim=1)


def squeezenet_features() -> nn.Sequential:
    """The feature layers of SqueezeNet 1.1, by their published indices."""

    def pool() -> nn.MaxPool2d:
        return nn.MaxPool2d(3, stride=2, ceil_mode=True)

    return nn.Sequential(
        nn.Conv2d(3, 64, 3, stride=2), nn.ReLU(), pool(),
        Fire(64, 16, 64), Fire(128, 16, 64), pool(),
        Fire(128, 32, 128), Fire(256, 32, 128), pool(),
        Fire(256, 48, 192), Fire(384, 48, 192), Fire(384, 64, 256), Fire(512, 64, 256),
    )  # fmt: skip


class Linear1x1(nn.Module):
    """One learned weight a channel, under the published name ``model.1``."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.model = nn.Sequential(nn.Identity(), nn.Conv2d(channels, 1, 1, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        """x: (b, c, h, w). Returns (b, 1, h, w)."""
        return cast(Tensor, self.model(x))


class LPIPS(nn.Module):
    """Learned perceptual distance; 0 for equal images, larger is further apart."""

    shift: Tensor
    spread: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.features = squeezenet_features()
        for i, channels in enumerate(TAP_CHANNELS):
            self.add_module(f"lin{i}", Linear1x1(channels))
        self.register_buffer(
            "shift", torch.tensor([-0.030, -0.088, -0.188]).view(1, 3, 1, 1), False
        )
        self.register_buffer("spread", torch.tensor([0.458, 0.448, 0.450]).view(1, 3, 1, 1), False)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """a, b: RGB (n, 3, h, w) in [-1, 1], at least 32 x 32. Returns one distance an image, (n,)."""
        x = (torch.cat((a, b)) - self.shift) / self.spread
        total = x.new_zeros(len(a), dtype=torch.float32)
        level = 0
        for index, layer in enumerate(self.features):
            x = layer(x)
            if index in TAPS:
                fa, fb = unit_channels(x.float()).chunk(2)
                weighted = self.get_submodule(f"lin{level}")((fa - fb) ** 2)
                total = total + weighted.mean((1, 2, 3))
                level += 1
        return total


def unit_channels(x: Tensor) -> Tensor:
    """Each position's channel vector at length one; 1e-10 as published."""
    return x / (x.square().sum(1, keepdim=True).sqrt() + 1e-10)

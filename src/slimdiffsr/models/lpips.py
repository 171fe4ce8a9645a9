"""LPIPS v0.1 over SqueezeNet 1.1, VGG16 or AlexNet (Zhang et al. 2018), without torchvision.

Weights come from a file with ``features.*`` (the backbone, under its published names) and
``lin{i}.model.1.weight`` (LPIPS).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import cast

import torch
from torch import Tensor, nn

from slimdiffsr.settings.config import LpipsNet

__all__ = [
    "LPIPS",
    "LPIPS_NETS",
    "from_package",
    "recognise",
    "vgg16_features",
]

# Indices of the layers that are compared, and their channels.
TAPS: dict[LpipsNet, dict[int, int]] = {
    "squeeze": {1: 64, 4: 128, 7: 256, 9: 384, 10: 384, 11: 512, 12: 512},
    "vgg": {3: 64, 8: 128, 15: 256, 22: 512, 29: 512},
    "alex": {1: 64, 4: 192, 7: 384, 9: 256, 11: 256},
}
LPIPS_NETS: tuple[LpipsNet, ...] = tuple(TAPS)


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


def vgg16_features() -> nn.Sequential:
    """The feature layers of VGG16 up to the last ReLU, by their published indices."""
    layers: list[nn.Module] = []
    inputs = 3
    for width, convolutions in ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)):
        if layers:
            layers.append(nn.MaxPool2d(2))
        for _ in range(convolutions):
            layers += [nn.Conv2d(inputs, width, 3, padding=1), nn.ReLU()]
            inputs = width
    return nn.Sequential(*layers)


def alexnet_features() -> nn.Sequential:
    """The feature layers of AlexNet up to the last ReLU, by their published indices."""
    return nn.Sequential(
        nn.Conv2d(3, 64, 11, stride=4, padding=2), nn.ReLU(), nn.MaxPool2d(3, stride=2),
        nn.Conv2d(64, 192, 5, padding=2), nn.ReLU(), nn.MaxPool2d(3, stride=2),
        nn.Conv2d(192, 384, 3, padding=1), nn.ReLU(),
        nn.Conv2d(384, 256, 3, padding=1), nn.ReLU(),
        nn.Conv2d(256, 256, 3, padding=1), nn.ReLU(),
    )  # fmt: skip


BACKBONES = {"squeeze": squeezenet_features, "vgg": vgg16_features, "alex": alexnet_features}


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

    def __init__(self, net: LpipsNet = "squeeze") -> None:
        super().__init__()
        self.net: LpipsNet = net
        self.features = BACKBONES[net]()
        for i, channels in enumerate(TAPS[net].values()):
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
            if index in TAPS[self.net]:
                fa, fb = unit_channels(x.float()).chunk(2)
                weighted = self.get_submodule(f"lin{level}")((fa - fb) ** 2)
                total = total + weighted.mean((1, 2, 3))
                level += 1
        return total


def unit_channels(x: Tensor) -> Tensor:
    """Each position's channel vector at length one; 1e-10 as published."""
    return x / (x.square().sum(1, keepdim=True).sqrt() + 1e-10)


def recognise(tensors: Mapping[str, Tensor]) -> LpipsNet | None:
    """Which network a file's tensors belong to, by their names; None for anything else."""
    for net in LPIPS_NETS:
        with torch.device("meta"):
            names = LPIPS(net).state_dict().keys()
        if tensors.keys() == names:
            return net
    return None


def from_package(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state dict of the ``lpips`` package's model under the names that are used here."""
    renamed = {re.sub(r"^net\.slice\d+\.", "features.", k): v for k, v in tensors.items()}
    # It registers each lin a second time in a list, and the constants of its input.
    return {k: v for k, v in renamed.items() if not k.startswith(("lins.", "scaling_layer."))}

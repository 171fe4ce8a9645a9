"""An adversary on the frozen features of LPIPS's network, and on pixels; it sees the input too."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm

from slimdiffsr.models.lpips import LPIPS, TAPS

__all__ = ["FeatureDiscriminator"]

DEPTHS = (1, 3, 6)  # of the levels that LPIPS compares


def _sn(inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> nn.Module:
    return spectral_norm(nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2))


class FeatureDiscriminator(nn.Module):
    """Multi-level heads (Sauer et al. 2021, Projected GANs), each given the enlarged input as well.

    One head looks at pixels, because the features begin with a stride and would not see a fine
    lattice. Only heads train, and only they are in the state dict.
    """

    def __init__(self, lpips: LPIPS, width: int) -> None:
        super().__init__()
        # In a list, so that the backbone is no submodule; on the device already.
        self._lpips = [lpips.requires_grad_(False).eval()]
        self.taps = [list(TAPS[lpips.net])[depth] for depth in DEPTHS]
        self.pixels = _head(6, width, strides=(1, 2, 2))
        self.heads = nn.ModuleList(
            _head(2 * TAPS[lpips.net][tap], 2 * width, strides=(1,)) for tap in self.taps
        )

    def forward(self, rgb: Tensor, rgb_lr: Tensor) -> list[Tensor]:
        """rgb: (b, 3, h, w), rgb_lr: (b, 3, h', w') that it shows, in [-1, 1]. Logits by level."""
        with torch.autocast(rgb.device.type, enabled=False):
            enlarged = F.interpolate(
                rgb_lr.float(), rgb.shape[-2:], mode="bicubic", align_corners=False
            )
        rgb = rgb.to(enlarged.dtype)
        logits = [self.pixels(torch.cat((rgb, enlarged), dim=1))]
        lpips = self._lpips[0]
        x = (torch.cat((rgb, enlarged)) - lpips.shift) / lpips.spread
        heads = dict(zip(self.taps, self.heads, strict=True))
        for index, layer in enumerate(lpips.features):
            x = layer(x)
            if index in heads:
                logits.append(heads[index](torch.cat(x.chunk(2), dim=1)))
        return logits


def _head(inputs: int, width: int, strides: tuple[int, ...]) -> nn.Sequential:
    layers: list[nn.Module] = [_sn(inputs, width, kernel=1 if len(strides) == 1 else 3)]
    for stride in strides:
        layers += [nn.LeakyReLU(0.2), _sn(width, width, stride=stride)]
    return nn.Sequential(*layers, nn.LeakyReLU(0.2), nn.Conv2d(width, 1, 3, padding=1))

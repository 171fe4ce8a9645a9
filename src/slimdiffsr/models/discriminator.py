"""Adversaries of Eq. 20. This one needs no pretrained weights."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm

__all__ = ["UNetDiscriminator"]


def _conv(inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> nn.Module:
    return spectral_norm(nn.Conv2d(inputs, outputs, kernel, stride, padding=1, bias=False))


class UNetDiscriminator(nn.Module):
    """U-Net with spectral norm, one logit a pixel (Wang et al. 2021, Real-ESRGAN, section 3.3)."""

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        w = width
        self.first = nn.Conv2d(3, w, 3, padding=1)
        self.downs = nn.ModuleList(_conv(w * m, w * m * 2, kernel=4, stride=2) for m in (1, 2, 4))
        self.ups = nn.ModuleList(_conv(w * m, w * m // 2) for m in (8, 4, 2))
        self.last = nn.Sequential(
            _conv(w, w),
            nn.LeakyReLU(0.2),
            _conv(w, w),
            nn.LeakyReLU(0.2),
            nn.Conv2d(w, 1, 3, padding=1),
        )

    def forward(self, rgb: Tensor) -> list[Tensor]:
        """rgb: (b, 3, h, w) in [-1, 1], h and w multiples of 8. Returns [(b, 1, h, w) logits]."""
        x = F.leaky_relu(self.first(rgb), 0.2)
        skips = []
        for down in self.downs:
            skips.append(x)
            x = F.leaky_relu(down(x), 0.2)
        for up in self.ups:
            x = F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)
            x = F.leaky_relu(up(x), 0.2) + skips.pop()
        return [self.last(x)]

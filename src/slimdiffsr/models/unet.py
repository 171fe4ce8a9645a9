"""The student's two-level UNet (Fig. 7, MS 8.1): features in, features out.

What semantic-aware pruning leaves of Stable Diffusion's UNet: the two shallow levels, one ResBlock
in place of everything deeper, no time embedding, no text.
"""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, cat, nn
from torch.nn import functional as F

from slimdiffsr.config import UNetConfig
from slimdiffsr.models.blocks import Downsample, ResBlock, Transformer, Upsample, make_norm

__all__ = ["SlimUNet"]


class DownBlock(nn.Module):
    """``layers`` times (ResBlock, Transformer), each output a skip; then perhaps a halving."""

    def __init__(
        self, inputs: int, width: int, config: UNetConfig, window: int | None, halve: bool
    ) -> None:
        super().__init__()
        widths = [inputs] + [width] * config.layers
        self.resnets = nn.ModuleList(ResBlock(i, o, config, window) for i, o in pairwise(widths))
        self.attentions = nn.ModuleList(
            Transformer(width, config, window) for _ in range(config.layers)
        )
        self.downsampler = Downsample(width) if halve else None

    def forward(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """x: (b, inputs, h, w). Returns the last feature and the skips, in order of creation."""
        skips = []
        for resnet, attention in zip(self.resnets, self.attentions, strict=True):
            x = attention(resnet(x))
            skips.append(x)
        if self.downsampler is not None:
            x = self.downsampler(x)
            skips.append(x)
        return x, skips


class UpBlock(nn.Module):
    """``layers + 1`` times (join a skip, ResBlock, Transformer); then perhaps a doubling."""

    def __init__(
        self,
        inputs: int,
        skips: list[int],
        width: int,
        config: UNetConfig,
        window: int | None,
        double: bool,
    ) -> None:
        super().__init__()
        firsts = [inputs] + [width] * (len(skips) - 1)
        self.resnets = nn.ModuleList(
            ResBlock(first + skip, width, config, window)
            for first, skip in zip(firsts, skips, strict=True)
        )
        self.attentions = nn.ModuleList(Transformer(width, config, window) for _ in skips)
        self.upsampler = Upsample(width) if double else None

    def forward(self, x: Tensor, skips: list[Tensor]) -> Tensor:
        """x: (b, inputs, h, w); skips are taken from the end of the list."""
        for resnet, attention in zip(self.resnets, self.attentions, strict=True):
            x = attention(resnet(cat((x, skips.pop()), dim=1)))
        return x if self.upsampler is None else self.upsampler(x)


class SlimUNet(nn.Module):
    """Two levels, skips as in Stable Diffusion; widths, norms and pooling by config."""

    def __init__(self, config: UNetConfig) -> None:
        super().__init__()
        outer, inner = config.widths
        window = config.window_px
        half = None if window is None else window // 2
        self.down_blocks = nn.ModuleList(
            [
                DownBlock(outer, outer, config, window, halve=True),
                DownBlock(outer, inner, config, half, halve=False),
            ]
        )
        self.mid_block = ResBlock(inner, config.mid_width, config, half)
        inner_skips = [inner] * config.layers + [outer]
        outer_skips = [outer] * (config.layers + 1)
        self.up_blocks = nn.ModuleList(
            [
                UpBlock(config.mid_width, inner_skips, inner, config, half, double=True),
                UpBlock(inner, outer_skips, outer, config, window, double=False),
            ]
        )
        self.norm_out = make_norm(config, outer, eps=1e-5)

    def forward(self, x: Tensor) -> Tensor:
        """x: (b, c0, h, w), h and w even. Returns the same shape, normalised and activated."""
        skips = [x]
        for down in self.down_blocks:
            x, made = down(x)
            skips += made
        x = self.mid_block(x)
        for up in self.up_blocks:
            x = up(x, skips)
        out: Tensor = F.silu(self.norm_out(x))
        return out

"""A student for laptops without statistics and without a coarse grid's marks.

Depthwise convolutions see far, pointwise ones mix; no norm, gate or window, so that a plain surface
stays plain: norms there amplify its noise, and a decoder that is fed at half the input's grid paints
that grid's period on it. Coarser levels only add context; all detail is made on the input's own
grid or finer.
"""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn
from torch.nn import functional as F

from slimdiffsr.settings.config import ModelConfig

__all__ = ["LeanBlock", "LeanStudent"]


class LeanBlock(nn.Module):
    """Depthwise k x k, 1x1 up, SiLU, 1x1 down, added to the input (after Liu et al. 2022, no norm)."""

    def __init__(self, width: int, kernel: int, mult: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(width, width, kernel, padding=kernel // 2, groups=width)
        self.expand = nn.Conv2d(width, mult * width, 1)
        self.reduce = nn.Conv2d(mult * width, width, 1)
        with_small_gain(self.reduce)

    def forward(self, x: Tensor) -> Tensor:
        """x: (b, c, h, w). Returns the same shape."""
        out: Tensor = x + self.reduce(F.silu(self.expand(self.depthwise(x))))
        return out


def with_small_gain(conv: nn.Conv2d, gain: float = 0.3) -> None:
    """Scale fresh weights down, in place: without norms each block begins near the identity."""
    conv.weight.data.mul_(gain)


class LeanStudent(nn.Module):
    """Blocks on the input's grid, around coarser ones; enlarged by interpolation and convolution.

    Adds its result to a bilinear enlargement. ``depths[i]`` blocks of level i stand before and
    after the coarser level.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        lean = config.lean
        widths = lean.widths
        self.stem = nn.Conv2d(3, widths[0], 3, padding=1)

        def blocks(level: int) -> nn.Sequential:
            one = (
                LeanBlock(widths[level], lean.kernel, lean.mult) for _ in range(lean.depths[level])
            )
            return nn.Sequential(*one)

        levels = range(len(widths))
        self.before = nn.ModuleList(blocks(level) for level in levels)
        self.after = nn.ModuleList(blocks(level) for level in levels)
        self.downs = nn.ModuleList(nn.Conv2d(i, o, 3, 2, 1) for i, o in pairwise(widths))
        self.ups = nn.ModuleList(nn.Conv2d(o, i, 1) for i, o in pairwise(widths))
        inputs = (lean.decoder_widths[0], *lean.decoder_widths[:-1])
        self.merge_out = nn.Conv2d(widths[0], inputs[0], 1)
        self.doublings = nn.ModuleList(
            nn.Conv2d(i, o, 3, padding=1) for i, o in zip(inputs, lean.decoder_widths, strict=True)
        )
        self.out = nn.Conv2d(lean.decoder_widths[-1], 3, 3, padding=1)
        with_small_gain(self.out)

    def forward(self, rgb_lr: Tensor) -> Tensor:
        """rgb_lr: (b, 3, h, w) in [-1, 1]. Returns (b, 3, scale*h, scale*w), about [-1, 1].

        h and w must be multiples of 2 ** (levels - 1).
        """
        x = F.silu(self.merge_out(self.features(self.stem(rgb_lr))))
        for conv in self.doublings:
            x = F.silu(conv(double(x)))
        base = F.interpolate(
            rgb_lr, scale_factor=float(self.config.scale), mode="bilinear", align_corners=False
        )
        out: Tensor = base + self.out(x)
        return out

    def features(self, x: Tensor) -> Tensor:
        """(b, widths[0], h, w) on the input's grid, the same shape back."""
        skips = []
        for level, down in enumerate(self.downs):
            x = self.before[level](x)
            skips.append(x)
            x = down(x)
        x = self.after[-1](self.before[-1](x))
        for level in reversed(range(len(skips))):
            x = self.after[level](skips.pop() + double(self.ups[level](x)))
        return x


def double(x: Tensor) -> Tensor:
    """Bilinear enlargement by two: (b, c, h, w) -> (b, c, 2h, 2w)."""
    return F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)

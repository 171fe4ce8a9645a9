"""The parts of Stable Diffusion's UNet that the student keeps, around the slim blocks."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from slimdiffsr.config import UNetConfig
from slimdiffsr.models.slim import DSC, FSC, QGAM

__all__ = ["Downsample", "FeedForward", "ResBlock", "Transformer", "Upsample", "make_norm"]


class PixelNorm(nn.LayerNorm):
    """Layer norm over the channels at each position of (b, c, h, w): no statistics of the tile."""

    def forward(self, x: Tensor) -> Tensor:
        """x: (b, c, h, w). Returns the same shape."""
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def make_norm(config: UNetConfig, channels: int, eps: float) -> nn.Module:
    """The norm before a convolution: group norm as in the paper, or PixelNorm."""
    if config.norm == "pixel":
        return PixelNorm(channels, eps=eps)
    return nn.GroupNorm(config.groups, channels, eps=eps)


class ResBlock(nn.Module):
    """Norm, SiLU, FSC, norm, SiLU, DSC, plus a shortcut (MS 8.2)."""

    def __init__(self, inputs: int, outputs: int, config: UNetConfig, window: int | None) -> None:
        super().__init__()
        self.norm1 = make_norm(config, inputs, eps=1e-5)
        self.conv1 = FSC(inputs, outputs, window)
        self.norm2 = make_norm(config, outputs, eps=1e-5)
        self.conv2 = DSC(outputs, window)
        self.conv_shortcut = (
            nn.Identity() if inputs == outputs else nn.Conv2d(inputs, outputs, kernel_size=1)
        )

    def forward(self, x: Tensor) -> Tensor:
        """x: (b, inputs, h, w). Returns (b, outputs, h, w)."""
        y = self.conv1(F.silu(self.norm1(x)))
        y = self.conv2(F.silu(self.norm2(y)))
        out: Tensor = self.conv_shortcut(x) + y
        return out


class FeedForward(nn.Module):
    """GEGLU (Shazeer 2020) and a linear layer."""

    def __init__(self, width: int, mult: int) -> None:
        super().__init__()
        self.proj = nn.Linear(width, 2 * mult * width)
        self.out = nn.Linear(mult * width, width)

    def forward(self, tokens: Tensor) -> Tensor:
        """tokens: (..., c). Returns the same shape."""
        value, gate = self.proj(tokens).chunk(2, dim=-1)
        out: Tensor = self.out(value * F.gelu(gate))
        return out


class Transformer(nn.Module):
    """Stable Diffusion's spatial transformer with QGAM in place of attention (MS 8.2)."""

    def __init__(self, width: int, config: UNetConfig, window: int | None) -> None:
        super().__init__()
        self.norm = make_norm(config, width, eps=1e-6)
        self.proj_in = nn.Linear(width, width)
        self.norm1 = nn.LayerNorm(width)
        self.attention = QGAM(width, config.queries, config.squeeze, window)
        self.norm3 = nn.LayerNorm(width)  # norm2 belonged to the cross-attention, now gone
        self.ff = FeedForward(width, config.ff_mult)
        self.proj_out = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """x: (b, c, h, w). Returns the same shape."""
        tokens = self.proj_in(self.norm(x).permute(0, 2, 3, 1))
        tokens = tokens + self.attention(self.norm1(tokens))
        tokens = tokens + self.ff(self.norm3(tokens))
        out: Tensor = x + self.proj_out(tokens).permute(0, 3, 1, 2)
        return out


class Downsample(nn.Module):
    """Stride-2 convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """x: (b, c, h, w). Returns (b, c, h/2, w/2)."""
        out: Tensor = self.conv(x)
        return out


class Upsample(nn.Module):
    """Nearest doubling and a convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """x: (b, c, h, w). Returns (b, c, 2h, 2w)."""
        out: Tensor = self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))
        return out

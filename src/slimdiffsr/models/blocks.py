"""The parts of a UNet, as in Stable Diffusion; the slim blocks stand in by name."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from slimdiffsr.models.slim import DSC, FSC, QGAM
from slimdiffsr.models.spec import UNetSpec

__all__ = [
    "Attention",
    "Downsample",
    "FeedForward",
    "GroupNorm",
    "ResBlock",
    "TimeEmbedding",
    "Transformer",
    "Upsample",
    "embed_timestep",
    "make_norm",
    "norm_groups",
]


class PixelNorm(nn.LayerNorm):
    """Layer norm over the channels at each position of (b, c, h, w): no statistics of the tile."""

    def forward(self, x: Tensor) -> Tensor:
        """x: (b, c, h, w). Returns the same shape."""
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class GroupNorm(nn.GroupNorm):
    """Group norm that stays in channels-last memory where a network is only run on a card.

    There PyTorch's own (2.13) copies to the other layout and leaves the result in it, so that the
    next convolution copies back: with bfloat16 that costs more than the norm. What inductor makes of
    PyTorch's own is fused, and stays.
    """

    def forward(self, x: Tensor) -> Tensor:
        """x: (b, c, h, w). Returns the same shape."""
        if not x.is_cuda or torch.is_grad_enabled() or torch.compiler.is_compiling():
            return super().forward(x)
        return norm_groups(x, self.num_groups, self.weight, self.bias, self.eps)


def norm_groups(x: Tensor, groups: int, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    """Group norm (Wu and He 2018) from sums in float32, in one pass to read and one to write.

    x: (b, c, h, w), in channels-last memory where that is to be kept. Returns the same shape.
    """
    b, c, h, w = x.shape
    grouped = x.permute(0, 2, 3, 1).reshape(b, h * w, groups, c // groups)
    count = h * w * (c // groups)
    mean = grouped.sum(dim=(1, 3), dtype=torch.float32) / count
    square = torch.linalg.vector_norm(grouped, dim=(1, 3), dtype=torch.float32).square() / count
    spread = (square - mean.square()).clamp_min(0).add(eps).rsqrt()
    scale = spread.repeat_interleave(c // groups, dim=1) * weight
    shift = bias - mean.repeat_interleave(c // groups, dim=1) * scale
    # Computed in float32 and rounded once, as by PyTorch's own.
    return torch.addcmul(
        shift[:, :, None, None], x, scale[:, :, None, None], out=torch.empty_like(x)
    )


def make_norm(spec: UNetSpec, channels: int, eps: float) -> nn.Module:
    """The norm before a convolution: group norm as in the paper, or PixelNorm."""
    if spec.norm == "pixel":
        return PixelNorm(channels, eps=eps)
    return GroupNorm(spec.groups, channels, eps=eps)


def embed_timestep(timestep: Tensor, width: int) -> Tensor:
    """Sinusoids of a possibly fractional timestep: cosines, then sines, of falling frequency.

    timestep: any shape. Returns (*shape, width), float32: near t = 1000 a rounding step of bfloat16
    is 4 timesteps, most of the fastest sinusoid's turn.
    """
    half = width // 2
    exponents = torch.arange(half, dtype=torch.float32, device=timestep.device) / half
    angles = timestep.float()[..., None] * torch.exp(-math.log(10000) * exponents)
    return torch.cat((angles.cos(), angles.sin()), dim=-1)


class TimeEmbedding(nn.Module):
    """The time MLP of Stable Diffusion, at every position of a timestep map."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.linear_1 = nn.Linear(inputs, width)
        self.linear_2 = nn.Linear(width, width)

    def forward(self, timestep: Tensor) -> Tensor:
        """timestep: (b, 1, h, w), h = w = 1 for one an image. Returns (b, h, w, c)."""
        sinusoids = embed_timestep(timestep[:, 0], self.linear_1.in_features)
        hidden = F.silu(self.linear_1(sinusoids.to(self.linear_1.weight.dtype)))
        out: Tensor = self.linear_2(hidden)
        return out


class ResBlock(nn.Module):
    """Norm, SiLU, conv1, time, norm, SiLU, conv2, plus a shortcut (MS 8.2)."""

    def __init__(self, inputs: int, outputs: int, spec: UNetSpec, window: int | None) -> None:
        super().__init__()
        self.norm1 = make_norm(spec, inputs, eps=1e-5)
        self.conv1 = (
            FSC(inputs, outputs, window) if spec.conv1 == "fsc" else _conv3x3(inputs, outputs)
        )
        self.time_emb_proj = nn.Linear(spec.time_width, outputs) if spec.time_width else None
        self.norm2 = make_norm(spec, outputs, eps=1e-5)
        self.conv2 = DSC(outputs, window) if spec.conv2 == "dsc" else _conv3x3(outputs, outputs)
        self.conv_shortcut = (
            nn.Identity() if inputs == outputs else nn.Conv2d(inputs, outputs, kernel_size=1)
        )

    def forward(self, x: Tensor, time: Tensor | None = None) -> Tensor:
        """x: (b, inputs, h, w); time: (b, h or 1, w or 1, c). Returns (b, outputs, h, w)."""
        y = self.conv1(F.silu(self.norm1(x)))
        if self.time_emb_proj is not None and time is not None:
            y = y + self.time_emb_proj(F.silu(time)).permute(0, 3, 1, 2)
        y = self.conv2(F.silu(self.norm2(y)))
        out: Tensor = self.conv_shortcut(x) + y
        return out


def _conv3x3(inputs: int, outputs: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, padding=1)


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


class Attention(nn.Module):
    """Multi-head attention (Vaswani et al. 2017), to the tokens themselves or to a context."""

    def __init__(self, width: int, context_width: int, head_width: int) -> None:
        super().__init__()
        self.head_width = head_width
        self.to_q = nn.Linear(width, width, bias=False)
        self.to_k = nn.Linear(context_width, width, bias=False)
        self.to_v = nn.Linear(context_width, width, bias=False)
        self.out = nn.Linear(width, width)

    def forward(self, tokens: Tensor, context: Tensor | None = None) -> Tensor:
        """tokens: (b, h, w, c); context: (b, n, d) or None. Returns the shape of tokens."""
        x = tokens.flatten(1, 2)
        context = x if context is None else context
        y = F.scaled_dot_product_attention(
            self._heads(self.to_q(x)),
            self._heads(self.to_k(context)),
            self._heads(self.to_v(context)),
        )
        out: Tensor = self.out(y.transpose(1, 2).flatten(2)).view(tokens.shape)
        return out

    def _heads(self, x: Tensor) -> Tensor:
        b, n, c = x.shape
        return x.reshape(b, n, c // self.head_width, self.head_width).transpose(1, 2)


class Transformer(nn.Module):
    """Stable Diffusion's spatial transformer; its attention may be QGAM (MS 8.2)."""

    def __init__(self, width: int, spec: UNetSpec, window: int | None) -> None:
        super().__init__()
        self.norm = make_norm(spec, width, eps=1e-6)
        self.proj_in = nn.Linear(width, width)
        self.norm1 = nn.LayerNorm(width)
        self.attention = (
            QGAM(width, spec.queries, spec.squeeze, window)
            if spec.attention == "qgam"
            else Attention(width, width, spec.head_width)
        )
        text = spec.attention == "text"
        self.norm2 = nn.LayerNorm(width) if text else None
        self.cross = Attention(width, spec.text_width, spec.head_width) if text else None
        self.norm3 = nn.LayerNorm(width)
        self.ff = FeedForward(width, spec.ff_mult)
        self.proj_out = nn.Linear(width, width)

    def forward(self, x: Tensor, text: Tensor | None = None) -> Tensor:
        """x: (b, c, h, w); text: (b, n, d), the prompt's embedding. Returns the shape of x."""
        tokens = self.proj_in(self.norm(x).permute(0, 2, 3, 1))
        tokens = tokens + self.attention(self.norm1(tokens))
        if self.cross is not None and self.norm2 is not None:
            tokens = tokens + self.cross(self.norm2(tokens), text)
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

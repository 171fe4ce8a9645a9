"""One UNet (Fig. 7, MS 8.1): Stable Diffusion's, and the slim student's, by its spec.

Module names are diffusers' where the part is Stable Diffusion's, but for the renames that
``sources`` lists.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import TypeAlias

import torch
from torch import Tensor, cat, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from slimdiffsr.errors import ConfigError
from slimdiffsr.models.blocks import (
    Downsample,
    ResBlock,
    TimeEmbedding,
    Transformer,
    Upsample,
    make_norm,
)
from slimdiffsr.models.spec import UNetSpec

__all__ = ["BlockOutputs", "UNet"]

Run: TypeAlias = Callable[..., Tensor]


@dataclass(frozen=True, slots=True)
class BlockOutputs:
    """What the two finest levels make on the way, for distillation (MS 10), and the last feature.

    ``matched``: outputs of the last attention of down level 0, down level 1, up level 1 and up
    level 0, before their samplers; ``mid``: what enters up level 1; ``last``: what the head reads.
    """

    matched: tuple[Tensor, Tensor, Tensor, Tensor]
    mid: Tensor
    last: Tensor

    def compared(self, *, mid: bool) -> tuple[Tensor, ...]:
        """The four matched outputs, with ``mid`` as a fifth where asked for."""
        return (*self.matched, self.mid) if mid else self.matched


def call(block: nn.Module, *inputs: Tensor | None) -> Tensor:
    """Run a block and keep what its gradient needs."""
    out: Tensor = block(*inputs)
    return out


def recompute(block: nn.Module, *inputs: Tensor | None) -> Tensor:
    """Run a block and forget its insides; the backward pass runs it again (Chen et al. 2016)."""
    out: Tensor = checkpoint(block, *inputs, use_reentrant=False, preserve_rng_state=False)
    return out


class DownBlock(nn.Module):
    """``layers`` times (ResBlock, Transformer), each output a skip; then perhaps a halving."""

    def __init__(
        self, inputs: int, width: int, spec: UNetSpec, level: int, *, attend: bool, halve: bool
    ) -> None:
        super().__init__()
        window = spec.window(level)
        widths = [inputs] + [width] * spec.layers
        self.resnets = nn.ModuleList(ResBlock(i, o, spec, window) for i, o in pairwise(widths))
        self.attentions = nn.ModuleList(
            Transformer(width, spec, window) for _ in range(spec.layers if attend else 0)
        )
        self.downsampler = Downsample(width) if halve else None

    def forward(
        self, x: Tensor, time: Tensor | None, text: Tensor | None, run: Run
    ) -> tuple[Tensor, list[Tensor]]:
        """x: (b, inputs, h, w). Returns the feature before the halving, and the skips in order."""
        skips = []
        for i, resnet in enumerate(self.resnets):
            x = run(resnet, x, time)
            if self.attentions:
                x = run(self.attentions[i], x, text)
            skips.append(x)
        if self.downsampler is not None:
            skips.append(self.downsampler(x))
        return x, skips


class UpBlock(nn.Module):
    """``layers + 1`` times (join a skip, ResBlock, Transformer); then perhaps a doubling."""

    def __init__(
        self,
        inputs: int,
        skips: list[int],
        width: int,
        spec: UNetSpec,
        level: int,
        *,
        attend: bool,
        double: bool,
    ) -> None:
        super().__init__()
        window = spec.window(level)
        firsts = [inputs] + [width] * (len(skips) - 1)
        self.resnets = nn.ModuleList(
            ResBlock(first + skip, width, spec, window)
            for first, skip in zip(firsts, skips, strict=True)
        )
        self.attentions = nn.ModuleList(
            Transformer(width, spec, window) for _ in (skips if attend else ())
        )
        self.upsampler = Upsample(width) if double else None

    def forward(
        self,
        x: Tensor,
        skips: list[Tensor],
        time: Tensor | None,
        text: Tensor | None,
        run: Run,
    ) -> tuple[Tensor, Tensor]:
        """Skips are taken from the end of the list. Returns the features before and after doubling."""
        for i, resnet in enumerate(self.resnets):
            x = run(resnet, cat((x, skips.pop()), dim=1), time)
            if self.attentions:
                x = run(self.attentions[i], x, text)
        return x, x if self.upsampler is None else self.upsampler(x)


class MidBlock(nn.Module):
    """ResBlock, Transformer, ResBlock at the deepest level."""

    def __init__(self, width: int, spec: UNetSpec, level: int) -> None:
        super().__init__()
        window = spec.window(level)
        self.resnets = nn.ModuleList(ResBlock(width, width, spec, window) for _ in range(2))
        self.attentions = nn.ModuleList([Transformer(width, spec, window)])

    def forward(self, x: Tensor, time: Tensor | None, text: Tensor | None, run: Run) -> Tensor:
        """x: (b, c, h, w). Returns the same shape."""
        x = run(self.resnets[0], x, time)
        x = run(self.attentions[0], x, text)
        return run(self.resnets[1], x, time)


class UNet(nn.Module):
    """Encoder, middle, decoder and skips, as in Stable Diffusion; which parts, the spec says.

    ``checkpointing`` trades time for memory in training: blocks are run again on the way back.
    """

    def __init__(self, spec: UNetSpec) -> None:
        super().__init__()
        self.spec = spec
        self.checkpointing = False
        widths, deepest = spec.widths, len(spec.widths) - 1
        attended = len(widths) - spec.plain_levels
        self.conv_in = nn.Conv2d(spec.latents, widths[0], 3, padding=1) if spec.latents else None
        self.time_embedding = TimeEmbedding(widths[0], spec.time_width) if spec.time_width else None
        self.down_blocks = nn.ModuleList()
        skips, inputs = [widths[0]], widths[0]
        for level, width in enumerate(widths):
            halve = level < deepest
            self.down_blocks.append(
                DownBlock(inputs, width, spec, level, attend=level < attended, halve=halve)
            )
            skips += [width] * (spec.layers + halve)
            inputs = width
        self.mid_block = (
            ResBlock(inputs, spec.mid_width, spec, spec.window(deepest))
            if spec.mid == "res"
            else MidBlock(inputs, spec, deepest)
        )
        self.up_blocks = nn.ModuleList()
        inputs = spec.mid_width
        for level in range(deepest, -1, -1):
            taken = [skips.pop() for _ in range(spec.layers + 1)]
            width, attend, double = widths[level], level < attended, level > 0
            self.up_blocks.append(
                UpBlock(inputs, taken, width, spec, level, attend=attend, double=double)
            )
            inputs = width
        self.norm_out = make_norm(spec, widths[0], eps=1e-5)
        self.conv_out = nn.Conv2d(widths[0], spec.latents, 3, padding=1) if spec.latents else None

    def forward(
        self, x: Tensor, timestep: Tensor | None = None, text: Tensor | None = None
    ) -> Tensor:
        """Run the whole network.

        x: (b, c, h, w), c being ``spec.latents`` or the finest width; sides are multiples of
        2 ** (levels - 1). timestep, if the network knows one: (b,), one an image, or (b, 1, h', w'),
        a map; fractions are allowed. text, if it reads one: (b, tokens, text_width).
        Returns the shape of x: latents, or features normalised and activated.
        """
        return self.head(self.blocks(x, timestep, text).last)

    def blocks(
        self, x: Tensor, timestep: Tensor | None = None, text: Tensor | None = None
    ) -> BlockOutputs:
        """All but the head, with what distillation compares. Arguments as for ``forward``."""
        self._check(timestep, text)
        run = recompute if self.checkpointing and torch.is_grad_enabled() else call
        if self.conv_in is not None:
            x = self.conv_in(x)
        skips, matched, times = [x], [], []
        for down in self.down_blocks:
            times.append(self._time_at(timestep, skips[-1]))
            x, made = down(skips[-1], times[-1], text, run)
            skips += made
            matched.append(x)
        x = (
            run(self.mid_block, x, times[-1])
            if isinstance(self.mid_block, ResBlock)
            else self.mid_block(x, times[-1], text, run)
        )
        entered = []
        for up in self.up_blocks:
            entered.append(x)
            before, x = up(x, skips, times.pop(), text, run)
            matched.append(before)
        down0, down1, up1, up0 = *matched[:2], *matched[-2:]
        return BlockOutputs((down0, down1, up1, up0), mid=entered[-2], last=x)

    def head(self, last: Tensor) -> Tensor:
        """Norm, SiLU and, where the network makes latents, the last convolution."""
        out: Tensor = F.silu(self.norm_out(last))
        return out if self.conv_out is None else self.conv_out(out)

    def _time_at(self, timestep: Tensor | None, x: Tensor) -> Tensor | None:
        # Timesteps are averaged, not embeddings: the fastest sinusoid turns once in 6.3 steps, so
        # averaging would wash it out (MS 5).
        if self.time_embedding is None or timestep is None:
            return None
        if timestep.dim() < 4:
            timestep = timestep.reshape(-1, 1, 1, 1)
        if timestep.shape[-2:] != (1, 1):
            timestep = F.interpolate(timestep.float(), x.shape[-2:], mode="area")
        out: Tensor = self.time_embedding(timestep)
        return out

    def _check(self, timestep: Tensor | None, text: Tensor | None) -> None:
        for name, given, wanted in (
            ("timestep", timestep, self.spec.time_width > 0),
            ("text", text, self.spec.attention == "text"),
        ):
            if (given is None) == wanted:
                came = "none came" if given is None else "one came"
                needs = "needs" if wanted else "takes no"
                raise ConfigError(f"this UNet {needs} {name}, but {came}")

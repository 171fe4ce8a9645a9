"""Parameters and MACs, counted on the meta device: no memory, no time, any size."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from slimdiffsr.bench.diffusion import StableDiffusion
from slimdiffsr.bench.rows import Row
from slimdiffsr.models.student import enlarge_bicubic

__all__ = ["Cost", "Macs", "Part", "count_macs", "count_row", "diffusion_parts"]

LAYERS = ("convolution", "addmm", "mm")  # what counters that hook on modules see


class Macs(NamedTuple):
    """Multiply-accumulates: of all convolutions and matrix products, and of the layers alone.

    ``layers`` leaves out products of two activations (attention), as module-hook counters do.
    """

    total: float
    layers: float

    def times(self, n: int) -> Macs:
        """Of n runs."""
        return Macs(n * self.total, n * self.layers)

    def plus(self, *others: Macs) -> Macs:
        """Of runs one after the other."""
        everything = (self, *others)
        return Macs(sum(m.total for m in everything), sum(m.layers for m in everything))


class Part(NamedTuple):
    """Parameters and MACs of a part of Stable Diffusion."""

    parameters: int
    macs: Macs


class Cost(NamedTuple):
    """What a row costs for one image, whatever runs it."""

    parameters_used: int
    parameters_paper: int | None
    macs: Macs


def count_macs(run: Callable[[], object]) -> Macs:
    """MACs of what ``run`` does; half of torch's count of floating point operations."""
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        run()
    by_operator = {str(op): flops for op, flops in counter.get_flop_counts()["Global"].items()}
    layers = sum(flops for op, flops in by_operator.items() if op.split(".")[-1] in LAYERS)
    return Macs(sum(by_operator.values()) / 2, layers / 2)


def count_row(row: Row, scale: int, out_px: int) -> Cost:
    """Counts of a row for one image of out_px x out_px output pixels."""
    with torch.device("meta"):
        module = row.build(scale).to("meta")
    used = sum(p.numel() for p in module.parameters())
    if isinstance(module, StableDiffusion):
        parts = _parts(module, out_px)
        macs = parts["encoder"].macs.plus(
            parts["UNet"].macs.times(row.steps), parts["decoder"].macs
        )
    else:
        rgb_lr = torch.zeros(1, 3, out_px // scale, out_px // scale, device="meta")
        macs = count_macs(lambda: module(rgb_lr))
    return Cost(used, row.paper_count(module), macs)


def diffusion_parts(out_px: int = 512) -> dict[str, Part]:
    """Encoder, UNet and decoder of one-step Stable Diffusion 2.1: what Table 1 is about."""
    with torch.device("meta"):
        model = StableDiffusion(4)
    return _parts(model, out_px)


def _parts(model: StableDiffusion, out_px: int) -> dict[str, Part]:
    vae = model.codec.vae
    rgb = torch.zeros(1, 3, out_px // 4, out_px // 4, device="meta")
    z = torch.zeros(1, 4, out_px // 8, out_px // 8, device="meta")

    def part(modules: list[nn.Module | None], run: Callable[[], Tensor]) -> Part:
        there = nn.ModuleList(m for m in modules if m is not None)
        return Part(sum(p.numel() for p in there.parameters()), count_macs(run))

    return {
        "encoder": part(
            [vae.encoder, vae.quant_conv], lambda: model.codec.encode(enlarge_bicubic(rgb, 4))
        ),
        "UNet": part([model.unet], lambda: model.step(z)),
        "decoder": part([vae.decoder, vae.post_quant_conv], lambda: model.codec.decode(z)),
    }

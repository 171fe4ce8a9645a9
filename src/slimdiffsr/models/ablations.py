"""The students of Tables 5 and 6: which UNet and which autoencoder, and how the paper counts."""

from __future__ import annotations

import dataclasses
from typing import Literal, NamedTuple

from torch import Tensor, nn

from slimdiffsr.config import ModelConfig, UNetConfig
from slimdiffsr.errors import ConfigError
from slimdiffsr.models.sd_vae import LATENTS, KLCodec, Taesd
from slimdiffsr.models.spec import UNetSpec, student_spec
from slimdiffsr.models.student import BaseStudent, count_parameters, enlarge_bicubic
from slimdiffsr.models.unet import BlockOutputs, UNet

__all__ = ["Ablation", "Counts", "LatentStudent", "ablation_spec", "build_ablation", "count"]

Ablation = Literal["ours", "taesd", "kl", "no_dsc", "no_fsc", "no_qgam", "no_sap"]


class LatentStudent(nn.Module):
    """A student without convolution fusion: all of an autoencoder around conv_in ... conv_out."""

    def __init__(self, config: ModelConfig, spec: UNetSpec, codec: Taesd | KLCodec) -> None:
        super().__init__()
        self.config = config
        self.codec = codec
        self.unet = UNet(spec)

    def forward(self, rgb_lr: Tensor) -> Tensor:
        """rgb_lr: (b, 3, h, w) in [-1, 1]. Returns (b, 3, scale*h, scale*w), about [-1, 1]."""
        return self.restore(enlarge_bicubic(rgb_lr, self.config.scale))

    def restore(self, enlarged: Tensor) -> Tensor:
        """enlarged: (b, 3, H, W) in [-1, 1], already of the output's size. Same shape back."""
        return self.restore_with_blocks(enlarged)[0]

    def restore_with_blocks(self, enlarged: Tensor) -> tuple[Tensor, BlockOutputs]:
        """As ``restore``, and what distillation compares with the teacher's."""
        blocks = self.unet.blocks(self.codec.encode(enlarged))
        return self.codec.decode(self.unet.head(blocks.last)), blocks


def ablation_spec(name: Ablation, config: UNetConfig) -> UNetSpec:
    """The UNet of a row. ``no_sap`` keeps all four levels at three quarters of the width."""
    ours = student_spec(config)
    if name == "no_dsc":
        return dataclasses.replace(ours, conv2="conv")
    if name == "no_fsc":
        return dataclasses.replace(ours, conv1="conv")
    if name == "no_qgam":
        return dataclasses.replace(ours, attention="self")
    if name in ("taesd", "kl"):
        return dataclasses.replace(ours, latents=LATENTS)
    if name == "no_sap":
        *widths, deepest = (
            3 * w // 4 for w in (*config.widths, config.mid_width, config.mid_width)
        )
        return dataclasses.replace(
            ours,
            widths=(*widths, deepest),
            plain_levels=1,
            mid="attention",
            mid_width=deepest,
            groups=3 * config.groups // 4,  # as many channels a group as before
        )
    return ours


def build_ablation(
    name: Ablation, config: ModelConfig, kl: KLCodec | None = None
) -> BaseStudent | LatentStudent:
    """The student of a row with fresh weights; ``kl`` only for the row of that name.

    Sides of the output must be multiples of 16, for ``no_sap`` of 64.
    """
    if config.kind != "base":
        raise ConfigError(f"ablations are of the base student, got kind={config.kind!r}")
    if (kl is not None) != (name == "kl"):
        raise ConfigError("the row 'kl', and no other, needs Stable Diffusion's autoencoder")
    spec = ablation_spec(name, config.unet)
    if kl is not None:
        return LatentStudent(config, spec, kl)
    if name == "taesd":
        return LatentStudent(config, spec, Taesd(affine=config.taesd_affine))
    return BaseStudent(config, spec)


class Counts(NamedTuple):
    """Parameters that run; the same with what the release registers and never runs; the paper's."""

    used: int
    registered: int
    paper: int


def count(name: Ablation, student: BaseStudent | LatentStudent) -> Counts:
    """Parameter counts of a row (MS 9).

    ``registered`` adds the time MLP to all, and conv_in, conv_out and two convolutions of TAESD to
    the fused ones. The paper's number differs for ``no_qgam`` alone: it holds the idle
    cross-attention and leaves out the two fused convolutions.
    """
    spec = student.unet.spec
    used = count_parameters(student)
    registered = used + _time_mlp(spec.widths[0])
    if isinstance(student, LatentStudent):
        return Counts(used, registered, registered)
    registered += _conv3x3(64, LATENTS) + _conv3x3(LATENTS, 64)
    ends = 3 if name == "no_sap" else LATENTS  # that variant's idle ends are built for RGB
    registered += _conv3x3(ends, spec.widths[0]) + _conv3x3(spec.widths[0], ends)
    if name != "no_qgam":
        return Counts(used, registered, registered)
    merges = count_parameters(student.merge_in) + count_parameters(student.merge_out)
    return Counts(used, registered, registered + _cross_attention(spec) - merges)


def _conv3x3(inputs: int, outputs: int) -> int:
    return 9 * inputs * outputs + outputs


def _time_mlp(outer: int) -> int:
    width = 4 * outer
    return (outer + 1) * width + (width + 1) * width


def _cross_attention(spec: UNetSpec) -> int:
    blocks = 2 * spec.layers + 1  # transformers a level, down and up
    # A norm, query and output over the width, key and value over the text.
    return sum(
        blocks * (2 * w + w * w + (w * w + w) + 2 * spec.text_width * w) for w in spec.widths
    )

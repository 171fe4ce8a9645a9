"""What a UNet is made of. One class, ``UNet``; the teacher and the students are values of this."""

from __future__ import annotations

import dataclasses
import math
from typing import Literal

from pydantic import ConfigDict
from pydantic.dataclasses import dataclass

from slimdiffsr.settings.config import Ablation, UNetConfig

__all__ = [
    "COMPACT",
    "LATENT_PX",
    "SD21",
    "PredictorSpec",
    "UNetSpec",
    "ablation_spec",
    "student_spec",
]

LATENT_PX = 8  # pixels of an image that one latent stands for, along each side


@dataclass(frozen=True, slots=True, config=ConfigDict(extra="forbid"))
class UNetSpec:
    """Levels and parts of a UNet; the defaults are Stable Diffusion 2.1's."""

    widths: tuple[int, ...] = (320, 640, 1280, 1280)  # one a level, finest first
    layers: int = 2  # ResBlocks a level on the way down; one more on the way up
    plain_levels: int = 1  # deepest levels without attention
    mid: Literal["res", "attention"] = "attention"  # one ResBlock, or Res, Transformer, Res
    mid_width: int = 1280
    conv1: Literal["conv", "fsc"] = "conv"
    conv2: Literal["conv", "dsc"] = "conv"
    attention: Literal["self", "text", "qgam"] = "text"  # text: self-attention, then to the prompt
    head_width: int = 64
    text_width: int = 1024
    time_width: int = 1280  # of the time embedding; 0: the network knows no timestep
    latents: int = 4  # channels before conv_in and after conv_out; 0: features in, features out
    norm: Literal["group", "pixel"] = "group"
    groups: int = 32
    ff_mult: int = 4
    queries: int = 32  # QGAM
    squeeze: int = 64  # QGAM
    window_px: int | None = None  # pooling window of FSC, DSC, QGAM, in cells of level 0

    def __post_init__(self) -> None:
        if len(self.widths) < 2:
            raise ValueError(f"a UNet has at least 2 levels, got widths {self.widths}")
        for width in (*self.widths, self.mid_width):
            if self.norm == "group" and width % self.groups:
                raise ValueError(f"width {width} is not divisible into {self.groups} groups")
        if self.mid == "attention" and self.mid_width != self.widths[-1]:
            raise ValueError(
                f"with mid='attention' mid_width must be the deepest width {self.widths[-1]}, "
                f"got {self.mid_width}"
            )
        attended = self.widths[: len(self.widths) - self.plain_levels]
        if self.attention != "qgam" and any(width % self.head_width for width in attended):
            raise ValueError(f"widths {attended} are not divisible into {self.head_width} a head")

    @property
    def unit_hr_px(self) -> int:
        """What the sides of an image must be multiples of, for its latents to be halved."""
        return LATENT_PX << (len(self.widths) - 1)

    def window(self, level: int) -> int | None:
        """The pooling window in cells of a level: it covers the same ground on each."""
        return None if self.window_px is None else self.window_px >> level


SD21 = UNetSpec()  # 865,910,724 parameters; SD-Turbo's too

# 83.1 M parameters, no text: small enough to be trained from nothing. The student of widths
# (128, 256) and mid_width 384 inherits from it as the paper's does from SD21.
COMPACT = UNetSpec(widths=(128, 256, 384, 384), mid_width=384, attention="self", time_width=512)


def student_spec(config: UNetConfig) -> UNetSpec:
    """The slim student (MS 8): two levels, one ResBlock below, slim blocks, no time and no text."""
    return UNetSpec(
        plain_levels=0,
        mid="res",
        conv1="fsc",
        conv2="dsc",
        attention="qgam",
        time_width=0,
        latents=0,
        **dataclasses.asdict(config),
    )


def ablation_spec(name: Ablation, config: UNetConfig) -> UNetSpec:
    """The student's UNet in a row of Tables 5 and 6 (MS 9).

    ``no_sap`` keeps all four levels at three quarters of the width.
    """
    ours = student_spec(config)
    if name == "no_dsc":
        return dataclasses.replace(ours, conv2="conv")
    if name == "no_fsc":
        return dataclasses.replace(ours, conv1="conv")
    if name == "no_qgam":
        heads = math.gcd(SD21.head_width, *config.widths)  # narrower where the student is narrow
        return dataclasses.replace(ours, attention="self", head_width=heads)
    if name in ("taesd", "kl"):
        return dataclasses.replace(ours, latents=SD21.latents)
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


@dataclass(frozen=True, slots=True, config=ConfigDict(extra="forbid"))
class PredictorSpec:
    """The noise-level predictor (MS 3); ``gt_only`` and ``fixed`` are the ablations of Figs. 13, 14."""

    mode: Literal["map", "scalar", "gt_only", "fixed"] = "map"
    param: Literal["direct", "eq9"] = "direct"
    t_min: int = 1
    t_max: int = 999
    t_start: int = 200
    width: int = 32
    blocks: int = 6
    log_signal_variance: float = 0.0  # eq9: of z_gt, whose variance is about 1 by its scaling

    def __post_init__(self) -> None:
        if not 0 <= self.t_min < self.t_start < self.t_max <= 999:
            raise ValueError(
                "timesteps must satisfy 0 <= t_min < t_start < t_max <= 999, got "
                f"{self.t_min}, {self.t_start}, {self.t_max}"
            )
        if self.param == "eq9" and self.mode not in ("map", "scalar"):
            raise ValueError(f"param='eq9' needs the uncertainty, which mode={self.mode!r} ignores")

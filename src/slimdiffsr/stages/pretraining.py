"""Settings and presets of the two runs that come before the teacher: estimator and prior."""

from __future__ import annotations

import dataclasses
from typing import Literal

from pydantic import ConfigDict
from pydantic.dataclasses import dataclass

from slimdiffsr.files.stages import CodecKind, EstimatorSpec
from slimdiffsr.method.diffusion import PredictionType
from slimdiffsr.models.spec import COMPACT, LATENT_PX, UNetSpec
from slimdiffsr.settings.config import Count, Index, LoopConfig, Rate, Recipe, Weight
from slimdiffsr.settings.presets import MICRO

__all__ = ["PRIORS", "UNCERTAINTIES", "PriorConfig", "UncertaintyConfig"]


@dataclass(frozen=True, slots=True, kw_only=True, config=ConfigDict(extra="forbid"))
class UncertaintyConfig(LoopConfig):
    """Stage 0, the uncertainty estimator; the defaults are MS 11's."""

    estimator: EstimatorSpec = EstimatorSpec()
    codec: CodecKind = "kl"  # on whose latents; the teacher of the same name stands on them too
    mean_only_steps: Index = 1000  # squared error alone at the start: MS 2
    steps: Count = 50_000
    lr: Rate = 1e-4
    weight_decay: Weight = 1e-2

    def __post_init__(self) -> None:
        LoopConfig.__post_init__(self)  # super() fails in classes with slots
        if self.precision != "no":
            raise ValueError("the estimator learns in float32: precision must be 'no'")
        _check_crop(self.crop_hr_px, LATENT_PX)


@dataclass(frozen=True, slots=True, kw_only=True, config=ConfigDict(extra="forbid"))
class PriorConfig(LoopConfig):
    """A small latent diffusion UNet, for where Stable Diffusion cannot be had.

    It sees sharp images alone, so one serves all scales.
    """

    unet: UNetSpec = COMPACT
    prediction: PredictionType = "epsilon"
    sample_steps: Count = 20  # of the pictures at validation

    def __post_init__(self) -> None:
        LoopConfig.__post_init__(self)
        if self.unet.attention == "text" or not self.unet.time_width or not self.unet.latents:
            raise ValueError(
                "a prior's unet must know the timestep, read no text and work on latents: got "
                f"attention={self.unet.attention!r}, time_width={self.unet.time_width}, "
                f"latents={self.unet.latents}"
            )
        _check_crop(self.crop_hr_px, self.unet.unit_hr_px)


def _check_crop(crop_hr_px: int, unit_hr_px: int) -> None:
    if crop_hr_px % unit_hr_px:
        raise ValueError(f"crop_hr_px {crop_hr_px} is no multiple of {unit_hr_px}")


def paper_uncertainty(scale: Literal[4, 8]) -> UncertaintyConfig:
    """MS 11's column; needs images of 512 pixels and more."""
    return UncertaintyConfig(recipe=Recipe(scale=scale))


def compact_uncertainty(scale: Literal[4, 8]) -> UncertaintyConfig:
    """For images of 256 pixels and a budget of minutes: fewer steps, each longer."""
    return UncertaintyConfig(
        recipe=Recipe(scale=scale),
        codec="taesd",
        mean_only_steps=200,
        steps=2_500,
        batch=32,
        crop_hr_px=256,
        lr=4e-4,
        lr_final=1e-5,
        warmup=50,
        decay_from=800,
        pool=6144,
        flip_all=True,
    )


def compact_prior() -> PriorConfig:
    """83.1 M parameters on images of 256 pixels; minutes on one large accelerator."""
    return PriorConfig(
        steps=3_600,
        batch=64,
        crop_hr_px=256,
        lr=2e-4,
        lr_final=1e-5,
        warmup=100,
        decay_from=1_800,
        weight_decay=1e-2,
        ema=0.998,
        precision="bf16",
        graphs=True,
        flip_all=True,
    )


UNCERTAINTIES: dict[str, UncertaintyConfig] = {
    "paper-x4": paper_uncertainty(4),
    "paper-x8": paper_uncertainty(8),
    "compact-x4": compact_uncertainty(4),
    "compact-x8": compact_uncertainty(8),
    "micro": UncertaintyConfig(
        estimator=EstimatorSpec(width=16), codec="taesd", mean_only_steps=20, **MICRO
    ),
}

# The paper's teacher starts from Stable Diffusion: there is no prior of its size to train.
PRIORS: dict[str, PriorConfig] = {
    "compact-x4": compact_prior(),
    "compact-x8": dataclasses.replace(compact_prior(), recipe=Recipe(scale=8)),
    "micro": PriorConfig(
        # The micro student's levels, and two below them, as Stable Diffusion has.
        unet=UNetSpec(
            widths=(16, 32, 32, 32),
            layers=1,
            mid_width=32,
            attention="self",
            head_width=16,
            time_width=32,
            groups=4,
            ff_mult=1,
        ),
        sample_steps=4,
        ema=0.99,
        **MICRO,
    ),
}

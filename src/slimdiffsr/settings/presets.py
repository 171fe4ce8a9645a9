"""The runs that have a name: Python values, overridden by a TOML file or ``--set``."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar

from slimdiffsr.errors import ConfigError
from slimdiffsr.settings.config import (
    DistillConfig,
    LeanConfig,
    Light,
    LoopConfig,
    ModelConfig,
    Recipe,
    StudentLoss,
    TrainConfig,
    UNetConfig,
    merge,
    parse,
    read_toml,
    to_dict,
)

__all__ = ["MICRO", "PRESETS", "choose_preset", "load_preset", "tiny_model", "tiny_training"]

T = TypeVar("T", bound=LoopConfig)

# The loop of all runs that are for tests of the whole pipeline alone.
MICRO: dict[str, Any] = {
    "steps": 300,
    "batch": 4,
    "crop_hr_px": 64,
    "lr": 1e-3,
    "workers": 0,
    "log_every": 20,
    "save_every": 100,
    "validate_every": 100,
    "validation_images": 2,
    "flip_all": True,
}


def tiny_model(scale: Literal[4, 8] = 4) -> ModelConfig:
    """The student for laptops and plugins: 1.2 M parameters at 4x, 4.4 GMAC for 512x512 pixels."""
    lean = (
        LeanConfig()
        if scale == 4
        else LeanConfig(widths=(80, 144, 192), depths=(6, 4, 2), decoder_widths=(32, 20, 12))
    )
    return ModelConfig(
        name=f"tiny-x{scale}",
        scale=scale,
        kind="lean",
        lean=lean,
        tile_hr_px=128 * scale,
        overlap_hr_px=16 * scale,
    )


def tiny_training(scale: Literal[4, 8] = 4, *, perceptual: bool = True) -> TrainConfig:
    """The recipe of the models that ship: L1 alone, or after a third of it all losses."""
    model = tiny_model(scale)
    if not perceptual:
        model = dataclasses.replace(model, name=f"{model.name}-faithful")
    return TrainConfig(
        model=model,
        recipe=Recipe(scale=scale, light=Light(share=0.4)),
        loss=StudentLoss(
            l1=1.0,
            lpips=0.6 if perceptual else 0.0,
            gan=0.015 if perceptual else 0.0,
            coarse=0.5 if perceptual else 0.0,
            perceptual_from=6_000,
            gan_from=6_200,
            lpips_jitter=True,
        ),
        discriminator_width=32,
        steps=18_000,
        batch=48,
        crop_hr_px=192 if scale == 4 else 256,
        lr=1e-3,
        lr_adversary=3e-4,
        lr_final=1e-6,
        warmup=200,
        decay_from=6_000,
        ema=0.999,
        shrink=(1.0, 4.0),
        flat=0.06,
        balance=0.5,
        validation_images=8,
        flip_all=True,
    )


def paper_training(scale: Literal[4, 8] = 4) -> TrainConfig:
    """Stage 2 as published, where MS 11 knows it; needs images of 512 pixels and more."""
    return TrainConfig(
        model=ModelConfig(name=f"paper-x{scale}", scale=scale),
        recipe=Recipe(scale=scale),
        loss=StudentLoss(lpips_net="vgg", gan_kind="bce_s"),
        adversary="dino",
        distill=DistillConfig(),
        init="sd",
        steps=100_000,
        batch=16,
        lr=5e-5,
        precision="bf16",
    )


def compact_training(scale: Literal[4, 8] = 4) -> TrainConfig:
    """The paper's student at 0.4 of its width, for images of 256 pixels and a budget of minutes."""
    model = ModelConfig(
        name=f"compact-x{scale}",
        scale=scale,
        unet=UNetConfig(widths=(128, 256), mid_width=384),
        taesd_affine=True,  # what it inherits from TAESD fits from the first step
        overlap_hr_px=128,  # it pools over its tile: neighbours agree the better the more they share
    )
    return TrainConfig(
        model=model,
        recipe=Recipe(scale=scale),
        # LPIPS by SqueezeNet and an adversary that starts from nothing: as for the tiny models,
        # less of both than the paper gives to VGG and DINO.
        loss=StudentLoss(lpips=1.0, gan=0.05, gan_from=300, lpips_jitter=True),
        discriminator_width=32,
        distill=DistillConfig(),
        init="teacher",
        steps=1_600,
        batch=16,
        crop_hr_px=256,
        lr=4e-4,
        lr_final=1e-5,
        warmup=100,
        decay_from=700,
        ema=0.995,
        precision="bf16",
        graphs=True,
        flip_all=True,
    )


def micro_training() -> TrainConfig:
    """For tests of the whole pipeline; learns nothing worth having."""
    unet = UNetConfig(
        widths=(16, 32), mid_width=32, layers=1, groups=4, ff_mult=1, queries=4, squeeze=8
    )
    return TrainConfig(
        model=ModelConfig(
            name="micro", scale=4, unet=unet, taesd_affine=True, tile_hr_px=64, overlap_hr_px=32
        ),
        loss=StudentLoss(lpips=0.5, gan=0.05, gan_from=20),
        discriminator_width=8,
        distill=DistillConfig(samples=128),
        init="teacher",
        **MICRO,
    )


PRESETS: dict[str, TrainConfig] = {
    "compact-x4": compact_training(4),
    "compact-x8": compact_training(8),
    "micro": micro_training(),
    "paper-x4": paper_training(4),
    "paper-x8": paper_training(8),
    "tiny-x4": tiny_training(4),
    "tiny-x4-faithful": tiny_training(4, perceptual=False),
    "tiny-x8": tiny_training(8),
    "tiny-x8-faithful": tiny_training(8, perceptual=False),
}


def load_preset(name: str) -> TrainConfig:
    """A student's preset by name, or a TOML file with ``preset = "..."`` and what it changes.

    Raises ConfigError, which lists the presets.
    """
    return choose_preset(name, PRESETS, "tiny-x4")


def choose_preset(name: str, presets: Mapping[str, T], default: str) -> T:
    """As ``load_preset``, of any stage. default: the preset of a TOML file that names none."""
    path = Path(name)
    if name in presets:
        return presets[name]
    if path.suffix != ".toml":
        raise ConfigError(f"no preset {name!r}: there are {', '.join(sorted(presets))}")
    values = read_toml(path)
    base = choose_preset(str(values.pop("preset", default)), presets, default)
    merged = to_dict(base)
    merge(merged, values)
    return parse(type(base), merged)

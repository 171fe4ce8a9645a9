"""The runs that have a name: Python values, overridden by a TOML file or ``--set``."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Literal

from slimdiffsr.config import (
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
from slimdiffsr.errors import ConfigError

__all__ = ["PRESETS", "load_preset", "tiny_model", "tiny_training"]


def tiny_model(scale: Literal[4, 8] = 4) -> ModelConfig:
    """The student for laptops and plugins: 1.4 M parameters, 4.4 GMAC for 512x512 pixels at 4x."""
    return ModelConfig(
        name=f"tiny-x{scale}",
        scale=scale,
        kind="tiny",
        unet=UNetConfig(
            widths=(48, 96),
            mid_width=192,
            layers=3,
            norm="pixel",
            ff_mult=2,
            queries=16,
            squeeze=32,
            window_px=8,
        ),
        overlap_hr_px=16 * scale,
        decoder_widths=(40, 24, 16) if scale == 4 else (40, 32, 24, 12),
    )


def tiny_training(scale: Literal[4, 8] = 4, *, perceptual: bool = True) -> TrainConfig:
    """The recipe of the models that ship: L1 alone, or from there all three losses."""
    model = tiny_model(scale)
    if not perceptual:
        model = dataclasses.replace(model, name=f"{model.name}-faithful")
    return TrainConfig(
        model=model,
        recipe=Recipe(scale=scale),
        loss=StudentLoss(
            l1=1.0,
            lpips=0.4 if perceptual else 0.0,
            gan=0.015 if perceptual else 0.0,
            gan_from=200,
            lpips_jitter=True,
        ),
        discriminator_width=32,
        steps=4_000,
        batch=64,
        crop_hr_px=192 if scale == 4 else 256,
        lr=5e-4,
        lr_adversary=3e-4,
        lr_final=1e-5,
        warmup=100,
        decay_from=1_200,
        ema=0.999,
        validation_images=8,
        flip_all=True,
    )


PRESETS: dict[str, TrainConfig] = {
    "tiny-x4": tiny_training(4),
    "tiny-x4-faithful": tiny_training(4, perceptual=False),
    "tiny-x8": tiny_training(8),
    "tiny-x8-faithful": tiny_training(8, perceptual=False),
}


def load_preset(name: str) -> TrainConfig:
    """A preset by name, or a TOML file with ``preset = "..."`` and what it changes.

    Raises ConfigError, which lists the presets.
    """
    path = Path(name)
    if name in PRESETS:
        return PRESETS[name]
    if path.suffix != ".toml":
        raise ConfigError(f"no preset {name!r}: there are {', '.join(sorted(PRESETS))}")
    values = read_toml(path)
    base = load_preset(str(values.pop("preset", "tiny-x4")))
    merged = to_dict(base)
    merge(merged, values)
    return parse(TrainConfig, merged)

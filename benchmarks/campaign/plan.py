"""What the campaign trains: runs by name, each a whole config; steps are set when a run begins.

``lean-c`` has coarser levels for context, ``lean-a`` only the input's grid. ``-l1`` runs end as
faithful models, the others go on from L1 to all losses after a third of their steps.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from slimdiffsr.settings.config import (
    LeanConfig,
    ModelConfig,
    Recipe,
    StudentLoss,
    TrainConfig,
    UNetConfig,
)
from slimdiffsr.settings.recipe import Light

__all__ = ["RUNS", "with_steps"]

LEVELS = LeanConfig()
ONE_GRID = LeanConfig(widths=(64,), depths=(5,), kernel=7, decoder_widths=(24, 12))

LOOP: dict[str, Any] = {
    "recipe": Recipe(light=Light(share=0.4)),
    "batch": 48,
    "crop_hr_px": 192,
    "lr": 1e-3,
    "lr_final": 1e-6,
    "warmup": 200,
    "ema": 0.999,
    "precision": "bf16",
    "graphs": True,
    "workers": 15,
    "pool": 24_000,
    "refresh": True,
    "shrink": (1.0, 4.0),
    "flat": 0.06,
    "balance": 0.5,
    "flip_all": True,
    "log_every": 100,
    "save_every": 1_000_000,
    "validate_every": 1_000_000,
}


def _lean(lean: LeanConfig, loss: StudentLoss, **changes: Any) -> TrainConfig:
    model = ModelConfig(name="lean-x4", scale=4, kind="lean", lean=lean)
    loop = LOOP | {"adversary": "features", "discriminator_width": 32, "lr_adversary": 3e-4}
    return TrainConfig(model=model, loss=loss, **(loop | changes))


L1 = StudentLoss(lpips=0.0, gan=0.0)
SHARP = StudentLoss(l1=1.0, lpips=0.4, gan=0.02, coarse=0.5, lpips_jitter=True)

# From a model that is sharp already: all losses from the first steps.
SHARPER = dataclasses.replace(SHARP, lpips=0.8, gan=0.008)
ONWARD = {"lr": 5e-4, "warmup": 100, "lr_adversary": 5e-5}

COMPACT = TrainConfig(
    model=ModelConfig(
        name="compact-x4",
        scale=4,
        unet=UNetConfig(widths=(128, 256), mid_width=384),
        taesd_affine=True,
        overlap_hr_px=128,
        skip=True,
    ),
    loss=StudentLoss(l1=1.0, lpips=1.0, gan=0.04, coarse=1.0, gan_from=300, lpips_jitter=True),
    **LOOP
    | {
        "adversary": "features",
        "discriminator_width": 32,
        "lr_adversary": 3e-4,
        "batch": 24,
        "crop_hr_px": 256,
        "lr": 2e-4,
        "pool": 16_000,
    },
)

RUNS: dict[str, TrainConfig] = {
    "lean-c-l1": _lean(LEVELS, L1),
    "lean-c-sharp": _lean(LEVELS, SHARP),
    "lean-a-sharp": _lean(ONE_GRID, SHARP),
    "lean-c-sharp2": _lean(LEVELS, SHARPER, **ONWARD),
    "lean-a-sharp2": _lean(ONE_GRID, SHARPER, **ONWARD),
    "lean-c-lpips": _lean(LEVELS, dataclasses.replace(SHARP, lpips=1.0, gan=0.0), **ONWARD),
    "lean-c-unet": _lean(
        LEVELS,
        dataclasses.replace(SHARP, lpips=0.6, gan=0.015),
        **ONWARD | {"adversary": "unet", "lr_adversary": 3e-4},
    ),
    "lean-c-late": _lean(
        LEVELS,
        dataclasses.replace(SHARP, lpips=0.7, gan=0.02, gan_from=1200),
        **ONWARD | {"lr_adversary": 1e-4},
    ),
    "compact-x4": COMPACT,
}


def with_steps(config: TrainConfig, steps: int, workers: int | None = None) -> TrainConfig:
    """The run at so many steps: its cosine, and where its losses join, at fixed shares of them."""
    loss = config.loss
    if config.model.kind == "lean" and loss == SHARP:
        third = steps // 3
        loss = dataclasses.replace(loss, perceptual_from=third, gan_from=third + steps // 20)
    return dataclasses.replace(
        config,
        steps=steps,
        save_every=max(100, steps // 3),
        decay_from=steps // 2 if loss.lpips > 0 else steps // 4,
        warmup=min(config.warmup, steps // 10),
        loss=loss,
        workers=config.workers if workers is None else workers,
    )


def micro(config: TrainConfig) -> TrainConfig:
    """The same run at a size for a rehearsal on a CPU."""
    crop = 128 if config.model.kind == "base" else 64
    return dataclasses.replace(
        config, batch=4, crop_hr_px=crop, pool=64, workers=1, log_every=5, precision="no"
    )

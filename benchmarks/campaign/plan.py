"""What the campaign trains next: runs by name, each a whole config; steps are set when one begins.

What was tried before, with figures, stands in ``docs/results/campaign/ledger.jsonl``. The order that
worked: L1 from nothing, then LPIPS and the U-Net adversary from those weights. An adversary on frozen
features wins at once against a model that L1 left blurred, and then does harm.
"""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

from slimdiffsr.settings.config import ModelConfig, Recipe, StudentLoss, TrainConfig
from slimdiffsr.settings.presets import compact_training, tiny_model
from slimdiffsr.settings.recipe import Light

__all__ = ["RUNS", "with_steps"]

LOOP: dict[str, Any] = {
    "lr": 1e-3,
    "lr_final": 1e-6,
    "warmup": 200,
    "ema": 0.999,
    "precision": "bf16",
    "graphs": True,
    "workers": 12,
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


L1 = StudentLoss(lpips=0.0, gan=0.0)
SHARP = StudentLoss(l1=1.0, lpips=0.6, gan=0.03, coarse=0.5, lpips_jitter=True, gan_from=200)
SHARPER = dataclasses.replace(SHARP, lpips=1.5, gan=0.02, coarse=1.0)


def _tiny(scale: Literal[4, 8], loss: StudentLoss, **changes: object) -> TrainConfig:
    crop = {"crop_hr_px": 192, "batch": 48} if scale == 4 else {"crop_hr_px": 256, "batch": 32}
    return _train(tiny_model(scale), loss, **crop | changes)


def _compact(scale: Literal[4, 8]) -> TrainConfig:
    model = dataclasses.replace(compact_training(scale).model, skip=True)
    return _train(model, SHARPER, crop_hr_px=256, batch=24, lr=2e-4, pool=16_000)


def _train(model: ModelConfig, loss: StudentLoss, **changes: object) -> TrainConfig:
    loop = LOOP | {"discriminator_width": 32, "lr_adversary": 3e-4} | changes
    recipe = Recipe(scale=model.scale, light=Light(share=0.4))
    return TrainConfig(model=model, recipe=recipe, loss=loss, **loop)


RUNS: dict[str, TrainConfig] = {
    "tiny-x4": _tiny(4, SHARP, lr=5e-4),  # from the weights of lean-c-unet
    "tiny-x4-faithful": _tiny(4, L1, lr=5e-4),  # from the weights of lean-c-l1
    "compact-x4": _compact(4),
    "compact-x8": _compact(8),
    "tiny-x8": _tiny(8, SHARP),  # from nothing: L1 for a third of its steps
}
FROM_NOTHING = ("tiny-x8",)


def with_steps(name: str, steps: int, *, rehearse: bool = False) -> TrainConfig:
    """A run at so many steps: its cosine, and where its losses join, at fixed shares of them.

    ``rehearse``: at a size for a CPU.
    """
    config = RUNS[name]
    loss = config.loss
    if name in FROM_NOTHING:
        third = steps // 3
        loss = dataclasses.replace(loss, perceptual_from=third, gan_from=third + steps // 20)
    config = dataclasses.replace(
        config,
        steps=steps,
        save_every=max(100, steps // 4),
        decay_from=steps // 3,
        warmup=min(config.warmup, steps // 10),
        loss=loss,
    )
    return micro(config) if rehearse else config


def micro(config: TrainConfig) -> TrainConfig:
    """The same run at a size for a rehearsal on a CPU."""
    return dataclasses.replace(
        config, batch=4, crop_hr_px=128, pool=64, workers=1, log_every=5, precision="no"
    )

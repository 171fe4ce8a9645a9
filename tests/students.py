"""Students, images and weight files small enough for tests."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file

from slimdiffsr.models.lpips import LPIPS
from slimdiffsr.settings.config import (
    LpipsNet,
    ModelConfig,
    StudentLoss,
    TrainConfig,
    UNetConfig,
)
from slimdiffsr.settings.presets import PRESETS

SHARED = Path(__file__).parents[2] / "shared"

MICRO_UNET = UNetConfig(
    widths=(8, 16),
    mid_width=16,
    layers=1,
    norm="pixel",
    groups=4,
    ff_mult=1,
    queries=4,
    squeeze=8,
    window_px=4,
)


def micro_model(**unet: Any) -> ModelConfig:
    """A tiny 4x student of a few thousand parameters."""
    return ModelConfig(
        name="micro",
        scale=4,
        kind="tiny",
        unet=dataclasses.replace(MICRO_UNET, **unet),
        stem_width=8,
        decoder_widths=(8, 8, 8),
        tile_hr_px=64,
        overlap_hr_px=32,
    )


def micro_training(**changes: Any) -> TrainConfig:
    """The micro preset with a tiny student alone: six steps, all three losses, logged and saved often."""
    config = dataclasses.replace(
        PRESETS["micro"],
        model=micro_model(),
        loss=StudentLoss(lpips=0.5, gan=0.1, perceptual_from=1, gan_from=2, lpips_jitter=True),
        distill=None,
        init="fresh",
        steps=6,
        batch=2,
        lr_final=1e-4,
        warmup=2,
        ema=0.9,
        log_every=1,
        save_every=2,
        validate_every=3,
    )
    return dataclasses.replace(config, **changes)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def write_images(folder: Path, sizes: list[tuple[int, int]], seed: int = 0) -> list[Path]:
    """Smooth colour noise as PNG files; sizes are (width, height)."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    paths = []
    for number, (width, height) in enumerate(sizes):
        coarse = rng.integers(0, 256, (height // 8 + 1, width // 8 + 1, 3), dtype=np.uint8)
        path = folder / f"image{number}.png"
        Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC).save(path)
        paths.append(path)
    return paths


def random_lpips(net: LpipsNet = "squeeze") -> LPIPS:
    """LPIPS with random weights."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(1)
        return LPIPS(net).eval().requires_grad_(False)


def write_lpips(path: Path, net: LpipsNet = "squeeze") -> Path:
    """An LPIPS weight file with random weights."""
    save_file(random_lpips(net).state_dict(), path)
    return path

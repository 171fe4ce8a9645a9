"""Pairs of images for tests, and the simplest way from the small to the large."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

SCALE = 4

Rgb8 = NDArray[np.uint8]


def nearest(rgb_lr: Rgb8) -> Rgb8:
    return np.repeat(np.repeat(rgb_lr, SCALE, axis=0), SCALE, axis=1)


def write_pairs(folder: Path) -> tuple[Path, Path]:
    """Three pairs, of 16 x 16, 16 x 17 and 16 x 18 input pixels; hr has another file type."""
    rng = np.random.default_rng(0)
    lr_dir, hr_dir = folder / "lr", folder / "hr"
    lr_dir.mkdir()
    hr_dir.mkdir()
    for i, name in enumerate(("a", "b", "c")):
        hr = rng.integers(0, 256, (64, 64 + 4 * i, 3), dtype=np.uint8)
        lr = hr.reshape(16, 4, 16 + i, 4, 3).mean(axis=(1, 3)).astype(np.uint8)
        Image.fromarray(hr).save(hr_dir / f"{name}.tif")
        Image.fromarray(lr).save(lr_dir / f"{name}.png")
    return lr_dir, hr_dir

"""Published data sets in miniature: the same folders and file names, generated images."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image

NWPU_CLASSES = ("airplane", "beach", "sea_ice")


def draw_images(paths: Iterable[Path], size_px: int = 40) -> list[Path]:
    """Smooth colour fields, each file another one."""
    drawn = []
    for seed, path in enumerate(paths):
        rng = np.random.default_rng(seed)
        coarse = Image.fromarray(rng.integers(0, 256, (5, 5, 3), dtype=np.uint8))
        path.parent.mkdir(parents=True, exist_ok=True)
        coarse.resize((size_px, size_px), Image.Resampling.BICUBIC).save(path, quality=95)
        drawn.append(path)
    return drawn


def aid(root: Path) -> None:
    names = ("Airport/airport", "BareLand/bareland", "Viaduct/viaduct")
    draw_images(root / f"{name}_{i}.jpg" for name in names for i in (1, 2))


def nwpu(root: Path, each: int = 4) -> None:
    draw_images(
        root / name / f"{name}_{i:03d}.jpg" for name in NWPU_CLASSES for i in range(1, each + 1)
    )


def dota(root: Path) -> None:
    for part, numbers in (("train", (0, 1)), ("val", (3, 4, 7)), ("test", (6, 9))):
        draw_images(root / part / "images" / f"P{i:04d}.png" for i in numbers)
        (root / part / "labelTxt").mkdir()


def dior(root: Path) -> None:
    draw_images(root / "JPEGImages-trainval" / f"{i:05d}.jpg" for i in (1, 2))
    draw_images(root / "JPEGImages-test" / f"{i:05d}.jpg" for i in range(11726, 11731))
    (root / "Annotations").mkdir()


def real_refrssrd(root: Path, *, repeated: bool = False) -> None:
    for part in ("train", "test"):
        for kind, size_px in (("HR", 480), ("LR", 48), ("Ref", 480)):
            files = draw_images((root / part / kind / f"tile_{i}.png" for i in (1, 2)), size_px)
            if kind == "LR" and repeated:
                for file in files:
                    with Image.open(file) as image:
                        large = image.resize((480, 480), Image.Resampling.NEAREST)
                    large.save(file)

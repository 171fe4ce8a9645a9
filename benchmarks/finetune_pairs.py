"""Pairs for the walk-through of docs/finetune.md, from generated scenes.

    python benchmarks/finetune_pairs.py sets

writes ``sets/lr`` (2.4 m, 11 bits in 16) and ``sets/hr`` (0.6 m, 8 bits): GeoTIFFs of six scenes as
two sensors deliver them, HR laid up to 1.5 LR pixels beside its place; and ``sets/check/{lr,hr}``:
8-bit pictures of two other scenes, exactly aligned, to measure on.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import rasterio
from affine import Affine
from numpy.typing import NDArray
from PIL import Image

from slimdiffsr.demo import make_demo_scene

SIDE_LR_PX = 208
EMPTY_LR_PX = 48  # the generated scene has a corner without data
RESOLUTION_M = 2.4
SCALE = 4
TO_11_BITS = 8
SEEDS = range(1, 7)
CHECK_SEEDS = (11, 12)
APART_M = 5_000  # generated scenes all say that they lie in one place
OFF_LR_PX = ((0.4, -0.9), (1.3, 0.6), (-0.7, 0.2), (0.0, 1.1), (-1.2, -0.5), (0.9, 0.3))


def paint(folder: Path, seed: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8], Affine]:
    """LR and HR of a scene, (3, h, w) without empty pixels, and where LR lies."""
    lr_path, hr_path = folder / f"{seed}.tif", folder / f"{seed}_truth.tif"
    make_demo_scene(
        lr_path, seed=seed, size_lr_px=(SIDE_LR_PX, SIDE_LR_PX), resolution_m=RESOLUTION_M,
        truth_path=hr_path, scale=SCALE,
    )  # fmt: skip
    with rasterio.open(lr_path) as lr, rasterio.open(hr_path) as hr:
        west, north = lr.bounds.left + seed * APART_M, lr.bounds.top - EMPTY_LR_PX * lr.res[1]
        place = Affine(lr.res[0], 0, west, 0, -lr.res[1], north)
        found = lr.read()[:, EMPTY_LR_PX:], hr.read()[:, SCALE * EMPTY_LR_PX :]
    lr_path.unlink()
    hr_path.unlink()
    return *found, place


def write(path: Path, values: NDArray[np.generic], place: Affine) -> None:
    with rasterio.open(
        path, "w", driver="GTiff", count=3, height=values.shape[1], width=values.shape[2],
        dtype=values.dtype, crs="EPSG:32610", transform=place, photometric="RGB", compress="deflate",
    ) as dst:  # fmt: skip
        dst.write(values)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path)
    out: Path = parser.parse_args().out
    for name in ("lr", "hr", "check/lr", "check/hr"):
        (out / name).mkdir(parents=True, exist_ok=True)
    for seed, (down, right) in zip(SEEDS, OFF_LR_PX, strict=True):
        lr, hr, place = paint(out, seed)
        write(out / "lr" / f"scene{seed}.tif", lr.astype(np.uint16) * TO_11_BITS, place)
        beside = Affine(
            place.a / SCALE,
            0,
            place.c - right * place.a,
            0,
            place.e / SCALE,
            place.f - down * place.e,
        )
        write(out / "hr" / f"flight{seed}.tif", hr, beside)
    for seed in CHECK_SEEDS:
        lr, hr, _ = paint(out, seed)
        for name, values in (("lr", lr), ("hr", hr)):
            Image.fromarray(np.moveaxis(values, 0, 2)).save(
                out / "check" / name / f"scene{seed}.png"
            )


if __name__ == "__main__":
    main()

"""What a model's tiles do to a scene: the figures of the model cards.

    python benchmarks/seams.py SCENE.tif --model compact-x4 --side 256
    python benchmarks/seams.py --model compact-x4 --side 256 --tile 512,128 --tile 256,64

enlarges the upper left corner of an 8-bit RGB raster (of the demo scene, without one) twice, the second
time on a grid moved by half a step, and prints one JSON line a tiling: gradient across tile borders by
that beside them, PSNR between the two, low frequencies and means against the input
(``scene_figures`` of tests/rasters.py), and the grid energy of the first.
"""

import argparse
import dataclasses
import json
import sys
import tempfile
from pathlib import Path

import numpy as np

from slimdiffsr import Upscaler
from slimdiffsr.demo import make_demo_scene
from slimdiffsr.geo import SceneOptions
from slimdiffsr.metrics import grey8, grid_energy_db

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from rasters import read, scene_figures, write_raster


def demo_scene(folder: Path) -> Path:
    """The demo's ground below its corner without data."""
    scene = read(make_demo_scene(folder / "scene.tif", size_lr_px=(304, 256)))
    return write_raster(folder / "demo.tif", scene[:, 48:], photometric="RGB")


def figures(upscaler: Upscaler, scene: Path, side_lr_px: int, folder: Path) -> dict[str, float]:
    """Of the tiling that the upscaler has."""
    spec = upscaler.spec
    half_step_lr_px = (spec.tile_hr_px - spec.overlap_hr_px) // 2 // spec.scale
    results = []
    for offset in (0, half_step_lr_px):
        options = SceneOptions(
            window=(0, 0, side_lr_px, side_lr_px), overwrite=True, format="gtiff",
            grid_offset_lr_px=(offset, offset),
        )  # fmt: skip
        upscaler.upscale_scene(scene, folder / "out.tif", options)
        results.append(read(folder / "out.tif")[:3])
    lr = read(scene)[:3, :side_lr_px, :side_lr_px]
    found = scene_figures(lr, *results, spec.tile_hr_px, spec.overlap_hr_px)
    grey = grey8(np.ascontiguousarray(results[0].transpose(1, 2, 0)))
    return dataclasses.asdict(found) | {"grid_energy_db": grid_energy_db(grey, spec.scale)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument("scene", type=Path, nargs="?", help="default: the demo scene")
    parser.add_argument("--model", required=True)
    parser.add_argument("--side", type=int, default=256, help="input pixels")
    parser.add_argument("--tile", action="append", help="TILE,OVERLAP; default: the model's own")
    args = parser.parse_args()
    upscaler = Upscaler.from_pretrained(args.model)
    with tempfile.TemporaryDirectory() as name:
        scene = args.scene or demo_scene(Path(name))
        for tile in args.tile or [f"{upscaler.spec.tile_hr_px},{upscaler.spec.overlap_hr_px}"]:
            tile_hr_px, overlap_hr_px = map(int, tile.split(","))
            upscaler.spec = dataclasses.replace(
                upscaler.spec, tile_hr_px=tile_hr_px, overlap_hr_px=overlap_hr_px
            )
            about = {"model": args.model, "scene": scene.stem, "tile_hr_px": tile_hr_px,
                     "overlap_hr_px": overlap_hr_px}  # fmt: skip
            made = figures(upscaler, scene, args.side, Path(name))
            print(json.dumps(about | {k: round(v, 3) for k, v in made.items()}), flush=True)


if __name__ == "__main__":
    main()

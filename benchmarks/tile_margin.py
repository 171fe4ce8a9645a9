"""How far a tile's border reaches: the error of a tile against the same place in a larger image.

    python benchmarks/tile_margin.py SCENE.tif --model tiny-x4 --model other.safetensors

Prints JSON lines: per model and margin (LR pixels cut off the tile's borders), RMS and largest
difference in 8-bit grey levels. Zero from some margin on means that tiling is exact there.
"""

import argparse
import json
from pathlib import Path

import rasterio
import torch
from rasterio.windows import Window

from slimdiffsr.files.students import load_model

TILE_LR_PX = 128
IMAGE_LR_PX = 384
MARGINS_LR_PX = (0, 8, 16, 24, 32, 48)


def read_unit(path: Path) -> torch.Tensor:
    """The middle of an 8-bit RGB raster, (1, 3, 384, 384) in [-1, 1]."""
    with rasterio.open(path) as dataset:
        # Multiples of 32 keep the pooling windows of image and tile on one grid.
        top, left = ((side - IMAGE_LR_PX) // 2 for side in dataset.shape)
        pixels = dataset.read((1, 2, 3), window=Window(left, top, IMAGE_LR_PX, IMAGE_LR_PX))
    return torch.from_numpy(pixels)[None].float() / 127.5 - 1


@torch.inference_mode()
def margin_errors(source: str, image: torch.Tensor) -> list[dict[str, float]]:
    loaded = load_model(source)
    scale = loaded.config.scale
    start, end = TILE_LR_PX, 2 * TILE_LR_PX
    tile = loaded.model(image[..., start:end, start:end])
    whole = loaded.model(image)[..., scale * start : scale * end, scale * start : scale * end]
    error = (tile - whole) * 127.5
    rows = []
    for margin in MARGINS_LR_PX:
        cut = margin * scale
        inside = error[..., cut : error.shape[-2] - cut, cut : error.shape[-1] - cut]
        rows.append(
            {
                "margin_lr_px": margin,
                "rms": round(inside.square().mean().sqrt().item(), 4),
                "max": round(inside.abs().max().item(), 3),
            }
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("scene", type=Path)
    parser.add_argument("--model", action="append", required=True)
    arguments = parser.parse_args()
    image = read_unit(arguments.scene)
    for source in arguments.model:
        for row in margin_errors(source, image):
            print(json.dumps({"scene": arguments.scene.name, "model": source, **row}))


if __name__ == "__main__":
    main()

"""Bands beyond red, green and blue: which way keeps the infrared and the vegetation index best.

Real four-band rasters are averaged down 4 x 4, enlarged again, and held against what they were.
Ways for the infrared: cubic convolution; the network on the band alone, or in the place of red
with red and green beside it; the detail of the enlarged visible bands, by regression, added or as
a ratio. Each as it comes, and with its block means made those of the input. Prints JSON lines.

    python benchmarks/infrared.py --model tiny-x4 scene_rgbn.tif ...
"""

from __future__ import annotations

import argparse
import json
from typing import Any

import numpy as np
import rasterio
import torch
from numpy.typing import NDArray
from rasterio.windows import Window

from slimdiffsr.files.students import load_model
from slimdiffsr.geo.guided import GUIDED_REACH, MEANS_REACH, share_detail, with_block_means
from slimdiffsr.geo.resample import block_mean
from slimdiffsr.models.classical import Bicubic

SCALE = 4
Image = NDArray[np.float32]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("rasters", nargs="+")
    parser.add_argument("--model", action="append", required=True)
    parser.add_argument("--side", type=int, default=640, help="of the part used, in pixels")
    asked = parser.parse_args()
    for model in asked.model:
        rows: dict[tuple[str, bool], list[dict[str, float]]] = {}
        for raster in asked.rasters:
            for key, figures in compare(Ways(model), read(raster, asked.side)).items():
                rows.setdefault(key, []).append(figures)
        for (way, exact), figures in rows.items():
            mean = {name: float(np.mean([one[name] for one in figures])) for name in figures[0]}
            told = {name: round(value, 4) for name, value in mean.items()}
            print(json.dumps({"model": model, "way": way, "block_means": exact, **told}))


def read(path: str, side: int) -> Image:
    """(4, h, w) in [0, 1] from the middle, with sides that are multiples of the scale."""
    with rasterio.open(path) as dataset:
        height, width = (min(n, side) // 64 * 64 for n in dataset.shape)
        window = Window((dataset.width - width) // 2, (dataset.height - height) // 2, width, height)
        return (dataset.read((1, 2, 3, 4), window=window) / 255).astype(np.float32)


class Ways:
    """Ways to enlarge, all (b, h, w) -> (b, 4h, 4w)."""

    def __init__(self, model: str) -> None:
        self.model = load_model(model).model.eval()
        self.cubic = Bicubic(SCALE)

    @torch.inference_mode()
    def plain(self, image: Image) -> Image:
        """Cubic convolution."""
        enlarged: Image = self.cubic(torch.from_numpy(image[None]))[0].numpy()
        return enlarged

    @torch.inference_mode()
    def network(self, rgb: Image) -> Image:
        """The model, with the input's low frequencies."""
        made: Image = self.model(torch.from_numpy(rgb[None]) * 2 - 1)[0].numpy() / 2 + 0.5
        enlarged: Image = made + self.plain(rgb - block_mean(made, SCALE))
        return enlarged

    def infrared(self, lr: Image, rgb: Image) -> dict[str, Image]:
        """(h, w) each, of (4, h, w) and the enlarged visible bands."""
        cubic, light, means = self.plain(lr[3:])[0], rgb.mean(0), lr[:3].mean(0)
        detail = light - self.plain(means[None])[0]
        return {
            "cubic convolution": cubic,
            "network, alone": self.network(np.repeat(lr[3:], 3, axis=0)).mean(0),
            "network, with red and green": self.network(lr[[3, 0, 1]])[0],
            "detail added": cubic + detail,
            "detail as a ratio": cubic * light / np.maximum(light - detail, 0.02),
            "detail by regression": guided(lr[3], means, light),
        }


def guided(band: Image, means: Image, light: Image) -> Image:
    """As ``--all-bands network`` does it."""
    outer, near = ([(reach, reach)] * 2 for reach in (GUIDED_REACH, MEANS_REACH * SCALE))
    padded = [np.pad(image, outer, mode="edge") for image in (band, means)]
    known = np.ones(padded[0].shape, np.bool_)
    return share_detail(padded[0], known, padded[1], np.pad(light, near, mode="edge"), SCALE)


def compare(ways: Ways, truth: Image) -> dict[tuple[str, bool], dict[str, float]]:
    lr = np.rint(block_mean(truth, SCALE) * 255).astype(np.float32) / 255
    rgb = ways.network(lr[:3])
    found = {}
    for way, infrared in ways.infrared(lr, rgb).items():
        for exact in (False, True):
            bands = np.stack([rgb[0], infrared])
            if exact:
                pairs = zip(bands, lr[[0, 3]], strict=True)
                bands = np.stack([with_block_means(fine, coarse, SCALE) for fine, coarse in pairs])
            found[way, exact] = figures(np.rint(np.clip(bands, 0, 1) * 255) / 255, truth, lr)
    return found


def figures(bands: Image, truth: Image, lr: Image) -> dict[str, float]:
    index, wanted = ndvi(*bands), ndvi(truth[0], truth[3])
    back = block_mean(index[None], SCALE)[0] - ndvi(lr[0], lr[3])
    error: Any = np.mean((bands[1] - truth[3]) ** 2)
    return {
        "infrared_psnr_db": float(-10 * np.log10(error)),
        "ndvi_rms_error": float(np.sqrt(np.mean((index - wanted) ** 2))),
        "ndvi_averaged_back_mean_error": float(np.abs(back).mean()),
    }


def ndvi(red: Image, infrared: Image) -> Image:
    return (infrared - red) / np.maximum(infrared + red, 1e-3)


if __name__ == "__main__":
    main()

"""A scene as Sentinel-2 would have seen it, from a four-band aerial raster: for pictures and trials.

Averages the raster to 10 m, takes its brightness for reflectance (0 to 0.3 in the visible, 0 to 0.6
in the infrared), and stores it as a Level-2A product of baseline 05.09 does: 10000 times the
reflectance and 1000 more.

    python benchmarks/simulated_sentinel2.py naip_rgbn.tif S2B_MSIL2A_simulated_N0509_.tif
"""

from __future__ import annotations

import argparse

import numpy as np
import rasterio
from affine import Affine

from slimdiffsr.geo.resample import block_mean

BANDS = {"B04": 0.3, "B03": 0.3, "B02": 0.3, "B08": 0.6}  # the reflectance of 255


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("aerial")
    parser.add_argument("out")
    asked = parser.parse_args()
    with rasterio.open(asked.aerial) as dataset:
        factor = max(1, round(10 / dataset.res[0]))
        height, width = (n // factor * factor for n in dataset.shape)
        grey = dataset.read((1, 2, 3, 4))[:, :height, :width].astype(np.float32)
        transform = dataset.transform @ Affine.scale(factor)
        profile = {"driver": "GTiff", "crs": dataset.crs, "transform": transform, "count": 4}
    white = np.array(list(BANDS.values()), np.float32)[:, None, None]
    stored = np.rint(block_mean(grey, factor) / 255 * white * 10000 + 1000).astype(np.uint16)
    size = {"height": stored.shape[1], "width": stored.shape[2], "dtype": "uint16"}
    with rasterio.open(asked.out, "w", **profile, **size) as dataset:
        dataset.descriptions = tuple(BANDS)
        dataset.write(stored)


if __name__ == "__main__":
    main()

"""What an output's compression costs and saves: time to write, time to read, size, as JSON lines.

Enlarges rasters with a model, and copies each result to a COG by every codec in turn, several
times over; the least time of each counts. A band of 8 bits is also tried as one of 16 (times 40, as
reflectances are) and of 32 (0 to 1).

    python benchmarks/compression.py --model tiny-x4 IN.tif ...
"""

import argparse
import json
import os
import platform
import tempfile
import time
from pathlib import Path

import numpy as np
import rasterio
import rasterio.shutil

from slimdiffsr import Upscaler
from slimdiffsr.geo import SceneOptions

CODECS = (
    ("NONE", None), ("ZSTD", 1), ("ZSTD", 9), ("DEFLATE", 1), ("DEFLATE", 2), ("DEFLATE", 6),
    ("LZW", None),
)  # fmt: skip


def variants(path: Path, folder: Path) -> dict[str, Path]:
    """The raster as it is and in wider types, without compression."""
    with rasterio.open(path) as source:
        values, profile = source.read(), source.profile
    profile |= {"driver": "GTiff", "compress": None, "nodata": None, "tiled": True}
    profile |= {"blockxsize": 512, "blockysize": 512, "interleave": "band"}
    written = {}
    kinds = {"uint8": values}
    if values.dtype == np.uint8:
        kinds |= {"uint16": values.astype(np.uint16) * 40, "float32": values / np.float32(255)}
    else:
        kinds = {values.dtype.name: values}
    for name, pixels in kinds.items():
        written[name] = folder / f"{name}.tif"
        with rasterio.open(written[name], "w", **{**profile, "dtype": name}) as out:
            out.write(pixels.astype(name))
    return written


def measure(path: Path, out: Path, codec: str, level: int | None, repeats: int) -> dict[str, float]:
    """Seconds to write and to read, and bytes."""
    options = {"COMPRESS": codec, "BLOCKSIZE": "512", "NUM_THREADS": "ALL_CPUS"}
    if codec != "NONE":
        options["PREDICTOR"] = "YES"
    if level is not None:
        options["LEVEL"] = str(level)
    writing, reading = [], []
    for _ in range(repeats):
        started = time.perf_counter()
        with rasterio.Env(COG_TMP_COMPRESSION="NONE"):
            rasterio.shutil.copy(path, out, driver="COG", **options)
        writing.append(time.perf_counter() - started)
        started = time.perf_counter()
        with rasterio.open(out) as dataset:
            dataset.read()
        reading.append(time.perf_counter() - started)
    return {"write_s": min(writing), "read_s": min(reading), "bytes": out.stat().st_size}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("rasters", nargs="+", type=Path)
    parser.add_argument("--model", default="tiny-x4")
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    upscaler = Upscaler.from_pretrained(args.model)
    about = {
        "model": args.model, "gdal": rasterio.__gdal_version__, "cores": os.cpu_count(),
        "machine": platform.machine(),
    }  # fmt: skip
    for raster in args.rasters:
        with tempfile.TemporaryDirectory() as folder:
            enlarged = Path(folder) / "enlarged.tif"
            upscaler.upscale_scene(raster, enlarged, SceneOptions())
            for dtype, path in variants(enlarged, Path(folder)).items():
                with rasterio.open(path) as dataset:
                    mpx = dataset.width * dataset.height * dataset.count / 1e6
                for codec, level in CODECS:
                    out = Path(folder) / "out.tif"
                    cost = measure(path, out, codec, level, args.repeats)
                    row = {"raster": raster.name, "dtype": dtype, "codec": codec, "level": level}
                    rates = {
                        "write_mpx_s": round(mpx / cost["write_s"], 1),
                        "read_mpx_s": round(mpx / cost["read_s"], 1),
                        "bytes_per_value": round(cost["bytes"] / mpx / 1e6, 3),
                    }
                    print(json.dumps({**row, **rates, **about}), flush=True)


if __name__ == "__main__":
    main()

"""What the scene engine costs on top of the bare network, as JSON lines.

Runs a generated scene through the engine, then the same number of tiles through the network
alone, and prints both times. The network is a stand-in of a set cost unless ``--model`` names a
real one:

    python benchmarks/engine_overhead.py --tile-seconds 0.14
    OMP_WAIT_POLICY=PASSIVE python benchmarks/engine_overhead.py --model tiny-x4
"""

import argparse
import json
import platform
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import psutil
import rasterio
from numpy.typing import NDArray

from slimdiffsr import Upscaler
from slimdiffsr.geo import Network, SceneOptions, upscale_scene


def burning_network(scale: int, tile_seconds: float) -> Network:
    """A network that keeps one core busy for a set CPU time a tile, in numpy."""
    rng = np.random.default_rng(0)
    work = rng.random((256, 256), dtype=np.float32)

    def predict(batch: NDArray[np.float32]) -> NDArray[np.float32]:
        until = time.thread_time() + tile_seconds * len(batch)
        while time.thread_time() < until:
            np.sqrt(work, out=work)
        return batch.repeat(scale, 2).repeat(scale, 3)

    return Network(
        predict=predict, scale=scale, tile_hr_px=512, overlap_hr_px=64, model_id="burning"
    )


def write_scene(path: Path, side_lr_px: int, dtype: str) -> None:
    rng = np.random.default_rng(0)
    coarse = rng.random((3, side_lr_px // 16 + 1, side_lr_px // 16 + 1), dtype=np.float32)
    smooth = coarse.repeat(16, 1).repeat(16, 2)[:, :side_lr_px, :side_lr_px]
    grain = 0.1 * rng.random((3, side_lr_px, side_lr_px), dtype=np.float32)
    values = (250 * (0.9 * smooth + grain)).astype(dtype)
    with rasterio.open(
        path, "w", driver="GTiff", width=side_lr_px, height=side_lr_px, count=3, dtype=dtype,
        tiled=True, compress="deflate", crs="EPSG:32633", transform=rasterio.Affine.scale(10, -10),
    ) as dataset:  # fmt: skip
        dataset.write(values)


def bare_seconds(network: Network, tiles: int) -> float:
    side = network.tile_hr_px // network.scale
    batch = np.random.default_rng(0).random((network.batch, 3, side, side), dtype=np.float32)
    started = time.monotonic()
    for _ in range(-(-tiles // network.batch)):
        network.predict(batch)
    return time.monotonic() - started


def measure(
    network: Network, side_lr_px: int, dtype: str, options: SceneOptions
) -> dict[str, object]:
    process = psutil.Process()
    with tempfile.TemporaryDirectory() as name:
        src, dst = Path(name) / "in.tif", Path(name) / "out.tif"
        write_scene(src, side_lr_px, dtype)
        before = process.memory_info().rss
        stages: dict[str, float] = {}
        report = upscale_scene(
            src, dst, network, options,
            on_progress=lambda p: stages.setdefault(p.stage, time.monotonic()),
        )  # fmt: skip
        bare = bare_seconds(network, report.tiles_run)
        return {
            "model": network.model_id,
            "scale": network.scale,
            "dtype": dtype,
            "input_px": side_lr_px**2,
            "tiles_planned": report.plan.tiles,
            "tiles_run": report.tiles_run,
            "engine_s": round(report.seconds, 3),
            "chunks_s": round(stages["assembling"] - stages["tiles"], 3),
            "assembling_s": round(stages["done"] - stages["assembling"], 3),
            "bare_s": round(bare, 3),
            "overhead": round(report.seconds / bare - 1, 4),
            "rss_growth_mb": round((process.memory_info().rss - before) / 1e6),
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--model", help="a model's name or file, instead of the stand-in")
    parser.add_argument("--tile-seconds", type=float, default=0.14)
    parser.add_argument("--scale", type=int, default=4)
    parser.add_argument("--side", type=int, default=2048, help="input pixels along a side")
    parser.add_argument("--dtype", default="uint8")
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--format", default="cog", choices=["cog", "gtiff"])
    options = parser.parse_args()
    network = burning_network(options.scale, options.tile_seconds)
    if options.model:
        network = Upscaler.from_pretrained(options.model).network()
    network.predict(  # warm-up
        np.zeros((network.batch, 3, *[network.tile_hr_px // network.scale] * 2), np.float32)
    )
    overheads = []
    for _ in range(options.repeats):
        line = measure(network, options.side, options.dtype, SceneOptions(format=options.format))
        overheads.append(line["overhead"])
        print(json.dumps(line))
    print(
        json.dumps(
            {
                "median_overhead": statistics.median(overheads),  # type: ignore[type-var]
                "python": sys.version.split()[0],
                "gdal": rasterio.__gdal_version__,
                "numpy": np.__version__,
                "machine": platform.machine(),
            }
        )
    )


if __name__ == "__main__":
    main()

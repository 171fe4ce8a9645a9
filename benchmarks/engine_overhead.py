"""What the scene engine costs on top of the bare network, as JSON lines.

Runs a generated scene through the engine, and the same number of tiles through the network alone,
half of them before and half of them after, and prints how much more the engine took: in CPU time,
which other work on the machine hardly touches, and in wall time, which means something on a quiet
machine only. ``tiles_run_twice`` are the engine's own doing and count as its cost. The network is
a stand-in of a set cost unless ``--model`` names a real one:

    OMP_NUM_THREADS=1 python benchmarks/engine_overhead.py --model tiny-x4 --dtype uint16
    OMP_WAIT_POLICY=PASSIVE python benchmarks/engine_overhead.py --model tiny-x4
    python benchmarks/engine_overhead.py --tile-seconds 0 --side 10980  # counts tiles

With several threads the threads' waiting counts as CPU time of the network; one thread, or the
passive policy, keeps that out. With one thread ``cpu_beside_network`` is the share of all that the
engine does outside the network's own calls, which hangs least of all on the machine's mood.
"""

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import psutil
import rasterio
from numpy.typing import NDArray

from slimdiffsr import Upscaler
from slimdiffsr.geo import Network, SceneOptions, plan_scene, upscale_scene
from slimdiffsr.geo.spec import Predict


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
    top = 250 if dtype == "uint8" else 3000  # as in reflectances times 10,000
    values = (top * (0.9 * smooth + grain)).astype(dtype)
    with rasterio.open(
        path, "w", driver="GTiff", width=side_lr_px, height=side_lr_px, count=3, dtype=dtype,
        tiled=True, compress="deflate", crs="EPSG:32633", transform=rasterio.Affine.scale(10, -10),
    ) as dataset:  # fmt: skip
        dataset.write(values)


@dataclass(frozen=True)
class Cost:
    """Time on the clock, and of all cores together."""

    wall_s: float
    cpu_s: float

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(self.wall_s + other.wall_s, self.cpu_s + other.cpu_s)

    def __sub__(self, other: "Cost") -> "Cost":
        return Cost(self.wall_s - other.wall_s, self.cpu_s - other.cpu_s)


def now() -> Cost:
    return Cost(time.monotonic(), time.process_time())


def bare(network: Network, tiles: int) -> Cost:
    side = network.tile_hr_px // network.scale
    batch = np.random.default_rng(0).random((network.batch, 3, side, side), dtype=np.float32)
    started = now()
    for _ in range(-(-tiles // network.batch)):
        network.predict(batch)
    return now() - started


def timed(predict: Predict, total: list[float]) -> Predict:
    """``predict``, adding up the CPU time of the thread that calls it."""

    def watched(batch: NDArray[np.float32]) -> NDArray[np.float32]:
        started = time.thread_time()
        result = predict(batch)
        total[0] += time.thread_time() - started
        return result

    return watched


def one_thread() -> bool:
    return os.environ.get("OMP_NUM_THREADS") == "1"


def measure(
    network: Network, side_lr_px: int, dtype: str, options: SceneOptions
) -> dict[str, object]:
    process = psutil.Process()
    with tempfile.TemporaryDirectory() as name:
        src, dst = Path(name) / "in.tif", Path(name) / "out.tif"
        write_scene(src, side_lr_px, dtype)
        tiles = plan_scene(src, network, options).tiles
        alone = bare(network, tiles // 2)
        before = process.memory_info().rss
        begun: dict[str, Cost] = {}
        inside = [0.0]
        watched = replace(network, predict=timed(network.predict, inside))
        started = now()
        report = upscale_scene(
            src, dst, watched, options, on_progress=lambda p: begun.setdefault(p.stage, now())
        )
        engine = now() - started
        alone += bare(network, tiles - tiles // 2)
    mpx = report.plan.output_width_hr_px * report.plan.output_height_hr_px / 1e6
    return {
        "model": network.model_id,
        "scale": network.scale,
        "dtype": dtype,
        "input_px": side_lr_px**2,
        "tiles": tiles,
        "tiles_run_twice": report.tiles_run + report.tiles_skipped - tiles,
        "engine_cpu_s_per_mpx": round(engine.cpu_s / mpx, 4),
        "bare_cpu_s_per_mpx": round(alone.cpu_s / mpx, 4),
        "cpu_overhead": round(engine.cpu_s / alone.cpu_s - 1, 4),
        "cpu_beside_network": round(engine.cpu_s / inside[0] - 1, 4) if one_thread() else None,
        "cpu_ms_beside_network_per_tile": round(1000 * (engine.cpu_s - inside[0]) / tiles, 2)
        if one_thread()
        else None,
        "engine_s": round(engine.wall_s, 3),
        "assembling_s": round((begun["done"] - begun["assembling"]).wall_s, 3),
        "bare_s": round(alone.wall_s, 3),
        "wall_overhead": round(engine.wall_s / alone.wall_s - 1, 4),
        "rss_growth_mb": round((process.memory_info().rss - before) / 1e6),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
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
    lines = []
    for _ in range(options.repeats):
        scene_options = SceneOptions(format=options.format)
        lines.append(measure(network, options.side, options.dtype, scene_options))
        print(json.dumps(lines[-1]), flush=True)
    print(
        json.dumps(
            {
                **{
                    f"median_{key}": statistics.median(line[key] for line in lines)  # type: ignore[type-var]
                    for key in ("cpu_overhead", "cpu_beside_network", "wall_overhead")
                    if lines[0][key] is not None
                },
                "python": sys.version.split()[0],
                "gdal": rasterio.__gdal_version__,
                "numpy": np.__version__,
                "machine": platform.machine(),
            }
        )
    )


if __name__ == "__main__":
    main()

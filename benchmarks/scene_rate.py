"""Mpx/s of a whole scene beside the bare network's, as JSON lines.

A generated uint8 scene becomes a COG with overviews, by the engine and beside it the bare network
runs the same number of tiles in full batches, before and after. Start-up (loading, recording) is
done before, by a small scene. ``--check`` compares first what a card makes of a scene with what
NumPy makes of the same network's results, pixel by pixel. ``--devices`` names cards for one
process each; then the rate is the whole command's but for the start of the processes.

    python benchmarks/scene_rate.py --model base --side 4096 --batch 32
    python benchmarks/scene_rate.py --model tiny-x4 --device cpu --side 1024 --runtime openvino
    python benchmarks/scene_rate.py --model base --devices cuda:0,cuda:1
"""

import argparse
import json
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import rasterio
import torch
from numpy.typing import NDArray

from slimdiffsr import geo
from slimdiffsr.crews import ModelPlan, open_crew
from slimdiffsr.files.students import save_model
from slimdiffsr.geo.arrays import NUMPY
from slimdiffsr.models.student import build_student
from slimdiffsr.settings.config import ModelConfig

Crew = geo.Network | geo.Workers


def write_scene(path: Path, side_lr_px: int) -> Path:
    """A tiled, compressed uint8 scene of smooth fields with grain."""
    rng = np.random.default_rng(0)
    coarse = rng.random((3, side_lr_px // 16 + 1, side_lr_px // 16 + 1), dtype=np.float32)
    with rasterio.open(
        path, "w", driver="GTiff", width=side_lr_px, height=side_lr_px, count=3, dtype="uint8",
        tiled=True, compress="deflate", crs="EPSG:32633", transform=rasterio.Affine.scale(10, -10),
    ) as dataset:  # fmt: skip
        for k in range(3):
            smooth = coarse[k].repeat(16, 0).repeat(16, 1)[:side_lr_px, :side_lr_px]
            grain = 0.1 * rng.random((side_lr_px, side_lr_px), dtype=np.float32)
            dataset.write((250 * (0.9 * smooth + grain)).astype("uint8"), k + 1)
    return path


def base(folder: Path) -> str:
    """A file with the paper's student, its weights at random: none are published for x4."""
    config = ModelConfig(name="base-x4", scale=4)
    save_model(folder / "base.safetensors", build_student(config), config)
    return str(folder / "base.safetensors")


def on_host(network: geo.Network) -> geo.Network:
    """The same network, everything else done by NumPy."""

    def predict(tiles: NDArray[np.float32]) -> NDArray[np.float32]:
        results = network.predict(tiles)
        return results.cpu().numpy() if isinstance(results, torch.Tensor) else results

    return replace(network, predict=predict, arrays=NUMPY)


def compare(network: geo.Network, src: Path, folder: Path) -> dict[str, object]:
    """Where the card's and NumPy's pixels differ, and by how much; and another batch's."""
    outs = []
    for k, one in enumerate((network, on_host(network))):
        geo.upscale_scene(src, folder / f"{k}.tif", one, geo.SceneOptions(chunk_hr_px=1024))
        with rasterio.open(folder / f"{k}.tif") as dataset:
            outs.append(dataset.read().astype(int))
    difference = np.abs(outs[0] - outs[1])
    return {
        "check": "card against NumPy, the same network",
        "largest_difference": int(difference.max()),
        "different_pixels": int((difference > 0).sum()),
        "pixels": difference.size,
    }


def bare_s(network: geo.Network, tiles: int) -> float:
    """Seconds that the network alone takes for so many tiles, results left where they are."""
    side = network.tile_hr_px // network.scale
    shape = (network.batch, 3, side, side)
    batch = np.random.default_rng(0).random(shape, dtype=np.float32)
    started = time.monotonic()
    for _ in range(-(-tiles // network.batch)):
        network.predict(batch)
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.monotonic() - started


def stages(src: Path, dst: Path, crew: Crew) -> tuple[geo.SceneReport, dict[str, float]]:
    """The run, and when its stages began."""
    begun: dict[str, float] = {}
    report = geo.upscale_scene(
        src, dst, crew, geo.SceneOptions(overwrite=True),
        on_progress=lambda p: begun.setdefault(p.stage, time.monotonic()) and None,
    )  # fmt: skip
    return report, begun


def measure(crew: Crew, src: Path, small: Path, folder: Path, plan: ModelPlan) -> dict[str, Any]:
    """One line of figures."""
    stages(small, folder / "small.tif", crew)  # start-up
    alone = crew if isinstance(crew, geo.Network) else None
    spec = crew.spec if isinstance(crew, geo.Workers) else crew
    tiles = geo.plan_scene(src, spec).tiles
    bare = bare_s(alone, tiles // 2) if alone else 0.0
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    before = psutil.Process().memory_info().rss
    report, begun = stages(src, folder / "out.tif", crew)
    after = psutil.Process().memory_info().rss
    bare += bare_s(alone, tiles - tiles // 2) if alone else 0.0
    mpx = report.plan.output_width_hr_px * report.plan.output_height_hr_px / 1e6
    chunks_s = begun["assembling"] - begun["tiles"]
    line: dict[str, Any] = {
        "model": Path(plan.source).stem,
        "device": plan.device,
        "runtime": dict(spec.arithmetic),
        "batch": spec.batch,
        "output_mpx": round(mpx, 1),
        "tiles": tiles,
        "tiles_run_twice": report.tiles_run + report.tiles_skipped - tiles,
        "seconds": round(report.seconds, 3),
        "chunks_s": round(chunks_s, 3),
        "assembling_s": round(begun["done"] - begun["assembling"], 3),
        "mpx_per_s": round(mpx / report.seconds, 2),
        "host_growth_mb": round((after - before) / 1e6),
        "warnings": report.warnings,
    }
    if alone:
        line |= {
            "bare_s": round(bare, 3),
            "bare_mpx_per_s": round(mpx / bare, 2),
            "share_of_bare": round(bare / report.seconds, 3),
            "share_of_bare_without_assembling": round(bare / chunks_s, 3),
        }
        if torch.cuda.is_available():
            line["card_peak_mb"] = round(torch.cuda.max_memory_allocated() / 1e6)
    return line


def run(plan: ModelPlan, folder: Path, options: argparse.Namespace) -> None:
    """Print what was asked for."""
    with open_crew(plan, options.workers) as crew:
        small = write_scene(folder / "small_in.tif", 300)
        src = write_scene(folder / "in.tif", options.side)
        if options.check:
            print(json.dumps(compare(crew, small, folder)), flush=True)  # type: ignore[arg-type]
        for _ in range(options.repeats):
            print(json.dumps(measure(crew, src, small, folder, plan)), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--model", default="tiny-x4")
    parser.add_argument("--device", "--devices", dest="device", default="auto")
    parser.add_argument("--workers", type=int)
    parser.add_argument("--runtime", default="auto")
    parser.add_argument("--batch", type=int)
    parser.add_argument("--side", type=int, default=2048, help="input pixels along a side")
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        source = base(folder) if options.model == "base" else options.model
        plan = ModelPlan(
            source, device=options.device, runtime=options.runtime, batch=options.batch
        )
        run(plan, folder, options)


if __name__ == "__main__":
    main()

"""Whole scenes through the engine, beside the bare network with the same runtime in the same run."""

from __future__ import annotations

import dataclasses
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import rasterio
import torch
from affine import Affine
from torch import nn

from slimdiffsr import geo
from slimdiffsr.bench.fresh import memory_mib
from slimdiffsr.bench.measure import explain, make_input, time_once
from slimdiffsr.bench.protocol import BenchConfig, Precision
from slimdiffsr.bench.rows import Row
from slimdiffsr.models.student import BaseStudent, LatentStudent, TinyStudent
from slimdiffsr.runtime.devices import DTYPES
from slimdiffsr.upscale import Upscaler

__all__ = ["Energy", "measure_scene", "write_scene"]

BARE_RUNS = 5  # before the scene, and as many after
SMI = ("nvidia-smi", "--query-gpu=power.draw", "--format=csv,noheader,nounits")
SAMPLE_S = 0.2


class Energy:
    """Watt-seconds that a card takes, summed from what nvidia-smi tells; None where it tells nothing."""

    def __init__(self, device: torch.device) -> None:
        self.watt_seconds: float | None = None
        self._index = device.index or 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._on_card = device.type == "cuda"

    def __enter__(self) -> Energy:
        if self._on_card:
            self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        if self._on_card:
            self._thread.join()

    def _watch(self) -> None:
        before = time.monotonic()
        while not self._stop.wait(SAMPLE_S):
            watts = self._watts()
            if watts is None:
                return
            now = time.monotonic()
            self.watt_seconds = (self.watt_seconds or 0.0) + watts * (now - before)
            before = now

    def _watts(self) -> float | None:
        try:
            told = subprocess.run(
                [*SMI, "-i", str(self._index)],
                capture_output=True,
                text=True,
                timeout=10,
                check=True,
            )
            return float(told.stdout.split()[0])
        except (OSError, subprocess.SubprocessError, ValueError, IndexError):
            return None


def write_scene(path: Path, side_lr_px: int) -> None:
    """A georeferenced uint8 RGB scene of coarse patches and grain; always the same."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 200, (3, side_lr_px // 16 + 1, side_lr_px // 16 + 1), dtype=np.uint8)
    smooth = coarse.repeat(16, 1).repeat(16, 2)[:, :side_lr_px, :side_lr_px]
    values = smooth + rng.integers(0, 40, smooth.shape, dtype=np.uint8)
    with rasterio.open(
        path, "w", driver="GTiff", width=side_lr_px, height=side_lr_px, count=3, dtype="uint8",
        tiled=True, crs="EPSG:32633", transform=Affine.scale(10, -10),
    ) as dataset:  # fmt: skip
        dataset.write(values)


def measure_scene(
    row: Row,
    config: BenchConfig,
    precision: Precision,
    runtime: str,
    tell: Callable[[str], None] = lambda text: None,
) -> dict[str, Any]:
    """One row's figures for a scene of ``config.scene_px`` squared output pixels, COG with overviews.

    Start-up, with the first batch, is not counted. A row that fails has its reason in ``error``.
    """
    about = {
        "row": row.name, "title": row.title, "precision": precision, "runtime": runtime,
        "scene_px": config.scene_px,
    }  # fmt: skip
    tell(f"scene: {row.name}, {precision}, {runtime}")
    try:
        with torch.device("cpu"):
            model = row.build(config.scale)
        upscaler = Upscaler(
            model, _spec(row, model, config), device=config.device, precision=precision,
            runtime=runtime, batch=max(config.batches),
        )  # fmt: skip
        return about | _measure(upscaler, config, precision)
    except Exception as error:  # one row's failure must not lose the others
        return about | {"error": explain(error)}


def _spec(row: Row, model: nn.Module, config: BenchConfig) -> geo.NetworkSpec:
    tile_hr_px, overlap_hr_px = config.out_px, 16 * config.scale
    if isinstance(model, BaseStudent | LatentStudent | TinyStudent):
        overlap_hr_px = min(model.config.overlap_hr_px, tile_hr_px // 2)
    return geo.NetworkSpec(
        scale=config.scale, tile_hr_px=tile_hr_px, overlap_hr_px=overlap_hr_px, model_id=row.name
    )


def _measure(upscaler: Upscaler, config: BenchConfig, precision: Precision) -> dict[str, Any]:
    device = upscaler.device
    batch = max(config.batches)
    tiles = make_input(batch, config.out_px // config.scale, device, DTYPES[precision])
    runtime = upscaler.runtimes.for_tiles()
    runtime(tiles)
    times = [time_once(lambda: runtime(tiles), device) for _ in range(BARE_RUNS)]
    before = memory_mib("VmRSS")
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    with tempfile.TemporaryDirectory(prefix="slimdiffsr-") as folder, Energy(device) as energy:
        src, dst = Path(folder) / "in.tif", Path(folder) / "out.tif"
        write_scene(src, config.scene_px // config.scale)
        report = upscaler.upscale_scene(src, dst)
    times += [time_once(lambda: runtime(tiles), device) for _ in range(BARE_RUNS)]
    upscaler.runtimes.close()
    tile_s = float(np.median(times)) / batch
    found = dataclasses.asdict(runtime.fingerprint())
    return {
        "batch": batch,
        "tiles": report.tiles_run,
        "seconds": round(report.seconds, 3),
        "engine_mpx_per_s": config.scene_px**2 / 1e6 / report.seconds,
        "bare_mpx_per_s": config.out_px**2 / 1e6 / tile_s,
        "share_of_bare": report.tiles_run * tile_s / report.seconds,  # of the same tiles
        "host_peak_mib": round(memory_mib("VmHWM") - before, 1),
        "card_peak_mib": (
            round(torch.cuda.max_memory_allocated(device) / 2**20, 1)
            if device.type == "cuda"
            else None
        ),
        "watt_seconds": energy.watt_seconds and round(energy.watt_seconds, 1),
        "version": found["version"],
    }

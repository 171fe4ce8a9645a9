"""Scenes of many chunks: planned without listing them, laid together by VRTs over squares."""

import time
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from rasters import byte_picture, nearest, read, repeat, write_raster

from slimdiffsr.geo import SceneOptions, plan_scene, upscale_scene
from slimdiffsr.geo.grid import Region, TileGrid, chunk_count, chunk_regions


@pytest.mark.parametrize(
    ("empty", "window"), [("no", None), ("nodata", (37, 21, 250, 263)), ("mask", None)]
)
def test_many_chunks_end_in_the_same_bytes_as_few(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    empty: str,
    window: tuple[int, int, int, int] | None,
) -> None:
    values = byte_picture(2, 290, 300)
    values[:, 100:150, 40:80] = 0
    extra = {"nodata": 0} if empty == "nodata" else {}
    mask = np.where(values[0] == 0, 0, 255).astype(np.uint8) if empty == "mask" else None
    path = write_raster(tmp_path / "in.tif", values, mask=mask, **extra)
    options = SceneOptions(chunk_hr_px=512, window=window, all_bands=True)
    upscale_scene(path, tmp_path / "few.tif", nearest(), options)
    monkeypatch.setattr("slimdiffsr.geo.mosaic.SQUARE", 2)
    upscale_scene(path, tmp_path / "many.tif", nearest(), options)
    assert (tmp_path / "many.tif").read_bytes() == (tmp_path / "few.tif").read_bytes()
    if window is None:
        np.testing.assert_array_equal(read(tmp_path / "many.tif")[0], repeat(values, 4)[0])


def test_what_is_counted_is_what_would_be_listed() -> None:
    grid = TileGrid(Region(0, 0, 517, 333), 64, 16)
    for region in (Region(0, 0, 517, 333), Region(30, 40, 1, 1), Region(100, 7, 200, 300)):
        assert grid.count_touching(region) == len(grid.touching(region))
        assert chunk_count(region, 64) == len(list(chunk_regions(region, 64)))


def test_a_plan_of_a_huge_scene_takes_neither_time_nor_memory(tmp_path: Path) -> None:
    path = tmp_path / "huge.tif"
    side = 250_000
    with rasterio.open(
        path, "w", driver="GTiff", width=side, height=side, count=3, dtype="uint8", nodata=0,
        tiled=True, blockxsize=4096, blockysize=4096, sparse_ok=True, bigtiff="YES",
        crs="EPSG:32633", transform=Affine(1, 0, 500_000, 0, -1, 9_000_000),
    ):  # fmt: skip
        pass
    started = time.process_time()
    tracemalloc.start()
    plan = plan_scene(path, nearest(tile_hr_px=512, overlap_hr_px=64))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert plan.chunks == 489**2
    assert plan.tiles > 4_900_000
    assert peak < 50_000_000
    assert time.process_time() - started < 5

"""Values are judged from a bounded part of a raster, however large it is and however many bands."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from hypothesis import given
from hypothesis import strategies as st
from rasters import UTM

from slimdiffsr.geo import NetworkSpec, SceneOptions, plan_scene
from slimdiffsr.geo.environment import gdal
from slimdiffsr.geo.grid import Region
from slimdiffsr.geo.raster import Source, open_source
from slimdiffsr.geo.sampling import places_to_look, reads_whole

SPEC = NetworkSpec(scale=4, tile_hr_px=64, overlap_hr_px=16, model_id="x")


def sparse(path: Path, side: int, filled: tuple[int, int] | None, **more: Any) -> Path:
    """A scene of nodata with one block of values at a column and row, if any."""
    profile = {
        "driver": "GTiff", "width": side, "height": side, "count": 3, "dtype": "uint16",
        "tiled": True, "blockxsize": 512, "blockysize": 512, "sparse_ok": True, "nodata": 0,
        "transform": UTM, "bigtiff": "YES", **more,
    }  # fmt: skip
    with rasterio.open(path, "w", **profile) as dataset:
        if filled:
            values = np.arange(1, 512 * 512 + 1).reshape(1, 512, 512) % 3000 + 1000
            block = np.repeat(values.astype("uint16"), profile["count"], 0)
            dataset.write(block, window=rasterio.windows.Window(*filled, 512, 512))
    return path


@given(
    st.integers(1, 10**6), st.integers(1, 10**6), st.sampled_from([1, 16, 128, 512, 4096, 10**6]),
    st.sampled_from([1, 16, 512, 10**6]), st.sampled_from([1, 6, 448]),
)  # fmt: skip
def test_places_are_few_lie_inside_and_cost_little(
    width: int, height: int, rows: int, cols: int, pixel_bytes: int
) -> None:
    area = Region(7, 5, width, height)
    looks = places_to_look(area, (rows, cols), pixel_bytes)
    assert 1 <= len(looks) <= 64
    assert len({(look.region.col, look.region.row) for look in looks}) == len(looks)
    for look in looks:
        assert look.region.clipped(area) == look.region
        assert 1 <= look.rows <= look.region.height
        assert 1 <= look.cols <= look.region.width
    cost = sum(look.region.pixels for look in looks) * pixel_bytes
    assert cost <= 256e6 or len(looks) <= 8


def test_overviews_make_the_whole_cheap() -> None:
    assert reads_whole(Region(0, 0, 1000, 1000), 6, [])
    large = Region(0, 0, 20_000, 20_000)
    assert not reads_whole(large, 6, [])
    assert reads_whole(large, 6, [2, 4, 8, 16])
    assert not reads_whole(Region(0, 0, 250_000, 250_000), 6, [2, 4])
    assert not reads_whole(Region(0, 0, 10**9, 8), 6, [])  # GDAL takes the finer of two


def test_places_see_the_whole_range(tmp_path: Path) -> None:
    path = tmp_path / "in.tif"
    with rasterio.open(
        path, "w", driver="GTiff", width=6000, height=3000, count=2, dtype="uint16", transform=UTM,
        tiled=True, blockxsize=256, blockysize=256,
    ) as dataset:  # fmt: skip
        ramp = np.add.outer(np.arange(3000, dtype="uint16"), np.arange(6000, dtype="uint16"))
        dataset.write(np.stack([ramp, ramp]))
    with gdal(), open_source(path) as source:
        sample = source.sample((1, 2))
        assert source.places_looked_at == 64
        assert sample.values.shape[:2] == (2, 1)
        low, high = np.percentile(sample.values, (0.5, 99.5))
    true = np.percentile(ramp[::10, ::10], (0.5, 99.5))
    np.testing.assert_allclose((low, high), true, atol=450)
    plan = plan_scene(path, SPEC, SceneOptions(window=(0, 0, 9, 9)))
    assert any("64 blocks of the scene" in words for words in plan.assumptions)


def test_an_empty_scene_of_any_size_is_planned(tmp_path: Path) -> None:
    path = sparse(tmp_path / "in.tif", 250_000, None)
    plan = plan_scene(path, SPEC, SceneOptions(window=(9000, 9000, 50, 50)))
    assert plan.range_reason == "nothing valid to estimate it from"


def test_where_the_scene_is_empty_the_part_asked_for_is_looked_at(tmp_path: Path) -> None:
    path = sparse(tmp_path / "in.tif", 100_000, (51_200, 10_240))
    plan = plan_scene(path, SPEC, SceneOptions(window=(51_200, 10_240, 512, 512)))
    assert plan.range_reason == "estimated from the part asked for"
    assert 1000 <= plan.value_range[0] < plan.value_range[1] <= 4000


def test_hundreds_of_bands_are_not_all_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = sparse(
        tmp_path / "in.tif", 600, None, count=224, dtype="int16", nodata=None, interleave="pixel"
    )
    read: list[Any] = []
    whole = Source._read

    def noted(source: Source, bands: Any, *more: Any, **how: Any) -> Any:
        read.append(bands)
        return whole(source, bands, *more, **how)

    monkeypatch.setattr(Source, "_read", noted)
    plan_scene(path, SPEC, SceneOptions(bands=(3, 2, 1), window=(0, 0, 20, 20)))
    assert set(read) == {(3, 2, 1)}


@pytest.mark.slow
def test_a_part_of_a_large_scene_is_quick(tmp_path: Path) -> None:
    import time

    path = tmp_path / "in.tif"
    with rasterio.open(
        path, "w", driver="GTiff", width=12_000, height=12_000, count=3, dtype="uint16",
        transform=UTM, tiled=True, compress="deflate", zlevel=1,
    ) as dataset:  # fmt: skip
        rng = np.random.default_rng(0)
        for row in range(0, 12_000, 1000):
            values = rng.integers(0, 3000, (3, 1000, 12_000)).astype("uint16")
            dataset.write(values, window=rasterio.windows.Window(0, row, 12_000, 1000))
    started = time.process_time()
    plan_scene(path, SPEC, SceneOptions(window=(0, 0, 200, 200)))
    assert time.process_time() - started < 2  # 12 s when all of it was read

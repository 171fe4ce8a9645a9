"""Bands beyond red, green and blue take their detail from them, and keep what was measured."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from rasters import byte_picture, fixture, picture, read, wobbly, write_raster

from slimdiffsr.geo import SceneOptions, upscale_scene
from slimdiffsr.geo.guided import GUIDED_REACH, MEANS_REACH, share_detail, with_block_means
from slimdiffsr.geo.resample import bicubic_kernel, block_mean, enlarge

SCALE = 4


def parts(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """A guide of (224, 224) and its means, (56, 56)."""
    guide = picture(1, 224, 224, seed)[0].astype(np.float32)
    return guide, block_mean(guide[None], SCALE)[0]


def shared(coarse: np.ndarray, guide: np.ndarray, means: np.ndarray) -> np.ndarray:
    margin = (GUIDED_REACH - MEANS_REACH) * SCALE
    near = guide[margin:-margin, margin:-margin]
    return share_detail(coarse, np.ones(coarse.shape, np.bool_), means, near, SCALE)


def inner(fine: np.ndarray) -> np.ndarray:
    return fine[(slice(GUIDED_REACH * SCALE, -GUIDED_REACH * SCALE),) * 2]


@pytest.mark.parametrize("slope", [1.0, -0.7])
def test_a_band_that_goes_with_the_guide_gets_all_its_detail(slope: float) -> None:
    guide, means = parts()
    truth = inner(0.5 + slope * (guide - 0.5))
    result = shared(0.5 + slope * (means - 0.5), guide, means)
    plain = enlarge(
        (0.5 + slope * (means - 0.5))[(slice(GUIDED_REACH - 2, 2 - GUIDED_REACH),) * 2][None],
        bicubic_kernel(SCALE),
    )[0]
    assert np.abs(result - truth).mean() < 0.15 * np.abs(plain - truth).mean()


def test_a_band_of_its_own_gets_next_to_none() -> None:
    guide, means = parts()
    flat = np.full_like(means, 0.4)
    np.testing.assert_allclose(shared(flat, guide, means), 0.4, atol=1e-5)


def test_block_means_are_those_wanted() -> None:
    fine, _ = parts(1)
    _, wanted = parts(2)
    made = block_mean(with_block_means(fine, wanted, SCALE)[None], SCALE)[0]
    here = (slice(MEANS_REACH, -MEANS_REACH),) * 2
    before = np.abs(block_mean(fine[None], SCALE)[0] - wanted)[here]
    assert np.abs(made - wanted)[here].max() < 0.05 * before.max()


@pytest.mark.parametrize(
    "changes",
    [pytest.param({"chunk_hr_px": 512}, marks=pytest.mark.slow), {"window": (40, 30, 50, 60)}],
)
def test_every_band_is_the_same_wherever_chunks_end(
    tmp_path: Path, changes: dict[str, tuple[int, ...]]
) -> None:
    values = byte_picture(4, 150, 140)
    values[:, 100:120, 50:70] = 0
    path = write_raster(tmp_path / "in.tif", values, nodata=0)
    results = []
    for k, options in enumerate(({}, changes)):
        asked = SceneOptions(all_bands="network", **options)  # type: ignore[arg-type]
        upscale_scene(path, tmp_path / f"{k}.tif", wobbly(), asked)
        results.append(read(tmp_path / f"{k}.tif"))
    whole, part = results
    if "window" in changes:
        whole = whole[:, 120:360, 160:360]
    np.testing.assert_array_equal(part, whole)


def test_empty_pixels_share_and_get_nothing(tmp_path: Path) -> None:
    values = byte_picture(4, 80, 80)
    values[:, 30:40, 20:30] = 0
    path = write_raster(tmp_path / "in.tif", values, nodata=0)
    upscale_scene(path, tmp_path / "out.tif", wobbly(), SceneOptions(all_bands="network"))
    result = read(tmp_path / "out.tif")
    empty = np.kron(values == 0, np.ones((1, SCALE, SCALE), np.bool_))
    np.testing.assert_array_equal(result == 0, empty)


def ndvi(bands: np.ndarray) -> np.ndarray:
    red, infrared = bands[0].astype(float), bands[3].astype(float)
    index: np.ndarray = (infrared - red) / np.maximum(infrared + red, 1)
    return index


@pytest.mark.parametrize("name", ["", "naip_rgbn_utm_u8", "naip_farmland_5m"])
def test_the_vegetation_index_averaged_back_is_that_of_the_input(tmp_path: Path, name: str) -> None:
    path = fixture(name) if name else write_raster(tmp_path / "in.tif", byte_picture(4, 120, 120))
    window = (0, 0, 100, 90)
    asked = SceneOptions(all_bands="network", window=window, bands=(1, 2, 3))
    upscale_scene(path, tmp_path / "out.tif", wobbly(), asked)
    result, values = read(tmp_path / "out.tif"), read(path)[:, :90, :100]
    back = ndvi(result).reshape(90, SCALE, 100, SCALE).mean((1, 3))
    valid = (values > 0).all(0)
    assert np.abs(back - ndvi(values))[valid].mean() < 0.01

"""A raster goes in and comes out enlarged: in place, in its type, with its empty areas."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import rasterio.shutil
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from rasterio.enums import ColorInterp
from rasters import (
    byte_picture,
    nearest,
    picture,
    read,
    repeat,
    scene_figures,
    wobbly,
    write_raster,
)

from slimdiffsr.geo import Network, SceneOptions, plan_scene, upscale_scene
from slimdiffsr.geo.arrays import NumpyArrays
from slimdiffsr.geo.job import decide
from slimdiffsr.geo.pipeline import compute_chunk
from slimdiffsr.geo.raster import open_source

RAW = SceneOptions(colour="none", overwrite=True)
RGBA = (ColorInterp.red, ColorInterp.green, ColorInterp.blue, ColorInterp.alpha)


def run(path: Path, network: Network, **options: Any) -> NDArray[Any]:
    out = path.with_name("out.tif")
    upscale_scene(path, out, network, SceneOptions(overwrite=True, **options))
    assert not out.with_name("out.tif.partial").exists()
    return read(out)


@settings(
    max_examples=12,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(st.integers(1, 60), st.integers(1, 60), st.integers(0, 11), st.sampled_from(["none", "low"]))
def test_tiling_the_identity_enlarges_any_size(
    tmp_path: Path, height: int, width: int, offset: int, colour: str
) -> None:
    values = byte_picture(3, height, width)
    path = write_raster(tmp_path / "in.tif", values)
    result = run(
        path,
        nearest(),
        colour="none" if colour == "none" else "low-frequency",
        grid_offset_lr_px=(offset, 11 - offset),
    )
    np.testing.assert_array_equal(result, repeat(values, 4))


@pytest.mark.parametrize("scale", [2, 8])
def test_other_scales(tmp_path: Path, scale: int) -> None:
    values = byte_picture(3, 45, 70)
    path = write_raster(tmp_path / "in.tif", values)
    np.testing.assert_array_equal(run(path, nearest(scale)), repeat(values, scale))


def test_chunks_batches_and_shared_tiles_change_nothing(tmp_path: Path) -> None:
    path = write_raster(tmp_path / "in.tif", byte_picture(3, 300, 290))
    whole = run(path, wobbly())
    np.testing.assert_array_equal(run(path, wobbly(), chunk_hr_px=512), whole)
    np.testing.assert_array_equal(run(path, wobbly(batch=5), chunk_hr_px=512), whole)
    np.testing.assert_array_equal(run(path, wobbly(batch=500), chunk_hr_px=512), whole)


@dataclass(frozen=True)
class SmallMemory(NumpyArrays):
    """NumPy with little room for results that are needed again."""

    kept_bytes: int


@pytest.mark.parametrize(
    ("kept_bytes", "batch"),
    [
        (400_000_000, 1),
        (600_000, 1),
        pytest.param(600_000, 700, marks=pytest.mark.slow),
        (0, 1),
        (0, 4),
    ],
)
def test_little_memory_runs_some_tiles_twice_and_changes_nothing(
    tmp_path: Path, kept_bytes: int, batch: int
) -> None:
    path = write_raster(tmp_path / "in.tif", byte_picture(3, 300, 290))
    whole = run(path, wobbly())
    network = wobbly(arrays=SmallMemory(kept_bytes), batch=batch)
    report = upscale_scene(path, tmp_path / "o.tif", network, SceneOptions(chunk_hr_px=512))
    assert report.chunks_run == 9
    again = report.tiles_run - report.plan.tiles
    assert (again > 0) == (kept_bytes < 1_000_000)
    np.testing.assert_array_equal(read(tmp_path / "o.tif"), whole)


@pytest.mark.parametrize("chunk", [0, 4, 5, 8])
def test_a_chunk_computed_alone_is_the_same(tmp_path: Path, chunk: int) -> None:
    values = byte_picture(3, 300, 290)
    values[:, 110:130, 120:140] = 0
    path = write_raster(tmp_path / "in.tif", values, nodata=0)
    whole = run(path, wobbly())
    with open_source(str(path)) as source:
        job = decide(source, wobbly(), SceneOptions(chunk_hr_px=512))
        region = list(job.chunks())[chunk]
        stripes = compute_chunk(job, region, wobbly())
    for stripe in stripes:
        rows, cols = region.slices(job.header.region_hr)
        part = whole[stripe.band - 1, rows, cols][stripe.row_hr_px :][: len(stripe.pixels)]
        np.testing.assert_array_equal(stripe.pixels, part)


@pytest.mark.parametrize("window", [(0, 0, 30, 25), (101, 57, 80, 99), (250, 260, 40, 40)])
def test_a_window_equals_the_crop_of_the_whole(
    tmp_path: Path, window: tuple[int, int, int, int]
) -> None:
    values = byte_picture(3, 300, 290)
    values[:, 110:130, 120:140] = 0
    path = write_raster(tmp_path / "in.tif", values, nodata=0)
    whole = run(path, wobbly(), chunk_hr_px=512)
    part = run(path, wobbly(), window=window)
    col, row, width, height = (4 * n for n in window)
    np.testing.assert_array_equal(part, whole[:, row : row + height, col : col + width])


def test_bounds_select_whole_pixels_and_keep_their_place(tmp_path: Path) -> None:
    path = write_raster(tmp_path / "in.tif", byte_picture(3, 60, 50))
    with rasterio.open(path) as src:
        left, top = src.transform.c, src.transform.f
        inside = (left + 6.1, top - 23.9, left + 17.9, top - 12.1)
    assert plan_scene(path, nearest(), SceneOptions(bounds=inside)).window == (10, 20, 20, 20)
    run(path, nearest(), bounds=inside)
    with rasterio.open(tmp_path / "out.tif") as out:
        np.testing.assert_allclose(out.bounds, (left + 6, top - 24, left + 18, top - 12))


@pytest.mark.parametrize("chunk", [512, 4096])
def test_colours_do_not_depend_on_tiles(tmp_path: Path, chunk: int) -> None:
    lr = byte_picture(3, 256, 256)
    path = write_raster(tmp_path / "in.tif", lr)
    network = wobbly(tile_hr_px=128, overlap_hr_px=32)
    sr = run(path, network, chunk_hr_px=chunk)
    shifted = run(path, network, grid_offset_lr_px=(16, 16))
    figures = scene_figures(lr, sr, shifted, 128, 32)
    assert figures.seam_ratio <= 1.05
    assert figures.shift_psnr_db >= 38
    assert figures.low_pass_rms <= 1
    assert figures.mean_error <= 0.2


def test_the_seam_figure_sees_tiles_pasted_side_by_side(tmp_path: Path) -> None:
    lr = byte_picture(3, 256, 256)
    path = write_raster(tmp_path / "in.tif", lr)
    pasted = run(path, wobbly(tile_hr_px=128, overlap_hr_px=0), colour="none")
    assert scene_figures(lr, pasted, pasted, 128, 0).seam_ratio > 1.5


def test_without_the_colour_rule_the_network_decides(tmp_path: Path) -> None:
    values = byte_picture(3, 40, 40)
    path = write_raster(tmp_path / "in.tif", values)

    def darker(batch: NDArray[np.float32]) -> NDArray[np.float32]:
        return (batch * np.float32(0.5)).repeat(4, 2).repeat(4, 3)

    network = Network(predict=darker, scale=4, tile_hr_px=64, overlap_hr_px=16, model_id="darker")
    dark = run(path, network, colour="none")
    np.testing.assert_allclose(dark, repeat(values, 4) * 0.5, atol=0.51)  # ties either way
    kept = run(path, network)
    assert abs(kept.mean() - values.mean()) < 0.2


# ---------------------------------------------------------------------------------------------
# Types and ranges

DTYPES = {
    "uint8": (5, 250),
    "int8": (-90, 100),
    "uint16": (300, 9000),
    "int16": (-500, 4000),
    "uint32": (1_000_000, 90_000_000),
    "int32": (-5_000_000, 5_000_000),
    "float32": (-0.2, 1.3),
    "float64": (1e-6, 3e-6),
}


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_type_comes_back_in_its_units(tmp_path: Path, dtype: str) -> None:
    low, high = DTYPES[dtype]
    values = (low + picture(3, 40, 50) * (high - low)).astype(dtype)
    path = write_raster(tmp_path / "in.tif", values)
    result = run(path, nearest())
    assert result.dtype == values.dtype
    error = np.abs(result.astype(float) - repeat(values, 4))
    inside = np.abs(values - values.mean()) < 0.3 * (high - low)
    assert error[repeat(inside, 4)].max() <= 3e-7 * (high - low) + (dtype[0] in "iu")
    # Outside the estimated range the excess is enlarged smoothly: block means move a little.
    assert error.max() < 0.2 * (high - low)


def test_values_outside_the_range_are_not_clipped(tmp_path: Path) -> None:
    values = (1000 + 2000 * picture(3, 40, 40)).astype(np.uint16)
    values[:, 10:20, 10:20] = 60_000
    path = write_raster(tmp_path / "in.tif", values)
    result = run(path, nearest(), value_range=(1000, 3000))
    assert (result[:, 48:72, 48:72] == 60_000).all()
    with rasterio.open(tmp_path / "out.tif") as out:
        assert out.tags()["SLIMDIFFSR_VALUE_RANGE"] == "1000.0,3000.0"


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize("value", [0, 7])
def test_a_constant_image_stays_constant(tmp_path: Path, dtype: str, value: int) -> None:
    path = write_raster(tmp_path / "in.tif", np.full((3, 30, 30), value, dtype))
    np.testing.assert_allclose(run(path, wobbly()), value, atol=1e-4)


# ---------------------------------------------------------------------------------------------
# Emptiness


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_nodata_costs_its_blocks_and_nothing_else(tmp_path: Path, dtype: str) -> None:
    values = (50 + 150 * picture(3, 60, 60)).astype(dtype)
    hole = np.zeros((60, 60), np.bool_)
    hole[30, 41] = hole[:20, :23] = True
    values[:, hole] = 0
    path = write_raster(tmp_path / "in.tif", values, nodata=0)
    result = run(path, wobbly())
    np.testing.assert_array_equal(result == 0, np.repeat(repeat(hole[None], 4), 3, 0))
    # No dark rim: next to the hole the colours are those of the scene.
    assert result[result != 0].min() > 25


def test_one_nan_in_one_band_costs_one_block_there(tmp_path: Path) -> None:
    values = picture(3, 40, 40).astype(np.float32)
    whole = run(write_raster(tmp_path / "in.tif", values), nearest())
    values[1, 17, 22] = np.nan
    holed = run(write_raster(tmp_path / "in.tif", values), nearest())
    empty = np.isnan(holed)
    assert empty.sum() == 16
    assert empty[1, 68:72, 88:92].all()
    np.testing.assert_allclose(holed[~empty], whole[~empty], atol=1e-5)


def test_a_valid_pixel_never_becomes_nodata(tmp_path: Path) -> None:
    values = np.full((3, 30, 30), 3, np.uint8)
    values[:, ::2] = 1

    def black(batch: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.zeros((len(batch), 3, 64, 64), np.float32)

    network = Network(predict=black, scale=4, tile_hr_px=64, overlap_hr_px=16, model_id="black")
    path = write_raster(tmp_path / "in.tif", values, nodata=0)
    assert (run(path, network, colour="none") == 1).all()


def test_empty_tiles_are_skipped(tmp_path: Path) -> None:
    path = write_raster(tmp_path / "in.tif", np.zeros((3, 90, 90), np.uint8), nodata=0)

    def never(batch: NDArray[np.float32]) -> NDArray[np.float32]:
        raise AssertionError("an empty tile went through the network")

    network = Network(predict=never, scale=4, tile_hr_px=64, overlap_hr_px=16, model_id="never")
    report = upscale_scene(path, tmp_path / "out.tif", network)
    assert report.tiles_run == 0
    assert report.tiles_skipped == report.plan.tiles
    assert not read(tmp_path / "out.tif").any()


def test_alpha_is_carried_over_and_does_not_bleed(tmp_path: Path) -> None:
    values = byte_picture(4, 50, 50)
    values[3] = 255
    values[3, :, 30:] = 0
    values[:3, :, 30:] = 0
    path = write_raster(tmp_path / "in.tif", values, colorinterp=RGBA)
    result = run(path, wobbly())
    np.testing.assert_array_equal(result[3:], repeat(values[3:], 4))
    assert result[:3, :, 112:120].min() > 0
    assert not result[:3, :, 120:].any()
    with rasterio.open(tmp_path / "out.tif") as out:
        assert out.colorinterp == RGBA


def test_near_infrared_tagged_alpha_is_no_mask(tmp_path: Path) -> None:
    values = byte_picture(4, 50, 50)
    values[3, :10] = 0
    path = write_raster(tmp_path / "in.tif", values, colorinterp=RGBA)
    report = upscale_scene(path, tmp_path / "rgb.tif", nearest())
    assert "near infrared" in report.assumptions[0]
    np.testing.assert_array_equal(read(tmp_path / "rgb.tif"), repeat(values[:3], 4))
    result = run(path, nearest(), all_bands=True)
    np.testing.assert_array_equal(result[:3], repeat(values[:3], 4))
    means = result[3].reshape(50, 4, 50, 4).mean((1, 3))
    assert np.abs(means - values[3])[12:].mean() < 5
    with rasterio.open(tmp_path / "out.tif") as out:
        assert out.colorinterp[3] == ColorInterp.undefined
        assert (out.dataset_mask() == 255).all()


@pytest.mark.parametrize("format_", ["cog", "gtiff"])
def test_a_mask_is_carried_over(tmp_path: Path, format_: str) -> None:
    values = byte_picture(3, 200, 150)
    mask = np.full((200, 150), 255, np.uint8)
    mask[50:90, 70:] = 0
    path = write_raster(tmp_path / "in.tif", values, mask=mask)
    run(path, wobbly(), format=format_, chunk_hr_px=512)
    with rasterio.open(tmp_path / "out.tif") as out:
        np.testing.assert_array_equal(out.dataset_mask()[None], repeat(mask[None], 4))
        assert out.nodata is None
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in.tif", "out.tif"]


def test_undeclared_nodata_is_said_and_does_not_bleed(tmp_path: Path) -> None:
    values = (300 + 200 * picture(1, 60, 60)).astype(np.int16)
    values[:, :, :20] = -9999
    path = write_raster(tmp_path / "in.tif", values)
    report = upscale_scene(path, tmp_path / "o.tif", wobbly())
    assert any("-9999" in words for words in report.assumptions)
    result = read(tmp_path / "o.tif")
    assert (result[:, :, :80] == -9999).all()
    assert result[:, :, 80:].min() > 150


# ---------------------------------------------------------------------------------------------
# Bands


def test_a_single_band_gives_a_single_band(tmp_path: Path) -> None:
    values = byte_picture(1, 40, 60)
    path = write_raster(tmp_path / "in.tif", values)
    np.testing.assert_array_equal(run(path, nearest()), repeat(values, 4))


def test_bands_asked_for_come_in_that_order(tmp_path: Path) -> None:
    values = byte_picture(6, 40, 60)
    path = write_raster(tmp_path / "in.tif", values, descriptions=tuple("abcdef"))
    np.testing.assert_array_equal(
        run(path, nearest(), bands=(5, 1, 3)), repeat(values[[4, 0, 2]], 4)
    )
    with rasterio.open(tmp_path / "out.tif") as out:
        assert out.descriptions == ("e", "a", "c")
    np.testing.assert_array_equal(run(path, nearest(), bands=(4,)), repeat(values[[3]], 4))


def test_all_bands_are_enlarged_alike_wherever_chunks_end(tmp_path: Path) -> None:
    values = (100 + 3000 * picture(5, 290, 280)).astype(np.uint16)
    values[3, 120:131, 100:140] = values[4, 7, 7] = 0
    path = write_raster(tmp_path / "in.tif", values, nodata=0)
    whole = run(path, nearest(), all_bands=True)
    np.testing.assert_array_equal(whole == 0, repeat(values == 0, 4))
    parts = run(path, nearest(), all_bands=True, chunk_hr_px=512)
    np.testing.assert_array_equal(parts, whole)
    window = run(path, nearest(), all_bands=True, window=(90, 110, 33, 35))
    np.testing.assert_array_equal(window, whole[:, 440:580, 360:492])


def test_a_palette_is_expanded(tmp_path: Path) -> None:
    entries = np.random.default_rng(0).integers(0, 3, (1, 30, 30)).astype(np.uint8)
    table = {0: (10, 20, 30, 255), 1: (200, 100, 50, 255), 2: (90, 240, 5, 255)}
    path = write_raster(tmp_path / "in.tif", entries, photometric="palette")
    with rasterio.open(path, "r+") as dataset:
        dataset.write_colormap(1, table)
    report = upscale_scene(path, tmp_path / "o.tif", nearest())
    assert "palette" in report.assumptions[0]
    colours = np.array([table[k][:3] for k in range(3)], np.uint8)
    expected = np.moveaxis(colours[entries[0]], -1, 0)
    np.testing.assert_array_equal(read(tmp_path / "o.tif"), repeat(expected, 4))

"""Bad input gets one sentence of its own kind, and leaves nothing behind."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import rasterio.shutil
from affine import Affine
from rasterio.errors import NotGeoreferencedWarning
from rasters import byte_picture, nearest, write_raster

from slimdiffsr.errors import (
    BandError,
    OutputError,
    RangeError,
    RasterError,
    ScaleError,
    SlimDiffSRError,
    TilingError,
)
from slimdiffsr.geo import NetworkSpec, SceneOptions, plan_scene, upscale_scene


def missing(folder: Path) -> Path:
    return folder / "in.tif"


def text(folder: Path) -> Path:
    path = folder / "in.tif"
    path.write_text("not a raster")
    return path


def truncated(folder: Path) -> Path:
    path = write_raster(folder / "in.tif", byte_picture(3, 300, 300))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return path


def damaged(folder: Path) -> Path:
    path = write_raster(
        folder / "in.tif", byte_picture(3, 300, 300), compress="lzw", tiled=True,
        blockxsize=64, blockysize=64,
    )  # fmt: skip
    content = bytearray(path.read_bytes())
    content[len(content) // 2 : len(content) // 2 + 2000] = bytes(2000)
    path.write_bytes(content)
    return path


def complex_numbers(folder: Path) -> Path:
    return write_raster(folder / "in.tif", np.ones((1, 9, 9), np.complex64))


def wide_integers(folder: Path) -> Path:
    return write_raster(folder / "in.tif", np.ones((1, 9, 9), np.int64))


def no_bands(folder: Path) -> Path:
    page = write_raster(folder / "page.tif", byte_picture(3, 9, 9))
    path = folder / "in.gpkg"
    for name in ("first", "second"):
        rasterio.shutil.copy(page, path, driver="GPKG", RASTER_TABLE=name, APPEND_SUBDATASET="YES")
    return path


def mixed_types(folder: Path) -> Path:
    path = folder / "in.vrt"
    bands = "".join(
        f'<VRTRasterBand dataType="{kind}" band="{k}"/>' for k, kind in ((1, "Byte"), (2, "Int16"))
    )
    path.write_text(f'<VRTDataset rasterXSize="9" rasterYSize="9">{bands}</VRTDataset>')
    return path


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (missing, "does not exist"),
        (text, "not a raster that GDAL can read"),
        (truncated, "is damaged: cannot read columns 0 to"),
        (damaged, "is damaged: cannot read columns 0 to"),
        (complex_numbers, "complex numbers"),
        (wide_integers, "int64"),
        (no_bands, "no bands; it holds others, give one of them: GPKG:"),
        (mixed_types, "different types"),
    ],
)
def test_rasters_that_cannot_be_upscaled(
    tmp_path: Path, make: Callable[[Path], Path], words: str
) -> None:
    source = make(tmp_path)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(RasterError, match=words) as caught:
        upscale_scene(source, tmp_path / "out.tif", nearest())
    assert str(source) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.__suppress_context__ or caught.value.__context__ is None
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"bands": (1, 2)}, BandError, "one band or three"),
        ({"bands": (1, 1, 2)}, BandError, "different"),
        ({"bands": (0, 1, 2)}, BandError, "counted from 1"),
        ({"value_range": (5, 5)}, RangeError, "ascending"),
        ({"value_range": (0, float("nan"))}, RangeError, "finite"),
        ({"chunk_hr_px": 500}, TilingError, "multiple of 512"),
        ({"format": "jpeg"}, OutputError, "cog, gtiff or png"),
        ({"colour": "vivid"}, OutputError, "low-frequency or none"),
        ({"window": (0, 0, 1, 1), "bounds": (0, 0, 1, 1)}, TilingError, "either"),
    ],
)
def test_options_check_themselves(
    options: dict[str, Any], error: type[SlimDiffSRError], words: str
) -> None:
    with pytest.raises(error, match=words):
        SceneOptions(**options)


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"bands": (1, 2, 7)}, BandError, "band 7 was asked for, but the raster has 3"),
        ({"window": (90, 0, 5, 5)}, TilingError, "outside the raster, which is 50 x 40"),
        ({"window": (0, 0, 0, 5)}, TilingError, "is empty"),
        ({"bounds": (0, 0, 1, 1)}, TilingError, "outside the raster, which covers"),
        ({"bounds": (9, 0, 1, 1)}, TilingError, "left < right"),
        ({"overlap_hr_px": 40}, TilingError, "half a tile"),
        ({"overlap_hr_px": 6}, TilingError, "multiple of 4"),
        ({"grid_offset_lr_px": (12, 0)}, TilingError, "from 0 to 11"),
    ],
)
def test_options_that_do_not_fit_the_raster(
    tmp_path: Path, options: dict[str, Any], error: type[SlimDiffSRError], words: str
) -> None:
    path = write_raster(tmp_path / "in.tif", byte_picture(3, 40, 50))
    with pytest.raises(error, match=words):
        plan_scene(path, nearest(), SceneOptions(**options))
    with pytest.raises(error, match=words):
        upscale_scene(path, tmp_path / "out.tif", nearest(), SceneOptions(**options))
    assert [p.name for p in tmp_path.iterdir()] == ["in.tif"]


def test_bounds_need_an_upright_map(tmp_path: Path) -> None:
    options = SceneOptions(bounds=(0, 0, 5, 5))
    path = tmp_path / "in.tif"
    write_raster(path, byte_picture(3, 40, 50), transform=Affine(1, 0.2, 0, 0.2, -1, 0))
    with pytest.raises(TilingError, match="rotated"):
        plan_scene(path, nearest(), options)
    with pytest.warns(NotGeoreferencedWarning):
        write_raster(path, byte_picture(3, 40, 50), transform=Affine.identity(), crs=None)
    with pytest.raises(TilingError, match="no map coordinates"):
        plan_scene(path, nearest(), options)


def test_a_window_beyond_the_edge_is_cut_and_said(tmp_path: Path) -> None:
    path = write_raster(tmp_path / "in.tif", byte_picture(3, 40, 50))
    plan = plan_scene(path, nearest(), SceneOptions(window=(40, -5, 20, 20)))
    assert plan.window == (40, 0, 10, 15)
    assert "cut at its edge" in plan.assumptions[-1]


@pytest.mark.parametrize(
    ("numbers", "error"),
    [
        ({"scale": 3}, ScaleError),
        ({"scale": 1}, ScaleError),
        ({"tile_hr_px": 66}, TilingError),
        ({"overlap_hr_px": 40}, TilingError),
        ({"batch": 0}, TilingError),
    ],
)
def test_a_network_checks_its_numbers(
    numbers: dict[str, int], error: type[SlimDiffSRError]
) -> None:
    fine: dict[str, Any] = {"scale": 4, "tile_hr_px": 64, "overlap_hr_px": 16}
    with pytest.raises(error, match="got"):
        NetworkSpec(model_id="x", **{**fine, **numbers})


def test_a_plan_tells_what_would_be_done(tmp_path: Path) -> None:
    values = np.concatenate([byte_picture(3, 40, 50), byte_picture(1, 40, 50)])
    path = write_raster(tmp_path / "in.tif", values, nodata=0, photometric="minisblack")
    plan = plan_scene(path, nearest(), SceneOptions(all_bands=True))
    assert (plan.output_width_hr_px, plan.output_height_hr_px) == (200, 160)
    assert (plan.tiles, plan.chunks) == (20, 1)  # 5 x 4, outer ones stick out by the overlap
    assert plan.output_bytes == 200 * 160 * 4
    assert (plan.dtype, plan.nodata, plan.value_range) == ("uint8", 0, (0, 255))
    assert plan.rgb_bands == (1, 2, 3)
    assert len(plan.output_bands) == 4
    assert "first three" in plan.assumptions[0]
    with rasterio.open(path) as dataset:  # untouched
        assert dataset.count == 4

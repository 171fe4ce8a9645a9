"""Any scale: an antialiased reduction, exactly placed, the same wherever chunks end."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from rasters import byte_picture, picture, read, wobbly, write_raster

from slimdiffsr.errors import ScaleError
from slimdiffsr.geo import SceneOptions, plan_scene, upscale_scene
from slimdiffsr.geo.grid import Region
from slimdiffsr.geo.reduce import reduced

TEN_M = Affine(10, 0, 600000, 0, -10, 5000000)


def scene(folder: Path, **profile: Any) -> Path:
    values = byte_picture(3, 150, 141)
    values[:, 100:120, 50:70] = 0
    return write_raster(folder / "in.tif", values, nodata=0, **{"transform": TEN_M, **profile})


def run(path: Path, name: str = "out.tif", **options: Any) -> NDArray[Any]:
    target = path.with_name(name)
    upscale_scene(path, target, wobbly(), SceneOptions(overwrite=True, **options))
    return read(target)


def test_the_reduction_is_pillows_bicubic(tmp_path: Path) -> None:
    path = write_raster(tmp_path / "in.tif", byte_picture(3, 60, 57))
    whole, third = run(path), run(path, output_scale=3)
    for band, reduced_band in zip(whole, third, strict=True):
        image = Image.fromarray(band.astype(np.float32))
        resized = image.resize((171, 180), Image.Resampling.BICUBIC)
        assert np.abs(np.clip(np.asarray(resized), 0, 255) - reduced_band).max() < 0.51


@pytest.mark.parametrize(
    ("options", "size", "pixel_m"),
    [
        ({"output_scale": 3}, (423, 450), 10 / 3),
        ({"output_scale": 2}, (282, 300), 5.0),
        ({"resolution": 2.5}, (564, 600), 2.5),
        ({"resolution": 3}, (470, 500), 3.0),
        ({"resolution": 3.5, "resolution_unit": "m"}, (403, 429), 3.5),  # cut at the last centre
        ({"output_scale": 3.7}, (522, 555), 10 / 3.7),
    ],
)
def test_the_grid_is_exact(
    tmp_path: Path, options: dict[str, Any], size: tuple[int, int], pixel_m: float
) -> None:
    path = scene(tmp_path)
    run(path, **options)
    with rasterio.open(tmp_path / "out.tif") as dataset:
        assert (dataset.width, dataset.height) == size
        assert dataset.transform[:6] == pytest.approx(
            (pixel_m, 0, 6e5, 0, -pixel_m, 5e6), abs=1e-12
        )
    plan = plan_scene(path, wobbly(), SceneOptions(**options))
    assert (plan.output_width_hr_px, plan.output_height_hr_px) == size
    assert plan.scale == pytest.approx(10 / pixel_m)


_SLOW = pytest.mark.slow


@pytest.mark.parametrize("scale", [3, pytest.param(2, marks=_SLOW), pytest.param(3.7, marks=_SLOW)])
def test_chunks_and_windows_make_no_difference(tmp_path: Path, scale: float) -> None:
    path = scene(tmp_path)
    whole = run(path, output_scale=scale)
    np.testing.assert_array_equal(run(path, output_scale=scale, chunk_hr_px=512), whole)
    part = run(path, "part.tif", output_scale=scale, window=(40, 30, 51, 60))
    with (
        rasterio.open(tmp_path / "part.tif") as dataset,
        rasterio.open(tmp_path / "out.tif") as all_,
    ):
        col, row = ~all_.transform @ (dataset.transform.c, dataset.transform.f)
    rows, cols = round(row), round(col)
    assert (row, col) == pytest.approx((rows, cols), abs=1e-6)
    of_whole = whole[:, rows : rows + part.shape[1], cols : cols + part.shape[2]]
    np.testing.assert_array_equal(part, of_whole)


def test_empty_pixels_stay_empty_and_bleed_nowhere(tmp_path: Path) -> None:
    result = run(scene(tmp_path), output_scale=2)
    empty = np.zeros(result.shape[1:], np.bool_)
    empty[200:240, 100:140] = True
    np.testing.assert_array_equal((result == 0).all(0), empty)
    assert (result[:, ~empty] > 0).all()


def test_masks_alpha_and_floats_are_reduced_too(tmp_path: Path) -> None:
    values = picture(4, 40, 40).astype(np.float32)
    values[:3, 10:20, 10:20] = np.nan
    values[3] = 1
    path = write_raster(tmp_path / "in.tif", values)
    result = run(path, output_scale=3, all_bands=True)
    assert np.isnan(result[:3, 30:60, 30:60]).all()
    assert np.isnan(result[:3]).sum() == 3 * 900
    mask = np.full((40, 40), 255, np.uint8)
    mask[:12, :8] = 0
    masked = write_raster(tmp_path / "masked.tif", byte_picture(3, 40, 40), mask=mask)
    run(masked, "m.tif", output_scale=3)
    with rasterio.open(tmp_path / "m.tif") as dataset:
        np.testing.assert_array_equal(
            dataset.dataset_mask() == 0, np.kron(mask == 0, np.ones((3, 3)))
        )


def test_what_lies_beyond_the_network_is_refused(tmp_path: Path) -> None:
    path = scene(tmp_path)
    with pytest.raises(ScaleError, match=r"2 from 10 is 5 times, .* up to 4 times"):
        run(path, resolution=2)
    with pytest.raises(ScaleError, match="scale of 1 is 1 times"):
        run(path, output_scale=1)
    with pytest.raises(ScaleError, match="either a scale or a resolution"):
        SceneOptions(output_scale=3, resolution=2.5)
    with pytest.raises(ScaleError, match="positive numbers"):
        SceneOptions(resolution=-1)
    turned = scene(tmp_path, transform=TEN_M @ Affine.rotation(10))
    with pytest.raises(ScaleError, match="rotated or not square"):
        run(turned, resolution=2.5)


def test_metres_are_told_from_degrees_and_feet(tmp_path: Path) -> None:
    degrees = scene(tmp_path, crs="EPSG:4326", transform=Affine(1e-4, 0, 10, 0, -1e-4, 45))
    plan = plan_scene(degrees, wobbly(), SceneOptions(resolution=5, resolution_unit="m"))
    assert plan.scale == pytest.approx(11.132 / 5)
    feet = scene(tmp_path, crs="EPSG:2263")
    plan = plan_scene(feet, wobbly(), SceneOptions(resolution=1, resolution_unit="m"))
    assert plan.scale == pytest.approx(10 * 0.3048006096 / 1, rel=1e-6)


@given(
    st.integers(1, 40).flatmap(lambda q: st.tuples(st.integers(1, q), st.just(q))),
    st.lists(st.integers(1, 700), min_size=1, max_size=6),
)
def test_the_outputs_of_neighbours_meet(pair: tuple[int, int], widths: list[int]) -> None:
    ratio, start, ends = Fraction(*pair), 0, []
    for width in widths:
        part = reduced(Region(start, 0, width, 50), ratio)
        ends.append((part.col, part.col_end))
        start += width
    assert all(before[1] == after[0] for before, after in pairwise(ends))
    assert ends[0][0] == 0
    assert abs(ends[-1][1] - start * ratio) <= 0.5

"""xarray in and out: lazy, in place on the map, and equal to the way by files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dask.array
import numpy as np
import pytest
import rasterio
import rioxarray
import torch
import xarray
from affine import Affine
from products import CORNER, NEW, plain, reflectance, stored
from rasters import byte_picture, picture, read, write_raster

import slimdiffsr.xarray as ours
from slimdiffsr.errors import ConfigError, RangeError, RasterError
from slimdiffsr.geo import NetworkSpec, SceneOptions
from slimdiffsr.sensors import SensorOptions
from slimdiffsr.upscale import Upscaler

# rioxarray's own use of affine 3.
pytestmark = pytest.mark.filterwarnings("ignore:Use `@` matmul:PendingDeprecationWarning")


class Pooling(torch.nn.Module):
    """Bilinear, with a gain that hangs on the whole tile: wrong tiles would show."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        big = torch.nn.functional.interpolate(x, scale_factor=4, mode="bilinear")
        return big * (1 + 0.05 * torch.sin(400 * x.mean((1, 2, 3), keepdim=True)))


@pytest.fixture(scope="module")
def pooling() -> Upscaler:
    spec = NetworkSpec(scale=4, tile_hr_px=64, overlap_hr_px=16, model_id="pooling")
    return Upscaler(Pooling(), spec, device="cpu")


def opened(path: Path, **chunks: int) -> xarray.DataArray:
    data = rioxarray.open_rasterio(path, chunks=chunks or None)
    assert isinstance(data, xarray.DataArray)
    return data


def by_file(path: Path, upscaler: Upscaler, options: SceneOptions) -> Any:
    upscaler.upscale_scene(path, path.with_name("out.tif"), options)
    return read(path.with_name("out.tif"))


@pytest.mark.parametrize("chunks", [{}, {"y": 40, "x": 57}])
@pytest.mark.parametrize("scale", [pytest.param(None, marks=pytest.mark.slow), 3.0])
def test_an_array_becomes_what_its_file_would(
    tmp_path: Path, pooling: Upscaler, chunks: dict[str, int], scale: float | None
) -> None:
    values = byte_picture(3, 110, 130)
    values[:, 50:60, 20:40] = 0
    path = write_raster(tmp_path / "in.tif", values, nodata=0)
    options = SceneOptions(output_scale=scale, overwrite=True)
    result = ours.upscale(opened(path, **chunks), pooling, options)
    assert isinstance(result.data, dask.array.Array) == bool(chunks)
    np.testing.assert_array_equal(result.values, by_file(path, pooling, options))
    with rasterio.open(tmp_path / "out.tif") as dataset:
        assert result.rio.crs == dataset.crs
        assert result.rio.transform() == dataset.transform
        assert result.rio.bounds() == pytest.approx(tuple(dataset.bounds))
        assert result.rio.nodata == dataset.nodata


def test_times_and_bands_keep_their_dimensions_and_labels(pooling: Upscaler) -> None:
    data = xarray.DataArray(
        np.stack([byte_picture(4, 40, 50, seed) for seed in range(3)], axis=1),
        dims=("band", "time", "y", "x"),
        coords={
            "band": ["blue", "green", "red", "nir"], "time": [10, 20, 30],
            "y": 5000 - 10 * np.arange(40), "x": 700 + 10 * np.arange(50), "cloud": ("time", [1, 2, 3]),
        },
        name="cube", attrs={"units": "1"},
    ).rio.write_crs("EPSG:32632")  # fmt: skip
    options = SceneOptions(all_bands=True)
    result = ours.upscale(data.chunk(y=25), pooling, options)
    assert result.dims == data.dims
    assert list(result.band.values) == list(data.band.values)
    assert (list(result.time.values), list(result.cloud.values)) == ([10, 20, 30], [1, 2, 3])
    assert (result.name, result.attrs["units"]) == ("cube", "1")
    assert result.x.values[:2] == pytest.approx([700 - 5 + 1.25, 700 - 5 + 3.75])
    one = ours.upscale(data.isel(time=1, drop=True), pooling, options)
    np.testing.assert_array_equal(result.isel(time=1).values, one.values)
    rgb = data.isel(time=0).slimdiffsr.upscale(pooling)
    assert list(rgb.band.values) == ["red", "green", "blue"]


def test_nothing_is_made_before_it_is_asked_for(pooling: Upscaler) -> None:
    made = []

    def block(block_info: Any = None) -> Any:
        made.append(block_info[None]["chunk-location"])
        return byte_picture(3, 200, 200)

    lazy = dask.array.map_blocks(
        block, chunks=((3,), (200,) * 4, (200,) * 4), dtype=np.uint8, meta=np.empty(0, np.uint8)
    )
    data = xarray.DataArray(lazy, dims=("band", "y", "x"))
    result = ours.upscale(data, pooling)
    assert (result.shape, made) == ((3, 3200, 3200), [])
    assert result[:, :10, :10].compute().shape == (3, 10, 10)
    assert set(made) == {(0, 0, 0), (0, 0, 1), (0, 1, 0), (0, 1, 1)}  # and its neighbours


def test_one_plane_without_bands_and_with_nan(pooling: Upscaler) -> None:
    values = picture(1, 40, 44)[0].astype(np.float32)
    values[10:14, 20:30] = np.nan
    data = xarray.DataArray(values, dims=("y", "x"))
    result = ours.upscale(data, pooling, SceneOptions(value_range=(0, 1)))
    assert (result.dims, result.shape) == (("y", "x"), (160, 176))
    np.testing.assert_array_equal(np.isnan(result), np.kron(np.isnan(values), np.ones((4, 4))))


def test_a_sensor_gives_the_range_that_cannot_be_estimated(
    tmp_path: Path, pooling: Upscaler
) -> None:
    values = stored(reflectance(), 1e-4, -0.1, "uint16")
    path = plain(tmp_path / NEW, values, ("B04", "B03", "B02"))
    data = opened(path, x=20).assign_coords(band=["B04", "B03", "B02"])
    with pytest.raises(RangeError, match="give value_range, or a sensor"):
        ours.upscale(data, pooling)
    result = ours.upscale(data, pooling, sensor=SensorOptions(sensor="sentinel-2-l2a"))
    np.testing.assert_array_equal(result.values, by_file(path, pooling, SceneOptions()))


def test_other_things_are_refused_by_name(pooling: Upscaler) -> None:
    data = xarray.DataArray(byte_picture(3, 20, 20), dims=("band", "y", "x"))
    with pytest.raises(
        RasterError, match=r"got xarray\.core\.dataset\.Dataset: of a Dataset give one"
    ):
        ours.upscale(data.to_dataset("band"), pooling)  # type: ignore[arg-type]
    with pytest.raises(RasterError, match=r"got numpy\.ndarray"):
        ours.upscale(data.values, pooling)  # type: ignore[arg-type]
    with pytest.raises(RasterError, match="no dimensions y and x"):
        ours.upscale(data.rename(y="row", x="col"), pooling)
    with pytest.raises(RasterError, match="complex64"):
        ours.upscale(data.astype(np.complex64), pooling)
    with pytest.raises(RasterError, match="empty"):
        ours.upscale(data[:, :0], pooling)
    with pytest.raises(ConfigError, match="select from the array instead"):
        ours.upscale(data, pooling, SceneOptions(window=(0, 0, 5, 5)))


def test_zarr_in_and_zarr_out(tmp_path: Path, pooling: Upscaler) -> None:
    data = xarray.DataArray(
        byte_picture(3, 40, 48), dims=("band", "y", "x"), name="scene",
        coords={"y": CORNER[1] - 10 * np.arange(40), "x": CORNER[0] + 10 * np.arange(48)},
    ).rio.write_crs("EPSG:32632")  # fmt: skip
    data.to_zarr(tmp_path / "in.zarr", consolidated=False)
    cube = xarray.open_zarr(tmp_path / "in.zarr", consolidated=False, decode_coords="all")["scene"]
    ours.upscale(cube, pooling).to_zarr(tmp_path / "out.zarr", consolidated=False)
    back = xarray.open_zarr(tmp_path / "out.zarr", consolidated=False, decode_coords="all")["scene"]
    np.testing.assert_array_equal(back.values, ours.upscale(data, pooling).values)
    assert back.rio.crs == data.rio.crs
    assert back.rio.transform() == Affine(2.5, 0, CORNER[0] - 5, 0, -2.5, CORNER[1] + 5)

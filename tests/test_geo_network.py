"""Sources that are no GeoTIFF on the disk; the network and the watcher of a scene."""

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import rasterio.shutil
from numpy.typing import NDArray
from rasterio.errors import RasterioError
from rasters import (
    byte_picture,
    nearest,
    read,
    repeat,
    wobbly,
    write_raster,
)
from test_geo_scene import run

from slimdiffsr.errors import PredictionError
from slimdiffsr.geo import Network, Progress, SceneOptions, upscale_scene

# ---------------------------------------------------------------------------------------------
# Sources that are not a GeoTIFF on the disk


def test_a_vrt_and_a_jpeg_2000(tmp_path: Path) -> None:
    values = byte_picture(3, 60, 70)
    path = write_raster(tmp_path / "in.tif", values)
    rasterio.shutil.copy(path, tmp_path / "in.vrt", driver="VRT")
    np.testing.assert_array_equal(run(tmp_path / "in.vrt", nearest()), repeat(values, 4))
    jp2 = tmp_path / "in.jp2"
    try:
        write_raster(jp2, values, driver="JP2OpenJPEG", QUALITY=100, REVERSIBLE="YES")
    except RasterioError:  # a GDAL without JPEG 2000
        return
    np.testing.assert_array_equal(run(jp2, nearest()), repeat(values, 4))


@pytest.mark.parametrize("form", ["/vsizip/{}/in.tif", "zip://{}!in.tif"])
def test_a_raster_in_a_virtual_file_system(tmp_path: Path, form: str) -> None:
    values = byte_picture(3, 60, 70)
    with zipfile.ZipFile(tmp_path / "in.zip", "w") as archive:
        archive.write(write_raster(tmp_path / "in.tif", values), "in.tif")
    upscale_scene(form.format(tmp_path / "in.zip"), tmp_path / "o.tif", nearest())
    np.testing.assert_array_equal(read(tmp_path / "o.tif"), repeat(values, 4))


# ---------------------------------------------------------------------------------------------
# The network and the watcher


@pytest.mark.parametrize(
    ("wrong", "words"),
    [(lambda x: x, "shape"), (lambda x: np.full((1, 3, 64, 64), np.nan), "not finite")],
)
def test_an_unusable_result_is_refused(tmp_path: Path, wrong: Any, words: str) -> None:
    path = write_raster(tmp_path / "in.tif", byte_picture(3, 30, 30))
    network = Network(predict=wrong, scale=4, tile_hr_px=64, overlap_hr_px=16, model_id="wrong")
    with pytest.raises(PredictionError, match=words):
        upscale_scene(path, tmp_path / "o.tif", network)
    assert [p.name for p in tmp_path.iterdir()] == ["in.tif"]


def test_tiles_that_are_not_finite_are_repaired(tmp_path: Path) -> None:
    path = write_raster(tmp_path / "in.tif", byte_picture(3, 90, 80))
    good = wobbly(batch=3)
    calls: list[int] = []

    def broken(batch: NDArray[np.float32]) -> NDArray[np.float32]:
        result = np.array(good.predict(batch))
        if len(calls) % 5 == 2:
            result[1, 0, 5, 5] = np.inf
        calls.append(len(batch))
        return result

    np.testing.assert_array_equal(
        run(path, wobbly(batch=3, predict=broken, repair=good.predict)), run(path, good)
    )


def test_the_network_sees_full_batches_of_one_shape(tmp_path: Path) -> None:
    shapes = set()
    inner = nearest(batch=4)

    def watched(batch: NDArray[np.float32]) -> NDArray[np.float32]:
        shapes.add((batch.shape, batch.dtype.name, batch.min() >= 0, batch.max() <= 1))
        return np.asarray(inner.predict(batch))

    network = nearest(batch=4)
    object.__setattr__(network, "predict", watched)
    run(write_raster(tmp_path / "in.tif", byte_picture(1, 90, 30)), network)
    assert shapes == {((4, 3, 16, 16), "float32", True, True)}


def test_progress_goes_from_nothing_to_everything(tmp_path: Path) -> None:
    path = write_raster(tmp_path / "in.tif", byte_picture(3, 200, 200))
    told: list[Progress] = []
    options = SceneOptions(chunk_hr_px=512)
    report = upscale_scene(path, tmp_path / "o.tif", nearest(), options, on_progress=told.append)
    done = [progress.output_px_done for progress in told]
    assert done == sorted(done)
    assert (done[0], done[-1]) == (0, 640_000)
    assert [p.stage for p in told[-2:]] == ["assembling", "done"]
    assert told[-1].chunks_done == told[-1].chunks == report.chunks_run == 4
    assert report.mpx_per_s > 0
    assert report.output_file_bytes == (tmp_path / "o.tif").stat().st_size

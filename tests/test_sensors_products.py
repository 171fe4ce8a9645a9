"""Products as producers deliver them: which reflectance the network sees, to 1e-4."""

from __future__ import annotations

import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest
import rasterio
from products import (
    CORNER,
    SIDE,
    landsat,
    msi_reflectance,
    reflectance,
    safe,
    seen_reflectance,
    zipped,
)
from rasters import nearest, picture, read

from slimdiffsr.errors import RasterError
from slimdiffsr.geo import SceneOptions, upscale_scene
from slimdiffsr.sensors import known_raster

VISIBLE = ("B04", "B03", "B02")
SEVERAL = [
    ("1C", "03.01", None),
    ("1C", "05.09", -1000),
    ("2A", "02.14", None),
    ("2A", "05.09", -1000),
]


@pytest.mark.parametrize(("level", "baseline", "offset"), SEVERAL)
@pytest.mark.parametrize("form", ["folder", "zip"])
def test_a_safe_is_seen_as_the_reflectance_it_means(
    tmp_path: Path, level: str, baseline: str, offset: int | None, form: str
) -> None:
    product = safe(tmp_path, level, baseline, offset)
    known = known_raster(product if form == "folder" else zipped(product))
    truth = np.stack([msi_reflectance()[name] for name in VISIBLE])
    np.testing.assert_allclose(seen_reflectance(known), truth, atol=1e-4)
    assert f"sentinel-2-l{level.lower()}" in known.remarks[0]


@pytest.mark.parametrize("level", ["1C", "2A"])
def test_the_old_format_is_read_by_the_same_rules(tmp_path: Path, level: str) -> None:
    known = known_raster(safe(tmp_path, level, "02.04", None, old=True))
    truth = np.stack([msi_reflectance()[name] for name in VISIBLE])
    np.testing.assert_allclose(seen_reflectance(known), truth, atol=1e-4)


def test_a_safe_may_be_given_by_its_metadata_file(tmp_path: Path) -> None:
    product = safe(tmp_path, "2A", "05.09", -1000)
    assert known_raster(product / "MTD_MSIL2A.xml").path == known_raster(product).path


def test_all_bands_come_on_the_grid_of_the_finest(tmp_path: Path) -> None:
    known = known_raster(safe(tmp_path, "2A", "05.09", -1000), all_bands=True)
    with rasterio.open(known.path) as dataset:
        assert dataset.descriptions == (
            "B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B11", "B12",
        )  # fmt: skip
        assert (dataset.width, dataset.height) == (SIDE, SIDE)
        assert dataset.transform[:6] == (10, 0, CORNER[0], 0, -10, CORNER[1])
        coarse = dataset.read(5) / 1e4 - 0.1
    means = coarse.reshape(SIDE // 2, 2, SIDE // 2, 2).mean((1, 3))
    assert np.abs(means - msi_reflectance()["B05"]).mean() < 0.03  # enlarged, in place


def test_zeros_at_the_edge_are_empty_in_fine_and_coarse_bands(tmp_path: Path) -> None:
    product = safe(tmp_path, "2A", "05.09", -1000, empty_px=12)
    known = known_raster(product, all_bands=True)
    upscale_scene(known, tmp_path / "out.tif", nearest(), SceneOptions(all_bands=True))
    result = read(tmp_path / "out.tif")
    assert not result[1:4, :, : 12 * 4].any()
    # Nothing is pulled down by the zeros beside it: cubic convolution alone undershoots 1200 a bit.
    assert result[:, :, 13 * 4 :].min() > 600
    with rasterio.open(tmp_path / "out.tif") as dataset:
        assert dataset.nodata == 0


def test_what_a_safe_lacks_is_said(tmp_path: Path) -> None:
    product = safe(tmp_path, "2A", "05.09", -1000)
    band = next(product.rglob("*_B03_10m.jp2"))
    band.rename(band.with_suffix(".part"))
    with pytest.raises(RasterError, match=r"lacks T32TPQ_.*_B03_10m\.jp2.*cut short"):
        known_raster(product)
    (product / "MTD_MSIL2A.xml").unlink()
    with pytest.raises(RasterError, match="SAFE without its MTD"):
        known_raster(product)
    cut = tmp_path / "S2A_MSIL2A_cut.SAFE.zip"
    cut.write_bytes(b"PK\x03\x04 and no more")
    with pytest.raises(RasterError, match="cut short"):
        known_raster(cut)


@pytest.mark.parametrize("satellite", ["LT05", "LE07", "LC08", "LC09"])
@pytest.mark.parametrize("metadata", ["json", "txt", "xml", ""])
def test_a_landsat_folder_is_seen_as_the_reflectance_it_means(
    tmp_path: Path, satellite: str, metadata: str
) -> None:
    known = known_raster(landsat(tmp_path, satellite, metadata))
    numbers = (4, 3, 2) if satellite[3] in "89" else (3, 2, 1)
    truth = np.stack([reflectance(1, SIDE, seed=number)[0] for number in numbers])
    np.testing.assert_allclose(seen_reflectance(known), truth, atol=1e-4)


def test_a_landsat_tar_needs_no_unpacking(tmp_path: Path) -> None:
    folder = landsat(tmp_path / "in")
    with tarfile.open(tmp_path / f"{folder.name}.tar", "w") as archive:
        for file in folder.iterdir():
            archive.add(file, file.name)
    known = known_raster(tmp_path / f"{folder.name}.tar")
    truth = np.stack([reflectance(1, SIDE, seed=number)[0] for number in (4, 3, 2)])
    np.testing.assert_allclose(seen_reflectance(known), truth, atol=1e-4)


def test_two_landsat_scenes_in_one_folder_are_refused(tmp_path: Path) -> None:
    folder = landsat(tmp_path, "LC09")
    for file in landsat(tmp_path, "LC08").iterdir():
        shutil.copy(file, folder)
    with pytest.raises(RasterError, match="2 scenes"):
        known_raster(folder)


@pytest.mark.slow
def test_coarse_bands_are_sharpened_by_the_fine_ones_and_keep_their_means(tmp_path: Path) -> None:
    truth = picture(1, SIDE, SIDE)[0]  # what all bands would see at 10 m
    product = safe(tmp_path, "2A", "05.09", -1000, seen=truth * 0.25 + 0.02)
    known = known_raster(product, all_bands=True)
    assert known.coarser == (6, 1, 1, 1, 2, 2, 2, 1, 2, 6, 2, 2)
    results = {}
    for kind in (True, "network"):
        options = SceneOptions(all_bands=kind, overwrite=True, colour="none")
        upscale_scene(known, tmp_path / "out.tif", nearest(), options)
        results[kind] = read(tmp_path / "out.tif").astype(float) / 1e4 - 0.1
    wanted = np.kron(truth * 0.25 + 0.02, np.ones((4, 4)))
    for band in (4, 10):  # B05 and B11, of 20 m
        error = {kind: np.abs(result[band] - wanted).mean() for kind, result in results.items()}
        assert error["network"] < 0.5 * error[True]
        means = results["network"][band].reshape(SIDE // 2, 8, SIDE // 2, 8).mean((1, 3))
        coarse = (truth * 0.25 + 0.02).reshape(SIDE // 2, 2, SIDE // 2, 2).mean((1, 3))
        assert np.abs(means - coarse).mean() < 1e-3
    parts = SceneOptions(all_bands="network", overwrite=True, colour="none", window=(8, 10, 31, 30))
    upscale_scene(known, tmp_path / "part.tif", nearest(), parts)
    whole = np.rint((results["network"] + 0.1) * 1e4)[:, 40:160, 32:156]
    np.testing.assert_array_equal(read(tmp_path / "part.tif"), whole)

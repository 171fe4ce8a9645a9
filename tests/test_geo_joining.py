"""Outputs laid together from the blocks of chunks, beside what GDAL makes of the same chunks."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from rasters import byte_picture, nearest, write_raster
from rio_cogeo.cogeo import cog_validate

from slimdiffsr.geo import SceneOptions, destination, joining, upscale_scene
from slimdiffsr.geo.tiff import encode, read_directories

KINDS: dict[str, dict[str, Any]] = {
    "plain": {},
    "nodata": {"nodata": 0},
    "mask": {"mask": "circle"},
    "alpha": {"alpha": True},
}


def scene(folder: Path, kind: str, height: int = 330, width: int = 410) -> Path:
    how = dict(KINDS[kind])
    values = byte_picture(4 if how.pop("alpha", False) else 3, height, width)
    rows, cols = np.mgrid[:height, :width]
    circle = (rows - 100) ** 2 + (cols - 250) ** 2 < 60**2
    if kind == "nodata":
        values[:, circle] = 0
    if kind == "alpha":
        values[3] = np.where(circle, 0, 255)
        how["photometric"], how["alpha"] = "RGB", "YES"
    if "mask" in how:
        how["mask"] = np.where(circle, np.uint8(0), np.uint8(255))
    return write_raster(folder / "in.tif", values, tiled=True, **how)


@pytest.mark.parametrize(
    ("kind", "chunk"),
    [("plain", 512), ("plain", 1024), ("nodata", 1024), ("mask", 1024), ("alpha", 1024)],
)
def test_joined_blocks_are_the_file_that_gdal_would_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, chunk: int
) -> None:
    src = scene(tmp_path, kind)
    ours, theirs = tmp_path / "ours.tif", tmp_path / "theirs.tif"
    with monkeypatch.context() as patch:
        patch.delattr(destination, "copy_to_format")
        upscale_scene(src, ours, nearest(), SceneOptions(chunk_hr_px=chunk))
    with monkeypatch.context() as patch:
        patch.setattr(destination, "join_chunks", lambda *_: False)
        upscale_scene(src, theirs, nearest(), SceneOptions(chunk_hr_px=chunk))
    with rasterio.open(ours) as one, rasterio.open(theirs) as two:
        assert one.profile == two.profile
        assert one.tags() == two.tags()
        assert one.colorinterp == two.colorinterp
        assert one.overviews(1) == two.overviews(1) == [2, 4]
    for level in (None, 0, 1):
        how = {} if level is None else {"overview_level": level}
        with rasterio.open(ours, **how) as one, rasterio.open(theirs, **how) as two:
            np.testing.assert_array_equal(one.read(), two.read())
            np.testing.assert_array_equal(one.dataset_mask(), two.dataset_mask())
    assert cog_validate(str(ours), strict=True) == (True, [], [])


@pytest.mark.parametrize("fmt", ["cog", "gtiff"])
def test_more_than_four_gigabytes_become_a_bigtiff(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fmt: Any
) -> None:
    src, out = scene(tmp_path, "mask"), tmp_path / "out.tif"
    upscale_scene(src, tmp_path / "classic.tif", nearest(), SceneOptions(format=fmt))
    monkeypatch.setattr(joining, "_CLASSIC_BYTES", 0)
    upscale_scene(src, out, nearest(), SceneOptions(format=fmt))
    assert out.read_bytes()[:4] == b"II+\0"
    assert (tmp_path / "classic.tif").read_bytes()[:4] == b"II*\0"
    with rasterio.open(out) as one, rasterio.open(tmp_path / "classic.tif") as two:
        assert one.tags() == two.tags()
        assert one.profile == two.profile
        np.testing.assert_array_equal(one.read(), two.read())
        np.testing.assert_array_equal(one.read_masks(), two.read_masks())
    if fmt == "cog":
        assert cog_validate(str(out), strict=True)[0]


def test_directories_survive_being_written_and_read(tmp_path: Path) -> None:
    path = write_raster(tmp_path / "a.tif", byte_picture(3, 40, 50), tiled=True, nodata=7)
    with path.open("rb") as file:
        directories, between = read_directories(file)
    for big in (False, True):
        copy = tmp_path / "copy.tif"
        copy.write_bytes(encode(directories, between, big))
        with copy.open("rb") as file:
            again, same = read_directories(file)
        assert again == directories
        assert same[: len(between)] == between
    (tmp_path / "b.tif").write_bytes(b"MM\0*")
    with (tmp_path / "b.tif").open("rb") as file, pytest.raises(ValueError, match="little-endian"):
        read_directories(file)

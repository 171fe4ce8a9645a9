"""Formats and compressions: what cannot be held is refused, what was lost is seen."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from numpy.typing import NDArray
from rasterio.enums import ColorInterp
from rasters import byte_picture, nearest, picture, read, repeat, write_raster

from slimdiffsr.errors import OutputError
from slimdiffsr.geo import SceneOptions, SceneReport, upscale_scene

EMPTY = np.zeros((30, 40), np.bool_)
EMPTY[:, :13] = True


def scene(path: Path, dtype: str = "uint8", *, empty: str = "", bands: int = 3) -> NDArray[Any]:
    """A raster whose left third may be empty: as nodata, a mask, alpha, or one band's nodata."""
    values: NDArray[Any] = byte_picture(bands, 30, 40).astype(dtype)
    values[values == 0] = 1
    extra: dict[str, Any] = {}
    if empty == "nodata":
        values[:, EMPTY] = 0
        extra["nodata"] = 0
    elif empty == "one band's nodata":
        values[1, EMPTY] = 0
        extra["nodata"] = 0
    elif empty == "mask":
        extra["mask"] = np.where(EMPTY, 0, 255).astype(np.uint8)
    elif empty == "alpha":
        values[3] = np.where(EMPTY, 0, 255)
        extra["colorinterp"] = [
            ColorInterp.red, ColorInterp.green, ColorInterp.blue, ColorInterp.alpha,
        ]  # fmt: skip
    write_raster(path, values, **extra)
    return values


def enlarge(tmp_path: Path, name: str = "o.tif", **options: Any) -> SceneReport:
    return upscale_scene(tmp_path / "in.tif", tmp_path / name, nearest(), SceneOptions(**options))


@pytest.mark.parametrize("fmt", ["cog", "gtiff"])
@pytest.mark.parametrize("compression", ["JPEG", "WEBP"])
@pytest.mark.parametrize("empty", ["nodata", "mask"])
def test_a_lossy_compression_keeps_empty_pixels_by_a_mask(
    tmp_path: Path, fmt: str, compression: str, empty: str
) -> None:
    scene(tmp_path / "in.tif", empty=empty)
    report = enlarge(tmp_path, format=fmt, creation_options={"COMPRESS": compression})
    with rasterio.open(tmp_path / "o.tif") as out:
        assert out.profile["compress"] in ("jpeg", "webp")
        assert out.nodata is None
        np.testing.assert_array_equal(out.dataset_mask() == 0, repeat(EMPTY[None], 4)[0])
    told = [words for words in report.assumptions if "a mask instead of" in words]
    assert len(told) == (empty == "nodata")


def test_a_lossless_compression_keeps_nodata(tmp_path: Path) -> None:
    values = scene(tmp_path / "in.tif", empty="nodata")
    enlarge(tmp_path, creation_options={"COMPRESS": "WEBP", "QUALITY": "100"})
    with rasterio.open(tmp_path / "o.tif") as out:
        assert out.nodata == 0
        np.testing.assert_array_equal(out.read(), repeat(values, 4))


def test_bands_that_are_empty_in_different_places_are_refused_a_lossy_compression(
    tmp_path: Path,
) -> None:
    scene(tmp_path / "in.tif", empty="one band's nodata")
    with pytest.raises(OutputError, match=r"empty in one band and not in another.*are kept"):
        enlarge(tmp_path, creation_options={"COMPRESS": "JPEG"})
    assert not (tmp_path / "o.tif").exists()
    assert enlarge(tmp_path).chunks_resumed == 1


@pytest.mark.parametrize("fmt", ["cog", "gtiff"])
def test_transparency_survives_a_lossy_compression_or_it_is_refused(
    tmp_path: Path, fmt: str
) -> None:
    scene(tmp_path / "in.tif", empty="alpha", bands=4)
    try:
        enlarge(tmp_path, format=fmt, creation_options={"COMPRESS": "JPEG"})
    except OutputError as error:
        assert "would make empty pixels valid" in str(error)  # noqa: PT017
        return
    with rasterio.open(tmp_path / "o.tif") as out:
        np.testing.assert_array_equal(out.dataset_mask() == 0, repeat(EMPTY[None], 4)[0])


@pytest.mark.parametrize("fmt", ["cog", "gtiff"])
@pytest.mark.parametrize("compression", ["JPEG", "WEBP"])
def test_a_compression_that_cannot_hold_the_type_is_refused_first(
    tmp_path: Path, fmt: str, compression: str
) -> None:
    write_raster(tmp_path / "in.tif", (4000 * picture(3, 30, 40)).astype(np.uint16))
    with pytest.raises(OutputError, match=f"creation options COMPRESS={compression}"):
        enlarge(tmp_path, format=fmt, creation_options={"COMPRESS": compression})
    assert [p.name for p in tmp_path.iterdir()] == ["in.tif"]


@pytest.mark.parametrize("key", ["DISCARD_LSB", "discard_lsb"])
def test_other_losses_are_found_by_trying(tmp_path: Path, key: str) -> None:
    values = scene(tmp_path / "in.tif", empty="nodata")
    enlarge(tmp_path, format="gtiff", creation_options={key: "3"})
    assert not (read(tmp_path / "o.tif") == repeat(values, 4)).all()
    with rasterio.open(tmp_path / "o.tif") as out:
        np.testing.assert_array_equal(out.dataset_mask() == 0, repeat(EMPTY[None], 4)[0])


def test_values_that_a_limit_of_bits_cuts_off_are_seen(tmp_path: Path) -> None:
    # The trial's picture fits 12 bits, the scene does not.
    write_raster(tmp_path / "in.tif", (60000 * picture(3, 30, 40)).astype(np.uint16))
    with pytest.raises(OutputError, match=r"does not hold the values.*NBITS=12.*are kept"):
        enlarge(tmp_path, format="gtiff", creation_options={"NBITS": "12"})
    assert not (tmp_path / "o.tif").exists()
    write_raster(tmp_path / "in.tif", (4000 * picture(3, 30, 40)).astype(np.uint16))
    enlarge(tmp_path, format="gtiff", creation_options={"NBITS": "12"})


def test_a_mask_as_png(tmp_path: Path) -> None:
    values = scene(tmp_path / "in.tif", empty="mask")
    enlarge(tmp_path, "o.png", format="png")
    with rasterio.open(tmp_path / "o.png") as out:
        np.testing.assert_array_equal(out.read(), repeat(values, 4))
        np.testing.assert_array_equal(out.dataset_mask() == 0, repeat(EMPTY[None], 4)[0])


@pytest.mark.parametrize(
    "name",
    ["o.nc", "o.zarr", "o.jp2", "o.JPG", "o.webp", "o.img", "o.vrt", "o.hdf", "o.gpkg", "o.pdf"],
)
def test_the_name_of_another_format_is_refused(tmp_path: Path, name: str) -> None:
    scene(tmp_path / "in.tif")
    with pytest.raises(OutputError, match=f"{name} promises another format"):
        enlarge(tmp_path, name)
    assert [p.name for p in tmp_path.iterdir()] == ["in.tif"]


@pytest.mark.parametrize(("name", "fmt"), [("o.png", "cog"), ("o.tif", "png"), ("o.TIFF", "png")])
def test_name_and_format_must_agree(tmp_path: Path, name: str, fmt: str) -> None:
    scene(tmp_path / "in.tif")
    with pytest.raises(OutputError, match=f"the format {fmt} does not fit the name"):
        enlarge(tmp_path, name, format=fmt)
    assert [p.name for p in tmp_path.iterdir()] == ["in.tif"]


@pytest.mark.parametrize("name", ["o", "o.x4", "o.2026-01", "o.TIF", "o.gtiff"])
def test_names_that_promise_nothing_else_are_geotiffs(tmp_path: Path, name: str) -> None:
    values = scene(tmp_path / "in.tif")
    enlarge(tmp_path, name)
    np.testing.assert_array_equal(read(tmp_path / name), repeat(values, 4))

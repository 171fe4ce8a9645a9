"""The output file: valid, in place, and telling what the input told."""

import os
import stat
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import rasterio
from affine import Affine
from rasterio.control import GroundControlPoint
from rasterio.errors import NotGeoreferencedWarning
from rasterio.transform import GCPTransformer, RPCTransformer
from rasters import UTM, byte_picture, nearest, picture, read, repeat, write_raster
from rio_cogeo.cogeo import cog_validate

from slimdiffsr.errors import OutputError
from slimdiffsr.geo import SceneOptions, upscale_scene

ROTATED = Affine(17.32, 5.0, 100.0, 10.0, -8.66, 200.0)
FLIPPED = Affine(0.6, 0, 594717.6, 0, 0.6, 4403031.0)


def test_a_cog_by_default(tmp_path: Path) -> None:
    path = write_raster(tmp_path / "in.tif", byte_picture(3, 300, 280))
    upscale_scene(path, tmp_path / "o.tif", nearest(), SceneOptions(chunk_hr_px=512))
    valid, errors, warnings = cog_validate(tmp_path / "o.tif", strict=True)
    assert (valid, errors, warnings) == (True, [], [])
    with rasterio.open(tmp_path / "o.tif") as out:
        assert out.block_shapes[0] == (512, 512)
        assert out.overviews(1)
        assert out.profile["compress"] == "deflate"  # which every tool opens


@pytest.mark.parametrize("transform", [UTM, ROTATED, FLIPPED])
@pytest.mark.parametrize("window", [None, (7, 11, 20, 13)])
def test_every_pixel_centre_stays_in_place(
    tmp_path: Path, transform: Affine, window: tuple[int, int, int, int] | None
) -> None:
    path = write_raster(tmp_path / "in.tif", byte_picture(3, 30, 40), transform=transform)
    upscale_scene(path, tmp_path / "o.tif", nearest(), SceneOptions(window=window))
    col, row = (window or (0, 0))[:2]
    with rasterio.open(path) as src, rasterio.open(tmp_path / "o.tif") as out:
        assert out.crs == src.crs
        # The centre of an input pixel is the common corner of the middle output pixels.
        for dc, dr in ((0, 0), (5, 9), (19, 12)):
            centre = src.xy(row + dr, col + dc)
            np.testing.assert_allclose(out.xy(4 * dr + 2, 4 * dc + 2, offset="ul"), centre)
        np.testing.assert_allclose(out.transform[:2], np.array(src.transform[:2]) / 4)


def test_metadata_are_carried_over_and_stale_ones_are_not(tmp_path: Path) -> None:
    values = (100 + 900 * picture(3, 30, 30)).astype(np.uint16)
    path = write_raster(
        tmp_path / "in.tif",
        values,
        nodata=7,
        descriptions=("one", "two", "three"),
        tags={"AREA_OR_POINT": "Point", "OWNER": "a & b <c>", "TIFFTAG_SOFTWARE": "x"},
    )
    with rasterio.open(path, "r+") as dataset:
        dataset.update_tags(2, STATISTICS_MEAN="5", WAVELENGTH="560")
        dataset.units = ("m", "", "")
        dataset.scales, dataset.offsets = (0.1, 0.1, 0.1), (-5, -5, -5)
    upscale_scene(path, tmp_path / "o.tif", nearest())
    with rasterio.open(path) as src, rasterio.open(tmp_path / "o.tif") as out:
        tags = out.tags()
        assert {key: tags[key] for key in ("AREA_OR_POINT", "OWNER", "TIFFTAG_SOFTWARE")} == {
            "AREA_OR_POINT": "Point", "OWNER": "a & b <c>", "TIFFTAG_SOFTWARE": "x",
        }  # fmt: skip
        assert out.tags(2) == {"WAVELENGTH": "560"}
        for name in ("descriptions", "nodatavals", "units", "scales", "offsets", "dtypes"):
            assert getattr(out, name) == getattr(src, name), name
        np.testing.assert_allclose(out.bounds, src.bounds)
        ours = {key: value for key, value in tags.items() if key.startswith("SLIMDIFFSR_")}
    assert ours.pop("SLIMDIFFSR_VERSION")
    low, high = (float(v) for v in ours.pop("SLIMDIFFSR_VALUE_RANGE").split(","))
    assert 100 < low < high < 1000
    assert ours == {
        "SLIMDIFFSR_MODEL": "nearest",
        "SLIMDIFFSR_WEIGHTS_SHA256": "0" * 64,
        "SLIMDIFFSR_SCALE": "4",
        "SLIMDIFFSR_TILE": "64",
        "SLIMDIFFSR_OVERLAP": "16",
        "SLIMDIFFSR_BANDS": "1,2,3",
        "SLIMDIFFSR_COLOUR": "low-frequency",
    }


@pytest.mark.parametrize("window", [None, (3, 5, 20, 20)])
def test_control_points_keep_their_places(
    tmp_path: Path, window: tuple[int, int, int, int] | None
) -> None:
    points = [
        GroundControlPoint(  # type: ignore[no-untyped-call]
            row=r, col=c, x=10 + c / 50 + r / 900, y=50 - r / 60, z=0.0
        )
        for r, c in ((0, 0), (0, 40), (30, 0), (30, 40), (15, 20))
    ]
    path = tmp_path / "in.tif"
    with pytest.warns(NotGeoreferencedWarning):
        write_raster(path, byte_picture(3, 30, 40), transform=Affine.identity(), crs=None)
    with rasterio.open(path, "r+") as dataset:
        dataset.gcps = (points, rasterio.CRS.from_epsg(4326))
    upscale_scene(path, tmp_path / "o.tif", nearest(), SceneOptions(window=window))
    col, row = (window or (0, 0))[:2]
    with rasterio.open(path) as src, rasterio.open(tmp_path / "o.tif") as out:
        assert out.gcps[1] == src.gcps[1]
        assert len(out.gcps[0]) == 5
        transformer: Any = GCPTransformer
        before, after = transformer(src.gcps[0]), transformer(out.gcps[0])
        expected = before.xy(row + 9, col + 7, offset="ul")
        np.testing.assert_allclose(after.xy(36, 28, offset="ul"), expected)


def test_rpcs_keep_their_places(tmp_path: Path) -> None:
    ones = " ".join(["1"] + ["0"] * 19)
    rpcs = {
        "LINE_OFF": "14.5", "SAMP_OFF": "19.5", "LINE_SCALE": "15", "SAMP_SCALE": "20",
        "LAT_OFF": "40", "LONG_OFF": "10", "LAT_SCALE": "0.1", "LONG_SCALE": "0.1",
        "HEIGHT_OFF": "0", "HEIGHT_SCALE": "500", "LINE_DEN_COEFF": ones, "SAMP_DEN_COEFF": ones,
        "LINE_NUM_COEFF": " ".join(["0", "0", "-1"] + ["0"] * 17),
        "SAMP_NUM_COEFF": " ".join(["0", "1"] + ["0"] * 18),
    }  # fmt: skip
    path = tmp_path / "in.tif"
    with pytest.warns(NotGeoreferencedWarning):
        write_raster(path, byte_picture(3, 30, 40), transform=Affine.identity(), crs=None)
    with rasterio.open(path, "r+") as dataset:
        dataset.update_tags(ns="RPC", **rpcs)
    upscale_scene(path, tmp_path / "o.tif", nearest(), SceneOptions(window=(4, 6, 30, 20)))
    transformer: Any = RPCTransformer
    with (
        rasterio.open(path) as src,
        rasterio.open(tmp_path / "o.tif") as out,
        transformer(src.rpcs) as before,
        transformer(out.rpcs) as after,
    ):
        for dr, dc in ((0, 0), (10, 20)):
            np.testing.assert_allclose(
                after.xy(4 * dr, 4 * dc, offset="ul"),
                before.xy(6 + dr, 4 + dc, offset="ul"),
                atol=1e-7,
            )


def test_without_map_coordinates_there_are_none_afterwards(tmp_path: Path) -> None:
    path = tmp_path / "in.png"
    values = byte_picture(3, 30, 40)
    with pytest.warns(NotGeoreferencedWarning):
        write_raster(path, values, driver="PNG", transform=Affine.identity(), crs=None)
    upscale_scene(path, tmp_path / "o.tif", nearest(), SceneOptions(chunk_hr_px=512))
    with pytest.warns(NotGeoreferencedWarning):
        out = rasterio.open(tmp_path / "o.tif")
    with out:
        assert out.crs is None
        assert out.transform == Affine.identity()
        np.testing.assert_array_equal(out.read(), repeat(values, 4))


def test_a_plain_geotiff_with_creation_options(tmp_path: Path) -> None:
    values = byte_picture(3, 40, 40)
    path = write_raster(tmp_path / "in.tif", values)
    options = SceneOptions(format="gtiff", creation_options={"compress": "LZW"})
    upscale_scene(path, tmp_path / "o.tif", nearest(), options)
    with rasterio.open(tmp_path / "o.tif") as out:
        assert out.profile["compress"] == "lzw"
        assert out.profile["tiled"]
        assert not out.overviews(1)
    np.testing.assert_array_equal(read(tmp_path / "o.tif"), repeat(values, 4))


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_png_comes_with_its_side_files(tmp_path: Path, dtype: str) -> None:
    values = byte_picture(3, 40, 40).astype(dtype)
    path = write_raster(tmp_path / "in.tif", values)
    options = SceneOptions(format="png", value_range=(0, 255))
    upscale_scene(path, tmp_path / "o.png", nearest(), options)
    assert (tmp_path / "o.wld").exists()
    with rasterio.open(tmp_path / "o.png") as out, rasterio.open(path) as src:
        np.testing.assert_allclose(out.bounds, src.bounds)
        np.testing.assert_array_equal(out.read(), repeat(values, 4))


@pytest.mark.parametrize(("dtype", "bands"), [("float32", 3), ("uint8", 5)])
def test_png_refuses_what_it_cannot_hold(tmp_path: Path, dtype: str, bands: int) -> None:
    path = write_raster(tmp_path / "in.tif", byte_picture(bands, 20, 20).astype(dtype))
    with pytest.raises(OutputError, match="PNG holds"):
        upscale_scene(
            path, tmp_path / "o.png", nearest(), SceneOptions(format="png", all_bands=True)
        )
    assert [p.name for p in tmp_path.iterdir()] == ["in.tif"]


@pytest.mark.parametrize(
    ("fmt", "option", "words"),
    [
        ("gtiff", {"BLOCKXSIZE": "100"}, "BLOCKXSIZE=100"),
        ("cog", {"COMPRES": "LZW"}, "does not support creation option COMPRES"),  # a slip
        ("cog", {"COMPRESS": "ZIPPY"}, "'ZIPPY' is an unexpected value for COMPRESS"),
    ],
)
def test_a_wrong_creation_option_is_a_clear_error(
    tmp_path: Path, fmt: Literal["cog", "gtiff"], option: dict[str, str], words: str
) -> None:
    path = write_raster(tmp_path / "in.tif", byte_picture(3, 20, 20))
    options = SceneOptions(format=fmt, creation_options=option)
    with pytest.raises(OutputError, match=f"creation options .*{words}"):
        upscale_scene(path, tmp_path / "o.tif", nearest(), options)
    assert not (tmp_path / "o.tif").exists()


@pytest.mark.parametrize("size", ["abc", "0", "-3", "9999999999", ""])
@pytest.mark.parametrize("key", ["BLOCKSIZE", "blocksize"])
def test_a_block_size_that_would_end_gdals_process_is_a_clear_error(
    tmp_path: Path, key: str, size: str
) -> None:
    path = write_raster(tmp_path / "in.tif", byte_picture(3, 20, 20))
    options = SceneOptions(creation_options={key: size})
    with pytest.raises(
        OutputError, match=f"BLOCKSIZE must be pixels from 1 to 16384, got '{size}'"
    ):
        upscale_scene(path, tmp_path / "o.tif", nearest(), options)
    assert not (tmp_path / "o.tif").exists()


def test_an_existing_output_is_replaced_only_when_allowed(tmp_path: Path) -> None:
    path = write_raster(tmp_path / "in.tif", byte_picture(3, 20, 20))
    out = tmp_path / "o.tif"
    out.write_text("precious")
    with pytest.raises(OutputError, match="exists already"):
        upscale_scene(path, out, nearest())
    assert out.read_text() == "precious"
    upscale_scene(path, out, nearest(), SceneOptions(overwrite=True))
    assert read(out).shape == (3, 80, 80)


@pytest.mark.parametrize("way", ["itself", "symlink", "hardlink"])
def test_the_input_is_never_overwritten(tmp_path: Path, way: str) -> None:
    path = write_raster(tmp_path / "in.tif", byte_picture(3, 20, 20))
    before = path.read_bytes()
    out = {"itself": path}.get(way, tmp_path / "o.tif")
    if way == "symlink":
        out.symlink_to(path)
    elif way == "hardlink":
        os.link(path, out)
    with pytest.raises(OutputError, match="is the input itself"):
        upscale_scene(path, out, nearest(), SceneOptions(overwrite=True))
    assert path.read_bytes() == before


def test_places_that_cannot_be_written(tmp_path: Path) -> None:
    path = write_raster(tmp_path / "in.tif", byte_picture(3, 20, 20))
    with pytest.raises(OutputError, match="does not exist"):
        upscale_scene(path, tmp_path / "no" / "o.tif", nearest())
    with pytest.raises(OutputError, match="is a folder"):
        upscale_scene(path, tmp_path, nearest(), SceneOptions(overwrite=True))
    with pytest.raises(OutputError, match="local file"):
        upscale_scene(path, "s3://bucket/o.tif", nearest())


def test_a_read_only_folder_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_raster(tmp_path / "in.tif", byte_picture(3, 20, 20))
    locked = tmp_path / "locked"
    locked.mkdir()
    locked.chmod(stat.S_IRUSR | stat.S_IXUSR)
    if os.access(locked, os.W_OK):  # root may write anywhere
        monkeypatch.setattr("os.access", lambda *_: False)
    with pytest.raises(OutputError, match="cannot be written to"):
        upscale_scene(path, locked / "o.tif", nearest())

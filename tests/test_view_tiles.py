"""What a view reads and draws: the right pixels, at the right place, of the right bands."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from affine import Affine
from numpy.typing import NDArray
from PIL import Image
from pyproj import Transformer
from rasterio.control import GroundControlPoint
from rasterio.vrt import WarpedVRT
from rasters import UTM, byte_picture, fixture, picture, repeat, write_raster

from slimdiffsr.errors import BandError, ConfigError, RasterError
from slimdiffsr.geo.raster import Reading
from slimdiffsr.geo.values import ValueRange
from slimdiffsr.view import open_scene
from slimdiffsr.view.frame import EARTH_M, TILE_PX, MapFrame, PixelFrame
from slimdiffsr.view.page import layer_bands
from slimdiffsr.view.places import frame_of, ground_of, metres_per_pixel, read_tile, to_input
from slimdiffsr.view.tiles import Stretch, at_point, coloured, encode_png, read_box, stretched


def pair(folder: Path, height: int = 90, width: int = 120, **profile: Any) -> list[str]:
    """An input, and the result that repeats its pixels."""
    values = byte_picture(3, height, width)
    first = write_raster(folder / "in.tif", values, photometric="RGB", **profile)
    finer = {**profile, "transform": profile.get("transform", UTM) @ Affine.scale(1 / 4)}
    second = write_raster(folder / "out.tif", repeat(values, 4), photometric="RGB", **finer)
    return [str(first), str(second)]


def tile_at(frame: PixelFrame, col: int, row: int, zoom: int) -> tuple[int, int, int]:
    side = 2**zoom / frame.world_lr_px
    return (
        zoom,
        int((col + frame.world_lr_px / 2) * side),
        int((row + frame.world_lr_px / 2) * side),
    )


def test_tiles_show_the_pixels_of_each_raster_as_they_are(tmp_path: Path) -> None:
    paths = pair(tmp_path)
    with open_scene(paths) as scene:
        frame = frame_of(scene, on_map=False)
        assert isinstance(frame, PixelFrame)
        for layer, zoom in zip(scene.layers, (frame.zoom, frame.zoom + 2), strict=True):
            found = read_tile(frame, layer, tile_at(frame, 0, 0, zoom), (1, 2, 3))
            height, width = (min(side, TILE_PX) for side in layer.source.dataset.shape)
            values = layer.source.dataset.read()[:, :height, :width]
            np.testing.assert_array_equal(found.values[:, :height, :width], values)
            assert found.valid[:, :height, :width].all()
            assert found.valid.sum() == 3 * height * width


def test_tiles_of_all_zooms_show_the_same_place_in_input_and_result(tmp_path: Path) -> None:
    with open_scene(pair(tmp_path)) as scene:
        frame = frame_of(scene, on_map=False)
        assert isinstance(frame, PixelFrame)
        for zoom in range(frame.zoom, frame.zoom + 5):
            at = tile_at(frame, 40, 30, zoom)
            ours, theirs = (read_tile(frame, layer, at, (2,)) for layer in scene.layers)
            np.testing.assert_array_equal(ours.values, theirs.values)
            np.testing.assert_array_equal(ours.valid, theirs.valid)


def test_coarse_tiles_average_and_leave_empty_pixels_out(tmp_path: Path) -> None:
    values = byte_picture(1, 1024, 1024)
    values[:, :512] = 0
    path = write_raster(tmp_path / "in.tif", values, nodata=0)
    with open_scene([str(path)]) as scene:
        frame = frame_of(scene, on_map=False)
        assert isinstance(frame, PixelFrame)
        tile = read_tile(frame, scene.layers[0], tile_at(frame, 0, 0, frame.zoom - 1), (1,))
    means = values[0].reshape(512, 2, 512, 2).mean((1, 3))
    assert not tile.valid[0, :256].any()
    assert tile.valid[0, 256:].all()
    assert np.abs(tile.values[0, 256:] - means[256:]).max() <= 0.51


def test_a_result_of_a_part_lies_where_it_was_cut(tmp_path: Path) -> None:
    values = byte_picture(3, 60, 80)
    first = write_raster(tmp_path / "in.tif", values)
    cut = repeat(values[:, 10:30, 24:64], 4)
    at = UTM @ Affine.translation(24, 10) @ Affine.scale(1 / 4)
    second = write_raster(tmp_path / "part.tif", cut, transform=at)
    with open_scene([str(first), str(second)]) as scene:
        part = scene.layers[1]
        found = read_box(part, Affine.identity(), (1, 2, 3), (60, 80))
        valid = np.zeros((60, 80), bool)
        valid[10:30, 24:64] = True
        np.testing.assert_array_equal(found.valid[0], valid)
        np.testing.assert_array_equal(found.values[:, valid], values[:, valid])
        assert at_point(part, 24.1, 10.1, (1,)) == [values[0, 10, 24]]
        assert at_point(part, 23.9, 10.1, (1,)) == [None]


@pytest.mark.parametrize("turn", [0, 30])
def test_rotated_rasters_are_shown_on_their_own_grid(tmp_path: Path, turn: float) -> None:
    paths = pair(tmp_path, transform=UTM @ Affine.rotation(turn), crs=None)
    with open_scene(paths) as scene:
        ours, theirs = (read_box(x, Affine.scale(0.25), (1,), (80, 80)) for x in scene.layers)
        np.testing.assert_array_equal(ours.values, theirs.values)


def test_images_and_control_points_are_placed_without_a_transform(tmp_path: Path) -> None:
    values = byte_picture(3, 50, 60)
    for name, bands in (("in", values), ("out", repeat(values, 4))):
        Image.fromarray(np.moveaxis(bands, 0, -1)).save(tmp_path / f"{name}.png")
        scale = 4 if name == "out" else 1
        points = [
            GroundControlPoint(row * scale, col * scale, -5 + col / 100, 40 - row / 100)  # type: ignore[no-untyped-call]
            for row, col in ((0, 0), (0, 60), (50, 0), (50, 60))
        ]
        write_raster(tmp_path / f"{name}.tif", bands, gcps=points, crs="EPSG:4326", transform=None)
    for ending in ("png", "tif"):
        with open_scene([str(tmp_path / f"{name}.{ending}") for name in ("in", "out")]) as scene:
            assert scene.layers[1].to_layer.almost_equals(Affine.scale(4))
            ground = ground_of(scene.input, 30, 25)
            assert (metres_per_pixel(scene.input) is None) == (ending == "png") == (not ground)


def test_numbers_on_the_ground(tmp_path: Path) -> None:
    values = byte_picture(1, 20, 20)
    metres = write_raster(tmp_path / "m.tif", values)
    feet = write_raster(tmp_path / "ft.tif", values, crs="EPSG:2227")
    degrees = write_raster(
        tmp_path / "deg.tif", values, crs="EPSG:4326", transform=Affine(1e-5, 0, 12, 0, -1e-5, 60)
    )
    expected = {metres: 0.6, feet: 0.6 * 1200 / 3937, degrees: 1e-5 * 111319.49 * 0.5}
    for path, length in expected.items():
        with open_scene([str(path)]) as scene:
            assert metres_per_pixel(scene.input) == pytest.approx(length, rel=1e-4)
    with open_scene([str(metres)]) as scene:
        ground = ground_of(scene.input, 10, 5)
        assert ground["xy"] == pytest.approx([UTM.c + 6, UTM.f - 3])
        x, y = ground["xy"]
        known = Transformer.from_crs("EPSG:26910", "EPSG:4326", always_xy=True)
        assert ground["lonlat"] == pytest.approx(known.transform(x, y), abs=1e-8)


def test_the_map_under_a_basemap_agrees_with_gdal(tmp_path: Path) -> None:
    paths = pair(tmp_path, 300, 400)
    with open_scene(paths) as scene:
        frame = frame_of(scene, on_map=True)
        assert isinstance(frame, MapFrame)
        u, v = (frame.bounds[0] + frame.bounds[2]) / 2, (frame.bounds[1] + frame.bounds[3]) / 2
        for layer, zoom in zip(scene.layers, (frame.zoom, frame.zoom + 2), strict=True):
            at = (zoom, int(u * 2**zoom), int(v * 2**zoom))
            found = read_tile(frame, layer, at, (1,))
            side = EARTH_M / TILE_PX / 2**zoom
            with WarpedVRT(
                layer.source.dataset, crs="EPSG:3857", width=TILE_PX, height=TILE_PX,
                transform=Affine(side, 0, at[1] * side * TILE_PX - EARTH_M / 2, 0, -side, EARTH_M / 2 - at[2] * side * TILE_PX),
                add_alpha=True,
            ) as vrt:  # fmt: skip
                values, _, _, alpha = vrt.read()
            both = found.valid[0] & (alpha > 0)
            assert (found.valid[0] == (alpha > 0)).mean() > 0.995
            assert both.sum() > 10_000
            assert (found.values[0][both] == values[both]).mean() > 0.9  # GDAL is right to 1/8 px
        col, row = to_input(scene, frame, u, v)
        assert abs(col - 200) < 2
        assert abs(row - 150) < 2


def test_a_basemap_needs_a_place_on_the_earth(tmp_path: Path) -> None:
    path = write_raster(tmp_path / "in.tif", byte_picture(1, 9, 9), crs=None)
    with open_scene([str(path)]) as scene, pytest.raises(RasterError, match="has none"):
        frame_of(scene, on_map=True)


@pytest.mark.parametrize("shape", [(1, 1), (600, 3), (70_000, 100_000)])
def test_the_scene_takes_an_eighth_of_the_world_and_tiles_begin_at_whole_pixels(
    shape: tuple[int, int],
) -> None:
    frame = PixelFrame(*shape)
    left, top, right, bottom = frame.bounds
    assert left == top == 0.5
    assert max(right, bottom) <= 0.5 + 1 / 8
    assert frame.to_input(right, bottom) == pytest.approx(shape)
    for zoom in range(frame.zoom + 1):
        corner = frame.tile_to_input(zoom, 2 ** max(0, zoom - 1), 0) @ (0, 0)
        assert corner[0] == int(corner[0])


# ---------------------------------------------------------------------------------------------
# Bands


def chosen(paths: list[Path], asked: tuple[int, ...]) -> Any:
    with open_scene([str(path) for path in paths]) as scene:
        return layer_bands(scene.layers[1], asked)


def test_bands_of_results_are_found_by_name_count_and_tag(tmp_path: Path) -> None:
    values = byte_picture(4, 20, 20)
    words = ("B02", "B03", "B04", "B08")
    named = write_raster(tmp_path / "named.tif", values, descriptions=words)
    plain = write_raster(tmp_path / "plain.tif", values)
    some = values[[3, 2, 1]]
    by_name = write_raster(tmp_path / "a.tif", some, descriptions=("B08", "B04", "B03"))
    by_tag = write_raster(tmp_path / "b.tif", some, tags={"SLIMDIFFSR_BANDS": "4,3,2"})
    by_count = write_raster(tmp_path / "c.tif", values)
    by_choice = write_raster(tmp_path / "d.tif", values[:3])
    assert chosen([named, by_name], (4, 3, 2)) == (1, 2, 3)
    assert chosen([named, by_name], (3, 2, 1)) is None
    assert chosen([plain, by_tag], (2, 3, 4)) == (3, 2, 1)
    assert chosen([plain, by_count], (4, 1, 2)) == (4, 1, 2)
    assert chosen([plain, by_choice], (3, 1, 2)) == (3, 1, 2)


def test_near_infrared_that_is_tagged_alpha_hides_nothing() -> None:
    with open_scene([str(fixture("naip_rgbn_utm_u8"))]) as scene:
        found = read_box(scene.layers[0], Affine.identity(), (1, 2, 3), (256, 256))
        assert found.valid.all()
        assert set(scene.layers[0].bands) == {1, 2, 3, 4}


@pytest.mark.parametrize("name", ["riocogeo_image_colormap", "rasterio_RGBA.byte",
    "riocogeo_image_rgb_mask", "riocogeo_image_nan", "riotiler_cog_dateline", "riotiler_cog_gcps__c8dd824",
    "riotiler_cog_hirise_mars", "rasterio_rotated", "rasterio_all-nodata", "rasterio_float_nan"])  # fmt: skip
def test_rasters_of_all_kinds_can_be_viewed(name: str) -> None:
    with open_scene([str(fixture(name))]) as scene:
        frame = frame_of(scene, on_map=False)
        assert isinstance(frame, PixelFrame)
        tile = read_tile(frame, scene.layers[0], tile_at(frame, 0, 0, frame.zoom - 1), scene.seen)
        empty = name == "rasterio_all-nodata"
        assert tile.valid.any() != empty
        assert (
            stretched(tile, Stretch(scene.value_range.low, scene.value_range.high)).any() != empty
        )


# ---------------------------------------------------------------------------------------------
# Pictures


def decoded(png: bytes) -> NDArray[np.uint8]:
    with Image.open(io.BytesIO(png)) as image:
        assert image.mode == "RGBA"
        return np.asarray(image)


@pytest.mark.parametrize("shape", [(1, 1), (5, 7), (64, 64)])
def test_pngs_hold_what_was_drawn(shape: tuple[int, int]) -> None:
    rgba = np.random.default_rng(0).integers(0, 256, (*shape, 4), dtype=np.uint8)
    for level in (1, 9):
        np.testing.assert_array_equal(decoded(encode_png(rgba, level)), rgba)


def test_the_stretch_is_that_of_its_formula() -> None:
    values = np.array([[[0, 100, 300, 500, 700, 4000]]] * 3, np.uint16)
    valid = np.ones(values.shape, bool)
    valid[1, 0, 5] = False
    rgba = stretched(Reading(values, valid), Stretch(100, 700, 2.0))
    unit = np.clip((values[0, 0] - 100.0) / 600, 0, 1) ** 0.5
    np.testing.assert_array_equal(rgba[0, :, 0], np.rint(255 * unit))
    np.testing.assert_array_equal(rgba[0, :, 3], [255] * 5 + [0])


def test_uncertainty_goes_from_clear_and_dark_to_light() -> None:
    values = np.array([[[0, 1, 2, 3, 4, 9]]], np.float32)
    valid = np.array([[[True] * 5 + [False]]])
    rgba = coloured(Reading(values, valid), ValueRange(0, 4)).astype(int)[0]
    assert rgba[:, 3].tolist() == [0, 128, 255, 255, 255, 0]
    assert (np.diff(rgba[:5, :3].sum(axis=1)) > 0).all()
    assert rgba[4, :3].tolist() == [252, 253, 191]


@pytest.mark.parametrize(
    "wrong", [(1, 1, 1), (2, 1, 1), (0, float("nan"), 1), (0, 1, 0), (0, 1, 99)]
)
def test_a_stretch_checks_itself(wrong: tuple[float, float, float]) -> None:
    with pytest.raises(ConfigError):
        Stretch(*wrong)


# ---------------------------------------------------------------------------------------------
# Not of one place


def refused(paths: list[Path], words: str, uncertainty: Path | None = None) -> None:
    with (
        pytest.raises(RasterError, match=words),
        open_scene([str(path) for path in paths], str(uncertainty) if uncertainty else None),
    ):
        pass


def test_rasters_that_are_not_of_one_place_are_refused(tmp_path: Path) -> None:
    values = byte_picture(3, 20, 30)

    def other(name: str, **profile: Any) -> Path:
        return write_raster(tmp_path / f"{name}.tif", profile.pop("values", values), **profile)

    first = other("in")
    away = UTM @ Affine.translation(5000, 0)
    refused([first, other("away", transform=away)], "do not overlap on the map")
    refused([first, other("zone", crs="EPSG:26911")], "EPSG:26911 and .*in.tif in EPSG:26910")
    refused([first, other("turned", transform=UTM @ Affine.rotation(5))], "turned against")
    upside = UTM @ Affine.translation(0, 20) @ Affine.scale(1, -1)
    refused([first, other("flipped", transform=upside)], "turned against")
    refused([first, tmp_path / "missing.tif"], "does not exist")
    refused([first, first], "given twice")
    refused([first], "must be a raster of one band", uncertainty=first)
    Image.fromarray(np.zeros((80, 124, 3), np.uint8)).save(tmp_path / "a.png")
    refused([first, tmp_path / "a.png"], "sides must be in proportion")


def test_other_units_and_ranges(tmp_path: Path) -> None:
    wide = (picture(3, 40, 40) * 9000).astype(np.uint16)
    first = write_raster(tmp_path / "in.tif", wide)
    unsure = write_raster(tmp_path / "u.tif", wide[:1].astype(np.float32) / 100)
    with rasterio.open(unsure, "r+") as dataset:
        dataset.units = ("reflectance x 10000",)
    with open_scene([str(first)], str(unsure)) as scene:
        assert scene.unit == "reflectance x 10000"
        assert scene.unsure_range is not None
        assert scene.unsure_range.low == 0
        assert 60 < scene.unsure_range.high < 90
        assert 100 < scene.value_range.low < scene.value_range.high < 9000
    with open_scene([str(first)], str(unsure), unit="DN") as scene:
        assert scene.unit == "DN"
    with pytest.raises(BandError), open_scene([str(first)], bands=(1, 2, 9)):
        pass

"""show: a scene in a notebook, as a map or as two pictures."""

from __future__ import annotations

import importlib.util
import io
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from rasters import byte_picture, repeat, write_raster
from test_view_tiles import pair

import slimdiffsr
from slimdiffsr.errors import RasterError
from slimdiffsr.view import notebook


@pytest.fixture
def without_ipyleaflet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)


@pytest.mark.usefixtures("without_ipyleaflet")
def test_without_ipyleaflet_two_pictures_show_the_same_place(tmp_path: Path) -> None:
    paths = pair(tmp_path, 40, 50)
    shown = slimdiffsr.show(*paths, window=(10, 5, 12, 8))
    assert isinstance(shown, notebook.BeforeAfter)
    assert shown.names == ("in.tif", "out.tif")
    expected = repeat(byte_picture(3, 40, 50)[:, 5:13, 10:22], 4)
    for png in shown.pngs:
        with Image.open(io.BytesIO(png)) as image:
            np.testing.assert_array_equal(np.asarray(image)[..., :3], np.moveaxis(expected, 0, -1))
    html = shown._repr_html_()
    assert html.count("<img") == 2
    assert "<figcaption>in.tif" in html


@pytest.mark.usefixtures("without_ipyleaflet")
def test_the_middle_is_shown_when_no_part_is_named(tmp_path: Path) -> None:
    shown = slimdiffsr.show(*pair(tmp_path, 300, 400))
    for png in shown.pngs:
        with Image.open(io.BytesIO(png)) as image:
            assert image.size == (480, 480)


def test_parts_outside_and_other_places_are_refused(tmp_path: Path) -> None:
    paths = pair(tmp_path, 40, 50)
    with pytest.raises(RasterError, match="outside the raster of 50 x 40"):
        slimdiffsr.show(*paths, window=(60, 0, 5, 5))
    other = write_raster(tmp_path / "b.tif", byte_picture(3, 9, 9), crs="EPSG:32633")
    with pytest.raises(RasterError, match="to the same CRS"):
        slimdiffsr.show(paths[0], other)


@pytest.mark.filterwarnings("default")  # what ipyleaflet's dependencies say of each other
def test_with_ipyleaflet_a_map_has_a_swipe_and_tiles_of_both(tmp_path: Path) -> None:
    ipyleaflet: Any = pytest.importorskip("ipyleaflet", reason="no ipyleaflet: extra notebook")
    shown = slimdiffsr.show(*pair(tmp_path, 300, 400))
    assert isinstance(shown, ipyleaflet.Map)
    assert shown.center == pytest.approx((39.77, -121.89), abs=0.01)
    (split,) = [control for control in shown.controls if hasattr(control, "left_layer")]
    # Leaflet's zoom z at tiles of 512 pixels is our z - 1.
    zoom = 17 + split.left_layer.zoom_offset
    x, y = (int(2**zoom * n) for n in ((shown.center[1] + 180) / 360, _mercator(shown.center[0])))
    for layer in (split.left_layer, split.right_layer):
        address = layer.url.format(z=zoom, x=x, y=y)
        with urllib.request.urlopen(address, timeout=10) as answer, Image.open(answer) as image:
            assert image.size == (512, 512)
            assert np.asarray(image)[..., 3].any()


def _mercator(latitude: float) -> float:
    return float(0.5 - np.arcsinh(np.tan(np.radians(latitude))) / (2 * np.pi))

"""A scene in a notebook: a map with a swipe where ipyleaflet is there, else two pictures."""

from __future__ import annotations

import base64
import importlib.util
import math
import threading
from contextlib import ExitStack
from dataclasses import dataclass
from html import escape
from os import PathLike, fspath
from typing import Any
from urllib.parse import urlencode

import numpy as np
from affine import Affine

from slimdiffsr.errors import RasterError
from slimdiffsr.geo.grid import Region
from slimdiffsr.view.frame import EARTH_M, TILE_PX
from slimdiffsr.view.layers import Layer, Scene, open_scene
from slimdiffsr.view.page import Start, layer_bands
from slimdiffsr.view.server import Viewer
from slimdiffsr.view.tiles import Stretch, encode_png, read_box, stretched

__all__ = ["BeforeAfter", "show"]

WHERE_TILES_ARE = "https://basemap.invalid/{z}/{x}/{y}.png"  # none is fetched: it asks for the map
_PICTURE_HR_PX = 480


@dataclass(frozen=True, slots=True)
class BeforeAfter:
    """The same place in two rasters, as PNG files; a notebook shows them side by side."""

    names: tuple[str, str]
    pngs: tuple[bytes, bytes]

    def _repr_html_(self) -> str:
        figures = (
            f'<figure style="margin:0"><img style="image-rendering:pixelated;max-width:100%" '
            f'src="data:image/png;base64,{base64.b64encode(png).decode()}">'
            f"<figcaption>{escape(name)}</figcaption></figure>"
            for name, png in zip(self.names, self.pngs, strict=True)
        )
        return f'<div style="display:flex;gap:8px">{"".join(figures)}</div>'


def show(
    before: str | PathLike[str],
    after: str | PathLike[str],
    *,
    bands: tuple[int, ...] | None = None,
    window: tuple[int, int, int, int] | None = None,
) -> Any:  # noqa: ANN401  ipyleaflet's Map, or BeforeAfter
    """Input and result of one place, to be looked at in a notebook.

    With ipyleaflet (leafmap brings it) and map coordinates, a map with a swipe, whose tiles come
    from this process until it ends; else, or for a ``window``, two pictures of a part of the scene.

    bands: of the input, else as ``upscale`` chooses. window: col_off, row_off, width, height in the
    input's pixels; default for pictures: the middle. Raises RasterError when a raster cannot be
    read or the two are not of one place.
    """
    paths = [fspath(before), fspath(after)]
    if window is None and importlib.util.find_spec("ipyleaflet") is not None:
        try:
            return _split_map(paths, bands)
        except RasterError:
            pass  # on no map of the Earth, or unreadable, which the pictures tell too
    with open_scene(paths, bands=bands) as scene:
        return _pictures(scene, window)


def _pictures(scene: Scene, window: tuple[int, int, int, int] | None) -> BeforeAfter:
    first, second = scene.layers
    whole = scene.input.region_lr
    scale = max(second.scale, 1.0)
    if window is None:
        side = max(1, round(_PICTURE_HR_PX / scale))
        window = (max(0, (whole.width - side) // 2), max(0, (whole.height - side) // 2), side, side)
    region = Region(*window).clipped(whole)
    if region.pixels == 0:
        raise RasterError(
            f"window {window} lies outside the raster of {whole.width} x {whole.height}"
        )
    return BeforeAfter(
        (first.name, second.name),
        (_picture(scene, first, region, scale), _picture(scene, second, region, scale)),
    )


def _picture(scene: Scene, layer: Layer, region: Region, scale: float) -> bytes:
    shape = (round(region.height * scale), round(region.width * scale))
    box = Affine.translation(region.col, region.row) @ Affine.scale(1 / scale)
    bands = layer_bands(layer, scene.seen)
    if bands is None:
        return encode_png(np.zeros((*shape, 4), np.uint8))
    stretch = Stretch(scene.value_range.low, scene.value_range.high)
    return encode_png(stretched(read_box(layer, box, bands, shape), stretch))


# ---------------------------------------------------------------------------------------------
# ipyleaflet


def _split_map(paths: list[str], bands: tuple[int, ...] | None) -> Any:  # noqa: ANN401
    import ipyleaflet

    with ExitStack() as stack:
        scene = stack.enter_context(open_scene(paths, bands=bands))
        viewer = Viewer(scene, Start(basemap=WHERE_TILES_ARE))
        kept = stack.pop_all()  # the map may ask for tiles as long as the process lives
    threading.Thread(target=_serve, args=(viewer, kept), daemon=True).start()
    left, right = (_tile_layer(ipyleaflet, viewer, layer) for layer in scene.layers)
    west, north, east, south = viewer.frame.bounds
    centre = (_latitude((north + south) / 2), 360 * ((west + east) / 2 - 0.5))
    shown = ipyleaflet.Map(
        center=centre, zoom=max(0, round(math.log2(800 / TILE_PX / (east - west)))) + 1,
        max_zoom=left.max_zoom, basemap=ipyleaflet.TileLayer(url=""), scroll_wheel_zoom=True,
    )  # fmt: skip
    shown.add(ipyleaflet.SplitMapControl(left_layer=left, right_layer=right))
    shown.add(ipyleaflet.ScaleControl(position="bottomleft"))
    return shown


def _serve(viewer: Viewer, _kept: ExitStack) -> None:
    viewer.serve_forever()


def _tile_layer(ipyleaflet: Any, viewer: Viewer, layer: Layer) -> Any:  # noqa: ANN401
    scene = viewer.scene
    how = urlencode({
        "layer": layer.name, "bands": ",".join(map(str, scene.seen)), "gamma": 1,
        "low": scene.value_range.low, "high": scene.value_range.high,
    })  # fmt: skip
    finest = viewer.frame.zoom + math.ceil(math.log2(max(layer.scale, 1.0)))
    # Leaflet counts zooms by tiles of 256 pixels: ours of 512 are one less.
    return ipyleaflet.TileLayer(
        url=f"{viewer.url}tiles/{{z}}/{{x}}/{{y}}.png?{how}", tile_size=TILE_PX, zoom_offset=-1,
        name=layer.name, max_zoom=viewer.frame.zoom + 6, max_native_zoom=finest + 1,
    )  # fmt: skip


def _latitude(v: float) -> float:
    metres = (0.5 - v) * EARTH_M / 6378137
    return math.degrees(math.atan(math.sinh(metres)))

"""From the pixels of the input to the ground: coordinates, metres, and the map under a basemap."""

from __future__ import annotations

import math
import re
from typing import Any

import numpy as np
import rasterio.transform
import rasterio.warp
from affine import Affine
from rasterio.crs import CRS
from rasterio.enums import Resampling

from slimdiffsr.errors import RasterError
from slimdiffsr.geo.grid import Region
from slimdiffsr.geo.raster import GDAL_ERRORS, Reading, Source
from slimdiffsr.view.frame import TILE_PX, MapFrame, PixelFrame
from slimdiffsr.view.layers import Layer, Scene, place_of
from slimdiffsr.view.tiles import read_box

__all__ = ["Frame", "frame_of", "ground_of", "metres_per_pixel", "read_tile", "to_input"]

Frame = PixelFrame | MapFrame

LONGITUDE_LATITUDE = CRS.from_user_input("OGC:CRS84")
WEB_MERCATOR = CRS.from_user_input("EPSG:3857")
_EDGE_POINTS = 9  # along each side of a tile: enough to see how it bends in another CRS
_MARGIN_PX = 2


def frame_of(scene: Scene, *, on_map: bool) -> Frame:
    """The world the scene is laid into. Raises RasterError for one that is on no map of the Earth."""
    place = place_of(scene.input)
    if not on_map:
        return PixelFrame(place.width, place.height)
    if place.crs is None or place.transform == Affine.identity():
        raise RasterError(f"a basemap needs map coordinates, and {scene.input.path} has none")
    try:
        bounds = rasterio.warp.transform_bounds(
            place.crs, WEB_MERCATOR, *scene.input.dataset.bounds
        )  # type: ignore[no-untyped-call]
    except GDAL_ERRORS:
        bounds = (math.inf,) * 4
    if not all(map(math.isfinite, bounds)):
        raise RasterError(f"{scene.input.path} cannot be brought to Web Mercator for a basemap")
    left, bottom, right, top = bounds
    across, down = (right - left) / place.width, (top - bottom) / place.height
    return MapFrame((left, bottom, right, top), min(across, down))


def read_tile(
    frame: Frame, layer: Layer, at: tuple[int, int, int], bands: tuple[int, ...]
) -> Reading:
    """A tile (zoom, x, y) of a layer: (b, TILE_PX, TILE_PX)."""
    shape = (TILE_PX, TILE_PX)
    if isinstance(frame, PixelFrame):
        return read_box(layer, frame.tile_to_input(*at), bands, shape)
    return _read_warped(layer, frame.tile_to_map(*at), bands, shape)


def _read_warped(
    layer: Layer, to_map: Affine, bands: tuple[int, ...], shape: tuple[int, int]
) -> Reading:
    """A rectangle of Web Mercator: the pixels that lie under it are read, then bent to it."""
    source = layer.source
    dataset = source.dataset
    values = np.zeros((len(bands), *shape), source.dtype)
    valid = np.zeros((len(bands), *shape), np.uint8)
    window = _window_under(dataset, to_map, shape)
    if window is None:
        return Reading(values, valid > 0)
    rows, cols = (min(math.ceil(side), 2 * TILE_PX) for side in (window.height, window.width))
    part = source.look(window, (rows, cols), bands)
    shrunk = Affine.scale(window.width / cols, window.height / rows)
    placed = dataset.transform @ Affine.translation(window.col, window.row) @ shrunk
    how = {"src_transform": placed, "src_crs": dataset.crs,
           "dst_transform": to_map, "dst_crs": WEB_MERCATOR, "resampling": Resampling.nearest}  # fmt: skip
    rasterio.warp.reproject(part.values, values, **how)
    rasterio.warp.reproject(part.valid.astype(np.uint8), valid, **how)
    return Reading(values, valid > 0)


def _window_under(dataset: Any, to_map: Affine, shape: tuple[int, int]) -> Region | None:  # noqa: ANN401
    """The raster's pixels under a rectangle of the map, with a margin; None when there are none."""
    along = np.linspace(0, 1, _EDGE_POINTS)
    places = [to_map @ (col * shape[1], row * shape[0]) for col in along for row in along]
    found = _transformed(WEB_MERCATOR, dataset.crs, places)
    pixels = np.array([~dataset.transform @ place for place in found])
    pixels = pixels[np.isfinite(pixels).all(axis=1)] if len(pixels) else pixels
    if len(pixels) == 0:
        return None
    low, high = pixels.min(axis=0) - _MARGIN_PX, pixels.max(axis=0) + _MARGIN_PX
    left, top = (max(0, math.floor(at)) for at in low)
    right = min(dataset.width, math.ceil(high[0]))
    bottom = min(dataset.height, math.ceil(high[1]))
    return Region(left, top, right - left, bottom - top) if right > left and bottom > top else None


def _transformed(
    src: CRS, dst: CRS, places: list[tuple[float, float]]
) -> list[tuple[float, float]]:
    """Places in another CRS; none when there is no way between the two."""
    try:
        xs, ys = rasterio.warp.transform(src, dst, *zip(*places, strict=True))
    except GDAL_ERRORS:
        return []
    return list(zip(xs, ys, strict=True))


def to_input(scene: Scene, frame: Frame, u: float, v: float) -> tuple[float, float]:
    """A place in the world as the input's column and row."""
    if isinstance(frame, PixelFrame):
        return frame.to_input(u, v)
    dataset = scene.input.dataset
    found = _transformed(WEB_MERCATOR, dataset.crs, [frame.to_map(u, v)])
    col, row = ~dataset.transform @ found[0] if found else (-1.0, -1.0)
    return float(col), float(row)


def ground_of(source: Source, col: float, row: float) -> dict[str, list[float]]:
    """Coordinates of a pixel: ``xy`` in the raster's CRS, ``lonlat`` in degrees, where known."""
    transform, crs = _georeference(source)
    if transform == Affine.identity():
        return {}
    x, y = transform @ (col, row)
    found = {"xy": [float(x), float(y)]}
    degrees = _transformed(crs, LONGITUDE_LATITUDE, [(x, y)]) if crs else []  # none on Mars
    if degrees and all(map(math.isfinite, degrees[0])):
        found["lonlat"] = list(degrees[0])
    return found


def metres_per_pixel(source: Source) -> float | None:
    """Width of an input pixel on the ground, at the middle of the scene; None where not known."""
    transform, crs = _georeference(source)
    if not crs or transform == Affine.identity():
        return None
    if crs.is_projected:
        return float(math.hypot(transform.a, transform.d) * crs.linear_units_factor[1])
    radius = re.search(r'(?:SPHEROID|ELLIPSOID)\["[^"]*",\s*([\d.]+)', crs.to_wkt())
    if not crs.is_geographic or radius is None:
        return None
    _, latitude = transform @ (source.region_lr.width / 2, source.region_lr.height / 2)
    degree_m = math.radians(float(radius[1]))
    across = transform.a * math.cos(math.radians(latitude))
    return float(math.hypot(across, transform.d) * degree_m)


def _georeference(source: Source) -> tuple[Affine, CRS | None]:
    """Transform and CRS; by ground control points, nearly, where there is no transform."""
    place = place_of(source)
    if place.transform == Affine.identity() and place.gcps:
        return rasterio.transform.from_gcps(place.gcps), place.gcps_crs  # type: ignore[no-untyped-call]
    return place.transform, place.crs

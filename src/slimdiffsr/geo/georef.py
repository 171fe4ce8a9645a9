"""Where the output lies on the map: transforms, control points, RPCs, windows from bounds.

The output has the input's CRS, extent and upper-left corner; only the pixels are smaller.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping
from fractions import Fraction
from typing import Any

from affine import Affine
from rasterio.control import GroundControlPoint
from rasterio.crs import CRS
from rasterio.io import MemoryFile

from slimdiffsr.errors import ScaleError, TilingError
from slimdiffsr.geo.grid import Region
from slimdiffsr.geo.orientation import UPRIGHT
from slimdiffsr.geo.raster import Source
from slimdiffsr.geo.spec import SceneOptions

__all__ = [
    "crs_text",
    "output_scale",
    "own_transform",
    "requested_region",
    "scaled_gcps",
    "scaled_rpcs",
    "scaled_transform",
    "shifted",
    "survives",
]

_DEGREE_M = 111_320.0  # of latitude
_TRUNCATED_PX = 1e-6  # bounds this close to a pixel's edge are meant to lie on it


def output_scale(source: Source, options: SceneOptions, scale: int) -> Fraction:
    """Output pixels for one input pixel, along a side; ``scale`` is the network's.

    Raises ScaleError for what lies beyond the network, or has no meaning for the raster.
    """
    if options.output_scale is not None:
        asked, words = _exact(options.output_scale), f"a scale of {options.output_scale:g}"
    elif options.resolution is not None:
        pixel = _pixel_size(source, options.resolution_unit)
        asked = pixel / _exact(options.resolution)
        words = f"pixels of {options.resolution:g} from {float(pixel):g}"
    else:
        return Fraction(scale)
    if not 1 < asked <= scale:
        raise ScaleError(
            f"{words} is {float(asked):.4g} times, and this model makes more than 1 up to {scale} "
            "times: ask for other pixels or take a model of another scale"
        )
    return asked


def _exact(number: float) -> Fraction:
    """What was written: 0.6 is six tenths, and not what a float makes of it."""
    return Fraction(repr(float(number)))


def _pixel_size(source: Source, unit: str) -> Fraction:
    transform = own_transform(source.dataset)
    if transform is None or source.turn != UPRIGHT:
        raise ScaleError(f"{source.path} has no pixel size on a map: give a scale instead")
    if (
        transform.b
        or transform.d
        or abs(abs(transform.a) - abs(transform.e)) > 1e-9 * abs(transform.a)
    ):
        raise ScaleError(f"the pixels of {source.path} are rotated or not square: give a scale")
    pixel = _exact(abs(transform.e))
    if unit == "crs":
        return pixel
    crs = source.dataset.crs
    if crs is None:
        raise ScaleError(f"{source.path} has no CRS, so its pixels have no metres: give a scale")
    if crs.is_geographic:
        return pixel * _exact(_DEGREE_M)
    return pixel * _exact(crs.linear_units_factor[1])


def scaled_transform(dataset: Any, region_hr: Region, scale: Fraction) -> Affine | None:  # noqa: ANN401
    """Transform of an output region; None when the raster has none of its own."""
    transform = own_transform(dataset)
    if transform is None:
        return None
    a, b, c, d, e, f = transform[:6]
    a, b, d, e = (float(Fraction(step) / scale) for step in (a, b, d, e))
    return shifted(
        Affine(a, b, c, d, e, f),
        region_hr.col,
        region_hr.row,
    )


def own_transform(dataset: Any) -> Affine | None:  # noqa: ANN401
    """The transform that a raster has, and not what GDAL says in its stead.

    For portable any-map files without a world file GDAL tells what happened to be in its memory.
    """
    transform: Affine = dataset.transform
    if transform == Affine.identity() or not all(map(math.isfinite, transform[:6])):
        return None
    if dataset.driver == "PNM" and not _has_world_file(dataset.name):
        return None
    return None if transform.determinant == 0 else transform


def _has_world_file(path: str) -> bool:
    stem = os.path.splitext(path)[0]
    return any(os.path.exists(stem + ending) for ending in (".wld", ".WLD"))


def shifted(transform: Affine, cols: int, rows: int) -> Affine:
    """The transform of an image that begins some columns and rows further on."""
    a, b, c, d, e, f = transform[:6]
    return Affine(a, b, c + a * cols + b * rows, d, e, f + d * cols + e * rows)


def crs_text(crs: CRS) -> str:
    """A coordinate system as a VRT is to hold it, so that it keeps its code on the way to a TIFF."""
    compound = crs.wkt.startswith("COMPD_CS")
    text: str = crs.to_wkt(version="WKT1_GDAL" if compound else "WKT2_2019")
    return text


def survives(crs: CRS) -> bool:
    """Whether a GeoTIFF written from ``crs_text`` has the same coordinate system."""
    profile = {"driver": "GTiff", "width": 1, "height": 1, "count": 1, "dtype": "uint8"}
    with MemoryFile() as memory:  # type: ignore[no-untyped-call]
        with memory.open(**profile, crs=crs_text(crs), transform=Affine.scale(2)):
            pass
        with memory.open() as dataset:
            return bool(dataset.crs == crs)


def scaled_gcps(
    points: Iterable[GroundControlPoint], region_hr: Region, scale: Fraction
) -> list[GroundControlPoint]:
    """Ground control points with rows and columns of an output region."""
    return [
        GroundControlPoint(  # type: ignore[no-untyped-call]
            row=point.row * float(scale) - region_hr.row,
            col=point.col * float(scale) - region_hr.col,
            x=point.x,
            y=point.y,
            z=point.z,
            id=point.id,
            info=point.info,
        )
        for point in points
    ]


def scaled_rpcs(tags: Mapping[str, str], region_hr: Region, scale: Fraction) -> dict[str, str]:
    """RPC metadata for an output region; its offsets count pixel centres, hence the halves.

    A unit after a number is passed over. Raises ValueError or KeyError where there is none.
    """
    scaled = dict(tags)
    for axis, start in (("LINE", region_hr.row), ("SAMP", region_hr.col)):
        offset, size = f"{axis}_OFF", f"{axis}_SCALE"
        scaled[offset] = repr((_leading_number(tags[offset]) + 0.5) * scale - 0.5 - start)
        scaled[size] = repr(_leading_number(tags[size]) * scale)
    return scaled


def _leading_number(text: str) -> float:
    """The 3577.86 of "+003577.86 pixels"."""
    return float((text.split() or [""])[0])


def requested_region(
    source: Source,
    bounds: tuple[float, float, float, float] | None,
    window: tuple[int, int, int, int] | None,
) -> tuple[Region, tuple[str, ...]]:
    """The part of the scene to upscale, in input pixels, and what had to be assumed.

    Raises TilingError when it is empty or outside the scene, or when bounds make no sense for the
    raster.
    """
    scene_lr = source.region_lr
    if bounds is not None:
        asked, words = _from_bounds(source, bounds), f"bounds {_join(bounds)}"
    elif window is not None:
        asked, words = Region(*window), f"window {_join(window)}"
    else:
        return scene_lr, ()
    if asked.width <= 0 or asked.height <= 0:
        raise TilingError(f"{words} is empty: width and height must be positive")
    inside = asked.clipped(scene_lr)
    if inside.pixels == 0:
        raise TilingError(f"{words} lies outside the raster, {_extent(source, bounds is not None)}")
    if inside != asked:
        return inside, (f"The {words} reaches beyond the raster and was cut at its edge.",)
    return inside, ()


def _from_bounds(source: Source, bounds: tuple[float, float, float, float]) -> Region:
    left, bottom, right, top = bounds
    transform = own_transform(source.dataset)
    if transform is None:
        raise TilingError(f"{source.path} has no map coordinates: give a window in pixels instead")
    if transform.b or transform.d:
        raise TilingError(f"{source.path} is rotated: give a window in pixels instead of bounds")
    if not all(map(math.isfinite, bounds)) or left >= right or bottom >= top:
        raise TilingError(
            f"bounds must be left bottom right top with left < right and bottom < top, "
            f"got {_join(bounds)}"
        )
    cols = sorted((x - transform.c) / transform.a for x in (left, right))
    rows = sorted((y - transform.f) / transform.e for y in (bottom, top))
    col, row = math.floor(cols[0] + _TRUNCATED_PX), math.floor(rows[0] + _TRUNCATED_PX)
    col_end, row_end = math.ceil(cols[1] - _TRUNCATED_PX), math.ceil(rows[1] - _TRUNCATED_PX)
    return Region(col, row, col_end - col, row_end - row)


def _extent(source: Source, on_map: bool) -> str:
    if on_map:
        return f"which covers {_join(source.dataset.bounds)}"
    return f"which is {source.region_lr.width} x {source.region_lr.height} pixels"


def _join(numbers: tuple[float, ...]) -> str:
    return " ".join(f"{number:.10g}" for number in numbers)

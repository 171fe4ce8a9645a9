"""Bounds in another coordinate system than the raster's."""

from __future__ import annotations

from rasterio.coords import disjoint_bounds
from rasterio.crs import CRS
from rasterio.errors import CRSError
from rasterio.warp import transform_bounds

from slimdiffsr.errors import TilingError
from slimdiffsr.geo.georef import own_transform
from slimdiffsr.geo.raster import GDAL_ERRORS, Source

__all__ = ["Bounds", "bounds_on_raster"]

Bounds = tuple[float, float, float, float]  # left, bottom, right, top


def bounds_on_raster(
    source: Source, bounds: Bounds | None, bounds_crs: str | None
) -> Bounds | None:
    """Bounds in the raster's own coordinates; between two systems the box that holds the area.

    bounds_crs: as rasterio reads one, "EPSG:4326" for degrees; None: the raster's. Raises
    TilingError when there is no way from one to the other, and for what looks like degrees.
    """
    if bounds is None or bounds_crs is None:
        if bounds is not None and _look_like_degrees(source, bounds):
            covers = " ".join(f"{number:.10g}" for number in source.dataset.bounds)
            raise TilingError(
                f"bounds {' '.join(f'{number:.10g}' for number in bounds)} lies outside the "
                f"raster, which covers {covers}: they look like degrees, for which give "
                "bounds_crs EPSG:4326"
            )
        return bounds
    if source.dataset.crs is None:
        raise TilingError(
            f"{source.path} has no coordinate system that bounds_crs {bounds_crs} could be turned "
            "into: give a window in pixels instead"
        )
    try:
        crs = CRS.from_user_input(bounds_crs)
        found: Bounds = transform_bounds(crs, source.dataset.crs, *bounds, densify_pts=51)  # type: ignore[no-untyped-call]
    except (CRSError, *GDAL_ERRORS, ValueError, TypeError) as error:
        reason = str(error).splitlines()[0]
        raise TilingError(
            f"bounds in {bounds_crs} cannot be turned into the raster's coordinates: {reason}"
        ) from None
    return found


def _look_like_degrees(source: Source, bounds: Bounds) -> bool:
    crs = source.dataset.crs
    small = all(abs(x) <= 180 for x in bounds[::2]) and all(abs(y) <= 90 for y in bounds[1::2])
    own = own_transform(source.dataset)
    if not small or crs is None or not crs.is_projected or own is None or own.b or own.d:
        return False
    if bounds[0] >= bounds[2] or bounds[1] >= bounds[3]:  # of which another says so
        return False
    return bool(disjoint_bounds(bounds, tuple(source.dataset.bounds)))  # type: ignore[no-untyped-call]

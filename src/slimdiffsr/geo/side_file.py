"""The file .aux.xml beside a raster: GDAL believes it, so it is said what came from there.

Other programs leave such files behind, also for rasters that were replaced since.
"""

from __future__ import annotations

import warnings
from typing import Any

import rasterio
from rasterio.errors import NotGeoreferencedWarning, RasterioError

from slimdiffsr.geo.described import Description, describe

__all__ = ["told_beside"]


def told_beside(path: str, dataset: Any, described: Description) -> list[str]:  # noqa: ANN401
    """A sentence for what the raster itself does not say, or says otherwise; none if nothing."""
    beside = next((name for name in dataset.files if name.endswith(".aux.xml")), None)
    if beside is None:
        return []
    try:
        with warnings.catch_warnings(), rasterio.Env(GDAL_PAM_ENABLED="NO"):  # type: ignore[no-untyped-call]
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            with rasterio.open(path) as alone:
                own, own_transform = describe(alone), alone.transform
    except (RasterioError, ValueError):
        return []
    told = {
        "coordinate system": described.srs != own.srs or described.gcps_srs != own.gcps_srs,
        "place": dataset.transform != own_transform or len(described.gcps) != len(own.gcps),
        "nodata": _nodata(described) != _nodata(own),
    }
    parts = [part for part, differs in told.items() if differs]
    return [f"Not the raster but {beside} says its {' and '.join(parts)}."] if parts else []


def _nodata(described: Description) -> list[str]:
    return [repr(band.nodata) for band in described.bands]

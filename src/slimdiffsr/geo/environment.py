"""GDAL and PROJ set up for a scene: bounded memory, and data files of their own version."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import rasterio
from rasterio._env import set_proj_data_search_path
from rasterio.crs import CRS
from rasterio.errors import CRSError

from slimdiffsr.errors import RasterError

__all__ = ["gdal"]

# GDAL's own default is a share of the machine's memory, however large that is.
_CACHE_BYTES = 64_000_000
_KNOWN_TO_ALL = 32633  # an old EPSG code, its datum among what a foreign proj.db lacks


@contextmanager
def gdal() -> Iterator[None]:
    """Settings for reading and writing a scene, in this thread.

    Raises RasterError when coordinate systems cannot be understood.
    """
    with rasterio.Env(  # type: ignore[no-untyped-call]
        GDAL_CACHEMAX=_CACHE_BYTES, GDAL_TIFF_INTERNAL_MASK=True, **_own_gdal_data()
    ):
        _check_projections()
        yield


def _own_gdal_data() -> dict[str, Any]:
    # A wheel brings its own; the environment may point to those of another installation.
    own = _beside_rasterio("gdal_data")
    return {"GDAL_DATA": str(own)} if own.is_dir() else {}


def _check_projections() -> None:
    """Without its database PROJ drops codes and datums, and GDAL goes on without a word."""
    own = _beside_rasterio("proj_data")
    told = [f"{key}={os.environ[key]}" for key in ("PROJ_DATA", "PROJ_LIB") if key in os.environ]
    if told and (own / "proj.db").exists():
        set_proj_data_search_path(str(own))
    if not _knows_projections():
        cause = f" ({', '.join(told)})" if told else ""
        raise RasterError(
            f"PROJ's database, proj.db, is missing or of another version{cause}: coordinate "
            "systems would be lost; unset PROJ_DATA and PROJ_LIB, or install rasterio anew"
        )


def _knows_projections() -> bool:
    try:
        return bool(CRS.from_epsg(_KNOWN_TO_ALL).to_epsg() == _KNOWN_TO_ALL)
    except CRSError:
        return False


def _beside_rasterio(name: str) -> Path:
    return Path(rasterio.__file__).parent / name

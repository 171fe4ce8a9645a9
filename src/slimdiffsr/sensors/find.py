"""From what a user names, a file, a folder, an address, to a product."""

from __future__ import annotations

import os
from os import PathLike
from pathlib import Path

from slimdiffsr.errors import BandError, RasterError
from slimdiffsr.geo.known import KnownRaster
from slimdiffsr.sensors.catalogue import StacItem, looks_like_stac, read_items
from slimdiffsr.sensors.know import SensorOptions, know
from slimdiffsr.sensors.landsat import is_landsat, landsat_product
from slimdiffsr.sensors.product import Product, plain_product
from slimdiffsr.sensors.sentinel2 import find_metadata, sentinel2_product
from slimdiffsr.sensors.stac import stac_product
from slimdiffsr.sensors.store import Store, open_store

__all__ = ["find_product", "is_product", "known_raster", "product_store"]

_ARCHIVES = (".zip", ".tar", ".tgz", ".tar.gz")


def known_raster(
    src: str | PathLike[str] | KnownRaster,
    options: SensorOptions | None = None,
    *,
    all_bands: bool = False,
) -> KnownRaster:
    """What the engine opens, and what is known of it, for any input.

    Raises RasterError, BandError, RangeError or ConfigError.
    """
    if isinstance(src, KnownRaster):
        return src
    options = options or SensorOptions()
    return know(find_product(src, options, all_bands=all_bands), options)


def find_product(
    src: str | PathLike[str], options: SensorOptions | None = None, *, all_bands: bool = False
) -> Product:
    """The product behind a path or an address. Raises RasterError or BandError."""
    src, options = os.fspath(src), options or SensorOptions()
    if looks_like_stac(src):
        items = read_items(src)
        if len(items) != 1:
            raise RasterError(_many(src, items))
        return stac_product(items[0], assets=options.assets, all_bands=all_bands, sign=options.sign)
    if options.assets:
        raise BandError(f"--assets are those of a STAC item, and {src} is none: give --bands")
    store = product_store(src)
    if store is None:
        return plain_product(src)
    if is_landsat(store):
        return landsat_product(store, all_bands)
    return sentinel2_product(store, all_bands)


def _many(src: str, items: list[StacItem]) -> str:
    if not items:
        return f"{src} holds no items"
    return (
        f"{src} holds {len(items)} items, {items[0].id} among them, and one output is asked for: "
        "give one item, or a folder as output"
    )


def is_product(src: str) -> bool:
    """Whether an input is more than a raster: a product's folder or archive, a catalogue's item."""
    return looks_like_stac(src) or product_store(src) is not None


def product_store(src: str) -> Store | None:
    """The folder or archive of a product known here; None for anything else.

    A Sentinel-2 product may be given by its MTD file. Raises RasterError for a damaged archive
    that calls itself a product.
    """
    path = Path(src)
    if path.name.startswith("MTD_MSI") and path.suffix == ".xml" and path.exists():
        path = path.parent
    safe = ".SAFE" in path.name
    archive = path.name.lower().endswith(_ARCHIVES)
    if not (path.is_dir() and path.suffix != ".zarr") and not (archive and path.exists()):
        return None
    if not (safe or archive or _may_be_product(path)):
        return None
    store = open_store(path)
    return store if safe or find_metadata(store) or is_landsat(store) else None


def _may_be_product(folder: Path) -> bool:
    """A look at the names in a folder alone: others may hold millions of files below."""
    with os.scandir(folder) as entries:
        names = [entry.name for entry in entries]
    here = Store(folder, "folder", tuple(names))
    return find_metadata(here) is not None or is_landsat(here)

"""What a product says of itself, gathered from its files or its catalogue, before it is judged."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any

from slimdiffsr.geo.raster import open_source

__all__ = ["BandFacts", "Product", "plain_product"]

_BASELINE = re.compile(r"_N(\d{2})(\d{2})_")


@dataclass(frozen=True, slots=True, kw_only=True)
class BandFacts:
    """One band: its name, and what is declared of its numbers (None: nothing)."""

    name: str = ""
    role: str = ""  # the common name, where a catalogue gives it
    scale: float | None = None
    offset: float | None = None
    nodata: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Product:
    """Something to upscale: what GDAL opens, and all that is said of it.

    words: names of files, folders, items and collections. declared_by: who gave scale and offset.
    binding: whether that is the producer, speaking of these very numbers. baseline: Sentinel-2's
    processing baseline. offset_applied: what a catalogue says of its own doing.
    """

    path: str
    name: str
    dtype: str
    bands: tuple[BandFacts, ...]
    words: tuple[str, ...] = ()
    coarser: tuple[int, ...] = ()  # by how much a band's own pixels are larger
    files: tuple[str, ...] = ()  # that a VRT's text in ``path`` reads
    declared_by: str = ""
    binding: bool = False
    baseline: float | None = None
    offset_applied: bool | None = None
    remarks: tuple[str, ...] = ()
    sensor: str = ""  # where metadata leave no doubt
    properties: dict[str, Any] = field(default_factory=dict)  # of a catalogue's item
    links: tuple[str, ...] = ()  # what the product was derived from


def plain_product(path: str) -> Product:
    """What one raster says. Raises RasterError when it cannot be opened."""
    with open_source(path) as source:
        described, dtype = source.described, source.dtype.name
    tags = {key.upper(): value for key, value in described.domains.get("", {}).items()}
    scaled = any((band.scale, band.offset) != (1.0, 0.0) for band in described.bands)
    bands = tuple(
        BandFacts(
            name=band.description or _colour(band.colour),
            scale=band.scale if scaled else None,
            offset=band.offset if scaled else None,
            nodata=band.nodata,
        )
        for band in described.bands
    )
    words = (*_names(path), *(tags[key] for key in _NAMING_TAGS if key in tags))
    if len(bands) == 1 and not bands[0].name:
        bands = (_named_by_file(bands[0], path),)
    return Product(
        path=path, name=path, dtype=dtype, bands=bands, words=words,
        declared_by="scale and offset of the file" if scaled else "",
        baseline=_baseline(tags.get("PROCESSING_BASELINE", ""), words),
    )  # fmt: skip


_NAMING_TAGS = ("PRODUCT_URI", "LANDSAT_PRODUCT_ID", "PRODUCT_ID", "LOCALGRANULEID")


def _names(path: str) -> tuple[str, ...]:
    # Drivers' prefixes, as in SENTINEL2_L2A:/vsizip/x.zip/y.SAFE/MTD_MSIL2A.xml:10m:EPSG_32632
    return tuple(part for part in re.split(r"[/\\:\"]", path) if part)[-4:]


def _colour(colour: str) -> str:
    return colour if colour in ("red", "green", "blue") else ""


def _named_by_file(band: BandFacts, path: str) -> BandFacts:
    found = re.search(r"(?:^|[_.])((?:SR_|ST_)?B\d\w?A?)(?:_\d\dm)?$", PurePath(path).stem)
    return BandFacts(
        name=found[1] if found else "", scale=band.scale, offset=band.offset, nodata=band.nodata
    )


def _baseline(tag: str, words: tuple[str, ...]) -> float | None:
    """Such as 5.09, from a tag or from N0509 in a name."""
    if re.fullmatch(r"\d+\.\d+", tag):
        return float(tag)
    found = next((match for match in map(_BASELINE.search, words) if match), None)
    return float(f"{found[1]}.{found[2]}") if found else None

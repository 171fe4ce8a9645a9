"""Everything the output says of itself besides its pixels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from affine import Affine
from rasterio.control import GroundControlPoint
from rasterio.crs import CRS

from slimdiffsr.geo.bands import BandChoice
from slimdiffsr.geo.georef import scaled_gcps, scaled_rpcs, scaled_transform
from slimdiffsr.geo.grid import Region
from slimdiffsr.geo.raster import Source

__all__ = ["BandHeader", "Header", "describe_output"]

# Statements about the input's pixels or its file that are not true of the output.
_STALE_PREFIXES = ("STATISTICS_", "OVR_RESAMPLING_ALG", "SLIMDIFFSR_", "COMPRESSION", "LAYOUT")
_OTHER_DOMAINS = ("IMAGE_STRUCTURE", "DERIVED_SUBDATASETS", "SUBDATASETS", "RPC", "GEOLOCATION")


@dataclass(frozen=True, slots=True)
class BandHeader:
    """One band of the output."""

    description: str
    colour: str  # lower case, as rasterio names colour interpretations
    nodata: float | None
    unit: str
    scale: float
    offset: float
    tags: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Header:
    """The whole output file."""

    region_hr: Region
    dtype: np.dtype[Any]
    bands: tuple[BandHeader, ...]
    transform: Affine | None
    crs: CRS | None
    gcps: tuple[GroundControlPoint, ...]
    gcps_crs: CRS | None
    has_mask: bool
    tags: Mapping[str, str]
    domains: Mapping[str, Mapping[str, str]]  # RPC and other tag namespaces

    @property
    def nodata(self) -> float | None:
        """The nodata value of the file: that of its first band."""
        return self.bands[0].nodata

    @property
    def bytes(self) -> int:
        """Size of the pixels before compression."""
        return self.region_hr.pixels * len(self.bands) * self.dtype.itemsize


def describe_output(
    source: Source,
    choice: BandChoice,
    region_hr: Region,
    scale: int,
    provenance: Mapping[str, str],
) -> Header:
    """The source's metadata as they apply to the output, and where it came from."""
    dataset = source.dataset
    domains = {
        name: _fresh(dataset.tags(ns=name))
        for name in dataset.tag_namespaces()
        if name not in _OTHER_DOMAINS and ":" not in name
    }
    rpcs = dataset.tags(ns="RPC")
    if rpcs:
        domains["RPC"] = scaled_rpcs(rpcs, region_hr, scale)
    return Header(
        region_hr=region_hr,
        dtype=source.dtype,
        bands=tuple(_band(source, band) for band in choice.written),
        transform=scaled_transform(dataset, region_hr, scale),
        crs=dataset.crs,
        gcps=tuple(scaled_gcps(dataset, region_hr, scale)),
        gcps_crs=dataset.gcps[1],
        has_mask=source.has_mask,
        tags={**_fresh(dataset.tags()), **provenance},
        domains=domains,
    )


def _band(source: Source, band: int) -> BandHeader:
    name = source.names[band - 1]
    if source.palette is not None:
        return BandHeader("", name.colour, None, "", 1.0, 0.0, {})
    dataset = source.dataset
    return BandHeader(
        description=name.description,
        colour="undefined" if band == source.false_alpha else name.colour,
        nodata=source.nodata(band),
        unit=dataset.units[band - 1] or "",
        scale=dataset.scales[band - 1],
        offset=dataset.offsets[band - 1],
        tags=_fresh(dataset.tags(band)),
    )


def _fresh(tags: Mapping[str, str]) -> dict[str, str]:
    return {key: value for key, value in tags.items() if not key.startswith(_STALE_PREFIXES)}

"""Everything the output says of itself besides its pixels."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from affine import Affine
from rasterio.control import GroundControlPoint
from rasterio.crs import CRS

from slimdiffsr.geo.bands import BandChoice
from slimdiffsr.geo.emptiness import common_nodata
from slimdiffsr.geo.georef import scaled_gcps, scaled_rpcs, scaled_transform, survives
from slimdiffsr.geo.grid import Region
from slimdiffsr.geo.orientation import UPRIGHT
from slimdiffsr.geo.raster import HEADER_ERRORS, Source

__all__ = ["BandHeader", "Header", "describe_output"]

# Statements about the input's pixels or its file that are not true of the output.
_STALE_PREFIXES = (
    "STATISTICS_", "OVR_RESAMPLING_ALG", "SLIMDIFFSR_", "COMPRESSION", "LAYOUT", "NODATA_VALUES",
)  # fmt: skip
_JUDGED_BANDS = 4  # whose values are looked at when their nodata values disagree
_STALE_DOMAINS = (
    "", "IMAGE_STRUCTURE", "DERIVED_SUBDATASETS", "SUBDATASETS", "RPC", "GEOLOCATION", "OVERVIEWS",
    "TILING_SCHEME", "xml:VRT",
)  # fmt: skip


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
    documents: tuple[str, ...] = ()  # namespaces of one text each, as XMP: elements of a VRT
    notes: tuple[str, ...] = ()  # whole sentences: what was left out

    @property
    def nodata(self) -> float | None:
        """The nodata value of the file: that of its first band."""
        return self.bands[0].nodata

    @property
    def has_namespaces(self) -> bool:
        """Whether there are tags in namespaces that GDAL does not copy by itself."""
        return bool(self.documents or set(self.domains) - {"RPC"})

    @property
    def bytes(self) -> int:
        """Size of the pixels before compression."""
        return self.region_hr.pixels * len(self.bands) * self.dtype.itemsize


def describe_output(
    source: Source,
    choice: BandChoice,
    region_hr: Region,
    scale: Fraction,
    provenance: Mapping[str, str],
) -> Header:
    """The source's metadata as they apply to the output, and where it came from.

    Each part is read by itself: what cannot be read is left out, and a note says so.
    """
    dataset, told = source.dataset, source.described
    notes: list[str] = []
    domains = {
        name: _fresh(tags) for name, tags in told.domains.items() if name not in _STALE_DOMAINS
    }
    rpcs = told.domains.get("RPC")
    if rpcs:
        with _noted(notes, "rational polynomials (RPC)"):
            domains["RPC"] = scaled_rpcs(rpcs, region_hr, scale)
    if "GEOLOCATION" in told.domains:
        notes.append("The raster's geolocation arrays do not fit the result and were left out.")
    transform = scaled_transform(dataset, region_hr, scale)
    if transform is None and dataset.driver != "PNM" and not dataset.transform.is_identity:
        notes.append("The raster's transform leads to no place on a map and was left out.")
    gcps, gcps_crs = _gcps(source, region_hr, scale, notes)
    return Header(
        region_hr=region_hr,
        dtype=source.dtype,
        bands=_bands(source, choice, _nodata(source, choice, notes)),
        transform=transform,
        crs=_crs(source, notes),
        gcps=gcps,
        gcps_crs=gcps_crs,
        has_mask=source.has_mask,
        tags={**_fresh(_upright(source, told.domains.get("", {}))), **provenance},
        domains=domains,
        documents=tuple(
            text for name, text in told.documents.items()
            if name not in _STALE_DOMAINS and not name.lower().startswith("xml:gml")
        ),
        notes=tuple(notes),
    )  # fmt: skip


@contextmanager
def _noted(notes: list[str], what: str) -> Iterator[None]:
    try:
        yield
    except HEADER_ERRORS:
        notes.append(f"The raster's {what} cannot be read and were left out.")


def _crs(source: Source, notes: list[str]) -> CRS | None:
    with _noted(notes, "coordinate system"):
        crs: CRS | None = source.dataset.crs
        if crs and not survives(crs):
            notes.append(
                "GeoTIFF cannot hold the raster's coordinate system to the letter: compare that of "
                "the result."
            )
        return crs or None
    return None


def _gcps(
    source: Source, region_hr: Region, scale: Fraction, notes: list[str]
) -> tuple[tuple[GroundControlPoint, ...], CRS | None]:
    told = source.described
    try:
        points, crs = source.dataset.gcps
    except HEADER_ERRORS:  # a name that is not UTF-8
        points, crs = told.gcps, None
        with _noted(notes, "coordinate system of its control points"):
            crs = CRS.from_wkt(told.gcps_srs) if told.gcps_srs else None
    if len(points) == 1:
        notes.append("A single control point places nothing on a map and was left out.")
        points = ()
    return tuple(scaled_gcps(points, region_hr, scale)), crs


def _nodata(source: Source, choice: BandChoice, notes: list[str]) -> float | None:
    """The one value that an output file can declare."""
    own = [source.nodata(band) for band in choice.data]
    masked = any(source.has_own_mask(band) for band in choice.data)
    if not masked and len({repr(value) for value in own}) == 1:
        return own[0]
    sample = source.sample(choice.data[:_JUDGED_BANDS])
    nodata = common_nodata(own, masked, source.dtype, sample.values[sample.valid])
    why = "have masks of their own" if masked else "declare different nodata values"
    notes.append(
        f"The bands {why}, and a file can hold one: empty pixels of the result are {nodata:g}."
    )
    return nodata


def _bands(source: Source, choice: BandChoice, nodata: float | None) -> tuple[BandHeader, ...]:
    colours = {band: source.names[band - 1].colour for band in choice.written}
    nameless = not {"red", "green", "blue"} & {name.colour for name in source.names}
    if len(choice.seen) == 3 and nameless:  # else programs show the first as grey
        colours |= dict(zip(choice.seen, ("red", "green", "blue"), strict=True))
    if source.false_alpha is not None:
        colours[source.false_alpha] = "undefined"
    if source.alpha is not None:
        colours[source.alpha] = "alpha"
    return tuple(_band(source, band, colours[band], nodata) for band in choice.written)


def _band(source: Source, band: int, colour: str, nodata: float | None) -> BandHeader:
    if source.palette is not None:
        return BandHeader("", colour, None, "", 1.0, 0.0, {})
    told = source.described.band(band)
    return BandHeader(
        description=told.description,
        colour=colour,
        nodata=nodata,
        unit=told.unit,
        scale=told.scale,
        offset=told.offset,
        tags=_fresh(told.tags),
    )


def _upright(source: Source, tags: Mapping[str, str]) -> Mapping[str, str]:
    return tags if source.turn == UPRIGHT else {**tags, "EXIF_Orientation": "1"}


def _fresh(tags: Mapping[str, str]) -> dict[str, str]:
    return {key: value for key, value in tags.items() if not key.startswith(_STALE_PREFIXES)}

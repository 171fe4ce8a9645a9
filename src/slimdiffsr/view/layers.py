"""The rasters of a view: opened, proved to be of one place, and which of their bands are the same.

Everything is placed by the first raster, the input: ``to_layer`` turns its columns and rows into
those of another layer.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from affine import Affine
from rasterio.control import GroundControlPoint
from rasterio.crs import CRS

from slimdiffsr.errors import RasterError
from slimdiffsr.geo.bands import choose_bands
from slimdiffsr.geo.environment import gdal
from slimdiffsr.geo.orientation import UPRIGHT
from slimdiffsr.geo.raster import Source, open_source
from slimdiffsr.geo.values import ValueRange, estimate_range

__all__ = ["Layer", "Place", "Scene", "open_scene", "place_of", "tags_of"]

_LARGE_PX = 8192
_ALIGNED = 1e-3  # of a pixel of the input over the whole scene: less turns or shears nothing


@dataclass(frozen=True, slots=True)
class Layer:
    """One raster of the view."""

    name: str
    source: Source
    to_layer: Affine  # the input's column and row -> this raster's
    bands: dict[int, int]  # the input's bands -> the same ones here, numbered from 1

    @property
    def scale(self) -> float:
        """Pixels of this layer for each of the input's, along a row."""
        return float(self.to_layer.a)

    @property
    def is_slow(self) -> bool:
        """Whether to show the whole of it, all of its many pixels are read."""
        side_px = max(self.source.dataset.shape)
        return side_px > _LARGE_PX and not self.source.dataset.overviews(1)


@dataclass(frozen=True, slots=True)
class Scene:
    """Layers of one place: the input, the results, and perhaps how unsure a result is."""

    layers: tuple[Layer, ...]
    uncertainty: Layer | None
    unit: str  # of the uncertainty's values
    value_range: ValueRange  # what is shown black and white unless asked otherwise
    unsure_range: ValueRange | None  # from 0 to what nearly all of the uncertainty is below
    seen: tuple[int, ...]  # the input's bands shown at first, as upscale would choose them

    @property
    def input(self) -> Source:
        """The raster that places all others."""
        return self.layers[0].source

    def layer(self, name: str) -> Layer | None:
        """The layer of that name."""
        everything = (*self.layers, *([self.uncertainty] if self.uncertainty else ()))
        return next((layer for layer in everything if layer.name == name), None)


@contextmanager
def open_scene(
    paths: list[str],
    uncertainty: str | None = None,
    *,
    bands: tuple[int, ...] | None = None,
    unit: str | None = None,
) -> Iterator[Scene]:
    """Open the input, the results and the uncertainty of one place.

    bands: of the input, shown at first; else as ``upscale`` chooses. unit: of the uncertainty, else
    as its raster or the input tells. Raises RasterError for a raster that cannot be read, has
    another CRS, or is not of the same place; BandError for bands that are not there.
    """
    with gdal(), ExitStack() as stack:
        sources = [stack.enter_context(open_source(path)) for path in paths]
        first = sources[0]
        names = _short_names(paths)
        choice = choose_bands(first.names, bands, False, first.alpha)
        layers = tuple(
            Layer(name, source, _placed(first, source), _same_bands(first, source))
            for name, source in zip(names, sources, strict=True)
        )
        unsure, unsure_range, words = None, None, ""
        if uncertainty is not None:
            source = stack.enter_context(open_source(uncertainty))
            _check_single(source)
            unsure = Layer("uncertainty", source, _placed(first, source), {})
            unsure_range = _range_of_uncertainty(source)
            words = unit or _unit(source, 1) or _unit(first, choice.seen[0])
            words = words or ("grey levels" if first.dtype == np.uint8 else "the input's units")
        value_range = ValueRange(0.0, 255.0)
        if first.dtype != np.uint8:
            sample = first.sample(choice.seen)
            value_range = estimate_range(sample.values, sample.valid)
        yield Scene(layers, unsure, words, value_range, unsure_range, choice.seen)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a raster says that it lies."""

    width: int
    height: int
    transform: Affine  # the identity where there is none
    crs: CRS | None
    gcps: tuple[GroundControlPoint, ...]
    gcps_crs: CRS | None


def place_of(source: Source) -> Place:
    """A raster's place; a picture that was stored on its side has none once it is upright."""
    region, dataset = source.region_lr, source.dataset
    if source.turn != UPRIGHT:
        return Place(region.width, region.height, Affine.identity(), None, (), None)
    points, points_crs = dataset.gcps
    return Place(
        region.width, region.height, dataset.transform, dataset.crs, tuple(points), points_crs
    )


def tags_of(source: Source) -> Mapping[str, str]:
    """A raster's tags without a namespace."""
    return source.described.domains.get("", {})


def _unit(source: Source, band: int) -> str:
    return source.described.band(band).unit


def _short_names(paths: list[str]) -> list[str]:
    """File names, with as much of the folders as tells them apart."""
    parts = [Path(path).parts for path in paths]
    for depth in range(1, max(map(len, parts)) + 1):
        names = ["/".join(part[-depth:]) for part in parts]
        if len(set(names)) == len(names):
            return names
    raise RasterError(f"the same raster was given twice: {', '.join(paths)}")


def _check_single(source: Source) -> None:
    data = len(source.names) - (source.alpha is not None)
    if data != 1:
        raise RasterError(
            f"{source.path} has {data} bands: the uncertainty must be a raster of one band"
        )


def _range_of_uncertainty(source: Source) -> ValueRange:
    sample = source.sample((1,))
    values = sample.values[sample.valid].astype(np.float64)
    if values.size == 0:
        return ValueRange(0.0, 1.0)
    low, high = min(0.0, float(values.min())), float(np.percentile(values, 99))
    return ValueRange(low, high if high > low else low + 1.0)


# ---------------------------------------------------------------------------------------------
# Place


def _placed(first: Source, other: Source) -> Affine:
    """The first raster's column and row -> the other's. Raises RasterError when there is none."""
    if other is first:
        return Affine.identity()
    ours, theirs = place_of(first), place_of(other)
    for one, another in ((ours.crs, theirs.crs), (ours.gcps_crs, theirs.gcps_crs)):
        if one and another and one != another:
            raise RasterError(
                f"{other.path} is in {_called(another)} and {first.path} in {_called(one)}: "
                "bring it to the same CRS, for example with rio warp"
            )
    if ours.transform == Affine.identity() or theirs.transform == Affine.identity():
        if ours.gcps and theirs.gcps:
            return _by_points(first, other)
        return _by_size(first, other)
    placed: Affine = ~theirs.transform @ ours.transform
    turned = max(abs(placed.b) * ours.height, abs(placed.d) * ours.width) / abs(placed.a)
    if turned > _ALIGNED or placed.a <= 0 or placed.e <= 0:
        raise RasterError(f"{other.path} is turned against {first.path}: bring it to its grid")
    _check_overlap(first, other, placed)
    return placed


def _by_size(first: Source, other: Source) -> Affine:
    """Rasters without map coordinates show the same if their sides are in proportion."""
    ours, theirs = place_of(first), place_of(other)
    across, down = theirs.width / ours.width, theirs.height / ours.height
    # A pixel more or less by rounding is no other picture.
    if abs(across - down) * max(ours.width, ours.height) > 1:
        raise RasterError(
            f"{other.path} ({theirs.width} x {theirs.height} pixels) is not of the same place as "
            f"{first.path} ({ours.width} x {ours.height}): without map coordinates in both, "
            "their sides must be in proportion"
        )
    return Affine.scale(across, down)


def _by_points(first: Source, other: Source) -> Affine:
    """Rasters with ground control points: the same points, at other columns and rows."""
    theirs = {(p.x, p.y): p for p in place_of(other).gcps}
    pairs = [(p, theirs[p.x, p.y]) for p in place_of(first).gcps if (p.x, p.y) in theirs]
    steps = []
    for axis in ("col", "row"):
        ours_at = np.array([getattr(p, axis) for p, _ in pairs])
        theirs_at = np.array([getattr(q, axis) for _, q in pairs])
        if len(pairs) < 2 or np.ptp(ours_at) == 0:
            raise _not_there(first, other)
        scale = np.ptp(theirs_at) / np.ptp(ours_at)
        steps.append((float(scale), float(np.mean(theirs_at - scale * ours_at))))
    (across, left), (down, top) = steps
    placed = Affine(across, 0, left, 0, down, top)
    _check_overlap(first, other, placed)
    return placed


def _check_overlap(first: Source, other: Source, placed: Affine) -> None:
    left, top = placed @ (0, 0)
    right, bottom = placed @ (first.region_lr.width, first.region_lr.height)
    meet_across = min(right, other.region_lr.width) > max(left, 0)
    meet_down = min(bottom, other.region_lr.height) > max(top, 0)
    if not (math.isfinite(left + right + top + bottom) and meet_across and meet_down):
        raise _not_there(first, other)


def _not_there(first: Source, other: Source) -> RasterError:
    return RasterError(
        f"{other.path} is not of the same place as {first.path}: they do not overlap on the map"
    )


def _called(crs: object) -> str:
    code = getattr(crs, "to_epsg", lambda: None)()
    return f"EPSG:{code}" if code else "another CRS"


# ---------------------------------------------------------------------------------------------
# Bands


def _same_bands(first: Source, other: Source) -> dict[int, int]:
    """The first raster's bands -> those of the other that show the same."""
    ours, theirs = _data_bands(first), _data_bands(other)
    if other is first or len(ours) == len(theirs):
        return dict(zip(ours, theirs, strict=True))
    named = _by_name(first, other)
    if named:
        return named
    written = tags_of(other).get("SLIMDIFFSR_BANDS", "")
    seen = tuple(int(part) for part in written.split(",") if part.isdigit())
    if len(seen) != len(theirs):
        seen = choose_bands(first.names, None, False, first.alpha).seen
    return dict(zip(seen, theirs, strict=False))


def _by_name(first: Source, other: Source) -> dict[int, int]:
    theirs = {
        other.names[k - 1].description: k
        for k in _data_bands(other)
        if other.names[k - 1].description
    }
    named = {k: theirs.get(first.names[k - 1].description) for k in _data_bands(first)}
    return {ours: band for ours, band in named.items() if band is not None}


def _data_bands(source: Source) -> tuple[int, ...]:
    return tuple(k for k in range(1, len(source.names) + 1) if k != source.alpha)

"""Opening, checking and reading a source raster: values with, for each band, what is valid."""

from __future__ import annotations

import os
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from os import PathLike
from typing import Any, Literal

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio._err import CPLE_BaseError
from rasterio.enums import MaskFlags, Resampling
from rasterio.errors import (
    NodataShadowWarning,
    NotGeoreferencedWarning,
    RasterioError,
    RasterioIOError,
)
from rasterio.windows import Window

from slimdiffsr.errors import BandError, RasterError
from slimdiffsr.geo.bands import BandName
from slimdiffsr.geo.checks import check_kind
from slimdiffsr.geo.described import Description, describe
from slimdiffsr.geo.emptiness import equals_nodata, stored_nodata
from slimdiffsr.geo.grid import Region
from slimdiffsr.geo.known import KnownRaster, as_known
from slimdiffsr.geo.orientation import UPRIGHT, Turn, turn_of
from slimdiffsr.geo.palette import Palette, palette_of
from slimdiffsr.geo.sampling import (
    SAMPLE_LR_PX,
    pixel_bytes,
    places_to_look,
    reads_whole,
)
from slimdiffsr.geo.side_file import told_beside
from slimdiffsr.geo.spec import AlphaRule
from slimdiffsr.geo.values import hidden_nodata, looks_like_alpha

__all__ = ["GDAL_ERRORS", "HEADER_ERRORS", "Reading", "Source", "open_quietly", "open_source"]

# GDAL's own errors come through rasterio in some places, and are no RasterioError.
GDAL_ERRORS = (RasterioError, CPLE_BaseError)
# What rasterio raises for odd words and numbers in a header: also what Python says of them.
HEADER_ERRORS = (*GDAL_ERRORS, ArithmeticError, LookupError, SyntaxError, TypeError, ValueError)


@dataclass(frozen=True, slots=True)
class Reading:
    """A part of a raster."""

    values: NDArray[Any]  # (b, h, w) in the source's type and units
    valid: NDArray[np.bool_]  # (b, h, w)


@dataclass(slots=True)
class Source:
    """A raster open for reading, safe to use from several threads.

    A palette raster appears as its grey, or red, green, blue (and alpha) bands; white-is-zero as
    black-is-zero; a picture that was stored on its side upright.
    """

    path: str  # as messages call it
    dataset: Any  # rasterio's DatasetReader
    known: KnownRaster
    told_nodata: float | Literal["declared", "none"] = "declared"
    described: Description = field(default_factory=Description)
    names: tuple[BandName, ...] = ()
    palette: Palette | None = None
    white: int | None = None  # the value that stands for black where zero is white
    turn: Turn = UPRIGHT
    alpha: int | None = None  # the band that really is transparency, from 1
    false_alpha: int | None = None  # a band tagged alpha that holds data
    hidden_nodata: float | None = None
    places_looked_at: int = 0  # by ``sample``; 0: the whole scene
    notes: list[str] = field(default_factory=list)  # whole sentences for the user
    _flags: list[list[MaskFlags]] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def region_lr(self) -> Region:
        """The whole scene."""
        return Region(0, 0, *self.turn.size(self.dataset.width, self.dataset.height))

    @property
    def files(self) -> tuple[str, tuple[str, ...]]:
        """The file that was named, and those that GDAL reads besides; a VRT's text is none."""
        listed = (*self.known.files, *self.dataset.files)
        named = self.known.path if not self.known.files else self.known.files[0]
        return named, tuple(name for name in listed if not name.startswith("<"))

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the values read."""
        return np.dtype(np.uint8 if self.palette is not None else self.dataset.dtypes[0])

    @property
    def has_mask(self) -> bool:
        """Whether emptiness is kept in a mask beside the bands."""
        flags = self._flags[0]
        beside = MaskFlags.per_dataset in flags and MaskFlags.alpha not in flags
        return beside or (self.palette is not None and self.palette.nodata is not None)

    def has_own_mask(self, band: int) -> bool:
        """Whether a band has a mask that is not that of the others."""
        told = (MaskFlags.all_valid, MaskFlags.nodata, MaskFlags.alpha, MaskFlags.per_dataset)
        return self.palette is None and not any(flag in self._flags[band - 1] for flag in told)

    def nodata(self, band: int) -> float | None:
        """The nodata value of a band as it is stored, if its type can hold it."""
        if self.palette is not None:
            return None
        stored = stored_nodata(self._told_nodata(band), self.dtype)
        return stored if stored is None or self.white is None else self.white - stored

    def _told_nodata(self, band: int) -> float | None:
        if self.told_nodata == "none":
            return None
        if self.told_nodata != "declared":
            return self.told_nodata
        value = self.described.band(band).nodata
        return self.known.nodata if value is None else value

    def impossible_nodata(self, band: int) -> float | None:
        """A nodata value that is declared and that the type cannot hold."""
        told = self._told_nodata(band)
        return told if self.palette is None and self.nodata(band) is None else None

    def emptied(
        self, band: int, values: NDArray[Any], valid: NDArray[np.bool_], nodata: float | None
    ) -> NDArray[Any]:
        """Values (h, w) with ``nodata``, that of the output, where the band's own word is "empty".

        What a mask for all bands or an alpha band hides stays as it is, and so do special values.
        """
        own = self.nodata(band)
        if nodata is None or (own is None and not self.has_own_mask(band)):
            return values
        if self.has_own_mask(band):
            empty = ~valid & np.isfinite(values)
            for special in self.known.special:
                empty &= values != values.dtype.type(special)
        else:
            assert own is not None
            empty = ~valid & equals_nodata(values, own)
        return np.where(empty, values.dtype.type(nodata), values)

    def read(self, region_lr: Region, bands: tuple[int, ...]) -> Reading:
        """Values and validity of some bands in a part of the scene.

        Raises RasterError that names the file and the window when the data are damaged.
        """
        with self._reading(region_lr) as window:
            reading = self._read(bands, window=window)
        return Reading(self.turn.upright(reading.values), self.turn.upright(reading.valid))

    def read_coarse(self, region_lr: Region, band: int, factor: int) -> Reading:
        """A band in pixels ``factor`` times larger, which the region must be made of."""
        shape = (region_lr.height // factor, region_lr.width // factor)
        with self._reading(region_lr) as window:
            return self._read((band,), shape, window=window)

    def look(self, part_lr: Region, shape: tuple[int, int], bands: tuple[int, ...]) -> Reading:
        """A part, which may begin and end within pixels, resampled to (rows, columns) for showing.

        Averages where pixels become larger, from overviews if there are any: a part of any size
        costs about the same. Raises RasterError when the data are damaged.
        """
        # Averages would mix what GDAL does not know to be empty, and the numbers of colours.
        exact = self.palette is not None or self.hidden_nodata is not None or self.known.special
        coarser = part_lr.width > shape[1] or part_lr.height > shape[0]
        how = Resampling.average if coarser and not exact else Resampling.nearest
        with self._reading(part_lr) as window:
            stored = shape[::-1] if self.turn.exchanged else shape
            reading = self._read(bands, stored, window=window, resampling=how)
        return Reading(self.turn.upright(reading.values), self.turn.upright(reading.valid))

    def read_mask(self, region_lr: Region) -> NDArray[np.uint8]:
        """(h, w): 255 where the mask beside the bands says valid, else 0."""
        if self.palette is not None:
            valid = self.read(region_lr, (1,)).valid[0]
            return np.where(valid, np.uint8(255), np.uint8(0))
        with self._reading(region_lr) as window:
            mask: NDArray[np.uint8] = self.dataset.read_masks(1, window=window)
        return self.turn.upright(np.where(mask > 0, np.uint8(255), np.uint8(0)))

    @contextmanager
    def _reading(self, region_lr: Region) -> Iterator[Window]:
        stored = self.turn.stored(region_lr, self.dataset.width, self.dataset.height)
        try:
            with self._lock:
                yield _window(stored)
        except GDAL_ERRORS as error:
            raise RasterError(
                f"{self.path} is damaged: cannot read columns {stored.col} to "
                f"{stored.col_end} and rows {stored.row} to {stored.row_end} "
                f"({_first_line(error)})"
            ) from None

    def sample(self, bands: tuple[int, ...], within: Region | None = None) -> Reading:
        """Values from all over the scene, or from a part of it; the same every time.

        A decimated read where that is cheap, else blocks spread over the scene: (b, 1, n).
        """
        dataset = self.dataset
        whole = Region(0, 0, dataset.width, dataset.height)
        try:
            with self._lock:
                cost = pixel_bytes(dataset, len(bands))
                if within is None and reads_whole(whole, cost, dataset.overviews(1)):
                    self.places_looked_at = 0
                    shape = tuple(min(side, SAMPLE_LR_PX) for side in (whole.height, whole.width))
                    return self._read(bands, shape)
                area = whole
                if within is not None:
                    area = self.turn.stored(within, dataset.width, dataset.height)
                looks = places_to_look(area, dataset.block_shapes[0], cost)
                self.places_looked_at = len(looks)
                parts = [
                    self._read(bands, (look.rows, look.cols), window=_window(look.region))
                    for look in looks
                ]
        except GDAL_ERRORS as error:
            raise RasterError(f"{self.path} is damaged ({_first_line(error)})") from None
        both = [[getattr(part, name).reshape(len(bands), 1, -1) for part in parts]
                for name in ("values", "valid")]  # fmt: skip
        return Reading(*(np.concatenate(some, axis=2) for some in both))

    def judge_nodata(self, bands: tuple[int, ...]) -> None:
        """Look for a nodata value that nobody declared, in the bands that the network sees."""
        silent = self.told_nodata == "declared" and not any(
            self._told_nodata(band) is not None for band in range(1, len(self.names) + 1)
        )
        if silent and self.palette is None and self.dtype.kind != "u":
            sample = self.sample(bands)
            self.hidden_nodata = hidden_nodata(sample.values, sample.valid)

    def _read(
        self,
        bands: tuple[int, ...],
        shape: tuple[int, ...] | None = None,
        **how: Any,  # noqa: ANN401
    ) -> Reading:
        decimated = {} if shape is None else {"out_shape": shape}
        several = {} if shape is None else {"out_shape": (len(bands), *shape)}
        if self.palette is not None:
            colours, valid = self.palette.expand(self.dataset.read(1, **how, **decimated))
            values = np.stack([colours[..., band - 1] for band in bands])
            return Reading(values, np.repeat(valid[None], len(bands), axis=0))
        values = self.dataset.read(bands, **how, **several)
        if self.white is not None:
            values = values.dtype.type(self.white) - values
        valid = np.stack([self._valid(band, values[k]) for k, band in enumerate(bands)])
        if self.alpha is not None:
            valid &= self.dataset.read(self.alpha, **how, **decimated) > 0
        for k, band in enumerate(bands):
            if self._asks_gdal(band):
                valid[k] &= self._gdal_mask(band, **how, **decimated) > 0
        return Reading(values, valid)

    def _gdal_mask(self, band: int, **how: Any) -> NDArray[np.uint8]:  # noqa: ANN401
        with warnings.catch_warnings():
            # What an alpha band beside a nodata value is worth is judged elsewhere.
            warnings.simplefilter("ignore", NodataShadowWarning)
            mask: NDArray[np.uint8] = self.dataset.read_masks(band, **how)
        return mask

    def _asks_gdal(self, band: int) -> bool:
        # Some values are nodata to GDAL alone. What an alpha band says is judged, not asked for.
        flags = self._flags[band - 1]
        if MaskFlags.nodata in flags and self.told_nodata != "declared":
            return False
        return MaskFlags.all_valid not in flags and MaskFlags.alpha not in flags

    def _valid(self, band: int, values: NDArray[Any]) -> NDArray[np.bool_]:
        valid: NDArray[np.bool_] = np.isfinite(values)
        own = self.nodata(band)
        if own is not None:
            valid &= ~equals_nodata(values, own)
        for empty in (self.hidden_nodata, *self.known.special):
            if empty is not None and not np.isnan(empty):
                valid &= values != values.dtype.type(empty)
        return valid


def _window(region: Region) -> Window:
    return Window(region.col, region.row, region.width, region.height)


@contextmanager
def open_source(
    src: str | PathLike[str] | KnownRaster,
    nodata: float | Literal["declared", "none"] = "declared",
    alpha: AlphaRule = "auto",
) -> Iterator[Source]:
    """Open and check a raster.

    nodata: the value of empty pixels instead of the declared one, or "none". alpha: whether a band
    tagged alpha is transparency ("band"), data ("none"), or what its values look like ("auto").

    Raises RasterError when it is missing, not a raster, of a kind that cannot be upscaled, or when
    GDAL fails to read its header, now or later.
    """
    known = as_known(src)
    path = known.called
    with open_quietly(known.path, called=path) as dataset:
        try:
            check_kind(path, dataset)
            source = Source(path, dataset, known, nodata)
            _learn(source)
            _judge_alpha(source, alpha)
            yield source
        except GDAL_ERRORS as error:  # of the header: a remote one is fetched bit by bit
            raise RasterError(f"{path} cannot be read: {_first_line(error)}") from None


@contextmanager
def open_quietly(path: str, called: str = "", **options: Any) -> Iterator[Any]:  # noqa: ANN401
    """Open a raster of any kind for reading, with or without georeferencing."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            dataset = rasterio.open(path, **options)
    except (*GDAL_ERRORS, TypeError, ValueError, SystemError) as error:
        raise RasterError(_why_not_open(called or path, error)) from None
    with dataset:
        yield dataset


def _why_not_open(path: str, error: Exception) -> str:
    shown = path.encode("utf-8", "backslashreplace").decode()
    if shown != path:
        return f"the name {shown} is not UTF-8, which GDAL needs: rename the file"
    remote = "://" in path or path.startswith("/vsi")
    if not remote and ":" not in path and not os.path.exists(path):
        return f"{path} does not exist, or lies in a folder that may not be entered"
    if os.path.exists(path) and not os.access(path, os.R_OK):
        return f"{path} may not be read: permission denied"
    if isinstance(error, RasterioIOError) and "not recognized" in str(error):
        return f"{path} is not a raster that GDAL can read"
    return f"{path} cannot be opened: {_first_line(error)}"


def _first_line(error: BaseException) -> str:
    # rasterio says "Read failed. See previous exception for details."; GDAL's reason is its cause.
    cause = error.__cause__ or error
    return str(cause).splitlines()[0].rstrip(".") if str(cause) else type(error).__name__


def _learn(source: Source) -> None:
    """What the header says: names, palette, masks, orientation."""
    dataset = source.dataset
    try:
        source.described = describe(dataset)
    except HEADER_ERRORS as error:
        raise RasterError(
            f"{source.path} has a header that cannot be read: {_first_line(error)}"
        ) from None
    source._flags = dataset.mask_flag_enums
    facts = [source.described.band(band) for band in range(1, dataset.count + 1)]
    source.names = tuple(BandName(one.description, one.colour) for one in facts)
    if {"cyan", "magenta"} <= {one.colour for one in facts}:
        raise RasterError(f"{source.path} holds inks (CMYK): convert it to red, green and blue")
    source.turn = turn_of(dataset, source.described.domains.get("", {}))
    source.notes += told_beside(source.known.path, dataset, source.described)
    if source.turn != UPRIGHT:
        source.notes.append("The picture was stored on its side (EXIF orientation): it was turned.")
    if dataset.count == 1 and facts[0].colour == "palette":
        _learn_palette(source, facts[0].nodata)


def _learn_palette(source: Source, nodata: float | None) -> None:
    palette = palette_of(source.dataset, None if source.told_nodata == "none" else nodata)
    source.names = (BandName("", "gray"),)
    if palette is None:
        source.notes.append("The raster says that it has a palette, but has none: taken as grey.")
    elif not palette.is_ramp:
        source.palette, source.names = palette, tuple(BandName("", c) for c in palette.colours)
        source.alpha = palette.colours.index("alpha") + 1 if "alpha" in palette.colours else None
        what = "grey" if palette.colours[0] == "gray" else "red, green and blue"
        source.notes.append(f"The palette was expanded to {what}.")
    elif palette.starts_white and source.dtype.kind == "u":
        source.white = len(palette.table) - 1
        source.notes.append("Zero is white in the raster, and black in the result.")
    elif palette.starts_white:
        source.notes.append("Zero is white in the raster: its numbers were left as they are.")


def _judge_alpha(source: Source, rule: AlphaRule) -> None:
    if source.palette is not None:
        return
    tagged = next((k for k, name in enumerate(source.names, 1) if name.colour == "alpha"), None)
    if rule == "band" and tagged is None:
        if len(source.names) not in (2, 4):
            raise BandError(
                f"no band of {source.path} is tagged alpha, and of {len(source.names)} bands none "
                "can be taken for it: leave out the alpha option"
            )
        tagged = len(source.names)
    if tagged is None:
        return
    if rule == "band" or (rule == "auto" and looks_like_alpha(source.sample((tagged,)).values)):
        source.alpha = tagged
    else:
        source.false_alpha = tagged

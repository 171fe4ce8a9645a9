"""Opening, checking and reading a source raster: values with, for each band, what is valid."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio._err import CPLE_BaseError
from rasterio.enums import ColorInterp, MaskFlags, Resampling
from rasterio.errors import NotGeoreferencedWarning, RasterioError, RasterioIOError
from rasterio.windows import Window

from slimdiffsr.errors import RasterError
from slimdiffsr.geo.bands import BandName
from slimdiffsr.geo.grid import Region
from slimdiffsr.geo.values import DTYPES, hidden_nodata, looks_like_alpha

__all__ = ["GDAL_ERRORS", "Reading", "Source", "open_quietly", "open_source"]

# GDAL's own errors come through rasterio in some places, and are no RasterioError.
GDAL_ERRORS = (RasterioError, CPLE_BaseError)

_SAMPLE_LR_PX = 1024  # side of the decimated read for ranges and for judging alpha bands


@dataclass(frozen=True, slots=True)
class Reading:
    """A part of a raster."""

    values: NDArray[Any]  # (b, h, w) in the source's type and units
    valid: NDArray[np.bool_]  # (b, h, w)


@dataclass(slots=True)
class Source:
    """A raster open for reading, safe to use from several threads.

    A palette raster appears as its red, green, blue (and alpha) bands.
    """

    path: str
    dataset: Any  # rasterio's DatasetReader
    names: tuple[BandName, ...] = ()
    palette: NDArray[np.uint8] | None = None  # (entries, 3 or 4)
    alpha: int | None = None  # the band that really is transparency, from 1
    false_alpha: int | None = None  # a band tagged alpha that holds data
    hidden_nodata: float | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def region_lr(self) -> Region:
        """The whole scene."""
        return Region(0, 0, self.dataset.width, self.dataset.height)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the values read."""
        return np.dtype(np.uint8 if self.palette is not None else self.dataset.dtypes[0])

    @property
    def has_mask(self) -> bool:
        """Whether emptiness is kept in a mask beside the bands."""
        flags = self.dataset.mask_flag_enums[0]
        beside = MaskFlags.per_dataset in flags and MaskFlags.alpha not in flags
        return beside or self.palette_nodata is not None

    @property
    def palette_nodata(self) -> float | None:
        """The palette entry that means nodata."""
        value: float | None = self.dataset.nodatavals[0] if self.palette is not None else None
        return value

    def nodata(self, band: int) -> float | None:
        """The declared nodata value of a band, if its type can hold it."""
        if self.palette is not None:
            return None
        value: float | None = self.dataset.nodatavals[band - 1]
        if value is None or np.isnan(value):
            return value if self.dtype.kind == "f" else None
        if self.dtype.kind == "f":
            return value if abs(value) <= np.finfo(self.dtype).max else None
        info = np.iinfo(self.dtype)
        whole = np.isfinite(value) and float(value).is_integer()
        return value if whole and info.min <= value <= info.max else None

    def read(self, region_lr: Region, bands: tuple[int, ...]) -> Reading:
        """Values and validity of some bands in a part of the scene.

        Raises RasterError that names the file and the window when the data are damaged.
        """
        window = Window(region_lr.col, region_lr.row, region_lr.width, region_lr.height)
        try:
            with self._lock:
                return self._read(bands, window=window)
        except GDAL_ERRORS as error:
            raise self._damaged(region_lr, error) from None

    def look(self, window: Window, shape: tuple[int, int], bands: tuple[int, ...]) -> Reading:
        """Bands of a window, of whole or broken pixels, resampled to (rows, columns) for showing.

        Averages where pixels become larger, from overviews where the raster has any, so that a
        window of any size costs about the same. Raises RasterError when the data are damaged.
        """
        # Averages would mix what GDAL does not know to be empty, and the numbers of colours.
        exact = self.palette is not None or self.hidden_nodata is not None
        coarser = window.width > shape[1] or window.height > shape[0]
        how = Resampling.average if coarser and not exact else Resampling.nearest
        try:
            with self._lock:
                return self._read(bands, window=window, out_shape=shape, resampling=how)
        except GDAL_ERRORS as error:
            covered = Region(
                *map(int, (window.col_off, window.row_off, window.width, window.height))
            )
            raise self._damaged(covered, error) from None

    def read_mask(self, region_lr: Region) -> NDArray[np.uint8]:
        """(h, w): 255 where the mask beside the bands says valid, else 0."""
        valid = self.read(region_lr, (1,)).valid if self.palette is not None else None
        if valid is not None:
            return np.where(valid[0], np.uint8(255), np.uint8(0))
        window = Window(region_lr.col, region_lr.row, region_lr.width, region_lr.height)
        try:
            with self._lock:
                mask: NDArray[np.uint8] = self.dataset.read_masks(1, window=window)
        except GDAL_ERRORS as error:
            raise self._damaged(region_lr, error) from None
        return mask

    def _damaged(self, region_lr: Region, error: Exception) -> RasterError:
        return RasterError(
            f"{self.path} is damaged: cannot read columns {region_lr.col} to "
            f"{region_lr.col_end} and rows {region_lr.row} to {region_lr.row_end} "
            f"({_first_line(error)})"
        )

    def sample(self, bands: tuple[int, ...]) -> Reading:
        """A decimated read of the whole scene; the same every time."""
        shape = (min(self.dataset.height, _SAMPLE_LR_PX), min(self.dataset.width, _SAMPLE_LR_PX))
        try:
            with self._lock:
                return self._read(bands, out_shape=shape)
        except GDAL_ERRORS as error:
            raise RasterError(f"{self.path} is damaged ({_first_line(error)})") from None

    def _read(self, bands: tuple[int, ...], **how: Any) -> Reading:  # noqa: ANN401
        if self.palette is not None:
            return self._read_palette(bands, **how)
        dataset = self.dataset
        shape = how.pop("out_shape", None)
        if shape is not None:
            how["out_shape"] = (len(bands), *shape)
        values = dataset.read(bands, **how)
        valid = np.stack([self._valid(band, values[k]) for k, band in enumerate(bands)])
        if shape is not None:
            how["out_shape"] = shape
        if self.alpha is not None:
            valid &= dataset.read(self.alpha, **how) > 0
        for k, band in enumerate(bands):
            flags = dataset.mask_flag_enums[band - 1]
            told = (MaskFlags.all_valid, MaskFlags.nodata, MaskFlags.alpha)
            if not any(flag in flags for flag in told):
                valid[k] &= dataset.read_masks(band, **how) > 0
        return Reading(values, valid)

    def _valid(self, band: int, values: NDArray[Any]) -> NDArray[np.bool_]:
        valid: NDArray[np.bool_] = np.isfinite(values)
        for empty in (self.nodata(band), self.hidden_nodata):
            if empty is not None and not np.isnan(empty):
                valid &= values != values.dtype.type(empty)
        return valid

    def _read_palette(self, bands: tuple[int, ...], **how: Any) -> Reading:  # noqa: ANN401
        assert self.palette is not None
        entries = self.dataset.read(1, **how)
        colours = self.palette[np.minimum(entries, len(self.palette) - 1)]
        values = np.stack([colours[..., band - 1] for band in bands])
        valid = np.ones(entries.shape, np.bool_)
        if self.palette_nodata is not None:
            valid &= entries != self.palette_nodata
        if self.alpha is not None:
            valid &= colours[..., self.alpha - 1] > 0
        return Reading(values, np.repeat(valid[None], len(bands), axis=0))


@contextmanager
def open_source(path: str) -> Iterator[Source]:
    """Open and check a raster.

    Raises RasterError when it is missing, not a raster, of a kind that cannot be upscaled, or when
    GDAL fails to read its header, now or later.
    """
    with open_quietly(path) as dataset:
        try:
            _check(path, dataset)
            source = Source(path, dataset)
            if dataset.count == 1 and dataset.colorinterp[0] == ColorInterp.palette:
                _expand_palette(source)
            else:
                _judge_bands(source)
            yield source
        except GDAL_ERRORS as error:  # of the header: a remote one is fetched bit by bit
            raise RasterError(f"{path} cannot be read: {_first_line(error)}") from None


@contextmanager
def open_quietly(path: str, **options: Any) -> Iterator[Any]:  # noqa: ANN401
    """Open a raster of any kind for reading, with or without georeferencing."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            dataset = rasterio.open(path, **options)
    except (*GDAL_ERRORS, TypeError, ValueError) as error:
        raise RasterError(_why_not_open(path, error)) from None
    with dataset:
        yield dataset


def _why_not_open(path: str, error: Exception) -> str:
    remote = "://" in path or path.startswith("/vsi")
    if not remote and ":" not in path and not Path(path).exists():
        return f"{path} does not exist"
    if isinstance(error, RasterioIOError) and "not recognized" in str(error):
        return f"{path} is not a raster that GDAL can read"
    return f"{path} cannot be opened: {_first_line(error)}"


def _first_line(error: BaseException) -> str:
    # rasterio says "Read failed. See previous exception for details."; GDAL's reason is its cause.
    cause = error.__cause__ or error
    return str(cause).splitlines()[0].rstrip(".") if str(cause) else type(error).__name__


def _check(path: str, dataset: Any) -> None:  # noqa: ANN401
    if dataset.count == 0:
        parts = ", ".join(dataset.subdatasets[:4])
        hint = f"; it holds others, give one of them: {parts}" if parts else ""
        raise RasterError(f"{path} has no bands{hint}")
    kinds = set(dataset.dtypes)
    if len(kinds) > 1:
        raise RasterError(f"{path} has bands of different types: {', '.join(sorted(kinds))}")
    dtype = kinds.pop()
    if dtype.startswith("complex"):
        raise RasterError(f"{path} holds complex numbers: convert it, for example to amplitude")
    if dtype not in DTYPES:
        raise RasterError(f"{path} holds {dtype} values: convert it to one of {', '.join(DTYPES)}")


def _expand_palette(source: Source) -> None:
    table = source.dataset.colormap(1)
    palette = np.zeros((max(table) + 1, 4), np.uint8)
    for entry, colour in table.items():
        palette[entry] = colour
    clear = bool((palette[list(table), 3] < 255).any())
    nodata = source.palette_nodata
    source.palette = palette if clear and nodata is None else palette[:, :3]
    colours = ("red", "green", "blue", "alpha")[: source.palette.shape[1]]
    source.names = tuple(BandName("", colour) for colour in colours)
    source.alpha = 4 if len(colours) == 4 else None


def _judge_bands(source: Source) -> None:
    dataset = source.dataset
    source.names = tuple(
        BandName(description or "", colour.name.lower())
        for description, colour in zip(dataset.descriptions, dataset.colorinterp, strict=True)
    )
    tagged = next((k for k, name in enumerate(source.names, 1) if name.colour == "alpha"), None)
    if tagged is not None:
        if looks_like_alpha(source.sample((tagged,)).values):
            source.alpha = tagged
        else:
            source.false_alpha = tagged
    if all(value is None for value in dataset.nodatavals) and source.dtype.kind != "u":
        sample = source.sample(tuple(k for k in range(1, dataset.count + 1) if k != source.alpha))
        source.hidden_nodata = hidden_nodata(sample.values, sample.valid)

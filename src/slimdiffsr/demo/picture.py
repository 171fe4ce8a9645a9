"""A side-by-side picture of a raster and its enlargement, as a PNG."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.enums import ColorInterp, Resampling
from rasterio.errors import NotGeoreferencedWarning, RasterioError, RasterioIOError
from rasterio.io import DatasetReader
from rasterio.windows import Window

from slimdiffsr.demo.font import text_mask
from slimdiffsr.errors import DataError, OutputError, RasterError

__all__ = ["before_after_png"]

Rgb8 = NDArray[np.uint8]
Box = tuple[int, int, int]  # row, column, side

PANEL_PX, INSET_PX, GAP_PX, CAPTION_PX = 512, 252, 8, 28
CANDIDATES = 8  # windows looked at along each axis: bounds what is read of a large raster
BACKGROUND, INK, NO_DATA = (24, 26, 30), (235, 235, 232), (64, 66, 70)
MARKS = ((255, 214, 64), (96, 220, 255))


@dataclass(frozen=True, slots=True)
class _View:
    """A part of a raster, in its own pixels, and the bands that are shown of it."""

    src: DatasetReader
    bands: tuple[int, ...]
    left: int
    top: int
    width: int
    height: int


def before_after_png(
    lr_path: str | Path,
    sr_path: str | Path,
    out_png: Path,
    *,
    scale: int,
    bands: tuple[int, ...] | None = None,
    sr_bands: tuple[int, ...] | None = None,
    window: tuple[int, int, int, int] | None = None,
    enlarge: Literal["nearest", "cubic"] = "nearest",
) -> Path:
    """Draw the input (left) and the result (right) of the most detailed place without gaps.

    Above, one region in both; below, two details of it, marked in the region. The result is shown
    pixel for pixel in the upper row. Only windows are read, of rasters of any size. 8-bit values
    are shown as they are, others between the 1st and 99th percentile of the region in the input;
    places without data are grey.

    Args:
        lr_path: the input raster.
        sr_path: the result, ``scale`` times as many pixels each way.
        out_png: the picture, 1048 x 816 px; its folder is made.
        scale: the upscaling factor.
        bands: three bands to show as red, green and blue, or one; numbered from 1. By default from
            the colour interpretation, else the first three, else the first.
        sr_bands: those of the result, where they have other numbers there.
        window: (column, row, width, height) of the input that the result shows; by default all.
        enlarge: how the input is enlarged.

    Returns:
        ``out_png``.

    Raises:
        RasterError: a raster cannot be read.
        DataError: the result is not ``scale`` times the input, or a band is not there.
        OutputError: the picture cannot be written.
    """
    resampling = Resampling.nearest if enlarge == "nearest" else Resampling.cubic
    with _quiet_open(lr_path) as lr, _quiet_open(sr_path) as sr:
        left, top, width, height = window or (0, 0, lr.width, lr.height)
        if (sr.height, sr.width) != (scale * height, scale * width):
            raise DataError(
                f"{sr_path} is {sr.width} x {sr.height} px, not {scale} times {lr_path} "
                f"({width} x {height})"
            )
        before = _View(lr, _bands(lr, bands), left, top, width, height)
        after = _View(sr, _bands(sr, sr_bands or bands), 0, 0, sr.width, sr.height)
        side = max(1, min(PANEL_PX // scale, height, width))
        region = (*_most_detailed(before, side), side)
        limits = _limits(before, region)
        insets = _details(before, region)
        columns = []
        for view, factor, how, word in (
            (before, 1, resampling, "input"),
            (after, scale, Resampling.nearest, "result"),
        ):
            panel, *crops = (
                _read(view, box, factor, shown, how, limits)
                for box, shown in ((region, PANEL_PX), *((inset, INSET_PX) for inset in insets))
            )
            columns.append(_column(_caption(view.src, word), panel, crops, region, insets))
    picture = np.full((columns[0].shape[0] + 2 * GAP_PX, 2 * PANEL_PX + 3 * GAP_PX, 3), BACKGROUND)
    for i, drawn in enumerate(columns):
        left = GAP_PX + i * (PANEL_PX + GAP_PX)
        picture[GAP_PX:-GAP_PX, left : left + PANEL_PX] = drawn
    _write_png(out_png, picture.astype(np.uint8))
    return out_png


def _bands(src: DatasetReader, bands: tuple[int, ...] | None) -> tuple[int, ...]:
    if bands is not None:
        if len(bands) not in (1, 3) or any(not 1 <= band <= src.count for band in bands):
            raise DataError(
                f"bands must be one or three of 1 to {src.count} in {src.name}, got {bands}"
            )
        return bands
    colours = (ColorInterp.red, ColorInterp.green, ColorInterp.blue)
    if all(colour in src.colorinterp for colour in colours):
        return tuple(src.colorinterp.index(colour) + 1 for colour in colours)
    return (1, 2, 3) if src.count >= 3 else (1,)


def _most_detailed(view: _View, side: int) -> tuple[int, int]:
    # Upper left corner of the square with the strongest gradients that lacks no data.
    rows, columns = (
        np.unique(np.linspace(0, length - side, CANDIDATES).astype(int)).tolist()
        for length in (view.height, view.width)
    )
    scores = {}
    for row, column in itertools.product(rows, columns):
        grey, valid = _grey(view, (row, column, side))
        scores[row, column] = _detail(grey, valid)
    return max(scores, key=lambda corner: scores[corner])


def _details(view: _View, region: Box) -> list[Box]:
    # Two squares within the region, the most detailed of those that do not meet.
    row, column, side = region
    inset = max(1, side // 6)
    grey, valid = _grey(view, region)
    steps = np.unique(np.linspace(0, side - inset, 2 * CANDIDATES).astype(int)).tolist()
    squares = sorted(
        itertools.product(steps, steps),
        key=lambda at: _detail(
            grey[at[0] : at[0] + inset, at[1] : at[1] + inset],
            valid[at[0] : at[0] + inset, at[1] : at[1] + inset],
        ),
        reverse=True,
    )
    first = squares[0]
    apart = (at for at in squares if max(abs(at[0] - first[0]), abs(at[1] - first[1])) >= 2 * inset)
    return [(row + y, column + x, inset) for y, x in (first, next(apart, squares[-1]))]


def _grey(view: _View, box: Box) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    values, valid = _values(view, box, 1, box[2], Resampling.nearest)
    return values.mean(axis=0), valid


def _detail(grey: NDArray[np.float64], valid: NDArray[np.bool_]) -> float:
    if not valid.any():
        return 0.0
    down, across = np.abs(np.diff(grey, axis=0)), np.abs(np.diff(grey, axis=1))
    inner = down[:, :-1] + across[:-1] if min(grey.shape) > 1 else np.zeros((1, 1))
    both = valid[1:, 1:] & valid[:-1, :-1] if min(grey.shape) > 1 else valid
    # The edge of the data is no detail, and even a small gap spoils a picture.
    return float((inner * both).mean() * valid.mean() ** 8)


def _limits(view: _View, region: Box) -> NDArray[np.float64]:
    # (bands, 2): the values shown as black and as white.
    if view.src.dtypes[view.bands[0] - 1] == "uint8":
        return np.tile([0.0, 255.0], (len(view.bands), 1))
    values, valid = _values(view, region, 1, region[2], Resampling.nearest)
    if not valid.any():
        return np.tile([0.0, 1.0], (len(view.bands), 1))
    low, high = np.percentile(values[:, valid], (1, 99), axis=1)
    return np.stack((low, np.where(high > low, high, low + 1)), axis=1)


def _values(
    view: _View,
    box: Box,
    factor: int,
    shown_px: int,
    resampling: Resampling,
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    # (bands, shown_px, shown_px) values of a box in input pixels, and which of them are data.
    row, column, side = (factor * part for part in box)
    window = Window(view.left + column, view.top + row, side, side)
    src, bands = view.src, view.bands
    shape = (shown_px, shown_px)
    try:
        values = src.read(
            list(bands), window=window, out_shape=(len(bands), *shape), resampling=resampling
        ).astype(np.float64)
        masks = src.read_masks(list(bands), window=window, out_shape=(len(bands), *shape))
    except RasterioError as error:
        raise RasterError(f"cannot read {src.name}: {error}") from None
    valid = (masks > 0).all(axis=0) & np.isfinite(values).all(axis=0)
    return np.nan_to_num(values, posinf=0, neginf=0), valid


def _read(
    view: _View,
    box: Box,
    factor: int,
    shown_px: int,
    resampling: Resampling,
    limits: NDArray[np.float64],
) -> Rgb8:
    values, valid = _values(view, box, factor, shown_px, resampling)
    low, high = limits[:, 0, None, None], limits[:, 1, None, None]
    levels = np.clip((values - low) / (high - low) * 255, 0, 255).round()
    rgb = np.broadcast_to(levels, (3, shown_px, shown_px)).transpose(1, 2, 0)
    return np.where(valid[..., None], rgb, NO_DATA).astype(np.uint8)


def _column(caption: str, panel: Rgb8, crops: list[Rgb8], region: Box, insets: list[Box]) -> Rgb8:
    # Caption, region and details below each other: (height, PANEL_PX, 3).
    height = CAPTION_PX + PANEL_PX + GAP_PX + INSET_PX
    drawn = np.full((height, PANEL_PX, 3), BACKGROUND, dtype=np.uint8)
    letters = text_mask(caption)[:, :PANEL_PX]
    top = (CAPTION_PX - letters.shape[0]) // 2
    drawn[top : top + letters.shape[0], : letters.shape[1]][letters] = INK
    zoom = PANEL_PX / region[2]
    for inset, colour in zip(insets, MARKS, strict=True):
        row, column = (round((inset[i] - region[i]) * zoom) for i in (0, 1))
        _frame(panel, row, column, round(inset[2] * zoom), colour)
    drawn[CAPTION_PX : CAPTION_PX + PANEL_PX] = panel
    for i, (crop, colour) in enumerate(zip(crops, MARKS, strict=True)):
        _frame(crop, 0, 0, INSET_PX, colour)
        left = i * (PANEL_PX - INSET_PX)
        drawn[-INSET_PX:, left : left + INSET_PX] = crop
    return drawn


def _frame(rgb: Rgb8, row: int, column: int, side: int, colour: tuple[int, int, int]) -> None:
    inside = np.zeros(rgb.shape[:2], dtype=bool)
    inside[row : row + side, column : column + side] = True
    inside[row + 2 : row + side - 2, column + 2 : column + side - 2] = False
    rgb[inside] = colour


def _caption(src: DatasetReader, word: str) -> str:
    # The pixel size is told where it is in metres.
    if src.crs is None or not src.crs.is_projected or src.crs.linear_units_factor[1] != 1.0:
        return f"{word}: {src.width} x {src.height} pixels"
    size = np.hypot(src.transform.a, src.transform.d)
    return f"{word}: {round(float(size), 2):g} m pixels"


@contextmanager
def _quiet_open(path: str | Path) -> Iterator[DatasetReader]:
    # Plain images have no georeference, which is no reason to warn here.
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            src = rasterio.open(path)
    except RasterioIOError as error:
        raise RasterError(f"cannot read {path}: {error}") from None
    with src:
        yield src


def _write_png(path: Path, rgb: Rgb8) -> None:
    height, width, _ = rgb.shape
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            with rasterio.open(
                path, "w", driver="PNG", height=height, width=width, count=3, dtype="uint8"
            ) as dst:
                dst.write(rgb.transpose(2, 0, 1))
    except (OSError, RasterioIOError) as error:
        raise OutputError(f"cannot write the picture {path}: {error}") from None

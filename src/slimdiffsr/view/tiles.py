"""Parts of layers as pictures: a window is read, stretched to 8 bits and packed as PNG."""

from __future__ import annotations

import math
import struct
import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from affine import Affine
from numpy.typing import NDArray

from slimdiffsr.errors import ConfigError
from slimdiffsr.geo.grid import Region
from slimdiffsr.geo.raster import Reading
from slimdiffsr.geo.values import ValueRange
from slimdiffsr.view.layers import Layer

__all__ = ["Stretch", "at_point", "coloured", "encode_png", "read_box", "stretched"]

Rgba8 = NDArray[np.uint8]

GAMMAS = (0.1, 10.0)
# Magma of matplotlib (CC0) at nine even steps: dark and sure to light and unsure.
MAGMA = (
    (0, 0, 4), (28, 16, 68), (79, 18, 123), (129, 37, 129), (181, 54, 122),
    (229, 80, 100), (251, 135, 97), (254, 194, 135), (252, 253, 191),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Stretch:
    """The values shown as black and white, and the bend between them; the same for all layers."""

    low: float
    high: float
    gamma: float = 1.0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low < self.high):
            raise ConfigError(f"white must be above black, got {self.low:g} and {self.high:g}")
        if not GAMMAS[0] <= self.gamma <= GAMMAS[1]:
            raise ConfigError(f"gamma must be in {GAMMAS[0]:g}..{GAMMAS[1]:g}, got {self.gamma:g}")


def read_box(
    layer: Layer, tile_to_input: Affine, bands: tuple[int, ...], shape: tuple[int, int]
) -> Reading:
    """A rectangle of a layer, resampled to (rows, columns); what lies outside it is not valid.

    tile_to_input: column and row of the result -> those of the input, without turning.
    """
    to_layer = layer.to_layer @ tile_to_input
    whole = layer.source.region_lr
    rows = _inside(to_layer.e, to_layer.f, whole.height, shape[0])
    cols = _inside(to_layer.a, to_layer.c, whole.width, shape[1])
    values = np.zeros((len(bands), *shape), layer.source.dtype)
    valid = np.zeros((len(bands), *shape), np.bool_)
    if rows.stop > rows.start and cols.stop > cols.start:
        col, row = to_layer @ (cols.start, rows.start)
        col_end, row_end = to_layer @ (cols.stop, rows.stop)
        col, row = max(col, 0.0), max(row, 0.0)
        width, height = min(col_end, whole.width) - col, min(row_end, whole.height) - row
        place = _part(col, row, width, height)
        part = layer.source.look(place, (rows.stop - rows.start, cols.stop - cols.start), bands)
        values[:, rows, cols], valid[:, rows, cols] = part.values, part.valid
    return Reading(values, valid)


def _part(*numbers: Any) -> Region:  # noqa: ANN401
    return Region(*numbers)  # of broken pixels, which ``look`` alone takes


def _inside(step: float, start: float, length: int, count: int) -> slice:
    """Of ``count`` pixels, each ``step`` long, those whose middle lies in [0, length)."""
    first = max(0, math.ceil(-start / step - 0.5))
    last = min(count, math.ceil((length - start) / step - 0.5))
    return slice(first, max(first, last))


def stretched(reading: Reading, stretch: Stretch) -> Rgba8:
    """(1 or 3, h, w) values -> (h, w, 4); clear where any band is empty."""
    values = reading.values.astype(np.float32)
    with np.errstate(invalid="ignore", over="ignore"):
        unit = np.clip((values - stretch.low) / (stretch.high - stretch.low), 0, 1)
    unit = np.nan_to_num(unit)
    if stretch.gamma != 1:
        unit **= 1 / stretch.gamma
    grey = np.rint(unit * 255).astype(np.uint8)
    return _with_alpha(np.broadcast_to(grey, (3, *grey.shape[1:])), reading.valid.all(axis=0))


def coloured(reading: Reading, value_range: ValueRange) -> Rgba8:
    """(1, h, w) values -> (h, w, 4) in the colours of the uncertainty's legend; clear where sure."""
    values = np.nan_to_num(reading.values[0].astype(np.float32))
    unit = np.clip((values - value_range.low) / value_range.span, 0, 1)
    steps = np.linspace(0, 1, len(MAGMA))
    channels = [np.interp(unit, steps, channel) for channel in zip(*MAGMA, strict=True)]
    strength = np.where(reading.valid[0], np.clip(2 * unit, 0, 1), 0)
    return _with_alpha(np.rint(channels).astype(np.uint8), strength)


def _with_alpha(rgb: NDArray[np.uint8], strength: Any) -> Rgba8:  # noqa: ANN401  (h, w)
    alpha = np.rint(strength * 255.0).astype(np.uint8)
    return np.ascontiguousarray(np.moveaxis(np.concatenate([rgb, alpha[None]]), 0, -1))


def encode_png(rgba: Rgba8, level: int = 1) -> bytes:
    """(h, w, 4) as a PNG file; level: of zlib, 1 for the screen and 9 for what is kept.

    Half the time of GDAL's driver, which tries all filters on each line.
    """
    height, width, _ = rgba.shape
    lines = np.empty((height, 1 + 4 * width), np.uint8)
    lines[:, 0] = 1  # the filter of each line: differences from the pixel to the left
    lines[:, 1:5] = rgba[:, 0]
    lines[:, 5:] = (rgba[:, 1:] - rgba[:, :-1]).reshape(height, -1)
    header = struct.pack(">IIBBBBB", width, height, 8, 6, 0, 0, 0)
    parts = ((b"IHDR", header), (b"IDAT", zlib.compress(lines.tobytes(), level)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_png_part(*part) for part in parts)


def _png_part(kind: bytes, data: bytes) -> bytes:
    check = zlib.crc32(kind + data)
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", check)


def at_point(layer: Layer, col_lr: float, row_lr: float, bands: tuple[int, ...]) -> list[Any]:
    """Values of the pixel at a place of the input, None where it is empty or outside."""
    col, row = layer.to_layer @ (col_lr, row_lr)
    whole = layer.source.region_lr
    if not (0 <= col < whole.width and 0 <= row < whole.height):
        return [None] * len(bands)
    part = layer.source.look(Region(math.floor(col), math.floor(row), 1, 1), (1, 1), bands)
    return [part.values[k, 0, 0].item() if part.valid[k, 0, 0] else None for k in range(len(bands))]

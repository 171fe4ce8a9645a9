"""Tiles, chunks and blend weights: pure arithmetic on two pixel grids.

``lr`` is the grid of the input, ``hr`` the grid of the output, ``scale`` times finer. Both start
at the upper-left corner of the scene, also when only a part of the scene is asked for.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from slimdiffsr.errors import TilingError

__all__ = [
    "Region",
    "Tile",
    "TileGrid",
    "blend_weights",
    "chunk_count",
    "chunk_regions",
    "reflect_index",
]


@dataclass(frozen=True, slots=True)
class Region:
    """A rectangle of whole pixels on one of the grids; the name of the variable says which."""

    col: int
    row: int
    width: int
    height: int

    @property
    def col_end(self) -> int:
        """First column to the right."""
        return self.col + self.width

    @property
    def row_end(self) -> int:
        """First row below."""
        return self.row + self.height

    @property
    def pixels(self) -> int:
        """Number of pixels."""
        return self.width * self.height

    def times(self, scale: int) -> Region:
        """The same rectangle on a grid ``scale`` times finer."""
        return Region(self.col * scale, self.row * scale, self.width * scale, self.height * scale)

    def cover(self, scale: int) -> Region:
        """The smallest rectangle on a grid ``scale`` times coarser that covers this one."""
        col, row = self.col // scale, self.row // scale
        return Region(col, row, -(-self.col_end // scale) - col, -(-self.row_end // scale) - row)

    def grown(self, margin: int) -> Region:
        """The rectangle with a margin on all four sides."""
        return Region(
            self.col - margin, self.row - margin, self.width + 2 * margin, self.height + 2 * margin
        )

    def clipped(self, other: Region) -> Region:
        """The part inside ``other``; width or height is 0 when there is none."""
        col, row = max(self.col, other.col), max(self.row, other.row)
        width = max(0, min(self.col_end, other.col_end) - col)
        height = max(0, min(self.row_end, other.row_end) - row)
        return Region(col, row, width, height)

    def joined(self, other: Region) -> Region:
        """The smallest rectangle that holds both."""
        col, row = min(self.col, other.col), min(self.row, other.row)
        return Region(
            col,
            row,
            max(self.col_end, other.col_end) - col,
            max(self.row_end, other.row_end) - row,
        )

    def slices(self, outer: Region) -> tuple[slice, slice]:
        """Row and column slices of this rectangle in an array that holds ``outer``."""
        row, col = self.row - outer.row, self.col - outer.col
        return slice(row, row + self.height), slice(col, col + self.width)


@dataclass(frozen=True, slots=True)
class Tile:
    """One input of the network: where it lies and which of its sides lie inside the scene."""

    row: int  # of the tile grid
    col: int
    region_lr: Region  # full size; may stick out of the scene
    inner: tuple[bool, bool, bool, bool]  # left, top, right, bottom: another tile overlaps there


@dataclass(frozen=True, slots=True)
class TileGrid:
    """Equal tiles that cover a scene, each overlapping its neighbours.

    The outermost tiles stick out of the scene by the overlap, to be filled by reflection: what a
    network makes up at its input's border then falls outside. A scene that one tile covers only
    just stays with one tile.

    Raises TilingError when tile, overlap and offset do not fit together.
    """

    scene_lr: Region
    tile_lr_px: int
    overlap_lr_px: int
    offset_lr_px: tuple[int, int] = (0, 0)  # further out than that: columns, rows

    def __post_init__(self) -> None:
        if self.scene_lr.pixels <= 0:
            raise TilingError(f"the scene has no pixels: {self.scene_lr}")
        if not 0 <= 2 * self.overlap_lr_px <= self.tile_lr_px:
            raise TilingError(
                f"overlap must be from 0 to half a tile: got {self.overlap_lr_px} input pixels, "
                f"tile {self.tile_lr_px}"
            )
        limit = self.tile_lr_px - self.overlap_lr_px
        if not all(0 <= offset < limit for offset in self.offset_lr_px):
            raise TilingError(
                f"grid_offset_lr_px must be from 0 to {limit - 1}, got {self.offset_lr_px}"
            )

    @property
    def step_lr_px(self) -> int:
        """Distance from one tile to the next."""
        return self.tile_lr_px - self.overlap_lr_px

    @property
    def columns(self) -> int:
        """Number of tiles in a row of tiles."""
        return self._axis(self.scene_lr.width, self.offset_lr_px[0])[0]

    @property
    def rows(self) -> int:
        """Number of rows of tiles."""
        return self._axis(self.scene_lr.height, self.offset_lr_px[1])[0]

    @property
    def origin_lr(self) -> tuple[int, int]:
        """Upper left corner of the first tile: column, row."""
        return (
            self.scene_lr.col - self._axis(self.scene_lr.width, self.offset_lr_px[0])[1],
            self.scene_lr.row - self._axis(self.scene_lr.height, self.offset_lr_px[1])[1],
        )

    def _axis(self, length_lr_px: int, offset_lr_px: int) -> tuple[int, int]:
        """Number of tiles along a side, and how far the first one sticks out."""
        edge = self.overlap_lr_px
        rest = length_lr_px + offset_lr_px - self.tile_lr_px
        if -2 * edge < rest <= 0:
            return 1, offset_lr_px
        return 1 + max(0, -(-(rest + 2 * edge) // self.step_lr_px)), edge + offset_lr_px

    def tile(self, row: int, col: int) -> Tile:
        """The tile at a position of the tile grid."""
        region_lr = Region(
            self.origin_lr[0] + col * self.step_lr_px,
            self.origin_lr[1] + row * self.step_lr_px,
            self.tile_lr_px,
            self.tile_lr_px,
        )
        inner = (col > 0, row > 0, col < self.columns - 1, row < self.rows - 1)
        return Tile(row, col, region_lr, inner)

    def touching(self, region_lr: Region) -> list[Tile]:
        """All tiles that share a pixel with ``region_lr``, row by row from the upper left."""
        left, top = self.origin_lr
        cols = self._span(region_lr.col - left, region_lr.width, self.columns)
        rows = self._span(region_lr.row - top, region_lr.height, self.rows)
        return [self.tile(row, col) for row in rows for col in cols]

    def count_touching(self, region_lr: Region) -> int:
        """How many ``touching`` would list, without listing them."""
        left, top = self.origin_lr
        cols = self._span(region_lr.col - left, region_lr.width, self.columns)
        rows = self._span(region_lr.row - top, region_lr.height, self.rows)
        return len(rows) * len(cols)

    def _span(self, start_lr_px: int, length_lr_px: int, count: int) -> range:
        first = max(0, -(-(start_lr_px - self.tile_lr_px + 1) // self.step_lr_px))
        last = min(count - 1, (start_lr_px + length_lr_px - 1) // self.step_lr_px)
        return range(first, last + 1)


def chunk_regions(window_hr: Region, chunk_hr_px: int) -> Iterator[Region]:
    """The chunks of an output window, row by row; those at its right and lower end are smaller."""
    for row in range(window_hr.row, window_hr.row_end, chunk_hr_px):
        for col in range(window_hr.col, window_hr.col_end, chunk_hr_px):
            yield Region(col, row, chunk_hr_px, chunk_hr_px).clipped(window_hr)


def chunk_count(window_hr: Region, chunk_hr_px: int) -> int:
    """How many chunks an output window has."""
    return -(-window_hr.width // chunk_hr_px) * -(-window_hr.height // chunk_hr_px)


def blend_weights(
    tile_hr_px: int, overlap_hr_px: int, inner: tuple[bool, bool, bool, bool]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Row and column weights of a tile, (tile_hr_px,) each, raised cosine in the overlaps.

    Where two tiles overlap their weights add up to one, so a blend needs no division. Sides
    where no other tile overlaps keep weight one.
    """
    phase = (np.arange(overlap_hr_px) + 0.5) / max(overlap_hr_px, 1)
    ramp = (np.sin(0.5 * np.pi * phase) ** 2).astype(np.float32)
    left, top, right, bottom = inner
    return _profile(tile_hr_px, ramp, top, bottom), _profile(tile_hr_px, ramp, left, right)


def _profile(
    size_hr_px: int, ramp: NDArray[np.float32], before: bool, after: bool
) -> NDArray[np.float32]:
    weights = np.ones(size_hr_px, np.float32)
    if before:
        weights[: len(ramp)] = ramp
    if after:
        weights[size_hr_px - len(ramp) :] = 1 - ramp
    return weights


def reflect_index(start: int, size: int, length: int) -> NDArray[np.intp]:
    """Indices into ``length`` pixels for ``size`` positions from ``start``, reflected at the ends.

    The pixel at the end is not repeated (as numpy's "reflect"); a single pixel is.
    """
    position = np.arange(start, start + size)
    if length == 1:
        return np.zeros(size, np.intp)
    period = 2 * (length - 1)
    position = position % period
    return np.where(position < length, position, period - position).astype(np.intp)

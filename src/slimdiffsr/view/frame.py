"""Where tiles lie: a browser's map knows one square world, cut in four at each zoom.

Two ways to lay a scene into it. ``PixelFrame`` puts the input's pixels there as they are: nothing
is resampled, and any CRS will do, or none. ``MapFrame`` is the Web Mercator map of the Earth, for a
scene above a basemap. Places in the world are (u, v), right and down, each in [0, 1].
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from affine import Affine

__all__ = ["EARTH_M", "TILE_PX", "MapFrame", "PixelFrame"]

TILE_PX = 512
EARTH_M = 2 * math.pi * 6378137  # around the equator, which is as wide as the map
_FREE_LEVELS = 3  # the scene's share of the world: an eighth, so that it can be moved aside


@dataclass(frozen=True, slots=True)
class PixelFrame:
    """The input's pixel grid as the world; its upper-left corner is the middle of the world.

    There, tiles of every zoom begin at a whole pixel.
    """

    width_lr_px: int
    height_lr_px: int

    @property
    def zoom(self) -> int:
        """At which one input pixel is one pixel of the screen."""
        side = max(self.width_lr_px, self.height_lr_px, TILE_PX)
        return math.ceil(math.log2(side / TILE_PX)) + _FREE_LEVELS

    @property
    def world_lr_px(self) -> int:
        """Side of the world in input pixels."""
        return TILE_PX << self.zoom

    @property
    def bounds(self) -> tuple[float, float, float, float]:
        """The scene's left, top, right, bottom in the world."""
        side = self.world_lr_px
        return 0.5, 0.5, 0.5 + self.width_lr_px / side, 0.5 + self.height_lr_px / side

    def to_input(self, u: float, v: float) -> tuple[float, float]:
        """A place in the world as the input's column and row."""
        return (u - 0.5) * self.world_lr_px, (v - 0.5) * self.world_lr_px

    def tile_to_input(self, zoom: int, x: int, y: int) -> Affine:
        """Column and row of a tile's pixels -> those of the input."""
        side = 2.0 ** (self.zoom - zoom)
        corner = self.to_input(x / 2**zoom, y / 2**zoom)
        return Affine.translation(*corner) @ Affine.scale(side)


@dataclass(frozen=True, slots=True)
class MapFrame:
    """Web Mercator; ``bounds_m`` is the scene's extent in it."""

    bounds_m: tuple[float, float, float, float]  # left, bottom, right, top
    pixel_m: float  # side of an input pixel, in metres of the map

    @property
    def zoom(self) -> int:
        """At which one input pixel is at least one pixel of the screen."""
        return max(0, math.ceil(math.log2(EARTH_M / TILE_PX / self.pixel_m)))

    @property
    def bounds(self) -> tuple[float, float, float, float]:
        """The scene's left, top, right, bottom in the world."""
        left, bottom, right, top = (metres / EARTH_M for metres in self.bounds_m)
        return 0.5 + left, 0.5 - top, 0.5 + right, 0.5 - bottom

    def to_map(self, u: float, v: float) -> tuple[float, float]:
        """A place in the world in metres of Web Mercator."""
        return (u - 0.5) * EARTH_M, (0.5 - v) * EARTH_M

    def tile_to_map(self, zoom: int, x: int, y: int) -> Affine:
        """Column and row of a tile's pixels -> metres of Web Mercator."""
        metres = EARTH_M / TILE_PX / 2**zoom
        corner = self.to_map(x / 2**zoom, y / 2**zoom)
        return Affine.translation(*corner) @ Affine.scale(metres, -metres)

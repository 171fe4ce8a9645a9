"""The tiles of one chunk, blended in a fixed order as they come."""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass, field

from slimdiffsr.geo.arrays import Array, Arrays
from slimdiffsr.geo.grid import Region, Tile, blend_weights
from slimdiffsr.geo.stripes import Loaded
from slimdiffsr.geo.tiles import Result, TileResults

__all__ = ["BlendWeights", "Canvas"]


@dataclass(slots=True)
class BlendWeights:
    """Row and column weights of tiles, made once for each kind of place in the grid."""

    arrays: Arrays
    tile_hr_px: int
    overlap_hr_px: int
    _made: dict[tuple[bool, bool, bool, bool], tuple[Array, Array]] = field(default_factory=dict)

    def of(self, tile: Tile) -> tuple[Array, Array]:
        """(tile_hr_px,) for rows and for columns."""
        if tile.inner not in self._made:
            rows, cols = blend_weights(self.tile_hr_px, self.overlap_hr_px, tile.inner)
            self._made[tile.inner] = self.arrays.upload(rows), self.arrays.upload(cols)
        return self._made[tile.inner]


@dataclass(slots=True)
class Canvas:
    """A chunk in the making: its tiles are added row by row, however they came about.

    The order of a sum decides its last bit.
    """

    chunk_hr: Region
    area_lr: Region  # the chunk and its halo
    loaded: Loaded
    tiles: list[Tile]
    image: Array  # (channels, h, w) over the area, about [0, 1]
    blended: int = 0  # tiles

    @property
    def is_complete(self) -> bool:
        """Whether all tiles are blended."""
        return self.blended == len(self.tiles)

    def advance(
        self, results: TileResults, weights: BlendWeights, others: Container[tuple[int, int]]
    ) -> None:
        """Add the tiles whose turn it is and that are there.

        others: places of the chunks, besides this one, that will need tiles too.
        """
        while not self.is_complete:
            tile = self.tiles[self.blended]
            result = results.get(tile, self.area_lr)
            if result is None:
                # As a rule it was asked for; but it may have been forgotten for want of room.
                if results.ask(tile, self.loaded.patch, self.area_lr):
                    continue
                return
            if result.image is not None:
                self._add(tile, result, weights, results.network.scale)
            results.used(tile, others)
            self.blended += 1

    def _add(self, tile: Tile, result: Result, weights: BlendWeights, scale: int) -> None:
        part_hr = result.region_lr.clipped(self.area_lr).times(scale)
        rows, cols = weights.of(tile)
        row_part, col_part = part_hr.slices(tile.region_lr.times(scale))
        weights.arrays.add_weighted(
            self.image[(slice(None), *part_hr.slices(self.area_lr.times(scale)))],
            result.image[(slice(None), *part_hr.slices(result.region_lr.times(scale)))],
            rows[row_part],
            cols[col_part],
        )

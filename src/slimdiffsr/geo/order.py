"""The order in which chunks are made, and which of them need a tile: pure arithmetic.

Chunks that share tiles come one after another, so that a tile need not be kept for long: bands of
columns from left to right, each row by row.
"""

from __future__ import annotations

from collections.abc import Container, Iterator
from dataclasses import dataclass

from slimdiffsr.geo.grid import Region, Tile, TileGrid

__all__ = ["ChunkLattice", "in_order"]

_RESULT_BYTES = 4  # float32


@dataclass(frozen=True, slots=True)
class ChunkLattice:
    """Where the chunks of an output lie, and what each of them needs of the input.

    A chunk is named by its place (row, column) among the chunks of the output.
    """

    region_hr: Region  # the whole output
    chunk_hr_px: int
    halo_lr_px: int  # how far around a chunk the result must be known
    scene_lr: Region
    scale: int

    def place(self, chunk_hr: Region) -> tuple[int, int]:
        """Row and column of a chunk."""
        side = self.chunk_hr_px
        return (
            (chunk_hr.row - self.region_hr.row) // side,
            (chunk_hr.col - self.region_hr.col) // side,
        )

    def area_lr(self, chunk_hr: Region) -> Region:
        """A chunk and its halo, inside the scene."""
        return chunk_hr.cover(self.scale).grown(self.halo_lr_px).clipped(self.scene_lr)

    def chunk(self, row: int, col: int) -> Region:
        """The chunk at a place; without pixels where there is none."""
        side = self.chunk_hr_px
        corner = self.region_hr.row + row * side, self.region_hr.col + col * side
        return Region(corner[1], corner[0], side, side).clipped(self.region_hr)

    def needing(self, tile: Tile) -> Iterator[tuple[int, int]]:
        """The places of all chunks that need a tile."""
        reach_hr = tile.region_lr.grown(self.halo_lr_px).times(self.scale).clipped(self.region_hr)
        if reach_hr.pixels == 0:
            return
        side = self.chunk_hr_px
        top, left = self.place(reach_hr)
        bottom = (reach_hr.row_end - 1 - self.region_hr.row) // side
        right = (reach_hr.col_end - 1 - self.region_hr.col) // side
        for row in range(top, bottom + 1):
            for col in range(left, right + 1):
                yield row, col

    def part_needed_lr(self, tile: Tile, by: Container[tuple[int, int]]) -> Region | None:
        """The smallest part of a tile that holds all that some chunks need of it."""
        part: Region | None = None
        for place in self.needing(tile):
            if place in by:
                inside = tile.region_lr.clipped(self.area_lr(self.chunk(*place)))
                part = inside if part is None else part.joined(inside)
        return part


def in_order(chunks_hr: list[Region], grid: TileGrid, scale: int, kept_bytes: int) -> list[Region]:
    """Chunks in an order for which ``kept_bytes`` of results are enough to run no tile twice.

    But for those between two bands of columns. chunks_hr: row by row.
    """
    if not chunks_hr:
        return []
    side = max(chunk.width for chunk in chunks_hr)
    tile_hr_px = grid.tile_lr_px * scale
    # Of the tiles between two rows of chunks, the lower part: about one and a quarter tiles high.
    row_bytes = 3 * _RESULT_BYTES * (side * grid.tile_lr_px // grid.step_lr_px)
    columns = max(1, kept_bytes // (row_bytes * (5 * tile_hr_px // 4)))
    left = min(chunk.col for chunk in chunks_hr)
    return sorted(
        chunks_hr, key=lambda chunk: ((chunk.col - left) // side // columns, chunk.row, chunk.col)
    )

"""In which order chunks are done: neighbours together, so that what they share is read once."""

from __future__ import annotations

from functools import lru_cache

from slimdiffsr.geo.grid import Region, chunk_regions

__all__ = ["ordered_chunks"]


@lru_cache(maxsize=4)  # a worker asks for the same scene again and again
def ordered_chunks(region_hr: Region, chunk_hr_px: int) -> tuple[Region, ...]:
    """The chunks of a region along a Z-order curve (Morton 1966): every 4, 16, ... are a square."""

    def place(chunk: Region) -> int:
        column = (chunk.col - region_hr.col) // chunk_hr_px
        return _morton(column, (chunk.row - region_hr.row) // chunk_hr_px)

    return tuple(sorted(chunk_regions(region_hr, chunk_hr_px), key=place))


def _morton(column: int, row: int) -> int:
    code = 0
    for bit in range(max(column, row).bit_length()):
        code |= (column >> bit & 1) << 2 * bit | (row >> bit & 1) << 2 * bit + 1
    return code

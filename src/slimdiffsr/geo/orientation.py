"""Pictures that a camera stored lying on their side: EXIF's orientation, turned upright."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from slimdiffsr.geo.grid import Region

__all__ = ["UPRIGHT", "Turn", "turn_of"]

Element = TypeVar("Element", bound=np.generic)


@dataclass(frozen=True, slots=True)
class Turn:
    """Stored rows or columns in reverse, then both exchanged: what makes a picture upright."""

    exchanged: bool = False
    rows_reversed: bool = False
    cols_reversed: bool = False

    def size(self, width: int, height: int) -> tuple[int, int]:
        """Width and height of the upright picture."""
        return (height, width) if self.exchanged else (width, height)

    def stored(self, upright: Region, width: int, height: int) -> Region:
        """Where a part of the upright picture lies in the stored one of this width and height."""
        col, row, part_width, part_height = upright.col, upright.row, upright.width, upright.height
        if self.exchanged:
            col, row, part_width, part_height = row, col, part_height, part_width
        if self.cols_reversed:
            col = width - col - part_width
        if self.rows_reversed:
            row = height - row - part_height
        return Region(col, row, part_width, part_height)

    def upright(self, image: NDArray[Element]) -> NDArray[Element]:
        """(..., h, w) as stored -> upright."""
        rows, cols = (slice(None, None, -1 if back else 1) for back in (
            self.rows_reversed, self.cols_reversed))  # fmt: skip
        turned = image[..., rows, cols]
        return np.ascontiguousarray(np.swapaxes(turned, -1, -2) if self.exchanged else turned)


UPRIGHT = Turn()

# EXIF 2.32, 4.6.4, tag Orientation.
_TURNS = {
    "2": Turn(False, False, True),
    "3": Turn(False, True, True),
    "4": Turn(False, True, False),
    "5": Turn(True, False, False),
    "6": Turn(True, True, False),
    "7": Turn(True, True, True),
    "8": Turn(True, False, True),
}


def turn_of(dataset: Any, tags: Any) -> Turn:  # noqa: ANN401
    """The turn of a JPEG without a place on the map; maps lie as they are stored."""
    if dataset.driver != "JPEG" or not dataset.transform.is_identity:
        return UPRIGHT
    return _TURNS.get(str(tags.get("EXIF_Orientation", "1")).strip(), UPRIGHT)

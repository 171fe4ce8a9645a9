"""A 5 x 7 pixel font for captions, so that no font file is needed."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["text_mask"]

# Seven rows a letter, five bits a row, the leftmost pixel in the highest bit.
_GLYPHS = {
    "m": "00 00 1A 15 15 15 15",  # metres, which are not M
    " ": "00 00 00 00 00 00 00", "-": "00 00 00 1F 00 00 00", ".": "00 00 00 00 00 0C 0C",
    ":": "00 0C 0C 00 0C 0C 00", "/": "01 01 02 04 08 10 10", "%": "18 19 02 04 08 13 03",
    "0": "0E 11 13 15 19 11 0E", "1": "04 0C 04 04 04 04 0E", "2": "0E 11 01 02 04 08 1F",
    "3": "1F 02 04 02 01 11 0E", "4": "02 06 0A 12 1F 02 02", "5": "1F 10 1E 01 01 11 0E",
    "6": "06 08 10 1E 11 11 0E", "7": "1F 01 02 04 08 08 08", "8": "0E 11 11 0E 11 11 0E",
    "9": "0E 11 11 0F 01 02 0C", "A": "0E 11 11 1F 11 11 11", "B": "1E 11 11 1E 11 11 1E",
    "C": "0E 11 10 10 10 11 0E", "D": "1E 11 11 11 11 11 1E", "E": "1F 10 10 1E 10 10 1F",
    "F": "1F 10 10 1E 10 10 10", "G": "0E 11 10 17 11 11 0F", "H": "11 11 11 1F 11 11 11",
    "I": "0E 04 04 04 04 04 0E", "J": "07 02 02 02 02 12 0C", "K": "11 12 14 18 14 12 11",
    "L": "10 10 10 10 10 10 1F", "M": "11 1B 15 15 11 11 11", "N": "11 19 15 13 11 11 11",
    "O": "0E 11 11 11 11 11 0E", "P": "1E 11 11 1E 10 10 10", "Q": "0E 11 11 11 15 12 0D",
    "R": "1E 11 11 1E 14 12 11", "S": "0F 10 10 0E 01 01 1E", "T": "1F 04 04 04 04 04 04",
    "U": "11 11 11 11 11 11 0E", "V": "11 11 11 11 11 0A 04", "W": "11 11 11 15 15 1B 11",
    "X": "11 11 0A 04 0A 11 11", "Y": "11 11 0A 04 04 04 04", "Z": "1F 01 02 04 08 10 1F",
}  # fmt: skip


def text_mask(text: str, size: int = 2) -> NDArray[np.bool_]:
    """One line of text as (7*size, 6*size*letters) booleans.

    Lower case is drawn as upper case except m, a letter that the font lacks as a blank.
    """
    rows = np.zeros((7, 6 * len(text)), dtype=bool)
    for i, letter in enumerate(text):
        glyph = _GLYPHS.get(letter) or _GLYPHS.get(letter.upper()) or _GLYPHS[" "]
        for y, row in enumerate(glyph.split()):
            rows[y, 6 * i : 6 * i + 5] = [int(row, 16) >> bit & 1 for bit in (4, 3, 2, 1, 0)]
    return np.repeat(np.repeat(rows, size, axis=0), size, axis=1)

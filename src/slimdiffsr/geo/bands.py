"""Which bands the network sees and which are written: a decision on names, without a raster."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from slimdiffsr.errors import BandError

__all__ = ["BandChoice", "BandName", "choose_bands"]

# Words alone: a number means another band on each sensor. "Red edge" is not red.
_DESCRIBED = {
    "red": re.compile(r"^r$|\bred\b(?![ -]*edge)"),
    "green": re.compile(r"^g$|\bgreen\b"),
    "blue": re.compile(r"^b$|\bblue\b"),
}


@dataclass(frozen=True, slots=True)
class BandName:
    """What a raster says of one band: its description and its colour interpretation."""

    description: str
    colour: str  # lower case: "red", "gray", "alpha", "undefined", ...


@dataclass(frozen=True, slots=True)
class BandChoice:
    """Bands by their number in the source, from 1."""

    seen: tuple[int, ...]  # one or three: red, green, blue for the network
    written: tuple[int, ...]  # in the order of the output, the alpha band included
    alpha: int | None
    reason: str

    @property
    def data(self) -> tuple[int, ...]:
        """The bands written that are not alpha."""
        return tuple(band for band in self.written if band != self.alpha)


def choose_bands(
    names: Sequence[BandName],
    asked: tuple[int, ...] | None,
    all_bands: bool | str,
    alpha: int | None,
    known: tuple[tuple[int, ...] | None, str] = (None, ""),
) -> BandChoice:
    """Choose the bands to show and to write.

    By default decides what is ``known`` (bands and the reason), then colour interpretation, then
    descriptions, then order. ``alpha`` is the band
    that really holds transparency, if any. Raises BandError when a band asked for is not there.
    """
    data = tuple(band for band in range(1, len(names) + 1) if band != alpha)
    if not data:
        raise BandError("the raster has an alpha band only: there is nothing to upscale")
    if asked is not None:
        _check_asked(asked, len(names), alpha)
        seen, reason = asked, "as asked for"
    elif known[0] is not None:
        seen, reason = known[0], known[1]
    else:
        seen, reason = _default(names, data)
    kept = data if all_bands else seen
    written = kept if alpha is None else (*kept, alpha)
    if all_bands:
        written = tuple(sorted(written))
    return BandChoice(seen, written, alpha, reason)


def _check_asked(asked: tuple[int, ...], count: int, alpha: int | None) -> None:
    for band in asked:
        if band > count:
            raise BandError(f"band {band} was asked for, but the raster has {count} (from 1)")
        if band == alpha:
            raise BandError(f"band {band} was asked for, but it is the alpha band")


def _default(names: Sequence[BandName], data: tuple[int, ...]) -> tuple[tuple[int, ...], str]:
    by_colour = _find(data, lambda band, colour: names[band - 1].colour == colour)
    if by_colour:
        return by_colour, "by colour interpretation"
    words = {band: names[band - 1].description.lower().replace("_", " ") for band in data}
    by_words = _find(data, lambda band, colour: bool(_DESCRIBED[colour].search(words[band])))
    if by_words:
        return by_words, "by band descriptions"
    if len(data) >= 3:
        return data[:3], "the first three, as the bands carry no colour names"
    if len(data) == 2:
        return data[:1], "the first of two bands without colour names, shown alone"
    return data, "the only band, shown to the network as all three"


def _find(data: tuple[int, ...], matches: Callable[[int, str], bool]) -> tuple[int, ...] | None:
    found = []
    for colour in ("red", "green", "blue"):
        band = next((band for band in data if matches(band, colour)), None)
        if band is None or band in found:
            return None
        found.append(band)
    return tuple(found)

"""Tags of bands beside tags of other namespaces: GDAL (3.10) copies the one or the other to a TIFF.

With COPY_SRC_MDD=YES it leaves out the tags of bands. They travel as tags of the file, under names
as long as what is to stand there, and are renamed in the finished file.
"""

from __future__ import annotations

import mmap
from collections.abc import Mapping
from pathlib import Path

from slimdiffsr.geo.header import Header

__all__ = ["arrive", "must_travel", "travelling"]

_ON_THE_WAY = "~of~band~~"  # then the band's number, from 0; in its stead:
_AT_HOME = '" sample="'  # ends the attribute "name" and begins the next
_APART_BYTES = 1_000_000
assert len(_ON_THE_WAY) == len(_AT_HOME)


def must_travel(header: Header, options: Mapping[str, str]) -> bool:
    """Whether GDAL would drop the tags of bands with these creation options."""
    return options.get("COPY_SRC_MDD") == "YES" and any(band.tags for band in header.bands)


def travelling(header: Header) -> dict[str, str]:
    """The tags of all bands as tags of the file."""
    return {
        f"{key}{_ON_THE_WAY}{number}": value
        for number, band in enumerate(header.bands)
        for key, value in band.tags.items()
    }


def arrive(path: Path) -> None:
    """Give the tags in a TIFF to their bands. Raises OSError."""
    before, after = _ON_THE_WAY.encode(), _AT_HOME.encode()
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 0) as content:
        at = content.find(before)
        while at >= 0:
            content[at : at + len(before)] = after
            at = content.find(before, at, at + _APART_BYTES)  # all lie in one place

"""Files beside a raster that GDAL reads with it: statistics, masks, overviews, world files, RPCs.

Those named after the whole file belong to it alone. Those named after its stem may belong to
another raster of the same stem.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from slimdiffsr.errors import OutputError

__all__ = ["check_side_files", "side_files", "stale_side_files"]

_OF_THE_FILE = (".aux.xml", ".msk", ".ovr", ".msk.ovr", ".ovr.msk")
_OF_THE_STEM = (".tab", ".prj", ".aux")
_OVERRIDING = (".rpb", ".imd", ".pvl", "_rpc.txt")  # GDAL believes these more than the file
_RASTERS = frozenset(
    {".tif", ".tiff", ".png", ".jpg", ".jpeg", ".jp2", ".img", ".vrt", ".webp", ".ntf", ".ecw",
     ".sid", ".bmp", ".gif", ".bil", ".bip", ".bsq", ".dat", ".asc", ".hdr"}
)  # fmt: skip


def side_files(raster: Path) -> list[Path]:
    """All that is there beside a raster and that GDAL may read with it."""
    return [
        *_found(raster, _OF_THE_FILE, whole=True),
        *_found(raster, (*_world(raster), *_OF_THE_STEM, *_OVERRIDING)),
    ]


def check_side_files(dst: Path, overwrite: bool, of_input: Iterable[str]) -> None:
    """Raise OutputError for files that the output would replace, or would be read with.

    of_input: the files of the input, none of which may be touched.
    """
    inputs = {os.path.realpath(name) for name in of_input}
    risky = _found(dst, _OF_THE_FILE, whole=True)
    risky += _found(dst, _OVERRIDING)
    if dst.suffix.lower() == ".png":
        risky += _found(dst, _world(dst))
    for path in risky:
        if os.path.realpath(path) in inputs:
            raise OutputError(
                f"{path} belongs to the input, and would be replaced by the output {dst.name} or "
                "be read with it: choose another name or folder for the output"
            )
        if not overwrite:
            raise OutputError(
                f"{path} is there already, and would be replaced by the output {dst.name} or be "
                "read with it: move it, choose another name, or allow overwriting"
            )


def stale_side_files(dst: Path, of_input: Iterable[str]) -> list[Path]:
    """What an output that is replaced leaves behind; nothing that another raster may need."""
    inputs = {os.path.realpath(name) for name in of_input}
    found = _found(dst, _OF_THE_FILE, whole=True)
    if not _has_namesake(dst):
        found += _found(dst, (*_world(dst), *_OF_THE_STEM, *_OVERRIDING))
    return [path for path in found if os.path.realpath(path) not in inputs]


def _world(raster: Path) -> tuple[str, ...]:
    # ".tif": .tfw, .tifw, .wld
    suffix = raster.suffix.lower()
    return (".wld", f"{suffix[:2]}{suffix[-1:]}w", f"{suffix}w") if suffix[1:] else (".wld",)


def _found(dst: Path, endings: Iterable[str], *, whole: bool = False) -> list[Path]:
    base = dst.name if whole else dst.stem
    names = {base + ending for end in endings for ending in (end, end.upper())}
    return sorted(path for name in names if (path := dst.with_name(name)).is_file())


def _has_namesake(dst: Path) -> bool:
    return any(
        path.stem == dst.stem and path.suffix.lower() in _RASTERS and path.name != dst.name
        for path in dst.absolute().parent.iterdir()
    )

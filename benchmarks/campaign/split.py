"""The second validation set: which training images are set aside, by place and source.

Set aside are one whole source (``drone_brighton``), and of the others the last images in the order
of their names, which are neighbours on the ground, with a gap of some more that serve neither:
``massgis_1m`` from 0230 on, ``neon_01m`` from 0058, ``drone_boruszyn`` from 0030, each class of
``ucmerced`` from 93; of ``naip_california`` all years of the places numbered below 12. The second
set takes every n-th of them. The 48 validation pairs are of other towns than any of these.
"""

from __future__ import annotations

import re
from pathlib import Path

__all__ = ["held_out", "second_set"]

FIRST_HELD = {"massgis_1m": 230, "neon_01m": 58, "drone_boruszyn": 30, "ucmerced": 93}
# Of a source: the first number that the second set takes, behind the gap, and every how many.
TAKEN = {"massgis_1m": (236, 2), "neon_01m": (61, 1), "drone_boruszyn": (32, 1)}
SIDE_HR_PX = 256


def held_out(path: Path) -> bool:
    """Whether an image must not be trained on."""
    source, number = path.parent.name, _number(path)
    if source == "drone_brighton":
        return True
    if source == "naip_california":
        return number < 12
    return number >= FIRST_HELD.get(source, 1 << 30)


def second_set(root: Path) -> list[Path]:
    """The images of the second set below ``root`` (one folder a source), sorted."""
    chosen = []
    for source, (first, step) in TAKEN.items():
        files = sorted((root / source).iterdir())
        chosen += [p for p in files if _number(p) >= first][::step]
    chosen += sorted((root / "drone_brighton").iterdir())[::2]
    chosen += [p for p in sorted((root / "ucmerced").iterdir()) if _number(p) == 97]
    newest: dict[str, Path] = {}
    for path in sorted((root / "naip_california").iterdir()):
        if _number(path) % 4 == 0 and held_out(path):
            newest[re.sub(r"_\d+_", "_", path.name)] = path  # the last year of each place
    return sorted(chosen + list(newest.values()))


def _number(path: Path) -> int:
    found = re.search(r"(\d+)$", path.stem)
    return int(found.group(1)) if found else -1

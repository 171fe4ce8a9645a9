"""Real pairs: which image of one folder shows the place of which image of the other."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from affine import Affine
from rasterio.errors import CRSError
from rasterio.warp import transform_bounds

from slimdiffsr.datasets.layouts import images_below
from slimdiffsr.errors import DataError, RasterError
from slimdiffsr.geo.raster import open_quietly
from slimdiffsr.training.pixels import Window

__all__ = ["Grid", "Match", "match_folders"]

ANYWHERE = "EPSG:3857"  # for images without georeference: any one system in metres
_SIDE = re.compile(r"(^|[_-])(lr|hr|lq|hq|gt|x\d+)(?=$|[_-])", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Grid:
    """Where an image's pixels lie; without a georeference (``placed=False``) on axes of its own."""

    width: int
    height: int
    crs: Any  # rasterio's CRS, or its name
    transform: Affine
    placed: bool

    def bounds(self) -> tuple[float, float, float, float]:
        """Left, bottom, right, top in its own CRS."""
        t = self.transform
        xs, ys = (t.c, t.c + t.a * self.width), (t.f, t.f + t.e * self.height)
        return min(xs), min(ys), max(xs), max(ys)

    def part(self, x_px: float, y_px: float, pixels: float) -> Affine:
        """The transform of a part that begins there and has so many pixels in one of these."""
        t = self.transform
        corner = (t.c + t.a * x_px, t.f + t.e * y_px)
        return Affine(t.a / pixels, 0, corner[0], 0, t.e / pixels, corner[1])


@dataclass(frozen=True, slots=True)
class Match:
    """Two images of one place, and the part of LR that HR shows too."""

    lr: Path
    hr: Path
    lr_grid: Grid
    hr_grid: Grid
    window_lr: Window


def match_folders(
    lr_folder: Path, hr_folder: Path, scale: int, smallest_lr_px: int
) -> tuple[list[Match], dict[Path, str]]:
    """Pairs by place where both sides are georeferenced, else by name; and what has no partner.

    Names may differ by ``lr``, ``hr``, ``x4`` and the like. An LR image may lie on several HR images:
    each is a pair. Raises DataError when a folder is missing or holds no images.
    """
    grids: dict[Path, Grid] = {}
    left_out: dict[Path, str] = {}
    sides: list[list[Path]] = []
    for folder in (lr_folder, hr_folder):
        if not folder.is_dir() or not images_below(folder):
            raise DataError(
                f"no images in {folder}: --pairs takes a folder of LR and one of HR images"
            )
        sides.append([])
        for path in images_below(folder):
            try:
                grids[path] = _grid(path)
            except DataError as error:
                left_out[path] = str(error)
                continue
            sides[-1].append(path)
    matches = []
    for lr in sides[0]:
        found, why = _partners(lr, sides[1], grids, scale, smallest_lr_px)
        matches.extend(found)
        if not found:
            left_out[lr] = why
    return matches, left_out


def _grid(path: Path) -> Grid:
    try:
        with open_quietly(str(path)) as dataset:
            crs, transform = dataset.crs, dataset.transform
            placed = crs is not None and transform != Affine.identity()
            if placed and (transform.b or transform.d):
                raise DataError(f"{path} is rotated: warp it to a grid that points north")
            if not placed:
                crs, transform = ANYWHERE, Affine.scale(1, -1)
            return Grid(dataset.width, dataset.height, crs, transform, placed)
    except RasterError as error:
        raise DataError(str(error)) from None


def _partners(
    lr: Path, hrs: Sequence[Path], grids: Mapping[Path, Grid], scale: int, smallest_lr_px: int
) -> tuple[list[Match], str]:
    """The matches of one LR image, or why there is none."""
    grid = grids[lr]
    found = []
    if grid.placed:
        for hr in (path for path in hrs if grids[path].placed):
            window = _overlap(grid, grids[hr])
            if window is not None and min(window.height, window.width) >= smallest_lr_px:
                found.append(Match(lr, hr, grid, grids[hr], window))
        if found:
            return found, ""
    by_name = [path for path in hrs if _key(path) == _key(lr)]
    for hr in by_name:
        other = grids[hr]
        if (other.width, other.height) != (scale * grid.width, scale * grid.height):
            return [], (
                f"{lr} has {grid.width} x {grid.height} pixels, and {hr} of its name has "
                f"{other.width} x {other.height}, not {scale} times as many along each side"
            )
        own = Grid(grid.width, grid.height, ANYWHERE, Affine.scale(1, -1), placed=False)
        theirs = Grid(
            other.width, other.height, ANYWHERE, Affine.scale(1 / scale, -1 / scale), False
        )
        found.append(Match(lr, hr, own, theirs, Window(0, 0, grid.height, grid.width)))
    return (
        found,
        f"{lr} has no partner: no HR image shows {smallest_lr_px} px of its place, or has its name",
    )


def _key(path: Path) -> str:
    return _SIDE.sub("", path.stem).lower()


def _overlap(lr: Grid, hr: Grid) -> Window | None:
    """The part of LR, on whole pixels, that lies inside HR."""
    try:
        around: Any = transform_bounds(hr.crs, lr.crs, *hr.bounds())  # type: ignore[no-untyped-call]
    except (CRSError, ValueError):
        return None
    left, bottom, right, top = around
    t = lr.transform
    (x0, x1), (y0, y1) = (
        [(at - start) / step for at in ends]
        for ends, start, step in (((left, right), t.c, t.a), ((top, bottom), t.f, t.e))
    )
    first_x, first_y = max(0, _up(min(x0, x1))), max(0, _up(min(y0, y1)))
    last_x = min(lr.width, int(max(x0, x1) + 1e-6))
    last_y = min(lr.height, int(max(y0, y1) + 1e-6))
    if last_x <= first_x or last_y <= first_y:
        return None
    return Window(first_y, first_x, last_y - first_y, last_x - first_x)


def _up(value: float) -> int:
    return -int(-(value - 1e-6) // 1)

"""Folders of images to train on: what is in them, what is left out and why."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor

from slimdiffsr.datasets.layouts import IMAGE_SUFFIXES, training_images
from slimdiffsr.errors import DataError
from slimdiffsr.geo.values import ValueRange
from slimdiffsr.training.notices import Notice, Tell, say_nothing
from slimdiffsr.training.pixels import Kind, Window, find_range, kind_of, read_rgb

__all__ = ["ImageFolder", "find_images"]


@dataclass(frozen=True, slots=True)
class ImageFolder:
    """Readable images, how much each counts in sampling, and what is left out and why."""

    files: tuple[Path, ...]
    weights: tuple[float, ...]  # pixels: an image that holds eight crops counts eight times
    unreadable: Mapping[Path, str] = field(default_factory=dict)
    too_small: Mapping[Path, str] = field(default_factory=dict)
    values: ValueRange | None = None  # black and white in images of more than 8 bits

    kinds: Mapping[Path, Kind] = field(default_factory=dict)

    def read(self, path: Path, window: Window | None = None) -> Tensor:
        """One of the images, or a part of it: (3, h, w) float32 in [0, 1]. Raises DataError."""
        return read_rgb(path, self.values, window, raster=self.kinds[path].raster)


def find_images(
    folders: Sequence[Path],
    smallest_px: int,
    value_range: tuple[float, float] | None = None,
    tell: Tell = say_nothing,
    *,
    balance: float = 0.0,
) -> ImageFolder:
    """All images below the folders whose sides reach ``smallest_px``; headers are read, not pixels.

    Of the published trees in ``layouts``, recognised or insisted on as in ``dota:/data/DOTA``, only
    the training part counts. Images of more than 8 bits are read by ``value_range``, or by one that
    is found in them, which is told. balance: 1 gives all folders that hold images the same weight in
    sum, 0 all pixels; between them the geometric mean. Raises DataError when a folder is missing, is not the tree that
    it is said to be, or nothing is left.
    """
    kinds: dict[Path, Kind] = {}
    unreadable: dict[Path, str] = {}
    too_small: dict[Path, str] = {}
    paths = [path for folder in folders for path in training_images(folder)]
    for number, path in enumerate(paths):
        tell(Notice("reading headers, image", number, len(paths)))
        try:
            kind = kind_of(path)
        except DataError as error:
            unreadable[path] = str(error)
            continue
        if min(kind.width, kind.height) < smallest_px:
            size = f"{kind.width} x {kind.height} pixels"
            too_small[path] = f"{path} has {size}, less than the {smallest_px} px crop"
            continue
        kinds[path] = kind
    _check_any(folders, kinds, unreadable, too_small, smallest_px)
    weights = _weights(kinds, balance)
    values = _range_of([p for p, kind in kinds.items() if kind.deep], value_range, tell)
    return ImageFolder(tuple(kinds), weights, unreadable, too_small, values, kinds)


def _weights(kinds: Mapping[Path, Kind], balance: float) -> tuple[float, ...]:
    pixels = {path: float(kind.width * kind.height) for path, kind in kinds.items()}
    folders: dict[Path, float] = defaultdict(float)
    for path, count in pixels.items():
        folders[path.parent] += count
    return tuple(count / folders[path.parent] ** balance for path, count in pixels.items())


def _check_any(
    folders: Sequence[Path],
    kinds: Mapping[Path, Kind],
    unreadable: Mapping[Path, str],
    too_small: Mapping[Path, str],
    smallest_px: int,
) -> None:
    names = ", ".join(map(str, folders))
    if not kinds and not unreadable and not too_small:
        raise DataError(
            f"no image file in {names}: give a folder that holds some, as "
            f"{', '.join(IMAGE_SUFFIXES)}"
        )
    if not kinds:
        first = f" ({next(iter(unreadable.values()))})" if unreadable else ""
        raise DataError(
            f"no usable image in {names}: {len(unreadable)} unreadable{first}, {len(too_small)} "
            f"smaller than the {smallest_px} px crop; give a folder of larger images, or a smaller "
            "crop by --set crop_hr_px=..."
        )


def _range_of(
    deep: Sequence[Path], value_range: tuple[float, float] | None, tell: Tell
) -> ValueRange | None:
    if not deep or value_range is not None:
        return ValueRange(*value_range) if deep and value_range is not None else None
    values = find_range(deep)
    if values is not None:
        tell(
            Notice(
                f"{len(deep)} images hold more than 8 bits: {values.low:g} is taken as black and "
                f"{values.high:g} as white in all of them (percentiles 0.5 and 99.5); --range lo,hi "
                "sets others"
            )
        )
    return values

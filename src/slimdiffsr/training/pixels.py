"""Pixels to train on: of 8 bits as they are, of more by one range for all images of a folder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from slimdiffsr.datasets.images import image_size, read_rgb8
from slimdiffsr.errors import DataError, RasterError
from slimdiffsr.geo.bands import choose_bands
from slimdiffsr.geo.grid import Region
from slimdiffsr.geo.raster import Source, open_source
from slimdiffsr.geo.values import ValueRange, estimate_range

__all__ = ["Kind", "Window", "find_range", "kind_of", "read_rgb", "read_values"]

RASTERS = (".tif", ".tiff")  # which hold more than Pillow reads
DEEP = (*RASTERS, ".png")  # which can hold more than 8 bits
RANGE_FROM = 32  # images that a range is estimated from
SAMPLE_PX = 512  # side of what each of them contributes


@dataclass(frozen=True, slots=True)
class Kind:
    """What an image is, from its header."""

    width: int
    height: int
    raster: bool = False  # read by GDAL, band by band: Pillow cannot, or would lose bits
    deep: bool = False  # more than 8 bits


@dataclass(frozen=True, slots=True)
class Window:
    """A part of an image, in its pixels."""

    y: int
    x: int
    height: int
    width: int

    def of(self, image: Tensor) -> Tensor:
        """That part of (c, h, w)."""
        return image[..., self.y : self.y + self.height, self.x : self.x + self.width]

    def divided(self, scale: int) -> Window:
        """The same part of an image that is so many times smaller."""
        return Window(self.y // scale, self.x // scale, self.height // scale, self.width // scale)


def kind_of(path: Path) -> Kind:
    """Look at an image's header. Raises DataError, which says why it cannot be read."""
    try:
        return Kind(*image_size(path))
    except DataError as error:
        suffix = path.suffix.lower()
        if suffix not in RASTERS and not (
            suffix in DEEP and "8-bit images are needed" in str(error)
        ):
            raise
        pillow_says = error
    try:
        with open_source(str(path)) as source:
            deep = source.dtype.name != "uint8"
            return Kind(source.dataset.width, source.dataset.height, raster=True, deep=deep)
    except RasterError:
        raise pillow_says from None


def read_rgb(
    path: Path,
    values: ValueRange | None = None,
    window: Window | None = None,
    *,
    raster: bool = False,
) -> Tensor:
    """An image, or a part of it, converted to RGB, as (3, h, w) float32 in [0, 1].

    values: what is black and white where it holds more than 8 bits. raster: of ``Kind``.
    Raises DataError.
    """
    if not raster:
        image = torch.tensor(read_rgb8(path, convert=True)).permute(2, 0, 1).float() / 255
        return image if window is None else window.of(image)
    read, valid = read_values(path, window)
    if read.dtype == np.uint8:
        values = ValueRange(0.0, 255.0)
    elif values is None:
        raise DataError(
            f"{path} holds {read.dtype} values and no range is known: give --range lo,hi"
        )
    return torch.from_numpy(values.to_unit(read, valid))


def read_values(
    path: Path, window: Window | None = None
) -> tuple[NDArray[np.generic], NDArray[np.bool_]]:
    """A raster's red, green and blue as (3, h, w) in its own units, and what is valid.

    Bands are found as for enlarging; one stands for all three. Raises DataError.
    """
    try:
        with open_source(str(path)) as source:
            bands = choose_bands(source.names, None, False, source.alpha).seen
            region = source.region_lr
            if window is not None:
                region = Region(window.x, window.y, window.width, window.height)
            reading = source.read(region, bands)
    except RasterError as error:
        raise DataError(str(error)) from None
    shape = (3, *reading.values.shape[1:])
    return np.broadcast_to(reading.values, shape), np.broadcast_to(reading.valid, shape)


def find_range(paths: Sequence[Path]) -> ValueRange | None:
    """One range for images of more than 8 bits, as ``upscale --range auto`` takes it for a scene.

    From some of them, spread evenly; None without any. Raises DataError.
    """
    places = np.linspace(0, len(paths) - 1, min(RANGE_FROM, len(paths))).round().astype(int)
    samples = []
    for place in places:
        try:
            with open_source(str(paths[place])) as source:
                samples.append(_sample(source))
        except RasterError:
            continue  # it is told of when it is drawn
    if not samples:
        return None
    together = np.concatenate(samples)
    return estimate_range(together, np.ones(together.shape, bool))


def _sample(source: Source) -> NDArray[np.generic]:
    """Valid values of a decimated read, flat."""
    bands = choose_bands(source.names, None, False, source.alpha).seen
    reading = source.sample(bands)
    thin = max(1, max(reading.values.shape[1:]) // SAMPLE_PX)
    values: NDArray[np.generic] = reading.values[:, ::thin, ::thin]
    return values[reading.valid[:, ::thin, ::thin]]

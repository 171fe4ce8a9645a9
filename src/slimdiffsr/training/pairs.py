"""Real pairs: registered once, then drawn as samples like those that are made of sharp images."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rasterio.enums import Resampling
from rasterio.errors import RasterioError
from rasterio.vrt import WarpedVRT
from torch import Tensor

from slimdiffsr.degrade import image_generator
from slimdiffsr.errors import DataError, RasterError
from slimdiffsr.geo.bands import choose_bands
from slimdiffsr.geo.raster import open_source
from slimdiffsr.geo.values import ValueRange
from slimdiffsr.metrics.consistency import subpixel_shift
from slimdiffsr.training.data import augment, draw_weighted, draw_window
from slimdiffsr.training.matching import Match, match_folders
from slimdiffsr.training.notices import Notice, Tell
from slimdiffsr.training.pixels import Window, find_range, kind_of, read_values
from slimdiffsr.training.workers import Passed, Sample

__all__ = ["RealPairs", "Registered", "find_pairs", "register"]

MOST_RETRIES = 50  # crops with empty pixels are drawn again
LARGEST_LR_PX = 1024  # of an image, looked at to register it
ROUNDS = 3  # the window that an image is registered in does not move with it: once more, and again
LEAST_LIKENESS = 0.3  # correlation of LR with HR averaged to its pixels, below which they differ
_LUMA = np.array([0.299, 0.587, 0.114])


@dataclass(frozen=True, slots=True)
class Registered:
    """A pair, and how far HR has to move to lie on LR."""

    match: Match
    shift_lr_px: tuple[float, float]  # (down, right)
    likeness: float  # correlation of both on LR's pixels, once moved


def find_pairs(
    folders: tuple[Path, Path],
    scale: int,
    crop_hr_px: int,
    value_range: tuple[float, float] | None,
    tell: Tell,
) -> tuple[list[Registered], dict[Path, str], dict[str, ValueRange | None]]:
    """Registered pairs of two folders, what is left out and why, and the ranges of both sides.

    Raises DataError when no pair is left.
    """
    matches, left_out = match_folders(*folders, scale, max(16, crop_hr_px // scale))
    registered = []
    for number, match in enumerate(matches):
        tell(Notice("registering pair", number, len(matches)))
        try:
            pair = register(match, scale)
        except DataError as error:
            left_out[match.lr] = str(error)
            continue
        if pair.likeness < LEAST_LIKENESS:
            left_out[match.lr] = (
                f"{match.lr} and {match.hr} do not show the same: their correlation is "
                f"{pair.likeness:.2f}"
            )
            continue
        registered.append(pair)
    if not registered:
        why = next(iter(left_out.values()), "they hold no images")
        raise DataError(f"no pairs in {folders[0]} and {folders[1]}: {why}")
    tell(Notice(_told(registered)))
    sides = {"lr": [p.match.lr for p in registered], "hr": [p.match.hr for p in registered]}
    ranges = {side: _range(side, paths, value_range, tell) for side, paths in sides.items()}
    return registered, left_out, ranges


def _told(registered: Sequence[Registered]) -> str:
    lengths = [float(np.hypot(*pair.shift_lr_px)) for pair in registered]
    farthest = registered[int(np.argmax(lengths))]
    return (
        f"{len(registered)} pairs registered: HR is moved by {np.median(lengths):.2f} LR pixels in the "
        f"median, {max(lengths):.2f} at most ({farthest.match.hr.name}); pairs.json has all"
    )


def _range(
    side: str, paths: Sequence[Path], value_range: tuple[float, float] | None, tell: Tell
) -> ValueRange | None:
    deep = [path for path in dict.fromkeys(paths) if kind_of(path).deep]
    if not deep or value_range is not None:
        return ValueRange(*value_range) if deep and value_range is not None else None
    values = find_range(deep)
    if values is not None:
        tell(
            Notice(
                f"{side.upper()}: {values.low:g} is taken as black and {values.high:g} as white "
                "(percentiles 0.5 and 99.5 of all images); --range lo,hi sets others"
            )
        )
    return values


def register(match: Match, scale: int) -> Registered:
    """Find the sub-pixel shift of HR against LR by cross-correlation.

    Both on LR's pixels, HR averaged down to them. Raises DataError.
    """
    window = _middle(match.window_lr)
    lr, lr_there = _prepared(*read_values(match.lr, window))
    down = right = 0.0
    for _ in range(ROUNDS):
        hr, _there = _prepared(*_read_hr(match, window, 1, (down, right), Resampling.average))
        more_down, more_right = subpixel_shift(_windowed(lr), _windowed(hr))
        down, right = down + more_down, right + more_right
    hr, hr_there = _prepared(*_read_hr(match, window, 1, (down, right), Resampling.average))
    both = lr_there & hr_there
    return Registered(match, (down, right), _correlation(lr[both], hr[both]))


def _correlation(first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
    spread = float(first.std() * second.std()) if first.size else 0.0
    if spread == 0:
        return 0.0
    return float(((first - first.mean()) * (second - second.mean())).mean()) / spread


def _middle(window: Window) -> Window:
    height, width = (min(LARGEST_LR_PX, side) for side in (window.height, window.width))
    y, x = window.y + (window.height - height) // 2, window.x + (window.width - width) // 2
    return Window(y, x, height, width)


def _prepared(
    values: NDArray[Any], valid: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Grey of (3, h, w), with the mean where it is empty, and where it is not."""
    grey = np.tensordot(_LUMA, values.astype(np.float64), 1)
    there: NDArray[np.bool_] = np.logical_and.reduce(valid, axis=0)
    if there.mean() < 0.1:
        raise DataError("nearly all of it is empty")
    return np.where(there, grey, grey[there].mean()), there


def _windowed(grey: NDArray[np.float64]) -> NDArray[np.float64]:
    window = np.outer(np.hanning(grey.shape[0]), np.hanning(grey.shape[1]))
    return np.asarray((grey - grey.mean()) * window)


def _read_hr(
    match: Match,
    window_lr: Window,
    scale: int,
    shift_lr_px: tuple[float, float],
    resampling: Resampling,
) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """HR on ``scale`` times LR's grid, moved: (3, h, w) in its own units, and what is valid.

    Resampled once, whatever its own pixels and CRS. Raises DataError.
    """
    lr, hr = match.lr_grid, match.hr_grid
    down, right = shift_lr_px
    # What lies there in HR moves onto the window.
    target = lr.part(window_lr.x - right, window_lr.y - down, scale)
    try:
        with open_source(str(match.hr)) as source:
            bands = choose_bands(source.names, None, False, source.alpha).seen
            with WarpedVRT(
                source.dataset, src_crs=hr.crs, crs=lr.crs, transform=target,
                src_transform=hr.transform, width=scale * window_lr.width,
                height=scale * window_lr.height, resampling=resampling,
                add_alpha=source.alpha is None,
            ) as warped:  # fmt: skip
                alpha = warped.count if source.alpha is None else source.alpha
                values, opaque = warped.read(bands), warped.read(alpha)
    except (RasterError, RasterioError) as error:
        raise DataError(f"cannot read {match.hr}: {error}") from None
    shape = (3, *values.shape[1:])
    there = (opaque > 0) & (opaque == opaque.max())
    return np.broadcast_to(values, shape), np.broadcast_to(there, shape)


class RealPairs:
    """Sample ``n``: a random crop of a random pair, LR (3, h, w) and HR (3, H, W), in [0, 1]."""

    def __init__(
        self,
        registered: Sequence[Registered],
        ranges: Mapping[str, ValueRange | None],
        scale: int,
        crop_hr_px: int,
        seed: int,
        *,
        flip_all: bool = False,
    ) -> None:
        self.registered = registered
        self.ranges = ranges
        self.scale = scale
        self.crop_lr_px = crop_hr_px // scale
        self.seed = seed
        self.flip_all = flip_all
        areas = [float(p.match.window_lr.height * p.match.window_lr.width) for p in registered]
        self.cumulative = torch.tensor(areas, dtype=torch.float64).cumsum(0)
        self.sample_bytes = 2 * 3 * crop_hr_px**2 * 4

    def __len__(self) -> int:
        return 2**62  # samples are drawn for as long as training lasts

    def __getitem__(self, number: int) -> Sample:
        """Returns LR and HR; crops with empty pixels are drawn again, what cannot be read is noted."""
        rng = image_generator(self.seed, number)
        _, lr, hr, passed = self._cut(rng)
        lr, hr = augment(rng, (lr, hr), flip_all=self.flip_all)
        return lr, hr, passed

    def file(self, number: int) -> Path:
        """The LR image that a sample is cut from."""
        return self._cut(image_generator(self.seed, number))[0]

    def fixed(self, count: int, unit_hr_px: int, largest_hr_px: int) -> list[tuple[Tensor, Tensor]]:
        """The middle of some pairs, spread evenly: for validation. Those with gaps are left out."""
        places = np.linspace(0, len(self.registered) - 1, min(count, len(self.registered)))
        made = []
        for place in places.round().astype(int):
            pair = self.registered[place]
            whole, unit = pair.match.window_lr, unit_hr_px // self.scale
            most = max(unit, largest_hr_px // self.scale // unit * unit)
            height, width = (min(most, s // unit * unit) for s in (whole.height, whole.width))
            y, x = whole.y + (whole.height - height) // 2, whole.x + (whole.width - width) // 2
            if min(height, width) > 0:
                made.append(self.read(pair, Window(y, x, height, width))[:2])
        return made

    def read(self, pair: Registered, window_lr: Window) -> tuple[Tensor, Tensor, bool]:
        """LR and HR of a part of a pair in [0, 1], and whether none of it is empty."""
        lr, lr_valid = read_values(pair.match.lr, window_lr)
        hr, hr_valid = _read_hr(
            pair.match, window_lr, self.scale, pair.shift_lr_px, Resampling.cubic
        )
        complete = bool(lr_valid.all() and hr_valid.all())
        return (
            _to_unit(lr, lr_valid, self.ranges["lr"]),
            _to_unit(hr, hr_valid, self.ranges["hr"]),
            complete,
        )

    def _cut(self, rng: torch.Generator) -> tuple[Path, Tensor, Tensor, Passed]:
        passed: list[tuple[str, str]] = []
        for _ in range(MOST_RETRIES):
            pair = self.registered[draw_weighted(self.cumulative, rng)]
            whole = pair.match.window_lr
            inside = draw_window(whole.height, whole.width, self.crop_lr_px, rng)
            window = dataclasses.replace(inside, y=inside.y + whole.y, x=inside.x + whole.x)
            try:
                lr, hr, complete = self.read(pair, window)
            except DataError as error:
                passed.append((str(pair.match.lr), str(error)))
                continue
            if complete:
                return pair.match.lr, lr, hr, tuple(passed)
        raise DataError(
            f"{MOST_RETRIES} crops in a row were empty in part or could not be read: give pairs with "
            "fewer gaps, or a smaller crop by --set crop_hr_px=..."
        )


def _to_unit(values: NDArray[Any], valid: NDArray[np.bool_], found: ValueRange | None) -> Tensor:
    values_range = ValueRange(0.0, 255.0) if values.dtype == np.uint8 or found is None else found
    return torch.from_numpy(values_range.to_unit(values, valid))

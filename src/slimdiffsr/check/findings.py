"""One pass over input and result, block by block: what was found, as numbers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slimdiffsr.check.placing import Placing, place
from slimdiffsr.check.tally import BandTally, Tone
from slimdiffsr.errors import BandError, ConfigError, DataError
from slimdiffsr.geo.grid import Region, chunk_regions
from slimdiffsr.geo.raster import Source, open_source
from slimdiffsr.metrics import grid_energy_db, subpixel_shift

__all__ = ["BandFinding", "Findings", "check_result"]

BLOCK_LR_PX = 128
MOST_BLOCKS = 256  # more are looked at only when asked for
KEPT_BLOCKS = 3  # the worst, as pictures
_GREY_BLOCK_HR_PX = 512
_SMALLEST_LR_PX = 16  # of a block whose shift or spectrum is looked at
_BANDS_TAG = "SLIMDIFFSR_BANDS"


@dataclass(frozen=True, slots=True)
class FrequencyFinding:
    """Agreement in one ring of the input's spectrum."""

    cycles_per_lr_px: tuple[float, float]
    gain: float  # 1: the same contrast
    error_share: float  # power of the difference by power of the input; 0: the same


@dataclass(frozen=True, slots=True)
class DecileFinding:
    """Agreement where the input's values lie between two of its deciles."""

    values: tuple[float, float]  # in the input's units
    bias: float
    mean_abs: float
    pixels: int


@dataclass(frozen=True, slots=True)
class BandFinding:
    """One band: the result averaged back to the input's pixels, less the input. Input's units."""

    input_band: int
    result_band: int
    name: str
    spread: float  # of the input's values, 2nd to 98th percentile
    bias: float
    mean_abs: float
    rms: float
    contrast: float  # standard deviation of the averaged result by that of the input
    share_above: float | None  # of the pixels, beyond the error that was named
    frequencies: tuple[FrequencyFinding, ...]
    deciles: tuple[DecileFinding, ...]


@dataclass(frozen=True, slots=True)
class WorstBlock:
    """A block where the result is farthest from the input, for people to look at."""

    region_lr: Region
    mean_abs: float  # as a share of the spread
    lr: NDArray[Any]  # (h, w) of the first band, as are the others
    averaged: NDArray[np.float64]
    sr: NDArray[Any]


@dataclass(frozen=True, slots=True)
class Findings:
    """All that was measured. Lengths in input pixels unless named otherwise."""

    input_path: str
    result_path: str
    scale: tuple[float, float]
    covered_lr: Region
    blocks: int
    blocks_seen: int
    error: float | None
    bands: tuple[BandFinding, ...]
    shift_lr_px: float | None  # median over blocks; None where no block tells
    grid_db: float | None  # mean over blocks; None for scales that are not whole
    emptied_lr_px: int  # valid in the input, empty in the result
    filled_lr_px: int  # empty in the input, valid in the result
    compared_lr_px: int
    worst: tuple[WorstBlock, ...]


def check_result(
    input_path: str | Path,
    result_path: str | Path,
    *,
    bands: Sequence[int] | None = None,
    error: float | None = None,
    every_block: bool = False,
    on_block: Callable[[int, int], None] | None = None,
) -> Findings:
    """Compare a result of any program with the input that it was made from.

    The result is averaged back onto the input's pixels, wherever it covers them, and compared there
    in value, spectrum, place and emptiness.

    Args:
        input_path: the low-resolution raster.
        result_path: the finer raster; the same coordinate system, any ratio of pixel sizes.
        bands: for each band of the result the band of the input, from 1. By default what the result
            says of itself, else the same numbers, else the only one.
        error: a difference in the input's units; the share of pixels beyond it is reported.
        every_block: look at the whole scene, not at up to 256 blocks spread evenly over it.
        on_block: told (done, of) after each block.

    Raises:
        RasterError: one cannot be read.
        DataError: they are not of one place, or nothing in them can be compared.
        BandError: a band that is not there. ConfigError: an error that is not positive.
    """
    if error is not None and not error > 0:
        raise ConfigError(f"error must be a positive difference in the input's units, got {error}")
    with open_source(str(input_path)) as source, open_source(str(result_path)) as result:
        placing = place(source, result)
        pairs = _pairs(source, result, bands)
        comparison = _Comparison(source, result, placing, pairs, error)
        blocks = list(chunk_regions(placing.covered_lr, BLOCK_LR_PX))
        seen = blocks if every_block else _spread_evenly(blocks)
        for done, block in enumerate(seen, 1):
            comparison.add(block)
            if on_block is not None:
                on_block(done, len(seen))
        return comparison.findings(len(blocks), len(seen))


def _spread_evenly(blocks: list[Region]) -> list[Region]:
    if len(blocks) <= MOST_BLOCKS:
        return blocks
    picks = np.linspace(0, len(blocks) - 1, MOST_BLOCKS).round().astype(int)
    return [blocks[pick] for pick in picks]


def _pairs(source: Source, result: Source, asked: Sequence[int] | None) -> list[tuple[int, int]]:
    """(band of the input, band of the result), alpha left out."""
    of_input, of_result = (
        [band for band in range(1, len(raster.names) + 1) if band != raster.alpha]
        for raster in (source, result)
    )
    told = result.dataset.tags().get(_BANDS_TAG, "")
    if asked is not None:
        chosen = list(asked)
    elif told.replace(",", "").isdigit() and len(told.split(",")) == len(of_result):
        chosen = [int(band) for band in told.split(",")]
    elif len(of_input) >= len(of_result):
        chosen = of_input[: len(of_result)]
    else:
        raise BandError(
            f"{result.path} has {len(of_result)} bands and {source.path} {len(of_input)}: "
            "say which belong together, as in bands=3,2,1"
        )
    wrong = [band for band in chosen if band not in of_input]
    if wrong or len(chosen) > len(of_result) or not chosen:
        raise BandError(
            f"bands must name a band of the input (of {len(of_input)}) for each of up to "
            f"{len(of_result)} of the result, got {', '.join(map(str, chosen)) or 'none'}"
        )
    return list(zip(chosen, of_result, strict=False))


class _Comparison:
    """Sums over the blocks seen so far."""

    def __init__(
        self,
        source: Source,
        result: Source,
        placing: Placing,
        pairs: list[tuple[int, int]],
        error: float | None,
    ) -> None:
        self.source, self.result, self.placing = source, result, placing
        self.input_bands = tuple(pair[0] for pair in pairs)
        self.result_bands = tuple(pair[1] for pair in pairs)
        self.error = error
        sample = source.sample(self.input_bands)
        self.tones = [Tone.of(v[k]) for v, k in zip(sample.values, sample.valid, strict=True)]
        self.tallies = [BandTally(tone, error) for tone in self.tones]
        self.shifts: list[float] = []
        self.grids: list[float] = []
        self.emptied = self.filled = 0
        self.worst: list[WorstBlock] = []

    def add(self, block: Region) -> None:
        """Compare one block of input pixels."""
        dataset = self.result.dataset
        window = self.placing.window_hr(block, dataset.height, dataset.width)
        lr = self.source.read(block, self.input_bands)
        sr = self.result.read(window, self.result_bands)
        rows, columns = self.placing.averages(block, window)
        whole = rows @ sr.valid.astype(np.float64) @ columns.T > 1 - 1e-6
        values = np.where(sr.valid, sr.values, 0).astype(np.float64)
        averaged = rows @ values @ columns.T
        both = lr.valid & whole
        self.emptied += int((lr.valid & ~whole).any(0).sum())
        self.filled += int((~lr.valid & whole).any(0).sum())
        for k, tally in enumerate(self.tallies):
            tally.add(lr.values[k].astype(np.float64), averaged[k], both[k])
        if both.all():
            self._look(block, lr.values, averaged, sr.values)

    def _look(
        self,
        block: Region,
        lr: NDArray[Any],
        averaged: NDArray[np.float64],
        sr: NDArray[Any],
    ) -> None:
        """Spectrum, place, grid and picture of a block without gaps."""
        if min(block.width, block.height) < _SMALLEST_LR_PX:
            return
        for k, tally in enumerate(self.tallies):
            tally.add_spectrum(lr[k].astype(np.float64), averaged[k])
        grey_lr, grey_sr = self._grey(lr), self._grey(averaged)
        if grey_lr.std() > 1:  # of 255 levels: a plain block lies anywhere
            window = np.outer(np.hanning(block.height), np.hanning(block.width))
            shift = subpixel_shift(
                (grey_lr - grey_lr.mean()) * window, (grey_sr - grey_sr.mean()) * window
            )
            self.shifts.append(float(np.hypot(*shift)))
        scale = round(self.placing.scale[0])
        if np.allclose(self.placing.scale, scale, atol=1e-6) and scale >= 2:
            grey = np.rint(self._grey(sr[:, :_GREY_BLOCK_HR_PX, :_GREY_BLOCK_HR_PX]))
            if min(grey.shape) >= 16 * scale:
                self.grids.append(grid_energy_db(grey, scale))
        self._keep(block, lr, averaged, sr)

    def _keep(
        self, block: Region, lr: NDArray[Any], averaged: NDArray[np.float64], sr: NDArray[Any]
    ) -> None:
        spreads = np.array([tone.spread for tone in self.tones])
        off = float((np.abs(averaged - lr).mean((1, 2)) / spreads).max())
        self.worst.append(WorstBlock(block, off, lr[0], averaged[0], sr[0]))
        self.worst.sort(key=lambda one: -one.mean_abs)
        del self.worst[KEPT_BLOCKS:]

    def _grey(self, values: NDArray[Any]) -> NDArray[np.float64]:
        """(b, h, w) -> (h, w) in [0, 255] between the percentiles of the input, bands averaged."""
        levels = [tone.levels(band) for tone, band in zip(self.tones, values, strict=True)]
        return np.asarray(np.mean(levels, axis=0))

    def findings(self, blocks: int, seen: int) -> Findings:
        """What was found in all. Raises DataError when nothing could be compared."""
        if not any(tally.pixels for tally in self.tallies):
            raise DataError(
                f"nothing valid in {self.result.path} lies over anything valid in "
                f"{self.source.path}"
            )
        return Findings(
            input_path=self.source.path,
            result_path=self.result.path,
            scale=self.placing.scale,
            covered_lr=self.placing.covered_lr,
            blocks=blocks,
            blocks_seen=seen,
            error=self.error,
            bands=tuple(self._band(k) for k in range(len(self.tallies))),
            shift_lr_px=float(np.median(self.shifts)) if self.shifts else None,
            grid_db=float(np.mean(self.grids)) if self.grids else None,
            emptied_lr_px=self.emptied,
            filled_lr_px=self.filled,
            compared_lr_px=max(tally.pixels for tally in self.tallies),
            worst=tuple(self.worst),
        )

    def _band(self, k: int) -> BandFinding:
        tally, band = self.tallies[k], self.input_bands[k]
        name = self.source.names[band - 1]
        return BandFinding(
            input_band=band,
            result_band=self.result_bands[k],
            name=name.description or name.colour,
            spread=tally.tone.spread,
            bias=tally.bias,
            mean_abs=tally.mean_abs,
            rms=tally.rms,
            contrast=tally.contrast,
            share_above=tally.share_above,
            frequencies=tuple(FrequencyFinding(*found) for found in tally.frequencies()),
            deciles=tuple(DecileFinding(*found) for found in tally.deciles()),
        )

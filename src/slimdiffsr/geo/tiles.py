"""Tiles through the network, in a fixed order, blended on a canvas."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache

import numpy as np
from numpy.typing import NDArray

from slimdiffsr.errors import PredictionError
from slimdiffsr.geo.grid import Region, Tile, TileGrid, blend_weights, reflect_index
from slimdiffsr.geo.resample import fill_invalid
from slimdiffsr.geo.shared import SharedTiles
from slimdiffsr.geo.spec import Network

__all__ = ["Patch", "TileRunner"]


@dataclass(frozen=True, slots=True)
class Patch:
    """A part of the scene as the network is to see it."""

    region_lr: Region
    unit: NDArray[np.float32]  # (1 or 3, h, w) in [0, 1]
    valid: NDArray[np.bool_]  # (1 or 3, h, w)


@dataclass(slots=True)
class TileRunner:
    """Runs the tiles of one chunk after another, each tile once.

    What it makes of a tile depends on the tile alone, be it run now or shared by an earlier chunk.
    """

    network: Network
    grid: TileGrid
    channels: int  # 1 or 3
    shared: SharedTiles
    tiles_run: int = 0
    empty: set[tuple[int, int]] = field(default_factory=set)
    _canvas_size: int = 0
    _buffers: list[NDArray[np.float32]] = field(default_factory=list)

    def expect(self, area_lr: Region, tiles: Sequence[Tile]) -> None:
        """Announce a later call of ``blend``."""
        self.shared.expect(tiles)
        size = self.channels * area_lr.pixels * self.network.scale**2
        self._canvas_size = max(self._canvas_size, size)

    def blend(
        self,
        area_lr: Region,
        tiles: Sequence[Tile],
        coming: Sequence[Tile],
        patch: Patch,
        on_tile: Callable[[int], None],
    ) -> NDArray[np.float32]:
        """(channels, h, w) of the result over ``area_lr``, about [0, 1].

        The array is valid until the call after the next one, which writes into it again.
        ``coming`` are the tiles of the next call. ``on_tile`` hears how many tiles are done.
        """
        scale = self.network.scale
        area_hr = area_lr.times(scale)
        canvas = self._empty_canvas(area_hr)
        soon = {(tile.row, tile.col) for tile in coming}
        for done, (tile, result) in enumerate(self._in_order(tiles, patch), 1):
            if result is not None:
                self._add(canvas, area_hr, tile, result)
                self.shared.used(tile, result, (tile.row, tile.col) in soon)
            on_tile(done)
        return canvas

    def _empty_canvas(self, area_hr: Region) -> NDArray[np.float32]:
        # Two arrays in turn: fresh memory for each chunk costs more than blending into it.
        size = self.channels * area_hr.pixels
        if len(self._buffers) < 2:
            self._buffers.append(np.zeros(self._canvas_size, np.float32))
        else:
            self._buffers.reverse()
            self._buffers[-1][:size].fill(0)
        return self._buffers[-1][:size].reshape(self.channels, area_hr.height, area_hr.width)

    def _add(
        self,
        canvas: NDArray[np.float32],
        area_hr: Region,
        tile: Tile,
        result: NDArray[np.float32],
    ) -> None:
        scale = self.network.scale
        tile_hr = tile.region_lr.times(scale)
        part_hr = tile_hr.clipped(area_hr)
        rows, cols = part_hr.slices(tile_hr)
        weights = _weights(self.network.tile_hr_px, self.grid.overlap_lr_px * scale, tile.inner)
        target = canvas[(slice(None), *part_hr.slices(area_hr))]
        target += result[:, rows, cols] * weights[rows, cols]

    def _in_order(
        self, tiles: Sequence[Tile], patch: Patch
    ) -> Iterator[tuple[Tile, NDArray[np.float32] | None]]:
        # Row by row whether shared or new: the order of a sum decides its last bit.
        here = [self.shared.has(tile) for tile in tiles]
        new = self._compute([t for t, shared in zip(tiles, here, strict=True) if not shared], patch)
        for tile, shared in zip(tiles, here, strict=True):
            yield tile, self.shared.get(tile) if shared else next(new)

    def _compute(self, tiles: Sequence[Tile], patch: Patch) -> Iterator[NDArray[np.float32] | None]:
        waiting: list[NDArray[np.float32] | None] = []
        for tile in tiles:
            image = self._network_input(tile, patch)
            if image is None:
                self.empty.add((tile.row, tile.col))
            waiting.append(image)
            if sum(image is not None for image in waiting) == self.network.batch:
                yield from self._predict(waiting)
                waiting = []
        yield from self._predict(waiting)

    def _network_input(self, tile: Tile, patch: Patch) -> NDArray[np.float32] | None:
        inside = tile.region_lr.clipped(self.grid.scene_lr)
        where = (slice(None), *inside.slices(patch.region_lr))
        valid = patch.valid[where]
        if not valid.any():
            return None
        bands = zip(patch.unit[where], valid, strict=True)
        image = np.stack([fill_invalid(band, known) for band, known in bands])
        side = self.grid.tile_lr_px
        rows = reflect_index(tile.region_lr.row - inside.row, side, inside.height)
        cols = reflect_index(tile.region_lr.col - inside.col, side, inside.width)
        full = image[:, rows[:, None], cols[None]]
        return np.repeat(full, 3, axis=0) if self.channels == 1 else full

    def _predict(
        self, images: Sequence[NDArray[np.float32] | None]
    ) -> Iterator[NDArray[np.float32] | None]:
        full = [image for image in images if image is not None]
        if full:
            # A batch of always the same shape: kernels, and with them the last bit, may hang on it.
            batch = np.stack(full + [full[-1]] * (self.network.batch - len(full)))
            results = iter(self._checked(self.network.predict(batch)))
            self.tiles_run += len(full)
        for image in images:
            yield None if image is None else self._channels_of(next(results), image)

    def _checked(self, results: NDArray[np.float32]) -> NDArray[np.float32]:
        side = self.network.tile_hr_px
        wanted = (self.network.batch, 3, side, side)
        if results.shape != wanted:
            raise PredictionError(
                f"{self.network.model_id} returned an array of shape {results.shape} "
                f"instead of {wanted}"
            )
        if not np.isfinite(results).all():
            raise PredictionError(
                f"{self.network.model_id} returned values that are not finite: "
                "try the precision fp32, or else the weights may be damaged"
            )
        return results

    def _channels_of(
        self, result: NDArray[np.float32], image: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        grey = bool((image[:1] == image[1:]).all())  # one band, or three alike: no tint is true
        if not grey:
            return result
        mean = result[:1] + result[1:2] + result[2:]
        mean /= 3
        return mean if self.channels == 1 else np.repeat(mean, 3, axis=0)


@cache
def _weights(
    tile_hr_px: int, overlap_hr_px: int, inner: tuple[bool, bool, bool, bool]
) -> NDArray[np.float32]:
    rows, cols = blend_weights(tile_hr_px, overlap_hr_px, inner)
    return rows[:, None] * cols[None]

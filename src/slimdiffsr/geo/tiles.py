"""Tiles through the network, batch by batch, and their results for as long as chunks need them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Container
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from slimdiffsr.errors import PredictionError
from slimdiffsr.geo.arrays import Array
from slimdiffsr.geo.grid import Region, Tile, TileGrid, reflect_index
from slimdiffsr.geo.order import ChunkLattice
from slimdiffsr.geo.resample import fill_invalid
from slimdiffsr.geo.spec import Network

__all__ = ["Patch", "Result", "TileResults"]

Key = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Patch:
    """A part of the scene as the network is to see it."""

    region_lr: Region
    unit: NDArray[np.float32]  # (1 or 3, h, w) in [0, 1]
    valid: NDArray[np.bool_]  # (1 or 3, h, w)


@dataclass(frozen=True, slots=True)
class Result:
    """What the network made of a tile, or of a part of it."""

    region_lr: Region
    image: Array  # (1 or 3, scale*h, scale*w); None where nothing was valid
    own: bool = False  # else a view of a batch


@dataclass(slots=True)
class _Batch:
    keys: list[Tile]
    images: NDArray[np.float32]
    results: Array
    is_finite: Callable[[], bool]


@dataclass(slots=True)
class TileResults:
    """Runs tiles in full batches, whichever chunk they are for, and keeps what later chunks need.

    What it makes of a tile depends on the tile alone. A result that finds no room is forgotten and
    made again.
    """

    network: Network
    grid: TileGrid
    lattice: ChunkLattice
    channels: int  # 1 or 3
    tiles_run: int = 0
    empty: set[Key] = field(default_factory=set)
    _results: dict[Key, Result] = field(default_factory=dict)
    _asked: set[Key] = field(default_factory=set)
    _waiting: list[tuple[Tile, NDArray[np.float32]]] = field(default_factory=list)
    _running: deque[_Batch] = field(default_factory=deque)
    _kept_bytes: int = 0

    def ask(self, tile: Tile, patch: Patch, area_lr: Region) -> bool:
        """See to it that what ``area_lr`` needs of a tile will be there, after ``flush`` at last.

        Returns whether a batch was run, so that some results may be there now.
        """
        key = _key(tile)
        if key in self._asked or self.get(tile, area_lr) is not None:
            return False
        image = _network_input(tile, patch, self.grid)
        if image is None:
            self.empty.add(key)
            self._results[key] = Result(tile.region_lr, None)
            return False
        if key in self._results:  # a part of it, for other chunks
            self._drop(key)
        self._asked.add(key)
        self._waiting.append((tile, image))
        if len(self._waiting) < self.network.batch:
            return False
        self._start()
        self._settle(self.network.arrays.batches_ahead)
        return True

    def flush(self) -> None:
        """Run what is left, in a batch that is filled up."""
        if self._waiting:
            self._start()
        self._settle(0)

    def get(self, tile: Tile, area_lr: Region) -> Result | None:
        """The result, or None as long as what ``area_lr`` needs of it is not there."""
        found = self._results.get(_key(tile))
        return found if found is not None and _covers(found, tile, area_lr) else None

    def used(self, tile: Tile, by: Container[Key]) -> None:
        """Keep of a result what the chunks at these places still need, and drop the rest."""
        key = _key(tile)
        result = self._drop(key)
        needed_lr = self.lattice.part_needed_lr(tile, by)
        if needed_lr is None:
            return
        # Of a part that was kept before: chunks may need more by now, that other workers had then.
        part_lr = needed_lr.clipped(result.region_lr)
        if part_lr.pixels == 0:
            return
        if result.image is not None:
            result = self._part(result, part_lr)
            if self._kept_bytes + self._bytes(result) > self.network.arrays.kept_bytes:
                return
        self._keep(key, result)

    def forget(self, by: Container[Key]) -> None:
        """Drop what none of the chunks at these places needs, as when another worker took them."""
        for key in list(self._results):
            if self.lattice.part_needed_lr(self.grid.tile(*key), by) is None:
                self._drop(key)

    def _keep(self, key: Key, result: Result) -> None:
        self._results[key] = result
        self._kept_bytes += self._bytes(result)

    def _drop(self, key: Key) -> Result:
        result = self._results.pop(key)
        self._kept_bytes -= self._bytes(result)
        return result

    def _part(self, result: Result, part_lr: Region) -> Result:
        if result.own and 4 * part_lr.pixels > 3 * result.region_lr.pixels:
            return result
        scale = self.network.scale
        rows, cols = part_lr.times(scale).slices(result.region_lr.times(scale))
        # A copy: a view would keep the whole batch alive.
        image = self.network.arrays.copy(result.image[:, rows, cols])
        return Result(part_lr, image, own=True)

    def _bytes(self, result: Result) -> int:
        """Room that counts as taken: what is a view of a batch goes with its batch."""
        if result.image is None or not result.own:
            return 0
        return 4 * self.channels * result.region_lr.pixels * self.network.scale**2

    def _start(self) -> None:
        batch, self._waiting = self._waiting, []
        images = [image for _, image in batch]
        # A batch of always the same shape: kernels, and with them the last bit, may hang on it.
        stacked = np.empty((self.network.batch, *images[0].shape), np.float32)
        for k in range(self.network.batch):
            stacked[k] = images[min(k, len(images) - 1)]
        results = self._checked_shape(self.network.predict(stacked))
        finite = self.network.arrays.is_finite(results)
        self._running.append(_Batch([tile for tile, _ in batch], stacked, results, finite))

    def _settle(self, running: int) -> None:
        """Take in the results of all batches but the last few."""
        while len(self._running) > running:
            batch = self._running.popleft()
            results = batch.results if batch.is_finite() else self._repaired(batch.images)
            for k, tile in enumerate(batch.keys):
                image, own = self._channels_of(results[k], batch.images[k])
                self._keep(_key(tile), Result(tile.region_lr, image, own))
                self._asked.discard(_key(tile))
            self.tiles_run += len(batch.keys)

    def _repaired(self, images: NDArray[np.float32]) -> Array:
        network = self.network
        if network.repair is not None:
            results = self._checked_shape(network.repair(images))
            if network.arrays.is_finite(results)():
                return results
        raise PredictionError(
            f"{network.model_id} returned values that are not finite: "
            "try the precision fp32, or else the weights may be damaged"
        )

    def _checked_shape(self, results: Array) -> Array:
        side = self.network.tile_hr_px
        wanted = (self.network.batch, 3, side, side)
        if tuple(results.shape) != wanted:
            raise PredictionError(
                f"{self.network.model_id} returned an array of shape {tuple(results.shape)} "
                f"instead of {wanted}"
            )
        return results

    def _channels_of(self, result: Array, seen: NDArray[np.float32]) -> tuple[Array, bool]:
        """The channels kept of a result for (3, t, t), and whether they are an array of their own.

        Where the network saw grey, grey it is: no tint in it would be true.
        """
        if not (seen[:1] == seen[1:]).all():
            return result, self.network.batch == 1
        mean = result[:1] + result[1:2] + result[2:]
        mean /= 3
        if self.channels == 1:
            return mean, True
        grey = self.network.arrays.empty(tuple(result.shape), result)
        grey[:] = mean
        return grey, True


def _key(tile: Tile) -> Key:
    return tile.row, tile.col


def _covers(result: Result, tile: Tile, area_lr: Region) -> bool:
    needed_lr = tile.region_lr.clipped(area_lr)
    return needed_lr.clipped(result.region_lr) == needed_lr


def _network_input(tile: Tile, patch: Patch, grid: TileGrid) -> NDArray[np.float32] | None:
    """(3, t, t): the tile filled where empty, reflected at the scene's edge; None if all empty."""
    inside = tile.region_lr.clipped(grid.scene_lr)
    where = (slice(None), *inside.slices(patch.region_lr))
    valid, image = patch.valid[where], patch.unit[where]
    if not valid.all():
        if not valid.any():
            return None
        bands = zip(image, valid, strict=True)
        image = np.stack([fill_invalid(band, known) for band, known in bands])
    if inside != tile.region_lr:
        rows = reflect_index(tile.region_lr.row - inside.row, grid.tile_lr_px, inside.height)
        cols = reflect_index(tile.region_lr.col - inside.col, grid.tile_lr_px, inside.width)
        image = image[:, rows[:, None], cols[None]]
    return np.repeat(image, 3, axis=0) if len(image) == 1 else image

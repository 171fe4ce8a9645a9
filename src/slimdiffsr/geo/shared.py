"""Tiles that more than one chunk needs: run once, kept in memory, then on the disk."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from slimdiffsr.errors import OutputError
from slimdiffsr.geo.grid import Tile

__all__ = ["SharedTiles"]

_MEMORY_BYTES = 160_000_000

Key = tuple[int, int]
Result = NDArray[np.float32]


@dataclass(slots=True)
class SharedTiles:
    """The network's results for tiles at the borders of chunks, for as long as chunks need them.

    The tiles that the next chunk shares stay in memory; of those that wait for the row of chunks
    below, which in a wide scene are many, what does not fit goes to files. They only save time: a
    result that found no room on the disk is forgotten, and its tile run again.
    """

    folder: Path
    memory_bytes: int = _MEMORY_BYTES
    _uses: Counter[Key] = field(default_factory=Counter)
    _in_memory: dict[Key, Result] = field(default_factory=dict)
    _in_files: dict[Key, tuple[int, ...]] = field(default_factory=dict)  # their shapes

    def expect(self, tiles: Iterable[Tile]) -> None:
        """Announce that a chunk will need these tiles."""
        self._uses.update(_key(tile) for tile in tiles)

    def has(self, tile: Tile) -> bool:
        """Whether the tile's result is here."""
        return _key(tile) in self._in_memory or _key(tile) in self._in_files

    def get(self, tile: Tile) -> Result:
        """The result of a tile that is here. Raises OutputError when its file is gone."""
        key = _key(tile)
        if key in self._in_memory:
            return self._in_memory[key]
        path = self._path(key)
        try:
            return np.fromfile(path, np.float32).reshape(self._in_files[key])
        except (OSError, ValueError):
            raise OutputError(
                f"{path} was changed or deleted while the run needed it: run the same command again"
            ) from None

    def used(self, tile: Tile, result: Result, needed_next: bool) -> None:
        """Keep a result that a chunk has just used if another one will need it, else drop it."""
        key = _key(tile)
        self._uses[key] -= 1
        if self._uses[key] <= 0:
            self._forget(key)
        elif key in self._in_files:
            return
        elif needed_next or self._has_room(key, result):
            if key not in self._in_memory:
                # A copy: ``result`` may be a view that would keep its whole batch alive.
                self._in_memory[key] = result.copy()
        else:
            self._to_file(key, result)

    def _has_room(self, key: Key, result: Result) -> bool:
        tiles = len({*self._in_memory, key})
        return tiles * result.nbytes <= self.memory_bytes

    def _to_file(self, key: Key, result: Result) -> None:
        self._in_memory.pop(key, None)
        try:
            result.tofile(self._path(key))
        except OSError:
            self._path(key).unlink(missing_ok=True)
        else:
            self._in_files[key] = result.shape

    def _forget(self, key: Key) -> None:
        self._in_memory.pop(key, None)
        if self._in_files.pop(key, None) is not None:
            self._path(key).unlink(missing_ok=True)

    def _path(self, key: Key) -> Path:
        return self.folder / f"tile-{key[0]:06d}-{key[1]:06d}.f32"


def _key(tile: Tile) -> Key:
    return tile.row, tile.col

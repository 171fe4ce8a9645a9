"""The scene engine's work on output pixels where the network is: PyTorch's arrays, and tiles.

``geo`` says what is to be done with an array library; this is PyTorch's, for a card. Nothing here
waits for the card but ``is_finite`` and what ``later`` returns: work is queued, in the order of
the card's current stream, and only finished pixels come back.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from slimdiffsr.errors import PredictionError
from slimdiffsr.geo.arrays import NUMPY, Arrays, Download
from slimdiffsr.runtime.guarded import GuardedRuntime
from slimdiffsr.runtime.protocol import Runtime

__all__ = ["TileNetwork", "TorchArrays", "arrays_for"]

# Types that PyTorch computes little with, and those of the same size that hold their bits.
_CARRIERS = {"uint16": np.dtype(np.int16), "uint32": np.dtype(np.int32)}


def arrays_for(device: torch.device) -> Arrays:
    """Where the work on output pixels is done for a network on a device."""
    return TorchArrays(device) if device.type == "cuda" else NUMPY


class TorchArrays:
    """PyTorch on one device; see ``geo.arrays.Arrays``.

    On a card it takes up to 1 GiB for results that are kept and about as much to work in.
    """

    rows_at_once = 1 << 30
    readers = 4
    kept_bytes = 1 << 30
    batches_ahead = 1

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.writers = max(2, min(16, os.cpu_count() or 1))
        self._copies: torch.cuda.Stream | None = None
        if device.type == "cuda":
            self._copies = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def upload(self, values: NDArray[Any]) -> Tensor:
        """See ``Arrays``; on a card through pinned memory, and without waiting."""
        carrier = _CARRIERS.get(values.dtype.name, values.dtype)
        tensor = torch.from_numpy(np.ascontiguousarray(values).view(carrier))
        if self._copies is None:
            return tensor
        return tensor.pin_memory().to(self.device, non_blocking=True)

    def empty(self, shape: tuple[int, ...], like: Tensor) -> Tensor:
        """See ``Arrays``."""
        return torch.empty(shape, dtype=like.dtype, device=self.device)

    def zeros(self, shape: tuple[int, ...]) -> Tensor:
        """See ``Arrays``."""
        return torch.zeros(shape, device=self.device)

    def pad(self, image: Tensor, margins: tuple[int, int, int, int], repeat: bool) -> Tensor:
        """See ``Arrays``."""
        left, top, right, bottom = margins
        return F.pad(image, (left, right, top, bottom), mode="replicate" if repeat else "constant")

    def where(self, condition: Tensor, yes: Tensor | float, no: Tensor | float) -> Tensor:
        """See ``Arrays``."""
        return torch.where(condition, yes, no)

    def clip(self, image: Tensor, low: float, high: float) -> None:
        """See ``Arrays``."""
        image.clamp_(low, high)

    def enlarge_nearest(self, image: Tensor, scale: int) -> Tensor:
        """See ``Arrays``."""
        *before, height, width = image.shape
        blocks = image[..., :, None, :, None].expand(*before, height, scale, width, scale)
        return blocks.reshape(*before, height * scale, width * scale)

    def as_real(self, image: Tensor, dtype: np.dtype[Any]) -> Tensor:
        """See ``Arrays``."""
        return image.to(torch.float64 if dtype.itemsize == 8 else torch.float32)

    def cast(self, real: Tensor, dtype: np.dtype[Any], nodata: float | None) -> Tensor:
        """See ``Arrays``; the result's type is that which carries ``dtype``."""
        if dtype.kind == "f":
            floats = real.to(torch.float64 if dtype.itemsize == 8 else torch.float32)
            if nodata is None or not np.isfinite(nodata):
                return floats
            empty = dtype.type(nodata)
            beside = float(np.nextafter(empty, dtype.type(0 if empty else 1)))
            return floats.masked_fill_(floats == float(empty), beside)
        info = np.iinfo(dtype)
        whole = torch.round(real).clamp_(info.min, info.max)
        if nodata is not None:
            whole.masked_fill_(whole == nodata, nodata + (1 if nodata < info.max else -1))
        if dtype.name not in _CARRIERS:
            return whole.to(getattr(torch, dtype.name))
        # Through a wider integer: what a float beyond the type becomes is not defined.
        wide, narrow = {2: (torch.int32, torch.int16), 4: (torch.int64, torch.int32)}[
            dtype.itemsize
        ]
        return whole.to(wide).to(narrow)

    def add_weighted(self, target: Tensor, image: Tensor, rows: Tensor, cols: Tensor) -> None:
        """See ``Arrays``."""
        target += image * (rows[:, None] * cols)

    def join(self, parts: list[Tensor]) -> Tensor:
        """See ``Arrays``."""
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)

    def copy(self, image: Tensor) -> Tensor:
        """See ``Arrays``."""
        return image.clone(memory_format=torch.contiguous_format)

    def is_finite(self, image: Tensor) -> Callable[[], bool]:
        """See ``Arrays``."""
        # One pass: a sum with anything in it that is not finite is not finite.
        fetched = self._fetch(torch.isfinite(image.sum()))
        return lambda: bool(fetched())

    def later(self, make: Callable[[], Tensor], dtype: np.dtype[Any]) -> Download:
        """See ``Arrays``: queued now."""
        fetched = self._fetch(make())
        return lambda: fetched().view(dtype)

    def _fetch(self, tensor: Tensor) -> Download:
        if self._copies is None:
            return tensor.numpy
        host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
        self._copies.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(self._copies):
            host.copy_(tensor, non_blocking=True)
            arrived = self._copies.record_event()
        tensor.record_stream(self._copies)

        def wait() -> NDArray[Any]:
            arrived.synchronize()
            values: NDArray[Any] = host.numpy()
            return values

        return wait


class TileNetwork:
    """A runtime as the scene engine calls it: tiles of the host in, tiles of ``arrays`` out.

    Where the card's memory does not suffice, it runs half as many tiles at once from then on.
    """

    def __init__(
        self,
        runtime: Runtime,
        arrays: Arrays,
        finish: Callable[[Tensor, Tensor], Tensor] | None = None,
    ) -> None:
        """finish: of a result and its input, both in [-1, 1], what to take for the result."""
        self.runtime, self.arrays, self.finish = runtime, arrays, finish
        # The guard waits for the card after each batch; the engine looks at results later.
        self._unguarded = runtime.inner if isinstance(runtime, GuardedRuntime) else runtime
        self.tiles_at_once = 0  # as many as there are
        self._asked = 0

    @torch.inference_mode()
    def __call__(self, tiles: NDArray[np.float32]) -> Any:  # noqa: ANN401  an array of ``arrays``
        """(n, 3, t, t) in [0, 1] -> (n, 3, scale*t, scale*t) of float32, about [0, 1].

        Raises PredictionError when the card cannot hold a single tile.
        """
        return self._call(self._unguarded, tiles)

    @torch.inference_mode()
    def repair(self, tiles: NDArray[np.float32]) -> Any:  # noqa: ANN401  an array of ``arrays``
        """The same, looking for values that are not finite: in float32 where there are some."""
        return self._call(self.runtime, tiles)

    def _call(self, runtime: Runtime, tiles: NDArray[np.float32]) -> Any:  # noqa: ANN401
        self._asked = len(tiles)
        rgb_lr = self._on_device(tiles) * 2 - 1
        while True:
            try:
                unit = self._run(runtime, rgb_lr)
            except torch.OutOfMemoryError:
                self._halve(len(tiles))
            else:
                return unit if unit.is_cuda else unit.numpy()

    def remarks(self) -> tuple[str, ...]:
        """What the user should know of the run, as whole sentences."""
        if self.tiles_at_once == 0:
            return ()
        return (
            f"The card's memory was too small for {self._asked} tiles at once: the run went on "
            f"with {self.tiles_at_once}.",
        )

    def _on_device(self, tiles: NDArray[np.float32]) -> Tensor:
        tensor = torch.from_numpy(tiles)
        if self.runtime.device.type != "cuda":
            return tensor.to(self.runtime.device)
        return tensor.pin_memory().to(self.runtime.device, non_blocking=True)

    def _run(self, runtime: Runtime, rgb_lr: Tensor) -> Tensor:
        at_once = self.tiles_at_once or len(rgb_lr)
        if at_once == len(rgb_lr):
            return self._part(runtime, rgb_lr)
        parts = []
        for some in torch.split(rgb_lr, at_once):
            # Filled up, as batches of another shape may have other last bits.
            filled = torch.cat([some, some[-1:].expand(at_once - len(some), -1, -1, -1)])
            parts.append(self._part(runtime, filled)[: len(some)])
        return torch.cat(parts)

    def _part(self, runtime: Runtime, rgb_lr: Tensor) -> Tensor:
        sr = runtime(rgb_lr)
        if self.finish is not None:
            sr = self.finish(sr.float(), rgb_lr)
        if self.runtime.device.type != "cuda":
            sr = sr.cpu()
        # New memory: the runtime may write over its result in the next call.
        unit = torch.empty(sr.shape, dtype=torch.float32, device=sr.device)
        torch.mul(sr, 0.5, out=unit)  # a power of two: exact in every type
        return unit.add_(0.5)

    def _halve(self, tiles: int) -> None:
        at_once = (self.tiles_at_once or tiles) // 2
        torch.cuda.empty_cache()
        if at_once == 0:
            raise PredictionError(
                "the card's memory is too small for a single tile: free some, or give --device cpu"
            )
        self.tiles_at_once = at_once

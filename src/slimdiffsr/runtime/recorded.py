"""The runtime ``recorded``: the launches of one batch recorded once as a CUDA graph, then replayed.

A small network's layers are launched more slowly than the card runs them; a graph is launched once.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from slimdiffsr.errors import ConfigError
from slimdiffsr.runtime.compiled import CompiledRuntime
from slimdiffsr.runtime.eager import TorchRuntime
from slimdiffsr.runtime.protocol import Arithmetic

__all__ = ["RecordedRuntime"]

MOST_SHAPES = 4  # each holds its input and output; the memory between is shared
WARM_RUNS = 3  # before a recording, as PyTorch asks for: libraries choose kernels and take memory


@dataclass(slots=True)
class _Recording:
    graph: Any
    given: Tensor
    made: Tensor


class RecordedRuntime:
    """CUDA graphs of another runtime on the same card, one for each shape of a batch."""

    def __init__(self, inner: TorchRuntime | CompiledRuntime) -> None:
        """inner: what is recorded. Raises ConfigError where it is not on a CUDA device."""
        if inner.device.type != "cuda":
            raise ConfigError(
                f"the runtime recorded needs a CUDA device, got {inner.device}: "
                "give --runtime torch or compiled, or --device cuda"
            )
        self.inner, self.device, self.dtype, self.batch = (
            inner, inner.device, inner.dtype, inner.batch,
        )  # fmt: skip
        self._recordings: dict[torch.Size, _Recording] = {}
        self._pool: Any = None

    @torch.inference_mode()
    def __call__(self, rgb_lr: Tensor) -> Tensor:
        """See ``Runtime``."""
        found = self._recordings.get(rgb_lr.shape)
        if found is None:
            found = self._record(rgb_lr.shape)
        found.given.copy_(rgb_lr)
        with torch.cuda.device(self.device):
            found.graph.replay()
        return found.made

    def warm_up(self, batch: int, height_lr_px: int, width_lr_px: int) -> None:
        """Record a shape."""
        self(torch.zeros(batch, 3, height_lr_px, width_lr_px, device=self.device))

    def fingerprint(self) -> Arithmetic:
        """Which arithmetic makes the pixels: a compiled network's, or plain kernels'."""
        inner = self.inner.fingerprint()
        return inner if inner.runtime == "compiled" else replace(inner, runtime="recorded")

    def close(self) -> None:
        """Forget the recordings and their memory."""
        self._recordings.clear()
        self._pool = None
        self.inner.close()
        torch.cuda.empty_cache()

    def _record(self, shape: torch.Size) -> _Recording:
        while len(self._recordings) >= MOST_SHAPES:
            del self._recordings[next(iter(self._recordings))]
        given = torch.zeros(shape, dtype=self.dtype, device=self.device)
        given = given.contiguous(memory_format=torch.channels_last)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.device(self.device):
            self._pool = self._pool or torch.cuda.graph_pool_handle()
            stream: Any = torch.cuda.Stream(self.device)  # type: ignore[no-untyped-call]
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):
                for _ in range(WARM_RUNS):
                    self.inner(given)
            torch.cuda.current_stream().wait_stream(stream)
            torch.cuda.synchronize()
            torch.cuda.empty_cache()  # what the warm runs held is taken again by the recording
            try:
                # Other threads of the engine go on copying while this one records.
                with torch.cuda.graph(graph, self._pool, capture_error_mode="thread_local"):
                    made = self.inner(given)
            except RuntimeError as error:
                # Ending a recording that memory broke off raises an error of its own.
                if isinstance(error.__context__, torch.OutOfMemoryError):
                    raise error.__context__ from None
                raise
        recording = _Recording(graph, given, made)
        self._recordings[shape] = recording
        return recording

"""The runtime ``compiled``: the network fused by inductor, kept on disk for the next run."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from slimdiffsr.errors import ConfigError
from slimdiffsr.runtime.cache import Cache
from slimdiffsr.runtime.eager import TorchRuntime
from slimdiffsr.runtime.protocol import Arithmetic

__all__ = ["CompiledRuntime"]

INDUCTOR_FOLDER = "TORCHINDUCTOR_CACHE_DIR"


class CompiledRuntime:
    """torch.compile, one program for each shape of a batch.

    Takes a minute or more the first time on a machine; afterwards what was compiled comes from the
    cache. Needs a C++ compiler, and on CUDA Triton, which PyTorch for Linux brings.
    """

    def __init__(self, inner: TorchRuntime, cache: Cache) -> None:
        """inner: holds the network on its device; ``cache`` keeps what is compiled."""
        self.inner, self.device, self.dtype, self.batch = (
            inner, inner.device, inner.dtype, inner.batch,
        )  # fmt: skip
        self._folder = cache.subfolder("compiled")
        self._compiled: Any = torch.compile(inner.model, dynamic=False, fullgraph=True)
        self._shapes: set[torch.Size] = set()

    @torch.inference_mode()
    def __call__(self, rgb_lr: Tensor) -> Tensor:
        """See ``Runtime``. Raises ConfigError where there is nothing to compile with."""
        given = rgb_lr.to(self.device, self.dtype, memory_format=torch.channels_last)
        if given.shape in self._shapes:
            made: Tensor = self._compiled(given)
            return made
        try:
            with _kept_in(self._folder):
                made = self._compiled(given)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # a compiler's errors share no base
            words = str(error).strip().splitlines() or [type(error).__name__]
            raise ConfigError(
                f"the runtime compiled cannot compile this network here ({words[0][:200]}): "
                f"give --runtime {'recorded' if self.device.type == 'cuda' else 'torch'}"
            ) from None
        self._shapes.add(given.shape)
        return made

    def warm_up(self, batch: int, height_lr_px: int, width_lr_px: int) -> None:
        """Compile for a shape, or read what was compiled."""
        self(torch.zeros(batch, 3, height_lr_px, width_lr_px, device=self.device))

    def fingerprint(self) -> Arithmetic:
        """Which arithmetic makes the pixels."""
        return replace(self.inner.fingerprint(), runtime="compiled")

    def close(self) -> None:
        """Forget what was compiled; the cache keeps it."""
        self._shapes.clear()
        self._compiled = None
        self.inner.close()


@contextmanager
def _kept_in(folder: Path | None) -> Iterator[None]:
    # Inductor reads its folder from the environment, and only while it compiles.
    before = os.environ.get(INDUCTOR_FOLDER)
    if folder is None or before is not None:
        yield
        return
    os.environ[INDUCTOR_FOLDER] = str(folder)
    try:
        yield
    finally:
        os.environ.pop(INDUCTOR_FOLDER, None)

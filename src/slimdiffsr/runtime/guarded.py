"""A lower precision, guarded: tiles whose values are not finite are run again in float32."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from slimdiffsr.runtime.protocol import Arithmetic, Runtime

__all__ = ["GuardedRuntime"]


class GuardedRuntime:
    """Another runtime, and float32 where that one fails.

    ``notes`` says once that it happened. Looking costs a wait for the card after each batch.
    """

    def __init__(self, inner: Runtime, exact: Callable[[], Runtime]) -> None:
        """exact: makes the float32 runtime on the same device, when it is first needed."""
        self.inner, self.device, self.batch = inner, inner.device, inner.batch
        self.notes: tuple[str, ...] = ()
        self._make_exact = exact
        self._exact: Runtime | None = None

    @torch.inference_mode()
    def __call__(self, rgb_lr: Tensor) -> Tensor:
        """See ``Runtime``."""
        made = self.inner(rgb_lr)
        # A sum is finite only where all of its values are; one pass, no array of truth values.
        sums = made.sum(dim=(1, 2, 3), dtype=torch.float32).tolist()
        bad = [k for k, total in enumerate(sums) if total - total != 0]
        if not bad:
            return made
        if self._exact is None:
            self._exact = self._make_exact()
            precision = self.inner.fingerprint().precision
            self.notes = (
                f"The precision {precision} gave values that are not finite; "
                "such tiles were run again in fp32.",
            )
        mended = made.float().clone()
        for k in bad:  # one by one: the shape stays the same whichever and however many they are
            mended[k] = self._exact(rgb_lr[k : k + 1])[0].float()
        return mended

    def warm_up(self, batch: int, height_lr_px: int, width_lr_px: int) -> None:
        """Make the guarded runtime ready."""
        self.inner.warm_up(batch, height_lr_px, width_lr_px)

    def fingerprint(self) -> Arithmetic:
        """The guarded runtime's: what it cannot do is done in float32 each time."""
        return self.inner.fingerprint()

    def close(self) -> None:
        """Close both."""
        self.inner.close()
        if self._exact is not None:
            self._exact.close()

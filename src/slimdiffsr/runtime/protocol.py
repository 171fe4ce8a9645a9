"""What every runtime is: a tile batch in, a tile batch out, and which arithmetic made it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor

__all__ = ["Arithmetic", "Precision", "Runtime", "RuntimeName"]

RuntimeName = Literal["torch", "recorded", "compiled", "openvino", "onnx"]
Precision = Literal["fp32", "bf16", "fp16", "int8"]


@dataclass(frozen=True, slots=True)
class Arithmetic:
    """Which arithmetic makes the pixels: two that differ in a word may differ in a last bit.

    ``device`` is its kind, so that any two cards of one kind count as the same.
    """

    runtime: str
    precision: Precision
    device: str
    version: str  # of the package that computes

    def items(self) -> tuple[tuple[str, str], ...]:
        """As pairs, in a fixed order."""
        return tuple(asdict(self).items())


class Runtime(Protocol):
    """A network, ready to run on one device; not to be called by two threads at once.

    ``device`` is where its batches lie: the card for runtimes on a card, else the CPU. ``batch`` is
    how many tiles at once serve it well; any number is allowed.
    """

    device: torch.device
    batch: int

    def __call__(self, rgb_lr: Tensor) -> Tensor:
        """rgb_lr: (b, 3, h, w) in [-1, 1] on ``device``, of any float type and layout.

        Returns (b, 3, scale*h, scale*w), about [-1, 1], on ``device``, in the runtime's own float
        type and layout, in the order of the device's current stream. The result is valid until the
        next call, which may write over it. Raises torch.OutOfMemoryError where the card is too
        small for the batch; a smaller one may follow.
        """
        ...

    def warm_up(self, batch: int, height_lr_px: int, width_lr_px: int) -> None:
        """Make ready for batches of a shape, so that the first of them takes no longer."""
        ...

    def fingerprint(self) -> Arithmetic:
        """Which arithmetic makes the pixels."""
        ...

    def close(self) -> None:
        """Give back what the runtime holds on the device; it cannot be called any more."""
        ...

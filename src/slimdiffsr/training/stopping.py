"""When a run ends before its last step: at a deadline, or because a signal asks for it."""

from __future__ import annotations

import contextlib
import math
import signal
import threading
import time
from collections.abc import Iterator
from types import FrameType, TracebackType
from typing import Any, Self

import torch
from accelerate.accelerator import Accelerator

__all__ = ["AGREE_EVERY", "Ending"]

AGREE_EVERY = 10  # steps between the moments at which several processes agree to stop


class Ending:
    """When to stop before the last step: at a deadline, or when a signal asks for it.

    During what must not be cut in two (``waits``) the first signal is only noted; else it raises
    KeyboardInterrupt at once. Several processes stop at the same step.
    """

    def __init__(self, accelerator: Accelerator, max_minutes: float | None) -> None:
        self.accelerator = accelerator
        self.deadline = math.inf if max_minutes is None else time.monotonic() + 60 * max_minutes
        self.alone = accelerator.num_processes == 1
        self.between_steps = True
        self.asked = False
        self.before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():  # only it may handle signals
            for number in (signal.SIGINT, signal.SIGTERM):
                self.before[number] = signal.signal(number, self._note)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        # torchrun repeats to its processes what a terminal has already sent them.
        if self.alone and (self.asked or self.between_steps):
            raise KeyboardInterrupt
        self.asked = True

    @contextlib.contextmanager
    def waits(self) -> Iterator[None]:
        """A part that ends before a signal counts; only an error leaves it half done."""
        self.between_steps = False
        yield
        self.between_steps = True

    def due(self, step: int) -> bool:
        """Whether to stop after this step."""
        if self.alone:
            return self.asked or time.monotonic() > self.deadline
        if step % AGREE_EVERY:
            return False
        wishes = [float(self.asked), float(time.monotonic() > self.deadline)]
        asked, late = self.accelerator.reduce(
            torch.tensor(wishes, device=self.accelerator.device)
        ).tolist()
        self.asked = asked > 0
        return self.asked or late > 0

    def tell(self) -> None:
        """Raise KeyboardInterrupt if that is why the loop ended."""
        if self.asked:
            raise KeyboardInterrupt

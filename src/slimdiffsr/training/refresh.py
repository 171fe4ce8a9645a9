"""Pairs made without end beside training, for a pool that is renewed."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Iterator

from torch import Tensor

from slimdiffsr.training.notices import Tell
from slimdiffsr.training.workers import Batch, Passed, Samples, load_batches

__all__ = ["Producer"]

PIECE = 32  # pairs that a worker makes at once
MOST_WAITING = 16  # pieces


class Numbers:
    """Sample numbers from one on, by pieces, without end."""

    def __init__(self, first: int) -> None:
        self.first = first

    def __iter__(self) -> Iterator[list[int]]:
        first = self.first
        while True:
            yield list(range(first, first + PIECE))
            first += PIECE


class Producer:
    """Pairs that worker processes make all the time, waiting in a queue as 8-bit batches.

    Its thread never touches an accelerator: calls from it would break a recording of passes.
    """

    def __init__(self, pairs: Samples, first: int, workers: int, tell: Tell) -> None:
        self.batches = load_batches(pairs, Numbers(first), workers, tell)
        self.made: queue.Queue[Batch | Exception] = queue.Queue(MOST_WAITING)
        self.wanted = threading.Event()
        self.wanted.set()
        self.thread = threading.Thread(target=self._work, daemon=True)
        self.thread.start()

    def _work(self) -> None:
        try:
            for lr, hr, passed in self.batches:
                self.made.put((_bytes(lr), _bytes(hr), passed))
                if not self.wanted.is_set():
                    return
        except Exception as error:  # raised again where the pairs are wanted
            self.made.put(error)

    def waiting(self, *, least: int) -> Iterator[tuple[Tensor, Tensor, Passed]]:
        """What is ready, but at least so many pairs, waited for. Raises what a worker raised."""
        taken = 0
        while taken < least or not self.made.empty():
            made = self.made.get()
            if isinstance(made, Exception):
                raise made
            yield made
            taken += len(made[0])

    def close(self) -> None:
        """Let the workers go."""
        self.wanted.clear()
        while self.thread.is_alive():
            with contextlib.suppress(queue.Empty):
                self.made.get(timeout=0.1)


def _bytes(images: Tensor) -> Tensor:
    return (images * 255).round().byte()

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

__all__ = ["AGREE_EVERY", "ASKING", "Ending", "held_back"]

AGREE_EVERY = 10  # steps between the moments at which several processes agree to stop
AGREE_WITHIN_S = 2.0  # but no longer than this: who sends SIGTERM waits 10 to 30 s, then kills

# What asks a run to end: terminals, schedulers (SIGTERM; SLURM's --signal=USR1), a lost connection.
ASKING = tuple(
    getattr(signal, name)
    for name in ("SIGINT", "SIGTERM", "SIGUSR1", "SIGHUP")
    if hasattr(signal, name)
)


@contextlib.contextmanager
def held_back() -> Iterator[None]:
    """Signals that ask to end wait: so what is started inside is never caught half-way.

    Child processes begin with them held back, until they say what they do about them.
    """
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ASKING)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


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
        self.before: dict[int, Any] = {}
        self.agree_at = 0  # the next step at which several processes agree
        self.agreed = (0, 0.0)  # the last such step, and when it was

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():  # only it may handle signals
            for number in ASKING:
                # nohup and shells that start jobs in the background say: not this one.
                if signal.getsignal(number) is not signal.SIG_IGN:
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
        """A part that ends before a signal counts; only an error leaves it half done.

        PyTorch tells of a data worker's death by an error wherever the program then is: that waits
        for the part's end too.
        """
        self.between_steps = False
        with _children_later(raises=self.alone):
            yield
        self.between_steps = True

    def due(self, step: int) -> bool:
        """Whether to stop after this step."""
        if self.alone:
            return self.asked or time.monotonic() > self.deadline
        if step < self.agree_at:
            return False
        now = time.monotonic()
        before, at = self.agreed
        a_step_s = (now - at) / max(1, step - before) if before else AGREE_WITHIN_S
        asked, late, slowest_s = self._sum(float(self.asked), float(now > self.deadline), a_step_s)
        self.agreed = (step, now)
        self.agree_at = step + max(1, min(AGREE_EVERY, int(AGREE_WITHIN_S / max(slowest_s, 1e-9))))
        self.asked = asked > 0
        return self.asked or late > 0

    def _sum(self, *numbers: float) -> list[float]:
        # Over the processes; of durations that is on the safe side of the longest.
        total: list[float] = self.accelerator.reduce(
            torch.tensor(numbers, device=self.accelerator.device)
        ).tolist()
        return total

    def tell(self) -> None:
        """Raise KeyboardInterrupt if that is why the loop ended."""
        if self.asked:
            raise KeyboardInterrupt


@contextlib.contextmanager
def _children_later(*, raises: bool) -> Iterator[None]:
    """Whoever handles the end of a child process is called behind this part, not in it.

    ``raises=False`` lets no RuntimeError of theirs out: one of several processes finds out when it
    asks its worker for more, and goes on.
    """
    main = threading.current_thread() is threading.main_thread()
    handler = signal.getsignal(signal.SIGCHLD) if main and hasattr(signal, "SIGCHLD") else None
    if not callable(handler):
        yield
        return
    noted: list[tuple[int, FrameType | None]] = []
    signal.signal(signal.SIGCHLD, lambda number, frame: noted.append((number, frame)))
    try:
        yield
    finally:
        signal.signal(signal.SIGCHLD, handler)
    if noted:
        with contextlib.nullcontext() if raises else contextlib.suppress(RuntimeError):
            handler(*noted[-1])

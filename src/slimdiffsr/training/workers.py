"""Samples made by worker processes, in batches: what workers do about signals and small machines."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from slimdiffsr.training.notices import Notice, Tell
from slimdiffsr.training.stopping import ASKING, held_back

__all__ = ["Batch", "Passed", "Sample", "Samples", "load_batches"]

Passed = tuple[tuple[str, str], ...]  # images passed over, each with the reason
Sample = tuple[Tensor, Tensor, Passed]  # LR (3, h, w) and HR (3, H, W) in [0, 1]
Batch = tuple[Tensor, Tensor, Passed]

SHARED_MEMORY = Path("/dev/shm")
AHEAD = 2  # batches that each worker prepares, torch's own number


class Samples(Protocol):
    """Samples by their number; what the loop's batches are made of."""

    sample_bytes: int  # of LR and HR in float32

    def __len__(self) -> int: ...

    def __getitem__(self, number: int) -> Sample: ...

    def file(self, number: int) -> Path:
        """The image that a sample is cut from."""


def load_batches(
    samples: Samples, numbers: Iterable[list[int]], workers: int, tell: Tell
) -> Iterator[Batch]:
    """The batches of those numbers, in order, made by ``workers`` processes ahead of time.

    Where the memory that processes share is too small, as in many containers, batches come through
    pipes, which is slower; where there is none at all, this process makes them itself.
    """
    batch = len(next(iter(numbers), []))
    needed = (AHEAD * workers + 2) * batch * samples.sample_bytes
    room = _room()
    shares = workers == 0 or room is None or needed <= room
    if room is not None and not shares:
        tell(
            Notice(
                f"{SHARED_MEMORY} has room for {room / 2**20:.0f} MiB, and {workers} workers need "
                f"{needed / 2**20:.0f}: batches go through pipes, which is slower (docker: "
                "--shm-size=2g)"
            )
        )
    try:
        loaded = _start(samples, numbers, workers, shares)
    except OSError as error:
        tell(Notice(f"no data workers on this machine ({error.strerror}): workers=0 is taken"))
        loaded = _start(samples, numbers, 0, True)
    for lr, hr, passed in loaded:
        yield torch.as_tensor(lr), torch.as_tensor(hr), passed


def _start(
    samples: Samples, numbers: Iterable[list[int]], workers: int, shares: bool
) -> Iterator[Any]:
    loader: DataLoader[Any] = DataLoader(
        samples,  # type: ignore[arg-type]  # torch asks for a subclass, and uses these two methods
        batch_sampler=numbers,
        num_workers=workers,
        worker_init_fn=_keep_at_work,
        collate_fn=_stack if shares else _stack_plain,
    )
    with held_back():
        return iter(loader)


def _room() -> int | None:
    """Bytes that are free in the memory that processes share; None where it is no folder."""
    if not SHARED_MEMORY.is_dir():
        return None
    free = os.statvfs(SHARED_MEMORY)
    return free.f_bavail * free.f_frsize


def _stack(made: Sequence[Sample]) -> Batch:
    lrs, hrs, passed = zip(*made, strict=True)
    return torch.stack(lrs), torch.stack(hrs), sum(passed, ())


def _stack_plain(
    made: Sequence[Sample],
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any], Passed]:
    # Tensors would go through shared memory; arrays are written into the pipe.
    lr, hr, passed = _stack(made)
    return lr.numpy(), hr.numpy(), passed


def _keep_at_work(worker: int) -> None:
    """Let the main process alone see what asks a run to end: terminals and schedulers tell all.

    It saves, and then lets its workers go; should it die instead, they notice within seconds.
    """
    for number in ASKING:
        signal.signal(number, signal.SIG_IGN)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, ASKING)

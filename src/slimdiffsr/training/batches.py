"""Batches for training: new pairs for each step, or a pool of pairs drawn from again and again."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from slimdiffsr.settings.config import LoopConfig
from slimdiffsr.training.data import SampleNumbers, TrainingPairs, keep_at_work

__all__ = ["PairPool", "batch_files", "training_batches"]


class PairPool:
    """Pairs prepared once and drawn again and again, turned and mirrored.

    For machines whose accelerator waits for its CPU; 8-bit pairs lose nothing. Not the authors'
    pair pool, a queue that mixes the degradations of consecutive batches (MS 12).
    """

    def __init__(self, lr: Tensor, hr: Tensor, skipped: int = 0) -> None:
        self.lr = lr  # (n, 3, h, w) uint8
        self.hr = hr  # (n, 3, scale*h, scale*w) uint8
        self.skipped = skipped  # unreadable images passed over while preparing

    @classmethod
    def empty(cls, pairs: tuple[Tensor, Tensor], size: int, device: torch.device) -> PairPool:
        """Room for ``size`` pairs of the shapes of these, uint8."""
        lr, hr = (
            torch.zeros((size, *x.shape[1:]), dtype=torch.uint8, device=device) for x in pairs
        )
        return cls(lr, hr)

    def put(self, lr: Tensor, hr: Tensor, first: int) -> None:
        """Write pairs over those from number ``first`` on, from the start again behind the last."""
        index = (torch.arange(len(lr)) + first) % len(self.lr)
        for images, new in ((self.lr, lr), (self.hr, hr)):
            images[index.to(images.device)] = new.to(images.device)

    @classmethod
    def prepare(cls, pairs: TrainingPairs, count: int, workers: int) -> PairPool:
        """Samples 0 to count-1 of ``pairs``, made by ``workers`` processes."""
        numbers = [list(range(i, min(i + 64, count))) for i in range(0, count, 64)]
        loader = DataLoader(
            pairs, batch_sampler=numbers, num_workers=workers, worker_init_fn=keep_at_work
        )
        batches = [
            ((lr * 255).round().byte(), (hr * 255).round().byte(), int(skipped.sum()))
            for lr, hr, skipped in loader
        ]
        lrs, hrs, skipped = zip(*batches, strict=True)
        return cls(torch.cat(lrs), torch.cat(hrs), sum(skipped))

    def to(self, device: torch.device) -> PairPool:
        """The pool in a device's memory."""
        return PairPool(self.lr.to(device), self.hr.to(device), self.skipped)

    def draw(
        self,
        batch: int,
        rng: torch.Generator,
        *,
        turn: bool,
        share: slice,
        filled: int | None = None,
    ) -> tuple[Tensor, Tensor]:
        """This process's share of one random batch, LR and HR in [0, 1], by a CPU generator.

        filled: how many of the pairs are there; None is all.

        ``turn`` also mirrors vertically and transposes, the whole batch alike.
        """
        count = len(self.lr) if filled is None else filled
        index = draw_indices(count, batch, rng)[share].to(self.lr.device)
        left_right, up_down, transpose = torch.randint(0, 2, (3,), generator=rng).tolist()
        drawn = []
        for images in (self.lr, self.hr):
            chosen = images[index].float() / 255
            if left_right:
                chosen = chosen.flip(-1)
            if turn and up_down:
                chosen = chosen.flip(-2)
            if turn and transpose:
                chosen = chosen.transpose(-1, -2)
            drawn.append(chosen.contiguous())
        return drawn[0], drawn[1]


def draw_indices(count: int, batch: int, rng: torch.Generator) -> Tensor:
    """Which of a pool's pairs make up a batch."""
    return torch.randint(0, count, (batch,), generator=rng)


def batch_files(config: LoopConfig, pairs: TrainingPairs, step: int) -> list[Path]:
    """The images that step's batch was cut from, over all processes; 1 is the first step."""
    numbers = range((step - 1) * config.batch, step * config.batch)
    if config.pool:
        rng = pairs.make_generator(config.seed + 2, step - 1)
        drawn: list[int] = draw_indices(config.pool, config.batch, rng).tolist()
        return [pairs.file(number) for number in drawn]
    return [pairs.file(number) for number in numbers]


def training_batches(
    config: LoopConfig,
    pairs: TrainingPairs,
    first_step: int,
    *,
    device: torch.device,
    process: int = 0,
    processes: int = 1,
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """A process's LR and HR in [-1, 1] for each step left, and unreadable images passed over."""
    numbers = SampleNumbers(first_step, config.steps, config.batch, process, processes)
    if config.pool:
        yield from _pool_batches(config, pairs, numbers, device)
        return
    loader = DataLoader(
        pairs,
        batch_sampler=numbers,
        num_workers=config.workers,
        worker_init_fn=keep_at_work,
    )
    for lr, hr, skipped in loader:
        yield _send(lr, device), _send(hr, device), skipped


def _send(images: Tensor, device: torch.device) -> Tensor:
    # Pinned here, not by a thread of the loader's: its calls would break a recording of passes.
    pinned = images.pin_memory() if device.type == "cuda" else images
    return pinned.to(device, non_blocking=True) * 2 - 1


def _pool_batches(
    config: LoopConfig, pairs: TrainingPairs, numbers: SampleNumbers, device: torch.device
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    if config.refresh:
        yield from _refreshed_batches(config, pairs, numbers, device)
        return
    pool = PairPool.prepare(pairs, config.pool, config.workers)
    skipped = torch.tensor(pool.skipped)
    pool = pool.to(device)
    size = config.batch // numbers.processes
    share = slice(numbers.process * size, (numbers.process + 1) * size)
    for step in range(numbers.first_step, numbers.last_step):
        rng = pairs.make_generator(config.seed + 2, step)
        lr, hr = pool.draw(config.batch, rng, turn=config.flip_all, share=share)
        yield lr * 2 - 1, hr * 2 - 1, skipped
        skipped = torch.zeros(())


class _Producer:
    """Pairs made without end by a loader's processes, waiting in a queue of 8-bit batches.

    Its thread never touches an accelerator: calls from it would break a recording of passes.
    """

    def __init__(self, pairs: TrainingPairs, first: int, workers: int) -> None:
        numbers = SampleNumbers(first // PIECE, 1 << 40, PIECE)
        self.loader = DataLoader(
            pairs,
            batch_sampler=numbers,
            num_workers=workers,
            worker_init_fn=keep_at_work,
            collate_fn=to_bytes,
        )
        self.made: queue.Queue[tuple[Tensor, Tensor, int] | Exception] = queue.Queue(maxsize=16)
        self.wanted = threading.Event()
        self.wanted.set()
        self.thread = threading.Thread(target=self._work, daemon=True)
        self.thread.start()

    def _work(self) -> None:
        try:
            for made in self.loader:
                self.made.put(made)
                if not self.wanted.is_set():
                    return
        except Exception as error:
            self.made.put(error)

    def waiting(self, *, least: int) -> Iterator[tuple[Tensor, Tensor, int]]:
        """What is ready, but at least so many batches, waited for. Raises what a worker raised."""
        taken = 0
        while taken < least or not self.made.empty():
            made = self.made.get()
            if isinstance(made, Exception):
                raise made
            yield made
            taken += 1

    def close(self) -> None:
        """Let the workers go."""
        self.wanted.clear()
        while self.thread.is_alive():
            with contextlib.suppress(queue.Empty):
                self.made.get(timeout=0.1)


PIECE = 32  # pairs that a worker makes at once


def to_bytes(samples: list[tuple[Tensor, Tensor, int]]) -> tuple[Tensor, Tensor, int]:
    """Samples as batches of LR and HR in whole 8-bit levels, and the images passed over."""
    lrs, hrs, skipped = zip(*samples, strict=True)
    lr, hr = ((torch.stack(x) * 255).round().byte() for x in (lrs, hrs))
    return lr, hr, sum(skipped)


def _refreshed_batches(
    config: LoopConfig, pairs: TrainingPairs, numbers: SampleNumbers, device: torch.device
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    # Which pairs a step sees hangs on how fast they are made: such a run does not repeat exactly.
    producer = _Producer(pairs, numbers.first_step * config.batch, config.workers)
    size = config.batch // numbers.processes
    share = slice(numbers.process * size, (numbers.process + 1) * size)
    pool, made = None, 0
    with contextlib.closing(producer):
        for step in range(numbers.first_step, numbers.last_step):
            skipped = 0
            short = -(-4 * config.batch // PIECE) if made == 0 else 0
            for lr, hr, passed_over in producer.waiting(least=short):
                pool = PairPool.empty((lr, hr), config.pool, device) if pool is None else pool
                pool.put(lr, hr, made)
                made += len(lr)
                skipped += passed_over
            assert pool is not None
            rng = pairs.make_generator(config.seed + 2, step)
            filled = min(made, config.pool)
            lr, hr = pool.draw(config.batch, rng, turn=config.flip_all, share=share, filled=filled)
            yield lr * 2 - 1, hr * 2 - 1, torch.tensor(skipped)

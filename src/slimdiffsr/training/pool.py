"""Pairs prepared once, for machines whose accelerator waits for its CPU."""

from __future__ import annotations

import torch
from torch import Tensor

from slimdiffsr.training.notices import Notice, Tell, say_nothing
from slimdiffsr.training.workers import Passed, Samples, load_batches

__all__ = ["PairPool", "draw_indices"]


class PairPool:
    """Pairs prepared once and drawn again and again, turned and mirrored.

    For machines whose accelerator waits for its CPU; 8-bit pairs lose nothing. Not the authors'
    pair pool, a queue that mixes the degradations of consecutive batches (MS 12).
    """

    def __init__(self, lr: Tensor, hr: Tensor, passed: Passed = ()) -> None:
        self.lr = lr  # (n, 3, h, w) uint8
        self.hr = hr  # (n, 3, scale*h, scale*w) uint8
        self.passed = passed  # unreadable images passed over while preparing

    @classmethod
    def prepare(
        cls, pairs: Samples, count: int, workers: int, tell: Tell = say_nothing
    ) -> PairPool:
        """Samples 0 to count-1 of ``pairs``, made by ``workers`` processes."""
        numbers = [list(range(i, min(i + 64, count))) for i in range(0, count, 64)]
        lrs, hrs = [], []
        passed: list[tuple[str, str]] = []
        for lr, hr, some in load_batches(pairs, numbers, workers, tell):
            lrs.append((lr * 255).round().byte())
            hrs.append((hr * 255).round().byte())
            passed.extend(some)
            tell(Notice("preparing the pool, pair", sum(map(len, lrs)), count))
        return cls(torch.cat(lrs), torch.cat(hrs), tuple(passed))

    @classmethod
    def empty(cls, like: tuple[Tensor, Tensor], size: int, device: torch.device) -> PairPool:
        """Room for ``size`` pairs of the shapes of these, LR and HR."""
        lr, hr = (torch.zeros((size, *x.shape[1:]), dtype=torch.uint8, device=device) for x in like)
        return cls(lr, hr)

    def put(self, lr: Tensor, hr: Tensor, first: int) -> None:
        """Write pairs in 8 bits over those from ``first`` on, and behind the last from the start."""
        index = (torch.arange(len(lr)) + first) % len(self.lr)
        for images, new in ((self.lr, lr), (self.hr, hr)):
            images[index.to(images.device)] = new.to(images.device)

    def to(self, device: torch.device) -> PairPool:
        """The pool in a device's memory."""
        return PairPool(self.lr.to(device), self.hr.to(device), self.passed)

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

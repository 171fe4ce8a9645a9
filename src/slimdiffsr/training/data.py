"""Samples and batches: random crops of sharp images and their degraded partners.

Sample number ``n`` is a pure function of the seed and ``n``, whatever the process or worker that
makes it: so runs resume exactly, and one process and eight see the same data.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from slimdiffsr.degrade import image_generator
from slimdiffsr.errors import DataError
from slimdiffsr.settings.config import LoopConfig
from slimdiffsr.training.images import ImageFolder
from slimdiffsr.training.notices import Tell, say_nothing
from slimdiffsr.training.pixels import Window
from slimdiffsr.training.pool import PairPool, draw_indices
from slimdiffsr.training.workers import Passed, Sample, Samples, load_batches

__all__ = [
    "SampleNumbers",
    "TrainingPairs",
    "augment",
    "batch_files",
    "draw_weighted",
    "draw_window",
    "training_batches",
]

MOST_RETRIES = 20

Degrade = Callable[[Tensor, list[torch.Generator]], Tensor]


class TrainingPairs:
    """Sample ``n``: a random crop (3, H, W) of a random image, and its degraded (3, h, w)."""

    def __init__(
        self,
        images: ImageFolder,
        crop_hr_px: int,
        seed: int,
        degrade: Degrade,
        *,
        flip_all: bool = False,
    ) -> None:
        self.images = images
        self.crop_hr_px = crop_hr_px
        self.seed = seed
        self.degrade = degrade
        self.flip_all = flip_all
        self.cumulative = torch.tensor(images.weights, dtype=torch.float64).cumsum(0)
        self.sample_bytes = 2 * 3 * crop_hr_px**2 * 4  # LR counts as much, for what is rounded up

    def __len__(self) -> int:
        return 2**62  # samples are drawn for as long as training lasts

    def __getitem__(self, number: int) -> Sample:
        """Returns LR and HR in [0, 1] and which unreadable images were passed over."""
        rng = image_generator(self.seed, number)
        _, hr, passed = self._cut(rng)
        hr = augment(rng, (hr,), flip_all=self.flip_all)[0]
        return self.degrade(hr[None], [rng])[0], hr, passed

    def file(self, number: int) -> Path:
        """The image that a sample is cut from."""
        return self._cut(image_generator(self.seed, number))[0]

    def _cut(self, rng: torch.Generator) -> tuple[Path, Tensor, Passed]:
        # In place of one that cannot be read any other, each as likely: it may outweigh them all.
        files = self.images.files
        passed: dict[str, str] = {}
        index = draw_weighted(self.cumulative, rng)
        for _ in range(MOST_RETRIES):
            path = files[index]
            kind = self.images.kinds[path]
            window = draw_window(kind.height, kind.width, self.crop_hr_px, rng)
            try:
                return path, self.images.read(path, window), tuple(passed.items())
            except DataError as error:
                passed[str(path)] = str(error)
            index = int(torch.randint(0, len(files), (), generator=rng))
        raise DataError(
            f"{MOST_RETRIES} images in a row could not be read, the last because: {passed[str(path)]}"
        )


def draw_window(height: int, width: int, side: int, rng: torch.Generator) -> Window:
    """A square somewhere in an image, each place as likely."""
    y = int(torch.randint(0, height - side + 1, (), generator=rng))
    x = int(torch.randint(0, width - side + 1, (), generator=rng))
    return Window(y, x, side, side)


def draw_weighted(cumulative: Tensor, rng: torch.Generator) -> int:
    """An index, each as often as its share of the weights, whose running sum is given."""
    point = torch.rand((), dtype=torch.float64, generator=rng) * cumulative[-1]
    index = int(torch.searchsorted(cumulative, point, right=True))
    return min(index, len(cumulative) - 1)


def augment(rng: torch.Generator, images: Sequence[Tensor], *, flip_all: bool) -> list[Tensor]:
    """Images (3, h, w) of one place, mirrored alike; with ``flip_all`` also turned."""
    left_right, up_down, turn = torch.randint(0, 2, (3,), generator=rng).tolist()
    made = []
    for image in images:
        if left_right:
            image = image.flip(-1)
        if flip_all and up_down:
            image = image.flip(-2)
        if flip_all and turn:
            image = image.transpose(-1, -2)
        made.append(image.contiguous())
    return made


@dataclass(frozen=True, slots=True)
class SampleNumbers:
    """Batches of sample numbers for one of ``processes``, from ``first_step`` on.

    Step ``k`` uses numbers k*batch to (k+1)*batch - 1 over all processes together.
    """

    first_step: int
    last_step: int
    batch: int
    process: int = 0
    processes: int = 1

    def __post_init__(self) -> None:
        if self.batch % self.processes:
            raise DataError(
                f"the batch of {self.batch} does not divide among {self.processes} processes"
            )

    def __len__(self) -> int:
        return max(0, self.last_step - self.first_step)

    def __iter__(self) -> Iterator[list[int]]:
        share = self.batch // self.processes
        for step in range(self.first_step, self.last_step):
            start = step * self.batch + self.process * share
            yield list(range(start, start + share))


def batch_files(config: LoopConfig, pairs: Samples, step: int) -> list[Path]:
    """The images that step's batch was cut from, over all processes; 1 is the first step."""
    numbers = range((step - 1) * config.batch, step * config.batch)
    if config.pool:
        rng = image_generator(config.seed + 2, step - 1)
        drawn: list[int] = draw_indices(config.pool, config.batch, rng).tolist()
        return [pairs.file(number) for number in drawn]
    return [pairs.file(number) for number in numbers]


def training_batches(
    config: LoopConfig,
    pairs: Samples,
    first_step: int,
    *,
    device: torch.device,
    process: int = 0,
    processes: int = 1,
    tell: Tell = say_nothing,
    on_passed: Callable[[Passed], None] = lambda passed: None,
) -> Iterator[tuple[Tensor, Tensor]]:
    """A process's LR and HR in [-1, 1] for each step left.

    on_passed: called with images that were passed over, each with the reason.
    """
    numbers = SampleNumbers(first_step, config.steps, config.batch, process, processes)
    if config.pool:
        pool = PairPool.prepare(pairs, config.pool, config.workers, tell)
        on_passed(pool.passed)
        yield from _pool_batches(config, pool.to(device), numbers)
        return
    for lr, hr, passed in load_batches(pairs, numbers, config.workers, tell):
        on_passed(passed)
        yield _send(lr, device), _send(hr, device)


def _send(images: Tensor, device: torch.device) -> Tensor:
    # Pinned here, not by a thread of the loader's: its calls would break a recording of passes.
    pinned = images.pin_memory() if device.type == "cuda" else images
    return pinned.to(device, non_blocking=True) * 2 - 1


def _pool_batches(
    config: LoopConfig, pool: PairPool, numbers: SampleNumbers
) -> Iterator[tuple[Tensor, Tensor]]:
    size = config.batch // numbers.processes
    share = slice(numbers.process * size, (numbers.process + 1) * size)
    for step in range(numbers.first_step, numbers.last_step):
        rng = image_generator(config.seed + 2, step)
        lr, hr = pool.draw(config.batch, rng, turn=config.flip_all, share=share)
        yield lr * 2 - 1, hr * 2 - 1

"""Samples and batches: random crops of sharp images and their degraded partners.

Sample number ``n`` is a pure function of the seed and ``n``, whatever the process or worker that
makes it: so runs resume exactly, and one process and eight see the same data.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from slimdiffsr.degrade import image_generator
from slimdiffsr.degrade.draws import chance, uniform
from slimdiffsr.errors import DataError
from slimdiffsr.settings.config import LoopConfig
from slimdiffsr.training.images import ImageFolder
from slimdiffsr.training.notices import Notice, Tell, say_nothing
from slimdiffsr.training.pixels import Window
from slimdiffsr.training.pool import PairPool, draw_indices
from slimdiffsr.training.refresh import Producer
from slimdiffsr.training.workers import Batch, Passed, Sample, Samples, load_batches

__all__ = [
    "SampleNumbers",
    "TrainingPairs",
    "augment",
    "average_to",
    "batch_files",
    "draw_side",
    "draw_weighted",
    "draw_window",
    "training_batches",
]

MOST_RETRIES = 20

MakePlain = Callable[[Tensor, torch.Generator], tuple[Tensor, Tensor]]
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
        shrink: tuple[float, float] = (1.0, 1.0),
        flat: float = 0.0,
        plain: MakePlain | None = None,
    ) -> None:
        """flat: the share of crops in whose place ``plain`` puts a plain surface; see ``cut_shrunk``."""
        self.shrink = shrink
        self.flat = flat
        self.plain = plain
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
        if self.plain is not None and self.flat > 0 and chance(self.flat, rng):
            return *self.plain(hr, rng), passed
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
            side = draw_side(kind.height, kind.width, self.crop_hr_px, self.shrink, rng)
            window = draw_window(kind.height, kind.width, side, rng)
            try:
                image = average_to(self.images.read(path, window), self.crop_hr_px)
                return path, image, tuple(passed.items())
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


def draw_side(
    height: int, width: int, crop_px: int, shrink: tuple[float, float], rng: torch.Generator
) -> int:
    """How large a square to cut for a crop, to be averaged down to it: a random factor times it.

    The factor is drawn evenly in its logarithm, as far as the image allows. It teaches coarser
    ground, and other places in images that are hardly larger than a crop.
    """
    low, high = shrink[0], min(shrink[1], min(height, width) / crop_px)
    if high <= max(low, 1.0):
        return crop_px
    return int(crop_px * math.exp(uniform((math.log(low), math.log(high)), rng)))


def average_to(image: Tensor, side: int) -> Tensor:
    """A square (3, h, h) averaged down to (3, side, side)."""
    if image.shape[-1] == side:
        return image
    size = (side, side)
    small = F.interpolate(image[None], size, mode="bilinear", antialias=True, align_corners=False)
    return small[0].clamp(0, 1)


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
    if config.pool and config.refresh:
        yield from _refreshed_batches(config, pairs, numbers, device, tell, on_passed)
        return
    if config.pool:
        pool = PairPool.prepare(pairs, config.pool, config.workers, tell)
        on_passed(pool.passed)
        yield from _pool_batches(config, pool.to(device), numbers)
        return
    for lr, hr, passed in _made_for(numbers, pairs, config.workers, tell):
        on_passed(passed)
        yield _send(lr, device), _send(hr, device)


def _made_for(numbers: SampleNumbers, pairs: Samples, workers: int, tell: Tell) -> Iterator[Batch]:
    """The batches of those numbers; of several processes each goes on where its workers die.

    The others wait for its gradients, so that they could not be told to end; alone it ends.
    """
    done = 0
    try:
        for batch in load_batches(pairs, numbers, workers, tell):
            yield batch
            done += 1
    except RuntimeError as error:
        if numbers.processes == 1 or "DataLoader worker (pid" not in str(error):
            raise
        tell(Notice("a data worker was killed: its process makes its samples itself from here on"))
        rest = dataclasses.replace(numbers, first_step=numbers.first_step + done)
        yield from load_batches(pairs, rest, 0, tell)


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


def _refreshed_batches(
    config: LoopConfig,
    pairs: Samples,
    numbers: SampleNumbers,
    device: torch.device,
    tell: Tell,
    on_passed: Callable[[Passed], None],
) -> Iterator[tuple[Tensor, Tensor]]:
    # Which pairs a step sees hangs on how fast they are made: such a run does not repeat exactly.
    size = config.batch // numbers.processes
    share = slice(numbers.process * size, (numbers.process + 1) * size)
    first = numbers.first_step * config.batch
    with contextlib.closing(Producer(pairs, first, config.workers, tell)) as producer:
        pool, made = None, 0
        for step in range(numbers.first_step, numbers.last_step):
            for lr, hr, passed in producer.waiting(least=0 if made else 4 * config.batch):
                pool = PairPool.empty((lr, hr), config.pool, device) if pool is None else pool
                pool.put(lr, hr, made)
                made += len(lr)
                on_passed(passed)
            assert pool is not None
            rng = image_generator(config.seed + 2, step)
            filled = min(made, config.pool)
            lr, hr = pool.draw(config.batch, rng, turn=config.flip_all, share=share, filled=filled)
            yield lr * 2 - 1, hr * 2 - 1

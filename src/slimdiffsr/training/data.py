"""Training images: folders of sharp images, random crops, and their degraded partners.

Sample number ``n`` is a pure function of the seed and ``n``, whatever the process or worker that
makes it: so runs resume exactly, and one process and eight see the same data.
"""

from __future__ import annotations

import contextlib
import math
import queue
import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

from slimdiffsr.datasets.images import image_size, read_rgb8
from slimdiffsr.datasets.layouts import IMAGE_SUFFIXES, training_images
from slimdiffsr.degrade.draws import chance, uniform
from slimdiffsr.errors import DataError
from slimdiffsr.settings.config import LoopConfig

__all__ = [
    "ImageFolder",
    "PairPool",
    "SampleNumbers",
    "TrainingPairs",
    "batch_files",
    "find_images",
    "read_rgb",
    "training_batches",
]

MOST_RETRIES = 20

Degrade = Callable[[Tensor, list[torch.Generator]], Tensor]
MakePlain = Callable[[Tensor, torch.Generator], tuple[Tensor, Tensor]]
MakeGenerator = Callable[[int, int], torch.Generator]


@dataclass(frozen=True, slots=True)
class ImageFolder:
    """Readable images, how much each counts in sampling, and what could not be read."""

    files: tuple[Path, ...]
    weights: tuple[float, ...]  # pixels: an image that holds eight crops counts eight times
    unreadable: tuple[Path, ...]
    too_small: tuple[Path, ...]


def find_images(
    folders: Sequence[Path], smallest_px: int, *, balance: float = 0.0
) -> ImageFolder:
    """All images below the folders whose sides reach ``smallest_px``; headers are read, not pixels.

    Of the published trees in ``layouts``, recognised or insisted on as in ``dota:/data/DOTA``, only
    the training part counts. Raises DataError when a folder is missing, is not the tree that it is
    said to be, or nothing is left. balance: 1 gives all folders that hold images the same weight
    in sum, 0 all pixels; between them the geometric mean.
    """
    files, weights, unreadable, too_small = [], [], [], []
    for folder in folders:
        for path in training_images(folder):
            try:
                width, height = image_size(path)
            except DataError:
                unreadable.append(path)
                continue
            if min(width, height) < smallest_px:
                too_small.append(path)
                continue
            files.append(path)
            weights.append(float(width * height))
    names = ", ".join(map(str, folders))
    if not files and not unreadable and not too_small:
        raise DataError(
            f"no image file in {names}: give a folder that holds some, as "
            f"{', '.join(IMAGE_SUFFIXES)}"
        )
    if not files:
        raise DataError(
            f"no usable image in {names}: {len(unreadable)} unreadable, {len(too_small)} smaller "
            f"than the {smallest_px} px crop; give a folder of larger images, or a smaller crop by "
            "--set crop_hr_px=..."
        )
    weights = _balanced(files, weights, balance)
    return ImageFolder(tuple(files), tuple(weights), tuple(unreadable), tuple(too_small))


def _balanced(files: Sequence[Path], weights: Sequence[float], balance: float) -> list[float]:
    if balance == 0:
        return list(weights)
    folders: Counter[Path] = Counter()
    for path, weight in zip(files, weights, strict=True):
        folders[path.parent] += weight  # type: ignore[assignment]  # counts may be fractions
    return [w / folders[p.parent] ** balance for p, w in zip(files, weights, strict=True)]


def read_rgb(path: Path) -> Tensor:
    """An 8-bit image, converted to RGB, as (3, h, w) float32 in [0, 1]. Raises DataError."""
    return torch.tensor(read_rgb8(path, convert=True)).permute(2, 0, 1).float() / 255


class TrainingPairs(Dataset[tuple[Tensor, Tensor, int]]):
    """Sample ``n``: a random crop (3, H, W) of a random image, and its degraded (3, h, w)."""

    def __init__(
        self,
        images: ImageFolder,
        crop_hr_px: int,
        seed: int,
        degrade: Degrade,
        make_generator: MakeGenerator,
        *,
        flip_all: bool = False,
        shrink: tuple[float, float] = (1.0, 1.0),
        flat: float = 0.0,
        plain: MakePlain | None = None,
    ) -> None:
        """flat: the share of crops in whose place ``plain`` puts a plain surface."""
        self.shrink = shrink
        self.flat = flat
        self.plain = plain
        self.images = images
        self.crop_hr_px = crop_hr_px
        self.seed = seed
        self.degrade = degrade
        self.make_generator = make_generator
        self.flip_all = flip_all
        self.cumulative = torch.tensor(images.weights, dtype=torch.float64).cumsum(0)

    def __len__(self) -> int:
        return 2**62  # samples are drawn for as long as training lasts

    def __getitem__(self, number: int) -> tuple[Tensor, Tensor, int]:
        """Returns LR and HR in [0, 1] and how many unreadable images were passed over."""
        rng = self.make_generator(self.seed, number)
        _, image, skipped = self._read(rng)
        image = shrink_image(image, self.shrink, self.crop_hr_px, rng)
        hr = self._augment(self._crop(image, rng), rng)
        if self.plain is not None and self.flat > 0 and chance(self.flat, rng):
            return *self.plain(hr, rng), skipped
        return self.degrade(hr[None], [rng])[0], hr, skipped

    def file(self, number: int) -> Path:
        """The image that a sample is cut from."""
        return self._read(self.make_generator(self.seed, number))[0]

    def _read(self, rng: torch.Generator) -> tuple[Path, Tensor, int]:
        for skipped in range(MOST_RETRIES):
            path = self.images.files[self._draw(rng)]
            try:
                return path, read_rgb(path), skipped
            except DataError:
                continue
        raise DataError(f"{MOST_RETRIES} images in a row could not be read; check the data folder")

    def _draw(self, rng: torch.Generator) -> int:
        point = torch.rand((), dtype=torch.float64, generator=rng) * self.cumulative[-1]
        index = int(torch.searchsorted(self.cumulative, point, right=True))
        return min(index, len(self.images.files) - 1)

    def _crop(self, image: Tensor, rng: torch.Generator) -> Tensor:
        size = self.crop_hr_px
        y = int(torch.randint(0, image.shape[1] - size + 1, (), generator=rng))
        x = int(torch.randint(0, image.shape[2] - size + 1, (), generator=rng))
        return image[:, y : y + size, x : x + size]

    def _augment(self, hr: Tensor, rng: torch.Generator) -> Tensor:
        left_right, up_down, turn = torch.randint(0, 2, (3,), generator=rng).tolist()
        if left_right:
            hr = hr.flip(-1)
        if self.flip_all and up_down:
            hr = hr.flip(-2)
        if self.flip_all and turn:
            hr = hr.transpose(-1, -2)
        return hr.contiguous()


def shrink_image(
    image: Tensor, bounds: tuple[float, float], smallest_px: int, rng: torch.Generator
) -> Tensor:
    """(3, h, w) averaged down by a random factor, as far as ``smallest_px`` allows.

    The factor is drawn evenly in its logarithm. It teaches coarser ground, and other places in
    images that are hardly larger than a crop.
    """
    low, high = bounds[0], min(bounds[1], min(image.shape[1:]) / smallest_px)
    if high <= max(low, 1.0):
        return image
    factor = math.exp(uniform((math.log(low), math.log(high)), rng))
    size = [max(smallest_px, round(side / factor)) for side in image.shape[1:]]
    small = F.interpolate(image[None], size, mode="bilinear", antialias=True, align_corners=False)
    return small[0].clamp(0, 1)


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
        lr, hr = (torch.zeros((size, *x.shape[1:]), dtype=torch.uint8, device=device) for x in pairs)
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


def keep_at_work(worker: int) -> None:
    """Let the main process alone see Ctrl-C, which a terminal sends to all."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


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
        except Exception as error:  # noqa: BLE001  raised again where the pairs are wanted
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

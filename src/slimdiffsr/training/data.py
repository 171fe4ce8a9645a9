"""Training images: folders of sharp images, random crops, and their degraded partners.

Sample number ``n`` is a pure function of the seed and ``n``, whatever the process or worker that
makes it: so runs resume exactly, and one process and eight see the same data.
"""

from __future__ import annotations

import math
import signal
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import Dataset

from slimdiffsr.datasets.images import image_size, read_rgb8
from slimdiffsr.datasets.layouts import IMAGE_SUFFIXES, training_images
from slimdiffsr.degrade.draws import chance, uniform
from slimdiffsr.errors import DataError

__all__ = [
    "ImageFolder",
    "SampleNumbers",
    "TrainingPairs",
    "find_images",
    "keep_at_work",
    "read_rgb",
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


def find_images(folders: Sequence[Path], smallest_px: int, *, balance: float = 0.0) -> ImageFolder:
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


def keep_at_work(worker: int) -> None:
    """Let the main process alone see Ctrl-C, which a terminal sends to all."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)

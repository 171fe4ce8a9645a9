"""What a run learns from: sharp images that it degrades itself, or real pairs."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from slimdiffsr.degrade import degrade, plain_pair
from slimdiffsr.settings.config import LoopConfig
from slimdiffsr.training.data import TrainingPairs
from slimdiffsr.training.images import ImageFolder, find_images
from slimdiffsr.training.notices import Notice, Tell
from slimdiffsr.training.pairs import RealPairs, find_pairs
from slimdiffsr.training.workers import Samples

__all__ = ["PAIRS_FILE", "Material", "degrade_by", "gather_images", "gather_pairs", "thin_out"]

PAIRS_FILE = "pairs.json"

MakeLr = Callable[[LoopConfig, Tensor, list[torch.Generator]], Tensor]


@dataclass(frozen=True, slots=True)
class Material:
    """Samples, and what is to be said of them."""

    samples: Samples
    about: str  # how many images or pairs there are, and a hash of their names
    left_out: Mapping[Path, str]
    too_small: int = 0  # how many of those are smaller than the crop
    value_range: tuple[float, float] | None = None  # of images with more than 8 bits
    notes: list[dict[str, Any]] = field(default_factory=list)  # of each pair

    def fixed(
        self, count: int, unit_hr_px: int, largest_hr_px: int
    ) -> list[tuple[Tensor, Tensor]] | None:
        """Parts of real pairs to validate on; None where there are no such pairs."""
        if not isinstance(self.samples, RealPairs):
            return None
        return self.samples.fixed(count, unit_hr_px, largest_hr_px)


def gather_images(
    config: LoopConfig, folders: Sequence[Path], make_lr: MakeLr, tell: Tell
) -> Material:
    """Sharp images below folders, whose partners ``make_lr`` makes. Raises DataError."""
    images = find_images(
        folders, config.crop_hr_px, config.value_range, tell, balance=config.balance
    )
    tell(Notice(_count(images)))
    samples = TrainingPairs(
        images, config.crop_hr_px, config.seed, partial(make_lr, config),
        flip_all=config.flip_all, shrink=config.shrink, flat=config.flat,
        plain=partial(_plain, config.recipe.scale),
    )  # fmt: skip
    found = images.values
    return Material(
        samples,
        f"{len(images.files)} images, sha256 {_hash_names(images.files)}",
        {**images.unreadable, **images.too_small},
        len(images.too_small),
        config.value_range if found is None else (found.low, found.high),
    )


def gather_pairs(config: LoopConfig, folders: tuple[Path, Path], tell: Tell) -> Material:
    """Real pairs of two folders, LR and HR, registered. Raises DataError."""
    scale = config.recipe.scale
    registered, left_out, ranges = find_pairs(
        folders, scale, config.crop_hr_px, config.value_range, tell
    )
    samples = RealPairs(
        registered, ranges, scale, config.crop_hr_px, config.seed, flip_all=config.flip_all
    )
    notes = [
        {
            "lr": str(pair.match.lr),
            "hr": str(pair.match.hr),
            "shift_lr_px": [round(value, 3) for value in pair.shift_lr_px],
            "correlation": round(pair.likeness, 3),
        }
        for pair in registered
    ]
    names = [path for pair in registered for path in (pair.match.lr, pair.match.hr)]
    about = f"{len(registered)} pairs, sha256 {_hash_names(names)}"
    return Material(samples, about, left_out, 0, config.value_range, notes)


def degrade_by(config: LoopConfig, hr: Tensor, rngs: list[torch.Generator]) -> Tensor:
    """The paper's degradation, by the config's recipe."""
    return degrade(hr, config.recipe, rngs)


def _plain(scale: int, hr: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor]:
    return plain_pair(hr, scale, rng)


def thin_out(config: LoopConfig, hr: Tensor, rngs: list[torch.Generator]) -> Tensor:
    """Every so many pixels of HR, for who does not look at LR."""
    return hr[..., :: config.recipe.scale, :: config.recipe.scale].contiguous()


def _count(images: ImageFolder) -> str:
    passed = [
        f"{len(some)} {why}"
        for some, why in (
            (images.unreadable, "cannot be read"),
            (images.too_small, "are smaller than the crop"),
        )
        if some
    ]
    return ", ".join([f"{len(images.files)} images to train on", *passed])


def _hash_names(paths: Sequence[Path]) -> str:
    names = "\n".join(f"{path.parent.name}/{path.name}" for path in paths)
    return hashlib.sha256(names.encode()).hexdigest()[:12]

"""Differentiable augmentation of what a discriminator sees (Zhao et al. 2020, DiffAugment)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["Rows", "augment"]


class Rows(NamedTuple):
    """Which images of a larger ``batch`` these are: what is drawn for those is theirs."""

    batch: int
    numbers: list[int]


def all_rows(rgb: Tensor) -> Rows:
    """A batch that is no part of a larger one."""
    return Rows(len(rgb), list(range(len(rgb))))


def augment(rgb: Tensor, rng: torch.Generator, rows: Rows | None = None) -> Tensor:
    """Colour, translation by up to an eighth, a cut-out of half a side; drawn for each image.

    rgb: (b, 3, h, w) in [-1, 1]. rng: on the CPU. Returns the same shape; not clamped.
    """
    rows = rows or all_rows(rgb)
    return cut_out(translate(recolour(rgb, rng, rows), rng, rows), rng, rows)


def recolour(rgb: Tensor, rng: torch.Generator, rows: Rows) -> Tensor:
    """Brightness +-0.5, saturation 0 to 2, contrast 0.5 to 1.5."""
    draws = torch.rand(3, rows.batch, 1, 1, 1, generator=rng)[:, rows.numbers].to(rgb)
    brightness, saturation, contrast = draws.unbind()
    rgb = rgb + (brightness - 0.5)
    grey = rgb.mean(1, keepdim=True)
    rgb = grey + (rgb - grey) * 2 * saturation
    mean = rgb.mean((1, 2, 3), keepdim=True)
    out: Tensor = mean + (rgb - mean) * (contrast + 0.5)
    return out


def translate(rgb: Tensor, rng: torch.Generator, rows: Rows, ratio: float = 1 / 8) -> Tensor:
    """Shift by up to ``ratio`` of a side; black (zero) comes in."""
    h, w = rgb.shape[2:]
    most_y, most_x = round(h * ratio), round(w * ratio)
    padded = F.pad(rgb, (most_x, most_x, most_y, most_y))
    dy = torch.randint(0, 2 * most_y + 1, (rows.batch,), generator=rng)[rows.numbers].tolist()
    dx = torch.randint(0, 2 * most_x + 1, (rows.batch,), generator=rng)[rows.numbers].tolist()
    return torch.stack(
        [image[:, y : y + h, x : x + w] for image, y, x in zip(padded, dy, dx, strict=True)]
    )


def cut_out(rgb: Tensor, rng: torch.Generator, rows: Rows, ratio: float = 0.5) -> Tensor:
    """Set a box of ``ratio`` of each side to zero; it may reach beyond the image."""
    h, w = rgb.shape[2:]
    box_h, box_w = round(h * ratio), round(w * ratio)
    top = torch.randint(0, h + 1, (rows.batch, 1), generator=rng)[rows.numbers] - box_h // 2
    left = torch.randint(0, w + 1, (rows.batch, 1), generator=rng)[rows.numbers] - box_w // 2
    y, x = torch.arange(h), torch.arange(w)
    lines = (y >= top) & (y < top + box_h)
    columns = (x >= left) & (x < left + box_w)
    kept = ~(lines[:, None, :, None] & columns[:, None, None, :])
    return rgb * kept.to(rgb)

"""A fixed validation set, its scores, and a picture of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from slimdiffsr.datasets.images import to_rgb8
from slimdiffsr.degrade import degrade, image_generator
from slimdiffsr.errors import DataError
from slimdiffsr.metrics import grey8, grid_energy_db, psnr_y, ssim_y
from slimdiffsr.settings.config import LoopConfig
from slimdiffsr.stages.pictures import save_rows
from slimdiffsr.stages.run import RunPaths
from slimdiffsr.training.images import find_images
from slimdiffsr.training.pixels import Window, read_rgb

__all__ = [
    "LARGEST_PX",
    "STREAM",
    "draw_maps",
    "score",
    "validation_set",
]

SMALLEST_PX = 32  # what LPIPS needs
LARGEST_PX = 256
STREAM = 1 << 40  # sample numbers of the fixed validation set, far from training's


def validation_set(
    config: LoopConfig, paths: RunPaths, unit_hr_px: int
) -> list[tuple[Tensor, Tensor]]:
    """LR and HR in [0, 1], (3, h, w): fixed centre crops, with fixed degradations or their own LR.

    ``paths.validation`` holds sharp images, or pairs of one name in its folders ``lr`` and ``hr``;
    without it training images serve.
    ``unit_hr_px``: what the sides of HR must be multiples of. Unreadable images are passed over.
    Empty where the config asks for none. Raises DataError when none is left, or a pair does not fit.
    """
    if config.validation_images == 0:
        return []
    folders: Sequence[Path] = paths.data if paths.validation is None else (paths.validation,)
    paired = paths.validation is not None and all(
        (folders[0] / name).is_dir() for name in ("lr", "hr")
    )
    if paired:
        folders = (folders[0] / "hr",)
    images = find_images(folders, max(unit_hr_px, SMALLEST_PX), config.value_range)
    files = _spread(images.files, config)
    pairs = []
    for number, file in enumerate(files):
        try:
            hr = images.read(file)
        except DataError:
            continue
        window = _centre(hr, unit_hr_px, config.recipe.scale)
        if paired:
            lr_file = folders[0].with_name("lr") / file.relative_to(folders[0])
            lr = _partner(lr_file, hr, window, config.recipe.scale)
            pairs.append((lr, window.of(hr)))
            continue
        rng = image_generator(config.seed, STREAM + number)
        hr = window.of(hr)
        pairs.append((degrade(hr[None], config.recipe, [rng])[0], hr))
    if not pairs:
        raise DataError(f"none of the {len(files)} validation images could be read")
    return pairs


def _spread(files: Sequence[Path], config: LoopConfig) -> list[Path]:
    """As many files as asked for, spread evenly over all."""
    places = np.linspace(0, len(files) - 1, min(config.validation_images, len(files)))
    return [files[index] for index in places.round().astype(int)]


def _centre(hr: Tensor, unit_hr_px: int, scale: int) -> Window:
    """The middle of an image, as large as validation looks at, on whole LR pixels."""
    most = max(unit_hr_px, LARGEST_PX // unit_hr_px * unit_hr_px)
    height, width = (min(most, side // unit_hr_px * unit_hr_px) for side in hr.shape[1:])
    y, x = (
        (whole - part) // 2 // scale * scale
        for whole, part in zip(hr.shape[1:], (height, width), strict=True)
    )
    return Window(y, x, height, width)


def _partner(lr_file: Path, hr: Tensor, window: Window, scale: int) -> Tensor:
    """The part of an LR image that shows the window."""
    lr = read_rgb(lr_file)
    expected = tuple(side // scale for side in hr.shape[1:])
    if tuple(lr.shape[1:]) != expected or any(side % scale for side in hr.shape[1:]):
        raise DataError(
            f"{lr_file} has {lr.shape[2]} x {lr.shape[1]} pixels, and its partner's {hr.shape[2]} x "
            f"{hr.shape[1]} are not {scale} times as many along each side"
        )
    return window.divided(scale).of(lr)


@torch.inference_mode()
def score(
    restore: Callable[[Tensor, Tensor], Tensor],
    pairs: Sequence[tuple[Tensor, Tensor]],
    lpips: Callable[[Tensor, Tensor], Tensor] | None,
    picture: Path,
    device: torch.device,
) -> dict[str, float]:
    """Mean metrics, LPIPS where it is given, and a PNG: LR, SR, HR side by side, one image a row.

    restore: (1, 3, h, w) LR and (1, 3, H, W) HR in [-1, 1] -> SR; only a teacher looks at HR.
    """
    rows, values = [], []
    for lr, hr in pairs:
        scale = hr.shape[1] // lr.shape[1]
        truth = hr.to(device)[None] * 2 - 1
        sr = restore(lr.to(device)[None] * 2 - 1, truth).float()
        sr8, hr8 = to_rgb8(sr[0]), to_rgb8(truth[0])
        figures = {"val/psnr_y": psnr_y(sr8, hr8), "val/ssim_y": ssim_y(sr8, hr8)}
        if lpips is not None:
            figures["val/lpips"] = float(lpips(sr.clamp(-1, 1), truth))
        values.append({**figures, "val/grid_db": grid_energy_db(grey8(sr8), scale)})
        enlarged = F.interpolate(lr[None], size=hr.shape[1:], mode="nearest")[0]
        rows.append([to_rgb8(enlarged * 2 - 1), sr8, hr8])
    save_rows(rows, picture)
    return {name: float(np.mean([one[name] for one in values])) for name in values[0]}


def draw_maps(maps: Sequence[Tensor], truths: Sequence[Tensor], picture: Path) -> None:
    """A PNG of maps beside HR, one image a row; all greys by one scale, black is the least value.

    maps: (h, w) each, or (1, 1) for one number an image; truths: (3, H, W) in [0, 1].
    """
    values = torch.cat([m.flatten() for m in maps])
    least, spread = values.min(), (values.max() - values.min()).clamp_min(1e-6)
    rows = []
    for one, hr in zip(maps, truths, strict=True):
        grey = F.interpolate(((one - least) / spread)[None, None], size=hr.shape[1:])
        rows.append([to_rgb8(grey[0].expand(3, -1, -1) * 2 - 1), to_rgb8(hr * 2 - 1)])
    save_rows(rows, picture)

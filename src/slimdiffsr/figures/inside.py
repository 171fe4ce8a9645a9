"""What goes on inside the networks, as maps: uncertainty, timestep, features, attention.

Images come as (h, w, 3) uint8. Maps are (h, w) float32 on the network's own grid, cut to the image
where it was padded.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from slimdiffsr.datasets.images import to_signed
from slimdiffsr.errors import ConfigError
from slimdiffsr.figures.canvas import Map, Rgb8
from slimdiffsr.method.diffusion import invert_timestep
from slimdiffsr.method.teacher import Guidance, Teacher
from slimdiffsr.models.lean import LeanStudent
from slimdiffsr.models.slim import QGAM
from slimdiffsr.models.student import Student, enlarge_bicubic
from slimdiffsr.upscale import pad_to_multiple, restore

__all__ = [
    "FeatureMaps",
    "GuidanceMaps",
    "attention_blocks",
    "attention_maps",
    "choose_queries",
    "guidance_maps",
    "teacher_features",
]


@dataclass(frozen=True, slots=True)
class GuidanceMaps:
    """What tells the teacher how strongly to generate (Fig. 15), in latent cells.

    ``uncertainty``: standard deviation of the clean latent, the root of z_var averaged over the
    four channels; latents have a spread of about 1. ``timestep``: t*, 0 to 999, a map.
    """

    uncertainty: Map
    timestep: Map

    @property
    def rank_correlation(self) -> float:
        """Spearman's, between the two; NaN where one of them is constant."""
        a, b = (_ranks(m.ravel()) for m in (self.uncertainty, self.timestep))
        return float(np.corrcoef(a, b)[0, 1]) if a.std() and b.std() else math.nan


@dataclass(frozen=True, slots=True)
class FeatureMaps:
    """Channel means of what the two finest up blocks make (Fig. 14), coarser one first."""

    up1: Map
    up0: Map


def guidance_maps(teacher: Teacher, rgb_lr: Rgb8, rgb_hr: Rgb8 | None, scale: int) -> GuidanceMaps:
    """Uncertainty and timestep for one image.

    rgb_hr: the truth, ``scale`` times rgb_lr; without one the estimator's mean stands for it.
    """
    prepared = _Prepared.of(teacher, rgb_lr, rgb_hr, scale)
    with torch.inference_mode():
        z_lr, guidance = teacher.guide(prepared.enlarged, prepared.hr)
        deviation = (teacher.estimator(z_lr).log_var / 2).exp().mean(1, keepdim=True)
    timestep = guidance.timestep.expand(-1, -1, *z_lr.shape[2:])
    return GuidanceMaps(prepared.cut(deviation), prepared.cut(timestep))


def teacher_features(
    teacher: Teacher, rgb_lr: Rgb8, rgb_hr: Rgb8 | None, scale: int
) -> dict[str, FeatureMaps]:
    """Features by the way in which the timestep is chosen.

    ``fixed``: the predictor's start for every place. ``truth only``: as predicted, with the
    uncertainty put to z_var = 1. ``adaptive``: as predicted. A teacher whose predictor was trained
    without the one or the other has only what it was trained with.
    """
    prepared = _Prepared.of(teacher, rgb_lr, rgb_hr, scale)
    with torch.inference_mode():
        z_lr, own = teacher.guide(prepared.enlarged, prepared.hr)
        ways = _ways(teacher, z_lr, prepared.hr, own)
        made = {way: teacher.blocks_at(z_lr, guidance).matched for way, guidance in ways.items()}
    return {
        way: FeatureMaps(*(prepared.cut(f.mean(1, keepdim=True)) for f in matched[2:]))
        for way, matched in made.items()
    }


def attention_blocks(student: Student) -> dict[str, QGAM]:
    """The student's QGAMs by their place in the UNet, in the order in which they run."""
    if isinstance(student, LeanStudent):
        return {}
    return {
        name.removesuffix(".attention"): module
        for name, module in student.unet.named_modules()
        if isinstance(module, QGAM)
    }


def attention_maps(student: Student, rgb_lr: Rgb8, block: str | None = None) -> Map:
    """Where the queries of one QGAM look in an image (Eq. 14, Fig. 16).

    block: of ``attention_blocks``; by default the first, as the authors' script. Returns (queries, h, w): weight over that of looking everywhere alike, so 1 is indifferent.
    Raises ConfigError for a block that is not there.
    """
    blocks = attention_blocks(student)
    name = block or next(iter(blocks), "")
    if not blocks:
        raise ConfigError(f"{student.config.name} has no attention: look into another student")
    if name not in blocks:
        raise ConfigError(f"no attention {name!r}: there is {', '.join(blocks)}")
    seen: list[Tensor] = []

    def look(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        seen.append(inputs[0])

    config = student.config
    handle = blocks[name].register_forward_pre_hook(look)
    try:
        with torch.inference_mode():
            lr = _to_tensor(rgb_lr, student)
            restore(student, lr, config.scale, config.multiple_lr_px)
            weights = blocks[name].attention(seen[0])[0]
    finally:
        handle.remove()
    height, width = weights.shape[1:]
    window = blocks[name].window
    positions = height * width if window is None else window**2
    shares = [
        side / (math.ceil(side / config.multiple_lr_px) * config.multiple_lr_px)
        for side in rgb_lr.shape[:2]
    ]
    rows, columns = math.ceil(height * shares[0]), math.ceil(width * shares[1])
    return _to_map(weights[:, :rows, :columns] * positions)


def choose_queries(maps: Sequence[Map], count: int) -> list[int]:
    """The queries worth showing: the most selective, then those most unlike the ones before.

    maps: (queries, h, w) an image. Selective is far from looking everywhere alike; unlike is a
    small correlation over all places of all images.
    """
    logs = np.concatenate([np.log(m.reshape(len(m), -1) + 1e-9) for m in maps], axis=1)
    spread = logs.std(axis=1)
    unit = (logs - logs.mean(axis=1, keepdims=True)) / np.maximum(spread, 1e-9)[:, None]
    likeness = unit @ unit.T / logs.shape[1]
    chosen = [int(spread.argmax())]
    while len(chosen) < min(count, len(logs)):
        nearest = likeness[:, chosen].max(axis=1)
        nearest[chosen] = np.inf
        chosen.append(int(nearest.argmin()))
    return chosen


@dataclass(frozen=True, slots=True)
class _Prepared:
    # An image and its truth, padded to what the teacher can halve, and how to cut its maps again.
    enlarged: Tensor
    hr: Tensor | None
    size_hr_px: tuple[int, int]

    @classmethod
    def of(cls, teacher: Teacher, rgb_lr: Rgb8, rgb_hr: Rgb8 | None, scale: int) -> _Prepared:
        unit_hr_px = teacher.unet.spec.unit_hr_px
        enlarged = enlarge_bicubic(_to_tensor(rgb_lr, teacher), scale)
        height, width = enlarged.shape[2:]
        hr = None if rgb_hr is None else pad_to_multiple(_to_tensor(rgb_hr, teacher), unit_hr_px)
        return cls(pad_to_multiple(enlarged, unit_hr_px), hr, (height, width))

    def cut(self, values: Tensor) -> Map:
        """(1, 1, h, w) over the padded image -> (h', w') over the image."""
        rows, columns = (
            math.ceil(values.shape[2 + i] * self.size_hr_px[i] / self.enlarged.shape[2 + i])
            for i in (0, 1)
        )
        return _to_map(values[0, 0, :rows, :columns])


def _ways(teacher: Teacher, z_lr: Tensor, hr: Tensor | None, own: Guidance) -> dict[str, Guidance]:
    mode = teacher.predictor.spec.mode
    fixed = torch.full_like(own.alpha_bar[:, :, :1, :1], teacher.predictor.start)
    ways = {"fixed": Guidance(fixed, invert_timestep(fixed, teacher.schedule))}
    if mode == "fixed":
        return ways
    if mode == "gt_only":
        return {**ways, "truth only": own}
    mean, log_var = teacher.estimator(z_lr)
    z_gt = mean if hr is None else teacher.codec.encode(hr).float()
    blind = teacher.predictor(z_gt, torch.zeros_like(log_var))
    ways["truth only"] = Guidance(blind, invert_timestep(blind, teacher.schedule))
    return {**ways, "adaptive": own}


def _to_tensor(rgb: Rgb8, network: nn.Module) -> Tensor:
    first = next(network.parameters())
    return to_signed(rgb, first.device).to(first.dtype)


def _to_map(values: Tensor) -> Map:
    result: Map = values.detach().float().cpu().numpy()
    return result


def _ranks(values: Map) -> Map:
    # Ranks from 0, equal values sharing their mean rank.
    _, where, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return np.asarray((last - (counts + 1) / 2)[where], dtype=np.float32)

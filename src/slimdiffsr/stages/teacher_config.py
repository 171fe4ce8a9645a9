"""Settings and presets of stage 1, the teacher."""

from __future__ import annotations

from typing import Literal

from pydantic import ConfigDict
from pydantic.dataclasses import dataclass

from slimdiffsr.models.spec import PredictorSpec
from slimdiffsr.settings.config import Count, LoopConfig, Rate, Recipe, StudentLoss, Weight
from slimdiffsr.settings.presets import MICRO

__all__ = ["TEACHERS", "TeacherConfig"]


@dataclass(frozen=True, slots=True, kw_only=True, config=ConfigDict(extra="forbid"))
class TeacherConfig(LoopConfig):
    """One training run of a teacher; the enlargement is the recipe's."""

    predictor: PredictorSpec = PredictorSpec()
    unet_rank: Count = 32
    decoder_rank: Count = 16
    train_conv_in: bool = True
    detach_embedding: bool = False  # the predictor learns through the closed form alone (MS 5)
    loss: StudentLoss = StudentLoss()
    tv: Weight = 1.0  # lambda_TV of Eq. 22, for a mean: the paper gives none (MS 7)
    adversary: Literal["unet", "dino"] = "unet"
    discriminator_width: Count = 64  # unet only
    lr_adversary: Rate | None = None  # None: as lr

    def __post_init__(self) -> None:
        LoopConfig.__post_init__(self)  # super() fails in classes with slots
        if self.ema or self.compile:
            raise ValueError("a teacher keeps no average and is not compiled: ema=0, compile=false")


def paper_teacher(scale: Literal[4, 8]) -> TeacherConfig:
    """Stage 1 as published, where MS 11 knows it; needs images of 512 pixels and more."""
    return TeacherConfig(
        recipe=Recipe(scale=scale),
        loss=StudentLoss(lpips_net="vgg", gan_kind="bce_s"),
        adversary="dino",
        steps=25_000,
        batch=2,
        lr=2e-4,
        warmup=500,
        weight_decay=1e-2,
        precision="bf16",
        checkpointing=True,
    )


def compact_teacher(scale: Literal[4, 8]) -> TeacherConfig:
    """On a compact prior, for images of 256 pixels and a budget of minutes."""
    return TeacherConfig(
        recipe=Recipe(scale=scale),
        # As for the compact students: less than the paper gives to VGG and DINO.
        loss=StudentLoss(lpips=1.0, gan=0.05, gan_from=500, lpips_jitter=True),
        discriminator_width=32,
        steps=2_800,
        batch=16,
        crop_hr_px=256,
        lr=4e-4,
        lr_final=1e-5,
        warmup=100,
        decay_from=1_400,
        weight_decay=1e-2,
        precision="bf16",
        graphs=True,
        flip_all=True,
    )


def micro_teacher() -> TeacherConfig:
    """For tests of the whole pipeline; learns nothing worth having."""
    return TeacherConfig(
        predictor=PredictorSpec(width=8, blocks=1),
        unet_rank=2,
        decoder_rank=2,
        loss=StudentLoss(lpips=0.5, gan=0.05, gan_from=20),
        discriminator_width=8,
        weight_decay=1e-2,
        **MICRO,
    )


TEACHERS: dict[str, TeacherConfig] = {
    "compact-x4": compact_teacher(4),
    "compact-x8": compact_teacher(8),
    "micro": micro_teacher(),
    "paper-x4": paper_teacher(4),
    "paper-x8": paper_teacher(8),
}

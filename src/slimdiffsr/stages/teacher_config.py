"""The settings of stage 1."""

from __future__ import annotations

from typing import Literal

from pydantic import ConfigDict
from pydantic.dataclasses import dataclass

from slimdiffsr.config import Count, LoopConfig, Rate, StudentLoss, Weight
from slimdiffsr.models.spec import PredictorSpec

__all__ = ["TeacherConfig"]


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

"""Teachers and their parts, small enough for tests."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from students import write_images, write_lpips
from torch import nn

from slimdiffsr.files.stages import EstimatorSpec, build_estimator, save_network
from slimdiffsr.files.teachers import (
    Adaptation,
    TeacherBase,
    build_teacher,
    hash_base,
    merge_teacher,
    save_adapted,
)
from slimdiffsr.method.teacher import Teacher
from slimdiffsr.models.sd_vae import Taesd
from slimdiffsr.models.spec import PredictorSpec, UNetSpec
from slimdiffsr.models.unet import UNet
from slimdiffsr.settings.config import StudentLoss
from slimdiffsr.stages import RunPaths
from slimdiffsr.stages.run import fresh
from slimdiffsr.stages.teacher_config import TEACHERS, TeacherConfig

PRIOR = UNetSpec(
    widths=(16, 32, 32, 32), layers=1, mid_width=32, attention="self", head_width=16,
    time_width=32, groups=8, ff_mult=1,
)  # fmt: skip
ESTIMATOR = EstimatorSpec(width=16)


def write_taesd(folder: Path) -> Path:
    """TAESD with random weights, as upstream publishes it."""
    folder.mkdir()
    codec = fresh(Taesd, 1)
    nn.init.zeros_(codec.encoder[-1].bias)  # type: ignore[arg-type]
    save_file(codec.encoder.state_dict(), folder / "taesd_encoder.safetensors")
    # Upstream's decoder opens with a clamp, which has no weights but takes index 0.
    shifted = {
        f"{int(name.partition('.')[0]) + 1}.{name.partition('.')[2]}": value
        for name, value in codec.decoder.state_dict().items()
    }
    save_file(shifted, folder / "taesd_decoder.safetensors")
    return folder


def write_base(folder: Path, seed: int = 0, **spec: Any) -> TeacherBase:
    """A prior, an estimator and TAESD with random weights, as files."""
    folder.mkdir(exist_ok=True)
    prior = dataclasses.replace(PRIOR, **spec)
    unet = fresh(lambda: UNet(prior), seed)
    save_network(folder / "unet.safetensors", unet, prior, "unet", {"prediction": "epsilon"})
    estimator = fresh(lambda: build_estimator(ESTIMATOR), seed)
    save_network(folder / "estimator.safetensors", estimator, ESTIMATOR, "estimator")
    return TeacherBase(
        estimator=folder / "estimator.safetensors",
        unet=folder / "unet.safetensors",
        codec_folder=write_taesd(folder / "taesd"),
    )


def micro_teacher(mode: Any = "map", param: Any = "direct", **changes: Any) -> TeacherConfig:
    """Four steps of the micro preset with all losses, logged and saved often."""
    config = dataclasses.replace(
        TEACHERS["micro"],
        predictor=PredictorSpec(mode=mode, param=param, width=8, blocks=1),
        loss=StudentLoss(lpips=0.5, gan=0.1, gan_from=1),
        steps=4,
        batch=2,
        log_every=1,
        save_every=2,
        validate_every=4,
    )
    return dataclasses.replace(config, **changes)


def run_paths(folder: Path) -> RunPaths:
    """Images, LPIPS with random weights, and a place for the run."""
    write_images(folder / "data", [(80, 96), (96, 64)])
    lpips = write_lpips(folder / "lpips.safetensors")
    return RunPaths(data=(folder / "data",), out=folder / "run", lpips=lpips)


def pair(count: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    """An enlarged image and another as its ground truth."""
    rng = torch.Generator().manual_seed(3)
    both = torch.rand(2, count, 3, 64, 64, generator=rng) * 2 - 1
    return both[0], both[1]


def unsettled(teacher: Teacher) -> Teacher:
    """The same teacher with a predictor that is no longer the constant that it starts with."""
    rng = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in teacher.predictor.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=rng))
    return teacher


def write_merged(folder: Path, base: TeacherBase) -> Path:
    """A merged teacher as stage 1 might leave it."""
    adaptation = Adaptation(PredictorSpec(width=8, blocks=1), unet_rank=2, decoder_rank=2)
    teacher = unsettled(build_teacher(base, adaptation.predictor))
    hashes = hash_base(teacher)
    adaptation.apply(teacher)
    save_adapted(folder / "adapted.safetensors", teacher, adaptation, hashes, {})
    merge_teacher(folder / "adapted.safetensors", base, folder / "merged.safetensors")
    return folder / "merged.safetensors"

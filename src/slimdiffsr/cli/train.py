"""Commands that train, one a stage."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar, cast

import typer

from slimdiffsr.cli.options import (
    CodecFolderOption,
    CodecOption,
    DataOption,
    DinoOption,
    DryRunOption,
    EstimatorOption,
    FrozenCodecOption,
    LpipsOption,
    MinutesOption,
    OutOption,
    SdFolderOption,
    SetOption,
    StartOption,
    UNetOption,
    ValidationOption,
    teacher_base,
)
from slimdiffsr.cli.show import tell_training, training_progress

if TYPE_CHECKING:
    from slimdiffsr.settings.config import LoopConfig

__all__ = ["train_prior", "train_student", "train_teacher", "train_uncertainty"]

C = TypeVar("C", bound="LoopConfig")


def train_student(
    config: Annotated[
        str,
        typer.Option(
            help="tiny-x4, tiny-x8, and with -faithful behind (L1 alone); "
            "compact-x4, compact-x8, paper-x4, paper-x8, micro; or a .toml file."
        ),
    ],
    data: DataOption,
    out: OutOption,
    lpips: LpipsOption = None,
    validation: ValidationOption = None,
    start: StartOption = None,
    teacher: Annotated[
        Path | None, typer.Option(help="A teacher of merge-teacher, to imitate.")
    ] = None,
    codec_folder: CodecFolderOption = None,
    unet: UNetOption = None,
    sd_folder: SdFolderOption = None,
    dino: DinoOption = "facebook/dino-vitb16",
    set_: SetOption = None,
    max_minutes: MinutesOption = None,
    dry_run: DryRunOption = False,
) -> None:
    """Stage 2: train a student on folders of sharp images, alone or with a teacher.

    The same command again goes on where the last one stopped.
    """
    from slimdiffsr.settings.presets import load_preset

    resolved = _resolve(load_preset(config), set_, dry_run)
    from slimdiffsr.stages import RunPaths, train_student

    paths = RunPaths(
        tuple(data), out, lpips, validation, start, teacher, codec_folder, dino, unet, sd_folder
    )
    with training_progress(resolved.steps) as show:
        result = train_student(resolved, paths, max_minutes=max_minutes, on_progress=show)
    tell_training(result, resolved.steps, out / "model.safetensors")


def train_teacher(
    config: Annotated[
        str,
        typer.Option(help="paper-x4, paper-x8, compact-x4, compact-x8, micro; or a .toml file."),
    ],
    data: DataOption,
    out: OutOption,
    estimator: EstimatorOption,
    unet: UNetOption = None,
    sd_folder: SdFolderOption = None,
    codec: CodecOption = None,
    codec_folder: CodecFolderOption = None,
    lpips: LpipsOption = None,
    validation: ValidationOption = None,
    dino: DinoOption = "facebook/dino-vitb16",
    set_: SetOption = None,
    max_minutes: MinutesOption = None,
    dry_run: DryRunOption = False,
) -> None:
    """Stage 1: adapt a diffusion model to restore in one step; then run merge-teacher."""
    from slimdiffsr.settings.presets import choose_preset
    from slimdiffsr.stages.teacher_config import TEACHERS

    resolved = _resolve(choose_preset(config, TEACHERS, "compact-x4"), set_, dry_run)
    from slimdiffsr.stages import RunPaths, train_teacher

    base = teacher_base(estimator, unet, sd_folder, codec, codec_folder)
    paths = RunPaths(tuple(data), out, lpips, validation, dino=dino)
    with training_progress(resolved.steps) as show:
        result = train_teacher(resolved, paths, base, max_minutes=max_minutes, on_progress=show)
    tell_training(result, resolved.steps, out / "teacher.safetensors")


def train_uncertainty(
    config: Annotated[
        str,
        typer.Option(help="paper-x4, paper-x8, compact-x4, compact-x8, micro; or a .toml file."),
    ],
    data: DataOption,
    out: OutOption,
    codec: FrozenCodecOption = "taesd",
    codec_folder: CodecFolderOption = None,
    validation: ValidationOption = None,
    start: StartOption = None,
    set_: SetOption = None,
    max_minutes: MinutesOption = None,
    dry_run: DryRunOption = False,
) -> None:
    """Stage 0: train the uncertainty estimator.

    The same command again goes on where the last one stopped.
    """
    from slimdiffsr.settings.presets import choose_preset
    from slimdiffsr.stages.pretraining import UNCERTAINTIES

    resolved = _resolve(choose_preset(config, UNCERTAINTIES, "compact-x4"), set_, dry_run)
    from slimdiffsr.files.stages import ESTIMATOR_FILE, load_codec
    from slimdiffsr.stages import RunPaths, train_uncertainty

    frozen = load_codec(cast(Any, codec), codec_folder)
    paths = RunPaths(tuple(data), out, validation=validation, start=start)
    with training_progress(resolved.steps) as show:
        result = train_uncertainty(
            resolved, paths, frozen, max_minutes=max_minutes, on_progress=show
        )
    tell_training(result, resolved.steps, out / ESTIMATOR_FILE)


def train_prior(
    config: Annotated[str, typer.Option(help="compact-x4, compact-x8, micro; or a .toml file.")],
    data: DataOption,
    out: OutOption,
    codec: FrozenCodecOption = "taesd",
    codec_folder: CodecFolderOption = None,
    validation: ValidationOption = None,
    start: StartOption = None,
    set_: SetOption = None,
    max_minutes: MinutesOption = None,
    dry_run: DryRunOption = False,
) -> None:
    """Train a small diffusion UNet, for where Stable Diffusion cannot be had.

    The same command again goes on where the last one stopped.
    """
    from slimdiffsr.settings.presets import choose_preset
    from slimdiffsr.stages.pretraining import PRIORS

    resolved = _resolve(choose_preset(config, PRIORS, "compact-x4"), set_, dry_run)
    from slimdiffsr.files.stages import UNET_FILE, load_codec
    from slimdiffsr.stages import RunPaths, train_prior

    frozen = load_codec(cast(Any, codec), codec_folder)
    paths = RunPaths(tuple(data), out, validation=validation, start=start)
    with training_progress(resolved.steps) as show:
        result = train_prior(resolved, paths, frozen, max_minutes=max_minutes, on_progress=show)
    tell_training(result, resolved.steps, out / UNET_FILE)


def _resolve(preset: C, set_: list[str] | None, dry_run: bool) -> C:
    """The preset with what was set; a dry run prints it and ends here."""
    from slimdiffsr.settings.config import override, to_dict

    resolved = override(preset, assignments=tuple(set_ or ()))
    if dry_run:
        print(json.dumps(to_dict(resolved), indent=1))
        raise typer.Exit
    return resolved

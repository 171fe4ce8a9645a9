"""Commands that train, one a stage."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar, cast

import typer

from slimdiffsr.cli.options import (
    CodecFolderOption,
    CodecOption,
    DataOption,
    DinoOption,
    DryRunOption,
    EstimatorOption,
    LpipsOption,
    MinutesOption,
    OptionalDataOption,
    OutOption,
    RecipeOption,
    SdFolderOption,
    SetOption,
    StartOption,
    TrainingRangeOption,
    UNetOption,
    ValidationOption,
    teacher_base,
    value_pair,
)
from slimdiffsr.cli.show import TrainingConsole, note, tell_training
from slimdiffsr.errors import ConfigError

if TYPE_CHECKING:
    from slimdiffsr.settings.config import LoopConfig
    from slimdiffsr.training.loop import TrainResult

__all__ = ["train_prior", "train_student", "train_teacher", "train_uncertainty"]

C = TypeVar("C", bound="LoopConfig")
# From the settings, the folder of the run, and who listens; it imports what it needs.
Stage = Callable[..., "TrainResult"]


def train_student(
    config: Annotated[
        str,
        typer.Option(
            help="tiny-x4, tiny-x8, and with -faithful behind (L1 alone); "
            "compact-x4, compact-x8, paper-x4, paper-x8, micro; or a .toml file."
        ),
    ],
    out: OutOption,
    data: OptionalDataOption = None,
    pairs: Annotated[
        tuple[Path, Path] | None,
        typer.Option(
            metavar="LR HR",
            help="Instead of --data: folders of real inputs and of sharp images of the same places, "
            "found by their georeferences, or by their names.",
        ),
    ] = None,
    lpips: LpipsOption = None,
    validation: ValidationOption = None,
    start: Annotated[
        str | None, typer.Option(help="Weights to start from: a model by name, or a file.")
    ] = None,
    teacher: Annotated[
        Path | None, typer.Option(help="A teacher of merge-teacher, to imitate.")
    ] = None,
    codec_folder: CodecFolderOption = None,
    unet: UNetOption = None,
    sd_folder: SdFolderOption = None,
    dino: DinoOption = "facebook/dino-vitb16",
    recipe: RecipeOption = None,
    value_range: TrainingRangeOption = "auto",
    set_: SetOption = None,
    max_minutes: MinutesOption = None,
    dry_run: DryRunOption = False,
) -> None:
    """Stage 2: train a student on folders of sharp images or of pairs, alone or with a teacher.

    The same command again goes on where the last one stopped.
    """
    from slimdiffsr.settings.presets import load_preset

    if bool(data) == (pairs is not None):
        raise ConfigError("give --data FOLDER, or --pairs LR_FOLDER HR_FOLDER")
    resolved = _resolve(load_preset(config), set_, recipe, value_range)

    def stage(settings: Any, folder: Path, **listening: Any) -> TrainResult:  # noqa: ANN401
        from slimdiffsr.files.students import resolve
        from slimdiffsr.stages import RunPaths, train_student

        paths = RunPaths(
            tuple(data or ()), folder, lpips, validation, resolve(start) if start else None,
            teacher, codec_folder, dino, unet, sd_folder, pairs,
        )  # fmt: skip
        return train_student(settings, paths, **listening)

    _run(stage, resolved, out, "model.safetensors", max_minutes, dry_run)


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
    recipe: RecipeOption = None,
    value_range: TrainingRangeOption = "auto",
    set_: SetOption = None,
    max_minutes: MinutesOption = None,
    dry_run: DryRunOption = False,
) -> None:
    """Stage 1: adapt a diffusion model to restore in one step; then run merge-teacher."""
    from slimdiffsr.settings.presets import choose_preset
    from slimdiffsr.stages.teacher_config import TEACHERS

    preset = choose_preset(config, TEACHERS, "compact-x4")
    resolved = _resolve(preset, set_, recipe, value_range)

    def stage(settings: Any, folder: Path, **listening: Any) -> TrainResult:  # noqa: ANN401
        from slimdiffsr.stages import RunPaths, train_teacher

        base = teacher_base(estimator, unet, sd_folder, codec, codec_folder)
        paths = RunPaths(tuple(data), folder, lpips, validation, dino=dino)
        return train_teacher(settings, paths, base, **listening)

    _run(stage, resolved, out, "teacher.safetensors", max_minutes, dry_run)


def train_uncertainty(
    config: Annotated[
        str,
        typer.Option(help="paper-x4, paper-x8, compact-x4, compact-x8, micro; or a .toml file."),
    ],
    data: DataOption,
    out: OutOption,
    codec: Annotated[
        str | None,
        typer.Option(help="taesd or kl; default: as its teacher's, kl for paper and --sd-folder."),
    ] = None,
    codec_folder: CodecFolderOption = None,
    sd_folder: SdFolderOption = None,
    validation: ValidationOption = None,
    start: StartOption = None,
    recipe: RecipeOption = None,
    value_range: TrainingRangeOption = "auto",
    set_: SetOption = None,
    max_minutes: MinutesOption = None,
    dry_run: DryRunOption = False,
) -> None:
    """Stage 0: train the uncertainty estimator.

    The same command again goes on where the last one stopped.
    """
    from slimdiffsr.settings.presets import choose_preset
    from slimdiffsr.stages.pretraining import UNCERTAINTIES

    preset = choose_preset(config, UNCERTAINTIES, "compact-x4")
    kind = codec or ("kl" if sd_folder is not None else preset.codec)
    resolved = _resolve(preset, set_, recipe, value_range, f"codec={kind}")
    folder = codec_folder or sd_folder
    stage = _on_latents("uncertainty", resolved.codec, folder, data, validation, start)
    _run(stage, resolved, out, "estimator.safetensors", max_minutes, dry_run)


def train_prior(
    config: Annotated[str, typer.Option(help="compact-x4, compact-x8, micro; or a .toml file.")],
    data: DataOption,
    out: OutOption,
    codec: Annotated[str, typer.Option(help="taesd or kl.")] = "taesd",
    codec_folder: CodecFolderOption = None,
    validation: ValidationOption = None,
    start: StartOption = None,
    value_range: TrainingRangeOption = "auto",
    set_: SetOption = None,
    max_minutes: MinutesOption = None,
    dry_run: DryRunOption = False,
) -> None:
    """Train a small diffusion UNet, for where Stable Diffusion cannot be had.

    The same command again goes on where the last one stopped.
    """
    from slimdiffsr.settings.presets import choose_preset
    from slimdiffsr.stages.pretraining import PRIORS

    resolved = _resolve(choose_preset(config, PRIORS, "compact-x4"), set_, None, value_range)
    stage = _on_latents("prior", codec, codec_folder, data, validation, start)
    _run(stage, resolved, out, "unet.safetensors", max_minutes, dry_run)


def _on_latents(
    stage: Literal["uncertainty", "prior"],
    codec: str,
    codec_folder: Path | None,
    data: list[Path],
    validation: Path | None,
    start: Path | None,
) -> Stage:
    """A stage whose one network learns on a frozen codec's latents."""

    def run(settings: Any, folder: Path, **listening: Any) -> TrainResult:  # noqa: ANN401
        from slimdiffsr import stages
        from slimdiffsr.files.stages import load_codec

        paths = stages.RunPaths(tuple(data), folder, validation=validation, start=start)
        frozen = load_codec(cast(Any, codec), codec_folder)
        if stage == "prior":
            return stages.train_prior(settings, paths, frozen, **listening)
        return stages.train_uncertainty(settings, paths, frozen, **listening)

    return run


def _resolve(
    preset: C, set_: list[str] | None, recipe: Path | None, value_range: str, *more: str
) -> C:
    """The preset with what was set."""
    from slimdiffsr.settings.config import override, read_toml

    assignments = [*more, *(set_ or ())]
    pair = value_pair(value_range)
    if pair != "auto":
        assignments.insert(0, f"value_range={list(pair)}")
    values = {"recipe": read_toml(recipe)} if recipe is not None else {}
    return override(preset, values, tuple(assignments))


def _run(
    stage: Stage, config: C, out: Path, file: str, max_minutes: float | None, dry_run: bool
) -> None:
    """Run a stage, or only try it; ``file`` is what it writes."""
    with TrainingConsole(config.steps) as console:
        if dry_run:
            from slimdiffsr.settings.config import to_dict
            from slimdiffsr.stages.trial import seconds_a_step

            print(json.dumps(to_dict(config), indent=1), flush=True)
            seconds = seconds_a_step(stage, config, console.notice)
            whole = _duration(seconds * config.steps)
            pool = " and the pool of pairs before them" if config.pool else ""
            note(f"{seconds:.2g} s a step: about {whole} for {config.steps} steps{pool}")
            return
        result = stage(
            config, out, max_minutes=max_minutes, on_progress=console.progress, tell=console.notice
        )
    tell_training(result, config.steps, out / file)


def _duration(seconds: float) -> str:
    """Two figures of it, as a person says it."""
    for unit, length in (("days", 86_400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.2g} {unit}"
    return f"{seconds:.2g} seconds"

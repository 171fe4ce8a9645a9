"""The command line: parse, call one function, report. Nothing heavy is imported before it runs."""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar, cast

import click
import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from typer.core import TyperGroup

from slimdiffsr.errors import (
    ConfigError,
    InterruptedRunError,
    OutputError,
    RasterError,
    SlimDiffSRError,
)

if TYPE_CHECKING:
    from slimdiffsr import geo
    from slimdiffsr.config import LoopConfig
    from slimdiffsr.stages.teacher_files import TeacherBase
    from slimdiffsr.training import Progress as TrainingProgress
    from slimdiffsr.training import TrainResult

__all__ = ["app", "main", "rio_command"]

C = TypeVar("C", bound="LoopConfig")
RASTERS = (".tif", ".tiff", ".vrt", ".jp2", ".png", ".img", ".jpg", ".jpeg")
NEVER_WRITTEN = (".vrt", ".jp2", ".img", ".jpg", ".jpeg", ".webp", ".gif")

# What the library's messages call an option, and what it is called here.
OPTION_NAMES = {
    "chunk_hr_px": "--chunk",
    "overlap_hr_px": "--overlap",
    "value_range": "--range",
    "allow overwriting": "give --overwrite",
}
EXTRAS = {"accelerate": "train", "PIL": "train", "tensorboard": "train"}


class _Friendly(TyperGroup):
    """Errors of ours become one sentence and an exit status, here and under ``rio``."""

    def invoke(self, ctx: Any) -> Any:  # noqa: ANN401  typer's own Context
        """Run a command."""
        # Read by OpenMP when torch loads it. Threads that spin while they wait make a network many
        # times slower as soon as anything else, such as our own writer, wants their cores.
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
        try:
            return super().invoke(ctx)
        except SlimDiffSRError as error:
            _note(f"error: {_sentence(error)}")
            raise typer.Exit(error.exit_status) from None
        except ModuleNotFoundError as error:
            package = (error.name or "").split(".")[0]
            if package not in EXTRAS:
                raise
            hint = f"pip install 'slimdiffsr[{EXTRAS[package]}]'"
            _note(f"error: this needs the package {package}: {hint}")
            raise typer.Exit(ConfigError.exit_status) from None
        except KeyboardInterrupt:
            _note("stopped; the same command goes on from here")
            raise typer.Exit(InterruptedRunError.exit_status) from None


app = typer.Typer(
    name="slimdiffsr",
    cls=_Friendly,
    help="Super-resolve satellite and aerial imagery: whole georeferenced scenes, one command.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
train_app = typer.Typer(help="Train models.", no_args_is_help=True)
app.add_typer(train_app, name="train")


def _show_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        print(f"slimdiffsr {version('slimdiffsr')}")
        raise typer.Exit


@app.callback()
def _top(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_show_version)
    ] = False,
) -> None:
    pass


ModelOption = Annotated[
    str,
    typer.Option(
        "--model", "-m",
        help="tiny-x4, tiny-x4-faithful, tiny-x8, bicubic, lanczos, a .safetensors file, or a "
        "Hugging Face repository org/name.",
    ),
]  # fmt: skip
ScaleOption = Annotated[int | None, typer.Option("--scale", "-s", help="Enlargement: 4 or 8.")]
DeviceOption = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps.")]
PrecisionOption = Annotated[str, typer.Option(help="auto, float32, bfloat16, float16.")]
BandsOption = Annotated[str | None, typer.Option(help="Bands seen as red,green,blue: 3,2,1.")]
RangeOption = Annotated[
    str, typer.Option("--range", help="Values seen as black,white: auto, or lo,hi.")
]
BoundsOption = Annotated[
    str | None, typer.Option(help="Only this part: 'left bottom right top' in the raster's CRS.")
]
WindowOption = Annotated[
    str | None, typer.Option(help="Only this part: 'col_off row_off width height' in pixels.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print a JSON summary to stdout.")]


EstimatorOption = Annotated[Path, typer.Option(help="estimator.safetensors of train uncertainty.")]
UNetOption = Annotated[
    Path | None, typer.Option(help="unet.safetensors of train prior; else Stable Diffusion's.")
]
SdFolderOption = Annotated[
    Path | None, typer.Option(help="A copy of Stable Diffusion 2; default: from the hub.")
]
CodecOption = Annotated[
    str | None, typer.Option(help="taesd or kl; default: taesd with --unet, else kl.")
]
CodecFolderOption = Annotated[
    Path | None, typer.Option(help="Folder with the autoencoder's weights; default: from the hub.")
]
FrozenCodecOption = Annotated[str, typer.Option("--codec", help="taesd or kl.")]
DataOption = Annotated[list[Path], typer.Option(help="Folder of sharp images; repeat for more.")]
OutOption = Annotated[Path, typer.Option(help="Folder of the run; the same again resumes.")]
ValidationOption = Annotated[Path | None, typer.Option(help="Folder of sharp images.")]
StartOption = Annotated[Path | None, typer.Option(help="Weights to start from.")]
SetOption = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a setting.")
]
MinutesOption = Annotated[float | None, typer.Option(help="Stop, saved, after this.")]
DryRunOption = Annotated[bool, typer.Option(help="Print the resolved config and stop.")]
DinoOption = Annotated[str, typer.Option(help="DINO ViT-B/16 for adversary=dino: name or folder.")]


@dataclasses.dataclass(frozen=True)
class _Job:
    source: str
    target: Path


@app.command()
def upscale(
    paths: Annotated[
        list[str],
        typer.Argument(metavar="IN... OUT", help="Rasters or folders, and the output or folder."),
    ],
    model: ModelOption = "tiny-x4",
    scale: ScaleOption = None,
    device: DeviceOption = "auto",
    precision: PrecisionOption = "auto",
    bands: BandsOption = None,
    all_bands: Annotated[bool, typer.Option(help="Also carry the other bands over.")] = False,
    value_range: RangeOption = "auto",
    bounds: BoundsOption = None,
    window: WindowOption = None,
    format: Annotated[
        str | None, typer.Option(help="cog, gtiff or png; default: png if OUT says so, else cog.")
    ] = None,
    colour: Annotated[str, typer.Option(help="low-frequency, official or none.")] = "low-frequency",
    overlap: Annotated[int | None, typer.Option(help="Tile overlap, output pixels.")] = None,
    chunk: Annotated[int, typer.Option(help="Unit of work and resume, output pixels.")] = 4096,
    co: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="GDAL creation option.")
    ] = None,
    overwrite: Annotated[bool, typer.Option(help="Replace existing outputs.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress, no notes.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Enlarge rasters: same place, type, bands and empty areas; pixels 4 or 8 times smaller.

    Interrupted or killed, the same command goes on where it stopped.
    """
    from slimdiffsr.geo import SceneOptions
    from slimdiffsr.upscale import Upscaler

    options = SceneOptions(
        bands=_integers("--bands", bands),
        value_range=_range(value_range),
        all_bands=all_bands,
        bounds=_four("--bounds", bounds, float),
        window=_four("--window", window, int),
        format=cast(Any, _format(format, paths[-1])),  # SceneOptions checks it
        chunk_hr_px=chunk,
        overlap_hr_px=overlap,
        creation_options=_creation_options(co or []),
        overwrite=overwrite,
    )
    upscaler = Upscaler.from_pretrained(model, scale=scale, device=device, precision=precision)
    jobs = _jobs(paths, upscaler.scale, options.format)

    def run(job: _Job) -> dict[str, Any]:
        if len(jobs) > 1 and job.target.exists() and not overwrite:
            # Not a failure: an interrupted command with many inputs, given again, goes on.
            _note(f"kept: {job.target} exists already; give --overwrite to replace it")
            return {"src": job.source, "dst": str(job.target), "kept": True}
        with _scene_progress(job.source, quiet) as show:
            report = upscaler.upscale_scene(
                job.source, job.target, options, colour=colour, on_progress=show  # type: ignore[arg-type]
            )  # fmt: skip
        if not quiet:
            _tell(report)
        return _plain(report)

    _run_all(jobs, run, as_json)


@app.command()
def info(
    path: Annotated[str, typer.Argument(help="A raster, or a model.")],
    model: ModelOption = "tiny-x4",
    scale: ScaleOption = None,
    bands: BandsOption = None,
    value_range: RangeOption = "auto",
    bounds: BoundsOption = None,
    window: WindowOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say what would be done with a raster, or what a model is."""
    from slimdiffsr.geo import SceneOptions
    from slimdiffsr.upscale import Upscaler, model_names

    if path in model_names() or path == "tiny" or _looks_like_model(path):
        return _report(_model_facts(path, scale), as_json)
    options = SceneOptions(
        bands=_integers("--bands", bands),
        value_range=_range(value_range),
        bounds=_four("--bounds", bounds, float),
        window=_four("--window", window, int),
    )
    upscaler = Upscaler.from_pretrained(model, scale=scale, device="cpu")
    return _report(_plain(upscaler.plan_scene(path, options)), as_json)


@app.command("import-weights")
def import_weights(
    source: Annotated[Path, typer.Argument(help="The authors' net_params_4x.pkl.")],
    target: Annotated[Path, typer.Argument(help="The .safetensors file to write.")],
    scale: Annotated[int, typer.Option("--scale", "-s", help="4 or 8.")],
    overwrite: Annotated[bool, typer.Option(help="Replace an existing file.")] = False,
) -> None:
    """Turn the paper's released weights into a model file of ours."""
    from slimdiffsr.checkpoint import import_official

    _refuse_existing(target, overwrite)
    digest = import_official(source, target, scale)
    print(f"{target}  sha256 {digest}")


@app.command()
def interpolate(
    start: Annotated[Path, typer.Argument(help="The faithful model.")],
    end: Annotated[Path, typer.Argument(help="The perceptual model trained from it.")],
    target: Annotated[Path, typer.Argument(help="The .safetensors file to write.")],
    amount: Annotated[float, typer.Option(help="0 is start, 1 is end.")],
    name: Annotated[str | None, typer.Option(help="Model id; default: the file's name.")] = None,
    overwrite: Annotated[bool, typer.Option(help="Replace an existing file.")] = False,
) -> None:
    """Blend two trained models: fewer invented details, or sharper pictures."""
    from slimdiffsr.checkpoint import interpolate_models

    _refuse_existing(target, overwrite)
    digest = interpolate_models(
        start, end, amount, target, name=name or target.stem, about={"licence": "Apache-2.0"}
    )
    print(f"{target}  sha256 {digest}")


@app.command()
def evaluate(
    lr: Annotated[Path, typer.Argument(help="Folder of low-resolution images.")],
    hr: Annotated[Path, typer.Argument(help="Folder of true images of the same names.")],
    model: Annotated[list[str], typer.Option("--model", "-m", help="Repeat to compare.")],
    out: Annotated[Path, typer.Option(help="Folder for tables and pictures.")],
    lpips: Annotated[
        Path | None, typer.Option(help="LPIPS-SqueezeNet weights, .safetensors.")
    ] = None,
    device: DeviceOption = "auto",
) -> None:
    """Measure models on pairs of images: PSNR-Y, SSIM-Y, LPIPS, grid energy, consistency."""
    from slimdiffsr.evaluate import evaluate_folder, report_markdown
    from slimdiffsr.upscale import Upscaler

    distance = None
    if lpips is not None:
        from slimdiffsr.stages import load_lpips

        distance = load_lpips(lpips)
    names = _row_names(model)
    scale = Upscaler.from_pretrained(model[0], device=device).scale
    restorers = {
        name: Upscaler.from_pretrained(source, scale=scale, device=device).upscale
        for name, source in names.items()
    }
    report = evaluate_folder(restorers, lr, hr, scale=scale, lpips=distance, out_dir=out)
    print(report_markdown(report))


@train_app.command("student")
def train_student(
    config: Annotated[
        str,
        typer.Option(
            help="A preset: tiny-x4, tiny-x8, paper-x4, paper-x8, compact-x4, compact-x8; or .toml."
        ),
    ],
    data: Annotated[list[Path], typer.Option(help="Folder of sharp images; repeat for more.")],
    out: Annotated[Path, typer.Option(help="Folder of the run; the same again resumes.")],
    lpips: Annotated[
        Path | None, typer.Option(help="LPIPS-SqueezeNet weights, .safetensors.")
    ] = None,
    validation: Annotated[Path | None, typer.Option(help="Folder of sharp images.")] = None,
    start: Annotated[Path | None, typer.Option(help="Weights to start from.")] = None,
    teacher: Annotated[
        Path | None, typer.Option(help="A teacher of merge-teacher, to imitate.")
    ] = None,
    codec_folder: CodecFolderOption = None,
    dino: DinoOption = "facebook/dino-vitb16",
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a setting.")
    ] = None,
    max_minutes: Annotated[float | None, typer.Option(help="Stop, saved, after this.")] = None,
    dry_run: Annotated[bool, typer.Option(help="Print the resolved config and stop.")] = False,
) -> None:
    """Stage 2: train a student on folders of sharp images, alone or with a teacher.

    The same command again goes on where the last one stopped.
    """
    from slimdiffsr.config import override, to_dict
    from slimdiffsr.presets import load_preset

    resolved = override(load_preset(config), assignments=tuple(set_ or ()))
    if dry_run:
        print(json.dumps(to_dict(resolved), indent=1))
        return
    from slimdiffsr.stages import RunPaths, train_student

    _make_folder(out)
    paths = RunPaths(tuple(data), out, lpips, validation, start, teacher, codec_folder, dino)
    with _training_progress(resolved.steps) as show:
        result = train_student(resolved, paths, max_minutes=max_minutes, on_progress=show)
    _tell_training(result, resolved.steps)
    print(out / "model.safetensors")


@train_app.command("teacher")
def train_teacher(
    config: Annotated[
        str, typer.Option(help="paper-x4, paper-x8, compact-x4, compact-x8, micro; or .toml.")
    ],
    data: Annotated[list[Path], typer.Option(help="Folder of sharp images; repeat for more.")],
    out: Annotated[Path, typer.Option(help="Folder of the run; the same again resumes.")],
    estimator: EstimatorOption,
    unet: UNetOption = None,
    sd_folder: SdFolderOption = None,
    codec: CodecOption = None,
    codec_folder: CodecFolderOption = None,
    lpips: Annotated[
        Path | None, typer.Option(help="LPIPS-SqueezeNet weights, .safetensors.")
    ] = None,
    validation: Annotated[Path | None, typer.Option(help="Folder of sharp images.")] = None,
    dino: DinoOption = "facebook/dino-vitb16",
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a setting.")
    ] = None,
    max_minutes: Annotated[float | None, typer.Option(help="Stop, saved, after this.")] = None,
    dry_run: Annotated[bool, typer.Option(help="Print the resolved config and stop.")] = False,
) -> None:
    """Stage 1: adapt a diffusion model to restore in one step; then run merge-teacher."""
    from slimdiffsr.config import override, to_dict
    from slimdiffsr.presets import choose_preset
    from slimdiffsr.stages.teacher_config import TEACHERS

    preset = choose_preset(config, TEACHERS, "compact-x4")
    resolved = override(preset, assignments=tuple(set_ or ()))
    if dry_run:
        print(json.dumps(to_dict(resolved), indent=1))
        return
    from slimdiffsr.stages import RunPaths
    from slimdiffsr.stages.teacher import train_teacher

    _make_folder(out)
    base = _teacher_base(estimator, unet, sd_folder, codec, codec_folder)
    paths = RunPaths(tuple(data), out, lpips, validation, dino=dino)
    with _training_progress(resolved.steps) as show:
        result = train_teacher(resolved, paths, base, max_minutes=max_minutes, on_progress=show)
    _tell_training(result, resolved.steps)
    print(out / "teacher.safetensors")


@train_app.command("uncertainty")
def train_uncertainty(
    config: Annotated[
        str, typer.Option(help="paper-x4, paper-x8, compact-x4, compact-x8, micro; or .toml.")
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
    from slimdiffsr.stages.pretraining import UNCERTAINTIES

    resolved = _resolve(UNCERTAINTIES, config, set_, dry_run)
    from slimdiffsr.networks import ESTIMATOR_FILE, load_codec
    from slimdiffsr.stages import RunPaths, train_uncertainty

    frozen = load_codec(cast(Any, codec), codec_folder)
    paths = RunPaths(tuple(data), out, validation=validation, start=start)
    with _training_progress(resolved.steps) as show:
        result = train_uncertainty(
            resolved, paths, frozen, max_minutes=max_minutes, on_progress=show
        )
    _tell_training(result, resolved.steps)
    print(out / ESTIMATOR_FILE)


@train_app.command("prior")
def train_prior(
    config: Annotated[str, typer.Option(help="compact-x4, compact-x8, micro; or .toml.")],
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
    from slimdiffsr.stages.pretraining import PRIORS

    resolved = _resolve(PRIORS, config, set_, dry_run)
    from slimdiffsr.networks import UNET_FILE, load_codec
    from slimdiffsr.stages import RunPaths, train_prior

    frozen = load_codec(cast(Any, codec), codec_folder)
    paths = RunPaths(tuple(data), out, validation=validation, start=start)
    with _training_progress(resolved.steps) as show:
        result = train_prior(resolved, paths, frozen, max_minutes=max_minutes, on_progress=show)
    _tell_training(result, resolved.steps)
    print(out / UNET_FILE)


def _resolve(presets: Mapping[str, C], name: str, set_: list[str] | None, dry_run: bool) -> C:
    """The config asked for; a dry run prints it and ends here."""
    from slimdiffsr.config import override, to_dict
    from slimdiffsr.presets import choose_preset

    preset = choose_preset(name, presets, "compact-x4")
    resolved = override(preset, assignments=tuple(set_ or ()))
    if dry_run:
        print(json.dumps(to_dict(resolved), indent=1))
        raise typer.Exit
    return resolved


@app.command("merge-teacher")
def merge_teacher(
    adapted: Annotated[Path, typer.Argument(help="teacher.safetensors of train teacher.")],
    target: Annotated[Path, typer.Argument(help="The .safetensors file to write.")],
    estimator: EstimatorOption,
    unet: UNetOption = None,
    sd_folder: SdFolderOption = None,
    codec: CodecOption = None,
    codec_folder: CodecFolderOption = None,
    overwrite: Annotated[bool, typer.Option(help="Replace an existing file.")] = False,
) -> None:
    """Put a trained teacher and what it stands on into one file, for train student --teacher.

    Give the files that train teacher was given.
    """
    from slimdiffsr.stages.teacher_files import merge_teacher

    _refuse_existing(target, overwrite)
    base = _teacher_base(estimator, unet, sd_folder, codec, codec_folder)
    print(f"{target}  sha256 {merge_teacher(adapted, base, target)}")


def _teacher_base(
    estimator: Path,
    unet: Path | None,
    sd_folder: Path | None,
    codec: str | None,
    codec_folder: Path | None,
) -> TeacherBase:
    """A small prior works on TAESD's latents unless told otherwise, Stable Diffusion on its own."""
    from slimdiffsr.stages.teacher_files import TeacherBase

    found = codec or ("kl" if unet is None else "taesd")
    return TeacherBase(estimator, unet, sd_folder, cast(Any, found), codec_folder)


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder for the scene and the pictures.")] = Path(
        "demo"
    ),
    scene: Annotated[str | None, typer.Option(help="Your own raster instead.")] = None,
    model: ModelOption = "tiny-x4",
    scale: ScaleOption = None,
) -> None:
    """Enlarge a generated scene, or your own, and draw a before/after picture."""
    from slimdiffsr.demo import before_after_png, make_demo_scene
    from slimdiffsr.geo import SceneOptions
    from slimdiffsr.upscale import Upscaler

    _make_folder(out)
    upscaler = Upscaler.from_pretrained(model, scale=scale)
    source = scene or str(make_demo_scene(out / "scene.tif", scale=upscaler.scale))
    target = out / f"{Path(source).stem}_x{upscaler.scale}.tif"
    with _scene_progress(source, quiet=False) as show:
        report = upscaler.upscale_scene(
            source, target, SceneOptions(overwrite=True), on_progress=show
        )
    picture = before_after_png(
        source, target, out / "before_after.png", scale=upscaler.scale, bands=report.plan.rgb_bands
    )
    _tell(report)
    print(f"GeoTIFF       {target}\nbefore/after  {picture}")


# ---------------------------------------------------------------------------------------------
# Running and reporting


def main() -> None:
    """The console command."""
    app()


def _run_all(jobs: list[_Job], run: Callable[[_Job], dict[str, Any]], as_json: bool) -> None:
    """One job raises its error; of several, the bad ones are told and the rest go on."""
    results, failed = [], 0
    for job in jobs:
        try:
            results.append(run(job))
        except SlimDiffSRError as error:
            if len(jobs) == 1 or error.exit_status == 130:
                raise
            failed += 1
            _note(f"error: {_sentence(error)}")
            results.append({"src": job.source, "error": _sentence(error)})
    if as_json:
        print(json.dumps(results, indent=1, allow_nan=False))
    if failed:
        _note(f"{failed} of {len(jobs)} inputs failed")
        raise typer.Exit(1)


def _jobs(paths: list[str], scale: int, format: str) -> list[_Job]:
    if len(paths) < 2:
        raise OutputError("give at least one input and the output: slimdiffsr upscale IN... OUT")
    *sources, target = paths
    inputs = [raster for source in sources for raster in _rasters(source)]
    many = len(inputs) > 1 or any(Path(source).is_dir() for source in sources)
    if not many and not Path(target).is_dir() and not target.endswith(("/", "\\")):
        return [_Job(inputs[0], Path(target))]
    folder = Path(target)
    if folder.is_file():
        raise OutputError(f"several inputs need a folder as output, but {folder} is a file")
    suffix = ".png" if format == "png" else ".tif"
    jobs = [_Job(path, folder / f"{Path(path).stem}_x{scale}{suffix}") for path in inputs]
    taken: dict[Path, str] = {}
    for job in jobs:
        if job.target in taken:
            raise OutputError(
                f"{taken[job.target]} and {job.source} would both become {job.target}: "
                "give them different outputs"
            )
        taken[job.target] = job.source
    _make_folder(folder)
    return jobs


def _format(asked: str | None, target: str) -> str:
    """The format asked for, or that of the output's name; they must not contradict."""
    if target == "-":
        raise OutputError("the output must be a file: a GeoTIFF cannot be written to a pipe")
    suffix = Path(target).suffix.lower()
    suffix = "" if Path(target).is_dir() or target.endswith(("/", "\\")) else suffix
    if suffix in NEVER_WRITTEN:
        raise OutputError(f"the output is a GeoTIFF or a PNG: name {target} .tif or .png")
    found = asked or ("png" if suffix == ".png" else "cog")
    wrong = (".tif", ".tiff") if found == "png" else (".png",)
    if suffix in wrong:
        raise OutputError(f"--format {found} does not fit the name {target}: change one of them")
    return found


def _looks_like_model(path: str) -> bool:
    """Weights, or a name that is neither a file nor has a suffix, as 'org/name' on the hub."""
    place = Path(path)
    absent = not place.exists() and not place.suffix and ":" not in path and path[:1] != "/"
    return path.endswith(".safetensors") or place.is_dir() or absent


def _row_names(models: list[str]) -> dict[str, str]:
    """A name for each model that can be a folder's: a file's or a repository's last part."""
    names: dict[str, str] = {}
    for source in models:
        name = Path(source).name.removesuffix(".safetensors")
        if names.setdefault(name, source) != source:
            raise ConfigError(f"two models are called {name}: {names[name]} and {source}")
    return names


def _sentence(error: SlimDiffSRError) -> str:
    text = str(error)
    for name, option in OPTION_NAMES.items():
        text = text.replace(name, option)
    return text


def _rasters(source: str) -> list[str]:
    folder = Path(source)
    if not folder.is_dir():
        return [source]
    found = sorted(str(p) for p in folder.iterdir() if p.suffix.lower() in RASTERS)
    if not found:
        raise RasterError(f"no raster in the folder {source}: looked for {', '.join(RASTERS)}")
    return found


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot make the folder {folder}: {error.strerror}") from None


def _refuse_existing(target: Path, overwrite: bool) -> None:
    if target.exists() and not overwrite:
        raise OutputError(f"{target} exists: give another name or --overwrite")


def _model_facts(source: str, scale: int | None) -> dict[str, Any]:
    from slimdiffsr.models.student import count_parameters
    from slimdiffsr.upscale import Upscaler

    upscaler = Upscaler.from_pretrained(source, scale=scale, device="cpu")
    return {**_plain(upscaler.spec), "parameters": count_parameters(upscaler.model)}


def _report(facts: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print(json.dumps(facts, indent=1, allow_nan=False))
        return
    for name, value in facts.items():
        lines = value if isinstance(value, list) and value and isinstance(value[0], str) else None
        print(f"{name:22s} {value if lines is None else lines[0]}")
        for line in (lines or [])[1:]:
            print(f"{'':22s} {line}")


def _plain(record: Any) -> dict[str, Any]:  # noqa: ANN401  any dataclass
    """A dataclass as JSON would have it; what JSON cannot hold, as NaN, becomes text."""
    text = json.dumps(dataclasses.asdict(record), default=str)
    plain: dict[str, Any] = json.loads(text, parse_constant=str)
    return plain


def _tell(report: geo.SceneReport) -> None:
    for sentence in (*report.assumptions, *report.warnings):
        _note(f"note: {sentence}")
    resumed = f", {report.chunks_resumed} chunks kept" if report.chunks_resumed else ""
    _note(
        f"{report.dst}: {report.plan.output_width_hr_px} x {report.plan.output_height_hr_px} pixels "
        f"in {report.seconds:.1f} s ({report.mpx_per_s:.2f} Mpx/s{resumed})"
    )


def _tell_training(result: TrainResult, steps: int) -> None:
    note = "" if result.finished else "; the same command goes on from here"
    _note(f"step {result.step} of {steps} after {result.seconds:.0f} s{note}")
    if result.unreadable:
        _note(f"{result.unreadable} unreadable images were passed over")


def _note(text: str) -> None:
    print(text, file=sys.stderr)


# ---------------------------------------------------------------------------------------------
# Progress, on stderr and only on a terminal


@contextmanager
def _scene_progress(source: str, quiet: bool) -> Iterator[Callable[[geo.Progress], None] | None]:
    console = Console(stderr=True)
    if quiet or not console.is_terminal:
        yield None
        return
    columns = (
        TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(),
        TextColumn("{task.fields[speed]}"), TimeRemainingColumn(),
    )  # fmt: skip
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(Path(source).name, total=None, speed="")

        def show(progress: geo.Progress) -> None:
            fresh = progress.output_px_done - progress.output_px_resumed
            elapsed = bar.tasks[0].elapsed or 0.0
            speed = f"{fresh / elapsed / 1e6:.2f} Mpx/s" if elapsed > 0 else ""
            bar.update(
                task, completed=progress.output_px_done, total=progress.output_px, speed=speed,
                description=Path(source).name if progress.stage == "tiles" else progress.stage,
            )  # fmt: skip

        yield show


@contextmanager
def _training_progress(steps: int) -> Iterator[Callable[[TrainingProgress], None]]:
    console = Console(stderr=True)
    columns = (
        TextColumn("step {task.completed}/{task.total}"), BarColumn(),
        TextColumn("{task.fields[text]}"), TimeRemainingColumn(),
    )  # fmt: skip
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("train", total=steps, text="")

        def show(progress: TrainingProgress) -> None:
            losses = " ".join(f"{name} {value:.4f}" for name, value in progress.losses.items())
            memory = f"{progress.memory_gib:.1f} GiB " if progress.memory_gib else ""
            text = f"{progress.images_per_s:.1f} images/s {memory}{losses}"
            bar.update(task, completed=progress.step, text=text)
            if not console.is_terminal:
                _note(f"step {progress.step} {text}")

        yield show


# ---------------------------------------------------------------------------------------------
# Reading option values


def _numbers(option: str, text: str, kind: Callable[[str], Any]) -> tuple[Any, ...]:
    try:
        return tuple(kind(part) for part in text.replace(",", " ").split())
    except ValueError:
        raise ConfigError(f"{option} must be numbers, got {text!r}") from None


def _integers(option: str, text: str | None) -> tuple[int, ...] | None:
    return None if text is None else _numbers(option, text, int)


def _four(option: str, text: str | None, kind: Callable[[str], Any]) -> Any:  # noqa: ANN401
    if text is None:
        return None
    numbers = _numbers(option, text, kind)
    if len(numbers) != 4:
        raise ConfigError(f"{option} must be four numbers, got {text!r}")
    return numbers


def _range(text: str) -> Any:  # noqa: ANN401  "auto" or a pair
    if text == "auto":
        return "auto"
    numbers = _numbers("--range", text, float)
    if len(numbers) != 2:
        raise ConfigError(f"--range must be auto or lo,hi, got {text!r}")
    return numbers


def _creation_options(assignments: list[str]) -> dict[str, str]:
    options = {}
    for assignment in assignments:
        name, equals, value = assignment.partition("=")
        if not equals or not name:
            raise ConfigError(f"--co must be NAME=VALUE, got {assignment!r}")
        options[name] = value
    return options


@click.command(
    "slimdiffsr",
    add_help_option=False,
    context_settings={"ignore_unknown_options": True, "allow_extra_args": True},
)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def rio_command(arguments: tuple[str, ...]) -> None:
    """Super-resolve rasters with slimdiffsr."""
    app(list(arguments), prog_name="rio slimdiffsr")

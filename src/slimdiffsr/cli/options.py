"""Options that several commands share, and reading their values."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from slimdiffsr.errors import ConfigError, OutputError

if TYPE_CHECKING:
    from slimdiffsr.files.teachers import TeacherBase

ModelOption = Annotated[
    str,
    typer.Option(
        "--model", "-m",
        help="tiny-x4, tiny-x4-faithful, compact-x4, compact-x8, tiny-x8, bicubic, lanczos, "
        "a .safetensors file, an export (.onnx, .xml), or a Hugging Face repository org/name.",
    ),
]  # fmt: skip
ScaleOption = Annotated[int | None, typer.Option("--scale", "-s", help="Enlargement: 4 or 8.")]
AnyScaleOption = Annotated[
    float | None,
    typer.Option("--scale", "-s", help="Enlargement: 4, 8, or anything between 1 and 8."),
]
DeviceOption = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps.")]
RuntimeOption = Annotated[
    str, typer.Option(help="auto, torch, recorded or compiled (CUDA), openvino, onnx.")
]
DevicesOption = Annotated[
    str, typer.Option(help="auto, cpu, cuda, cuda:1, mps; cuda:0,cuda:1 or all for several cards.")
]
WorkersOption = Annotated[
    int | None,
    typer.Option(help="Processes that share the cores, or the cards evenly; default: one a card."),
]
EngineOption = Annotated[
    str, typer.Option(help="here, or ray: workers all over a cluster (extra ray).")
]
AddressOption = Annotated[
    str | None, typer.Option(help="Of the Ray cluster: auto, ray://host:10001; else a local one.")
]
CpusOption = Annotated[float, typer.Option("--cpus-per-worker", min=0.1, help="Ray only.")]
GpusOption = Annotated[float, typer.Option("--gpus-per-worker", min=0, help="Ray only.")]
BatchOption = Annotated[int | None, typer.Option(help="Tiles at once; default: what suits best.")]
PrecisionOption = Annotated[str, typer.Option(help="auto, fp32, bf16, fp16.")]
BandsOption = Annotated[str | None, typer.Option(help="Bands seen as red,green,blue: 3,2,1.")]
RangeOption = Annotated[
    str,
    typer.Option(
        "--range", help="Values seen as black,white: auto, shared (one for all inputs), or lo,hi."
    ),
]
AlphaOption = Annotated[
    str, typer.Option(help="A band tagged alpha: auto, band (transparency) or none (data).")
]
BoundsOption = Annotated[
    str | None, typer.Option(help="Only this part: 'left bottom right top' in the raster's CRS.")
]
BoundsCrsOption = Annotated[
    str | None, typer.Option("--bounds-crs", help="CRS of --bounds: EPSG:4326 for degrees.")
]
WindowOption = Annotated[
    str | None, typer.Option(help="Only this part: 'col_off row_off width height' in pixels.")
]
VerboseOption = Annotated[
    bool, typer.Option("--verbose", "-v", help="Also say what is planned, and what GDAL says.")
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
_DATA: Any = typer.Option(
    "--data",
    help="Folder of sharp images; repeat for more. Of DOTA, DIOR and Real-RefRSSRD, known by their "
    "folders, only the training part; dota:FOLDER insists.",
)
DataOption = Annotated[list[Path], _DATA]
OptionalDataOption = Annotated[list[Path] | None, _DATA]
OutOption = Annotated[Path, typer.Option(help="Folder of the run; the same again resumes.")]
ValidationOption = Annotated[
    Path | None, typer.Option(help="Folder of sharp images, or of pairs in lr/ and hr/.")
]
StartOption = Annotated[Path | None, typer.Option(help="Weights to start from.")]
SetOption = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a setting.")
]
MinutesOption = Annotated[
    float | None, typer.Option(min=0, help="Stop so many minutes after the first step, saved.")
]
LpipsOption = Annotated[
    Path | None,
    typer.Option(
        help="LPIPS weights, .safetensors; default: by the lpips package; not needed for L1 alone."
    ),
]
RecipeOption = Annotated[
    Path | None, typer.Option(help="A .toml file with what the degradation does otherwise.")
]
TrainingRangeOption = Annotated[
    str,
    typer.Option(
        "--range",
        help="Of images with more than 8 bits, values seen as black,white: auto, or lo,hi.",
    ),
]
DryRunOption = Annotated[
    bool,
    typer.Option(
        "--dry-run", help="Print the resolved config, count images, time a step; no more."
    ),
]
DinoOption = Annotated[str, typer.Option(help="DINO ViT-B/16 for adversary=dino: name or folder.")]


def make_folder(folder: Path) -> None:
    """A folder and its parents. Raises OutputError."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot make the folder {folder}: {error.strerror}") from None


def refuse_existing(target: Path, overwrite: bool) -> None:
    """Raise OutputError for a file that is there and may not be replaced."""
    if target.exists() and not overwrite:
        raise OutputError(f"{target} exists: give another name or --overwrite")


def _numbers(option: str, text: str, kind: Callable[[str], Any]) -> tuple[Any, ...]:
    try:
        return tuple(kind(part) for part in text.replace(",", " ").split())
    except ValueError:
        raise ConfigError(f"{option} must be numbers, got {text!r}") from None


def integers(option: str, text: str | None) -> tuple[int, ...] | None:
    """Whole numbers, separated by commas or spaces."""
    return None if text is None else _numbers(option, text, int)


def four(option: str, text: str | None, kind: Callable[[str], Any]) -> Any:  # noqa: ANN401
    """Four numbers, or None."""
    if text is None:
        return None
    numbers = _numbers(option, text, kind)
    if len(numbers) != 4:
        raise ConfigError(f"{option} must be four numbers, got {text!r}")
    return numbers


def value_pair(text: str) -> Any:  # noqa: ANN401  "auto" or a pair
    """The value range: "auto", or two numbers; one shared by all inputs is found later."""
    if text in ("auto", "shared"):
        return "auto"
    numbers = _numbers("--range", text, float)
    if len(numbers) != 2:
        raise ConfigError(f"--range must be auto, shared or lo,hi, got {text!r}")
    return numbers


def creation_options(assignments: list[str]) -> dict[str, str]:
    """GDAL creation options from NAME=VALUE."""
    options = {}
    for assignment in assignments:
        name, equals, value = assignment.partition("=")
        if not equals or not name:
            raise ConfigError(f"--co must be NAME=VALUE, got {assignment!r}")
        options[name] = value
    return options


def teacher_base(
    estimator: Path,
    unet: Path | None,
    sd_folder: Path | None,
    codec: str | None,
    codec_folder: Path | None,
) -> TeacherBase:
    """A small prior works on TAESD's latents unless told otherwise, Stable Diffusion on its own."""
    from slimdiffsr.files.teachers import TeacherBase

    found = codec or ("kl" if unet is None else "taesd")
    return TeacherBase(estimator, unet, sd_folder, cast(Any, found), codec_folder)

"""Commands on models: models, import-weights, import-lpips, interpolate, merge-teacher."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, cast

import typer

from slimdiffsr.cli.options import (
    CodecFolderOption,
    CodecOption,
    EstimatorOption,
    JsonOption,
    SdFolderOption,
    UNetOption,
    refuse_existing,
    teacher_base,
)
from slimdiffsr.cli.show import plain, print_json, size

__all__ = ["import_lpips", "import_weights", "interpolate", "list_models", "merge_teacher"]


def list_models(as_json: JsonOption = False) -> None:
    """List the models that need no download: name, scale, parameters, size, what for."""
    from slimdiffsr.files.students import list_bundled
    from slimdiffsr.upscale import BASELINE_SCALES, BASELINES

    rows = [plain(model) for model in list_bundled()]
    scales = " ".join(map(str, BASELINE_SCALES))
    rows += [
        {"name": name, "scale": scales, "parameters": 0, "bytes": 0, "purpose": "to compare with"}
        for name in sorted(BASELINES)
    ]
    if as_json:
        print_json(rows)
        return
    print(f"{'name':18s} {'scale':6s} {'parameters':>10s} {'size':>8s}  for")
    for row in rows:
        million = f"{row['parameters'] / 1e6:.1f} M" if row["parameters"] else "-"
        held = size(row["bytes"]) if row["bytes"] else "-"
        print(f"{row['name']:18s} {row['scale']!s:6s} {million:>10s} {held:>8s}  {row['purpose']}")
    print("also: any .safetensors file of ours, or 'org/name' on the Hugging Face hub")


def import_weights(
    source: Annotated[Path, typer.Argument(help="The authors' net_params_4x.pkl.")],
    target: Annotated[Path, typer.Argument(help="The .safetensors file to write.")],
    scale: Annotated[int, typer.Option("--scale", "-s", help="4 or 8.")],
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an existing file.")
    ] = False,
) -> None:
    """Turn the paper's released weights into a model file of ours."""
    from slimdiffsr.files.official import import_official

    refuse_existing(target, overwrite)
    digest = import_official(source, target, scale)
    print(f"{target}  sha256 {digest}")


def import_lpips(
    target: Annotated[Path, typer.Argument(help="The .safetensors file to write.")],
    net: Annotated[str, typer.Option(help="squeeze, vgg or alex.")] = "vgg",
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an existing file.")
    ] = False,
) -> None:
    """Save LPIPS as the lpips package downloads it, for --lpips and for machines without it."""
    from slimdiffsr.files.pretrained import import_lpips

    refuse_existing(target, overwrite)
    print(f"{target}  sha256 {import_lpips(target, cast(Any, net))}")


def interpolate(
    start: Annotated[Path, typer.Argument(help="The faithful model.")],
    end: Annotated[Path, typer.Argument(help="The perceptual model trained from it.")],
    target: Annotated[Path, typer.Argument(help="The .safetensors file to write.")],
    amount: Annotated[float, typer.Option(help="0 is start, 1 is end.")],
    name: Annotated[str | None, typer.Option(help="Model id; default: the file's name.")] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an existing file.")
    ] = False,
) -> None:
    """Blend two trained models: fewer invented details, or sharper pictures."""
    from slimdiffsr.files.students import interpolate_models

    refuse_existing(target, overwrite)
    digest = interpolate_models(
        start, end, amount, target, name=name or target.stem, about={"licence": "Apache-2.0"}
    )
    print(f"{target}  sha256 {digest}")


def merge_teacher(
    adapted: Annotated[Path, typer.Argument(help="teacher.safetensors of train teacher.")],
    target: Annotated[Path, typer.Argument(help="The .safetensors file to write.")],
    estimator: EstimatorOption,
    unet: UNetOption = None,
    sd_folder: SdFolderOption = None,
    codec: CodecOption = None,
    codec_folder: CodecFolderOption = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an existing file.")
    ] = False,
) -> None:
    """Put a trained teacher and what it stands on into one file, for train student --teacher.

    Give the files that train teacher was given.
    """
    from slimdiffsr.files.teachers import merge_teacher

    refuse_existing(target, overwrite)
    base = teacher_base(estimator, unet, sd_folder, codec, codec_folder)
    print(f"{target}  sha256 {merge_teacher(adapted, base, target)}")

"""The command export."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from slimdiffsr.cli.options import LpipsOption, ScaleOption, refuse_existing
from slimdiffsr.cli.show import note
from slimdiffsr.errors import ConfigError

__all__ = ["export"]


def export(
    model: Annotated[str, typer.Argument(help="A model, as for upscale.")],
    out: Annotated[Path, typer.Argument(help="OUT.onnx, or OUT.xml for OpenVINO.")],
    scale: ScaleOption = None,
    opset: Annotated[int, typer.Option(help="Of ONNX; 20 is the last that QGIS reads.")] = 20,
    dynamic: Annotated[
        bool, typer.Option("--dynamic", help="Any batch, height and width, not one tile.")
    ] = False,
    int8: Annotated[
        bool, typer.Option("--int8", help="8-bit integers, if the pictures stay the same.")
    ] = False,
    calibrate: Annotated[
        Path | None,
        typer.Option(help="For --int8: a folder of sharp images, or of pairs in hr/ and lr_x4/."),
    ] = None,
    lpips: LpipsOption = None,
    resolution: Annotated[
        float | None, typer.Option(help="Metres of an input pixel, for QGIS Deepness.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace OUT.")] = False,
) -> None:
    """Write a model for ONNX Runtime, OpenVINO, QGIS Deepness and others: images in [0, 1]."""
    from slimdiffsr.runtime.export import OPSET
    from slimdiffsr.runtime.exported import About
    from slimdiffsr.runtime.writing import (
        ExportOptions,
        difference_to_torch,
        make_file_model,
        save_file_model,
    )
    from slimdiffsr.upscale import Upscaler

    if int8 != (calibrate is not None):
        raise ConfigError("--int8 and --calibrate FOLDER go together: give both or neither")
    refuse_existing(out, overwrite)
    upscaler = Upscaler.from_pretrained(model, scale=scale, device="cpu")
    network, spec = upscaler.module, upscaler.spec
    about = About(
        model_id=spec.model_id,
        sha256=spec.weights_sha256,
        scale=spec.scale,
        tile_hr_px=spec.tile_hr_px,
        overlap_hr_px=spec.overlap_hr_px,
        multiple_lr_px=upscaler.multiple_lr_px,
        precision="int8" if int8 else "fp32",
    )
    metres = 0.6 * spec.scale if resolution is None else resolution
    options = ExportOptions(opset=opset, dynamic=dynamic, resolution_m=metres)
    made = make_file_model(network, about, out.suffix, options)
    if calibrate is not None:
        from slimdiffsr.runtime.int8 import quantise

        made, gate = quantise(made, about, calibrate, lpips, note)
        note(gate.sentence())
    save_file_model(made, about, out, options)
    levels = difference_to_torch(network, about, out)
    note(f"at most {levels:.2g} grey levels from the network itself, on noise")
    if out.suffix == ".onnx" and opset > OPSET:
        note(f"note: QGIS Deepness may not read opset {opset}; {OPSET} it does.")
    print(out)

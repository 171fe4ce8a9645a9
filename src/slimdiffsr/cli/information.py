"""The command info: what would be done with a raster, or what a model is."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from slimdiffsr.cli.estimate import Estimate, estimate_run
from slimdiffsr.cli.lines import library_lines
from slimdiffsr.cli.options import (
    AlphaOption,
    AnyScaleOption,
    BandsOption,
    BoundsCrsOption,
    BoundsOption,
    DeviceOption,
    JsonOption,
    ModelOption,
    PrecisionOption,
    RangeOption,
    RuntimeOption,
    VerboseOption,
    WindowOption,
    four,
    integers,
    value_pair,
)
from slimdiffsr.cli.probing import probe_for
from slimdiffsr.cli.scales import scales
from slimdiffsr.cli.sensing import (
    AssetsOption,
    BboxOption,
    NodataOption,
    OffsetOption,
    ResolutionOption,
    ScaleFactorOption,
    SensorOption,
    SignOption,
    nodata_of,
    place_of,
    resolution_of,
    sensor_options,
)
from slimdiffsr.cli.show import (
    duration,
    plain,
    report,
    size,
)
from slimdiffsr.cli.work import check_there

if TYPE_CHECKING:
    pass

__all__ = ["info"]


def info(
    path: Annotated[str, typer.Argument(help="A raster, or a model.")],
    model: ModelOption = "tiny-x4",
    scale: AnyScaleOption = None,
    device: DeviceOption = "auto",
    precision: PrecisionOption = "auto",
    bands: BandsOption = None,
    value_range: RangeOption = "auto",
    alpha: AlphaOption = "auto",
    nodata: NodataOption = None,
    sensor: SensorOption = "auto",
    offset: OffsetOption = None,
    scale_factor: ScaleFactorOption = None,
    assets: AssetsOption = None,
    sign: SignOption = "none",
    bounds: BoundsOption = None,
    bounds_crs: BoundsCrsOption = None,
    bbox: BboxOption = None,
    window: WindowOption = None,
    resolution: ResolutionOption = None,
    runtime: RuntimeOption = "auto",
    verbose: VerboseOption = False,
    as_json: JsonOption = False,
) -> None:
    """Say what would be done with a raster and what it would take, or what a model is."""
    if not _looks_like_model(path):
        check_there([path])
    from slimdiffsr.geo import SceneOptions
    from slimdiffsr.upscale import Upscaler, model_names

    if path in model_names() or path == "tiny" or _looks_like_model(path):
        return report(_model_facts(path, scales(path, scale)[0]), as_json)
    options = SceneOptions(
        bands=integers("--bands", bands),
        value_range=value_pair(value_range),
        alpha=cast(Any, alpha),
        nodata=nodata_of(nodata),
        **place_of(bounds, bounds_crs, bbox),
        window=four("--window", window, int),
        **resolution_of(resolution),
    )
    of_sensor = sensor_options(sensor, offset, scale_factor, assets, sign)
    of_model, of_output = scales(model, scale)
    options = dataclasses.replace(options, output_scale=of_output)
    upscaler = Upscaler.from_pretrained(
        model, scale=of_model, device=device, precision=precision, runtime=runtime
    )
    with library_lines(verbose), probe_for([path]) as probe:
        if probe:
            probe.look(path)
        plan = upscaler.plan_scene(path, options, sensor=of_sensor)
    estimate = estimate_run(upscaler, plan, always=True)
    facts = {
        **plain(plan),
        "runtime": upscaler.describe(plan.tiles),
        "seconds": round(estimate.seconds or 0.0, 1),
    }
    return report(facts if as_json else {**facts, **_in_words(estimate)}, as_json)


def _in_words(estimate: Estimate) -> dict[str, str]:
    return {
        "seconds": f"about {duration(estimate.seconds or 0.0)} on this machine, as it is now",
        "scratch_bytes": f"up to {size(estimate.disk_bytes)} on the disk while it works",
        "memory_bytes": f"about {size(estimate.memory_bytes)}, the model's own not included",
    }


def _looks_like_model(path: str) -> bool:
    """Weights, or a name that is neither a file nor has a suffix, as 'org/name' on the hub."""
    place = Path(path)
    absent = not place.exists() and not place.suffix and ":" not in path and path[:1] != "/"
    return path.endswith((".safetensors", ".onnx", ".xml")) or place.is_dir() or absent


def _model_facts(source: str, scale: int | None) -> dict[str, Any]:
    from slimdiffsr.models.student import count_parameters
    from slimdiffsr.upscale import Upscaler

    upscaler = Upscaler.from_pretrained(source, scale=scale, device="cpu")
    facts = {k: v for k, v in plain(upscaler.spec).items() if k not in ("batch", "arithmetic")}
    if isinstance(upscaler.model, Path):
        return facts
    return {**facts, "parameters": count_parameters(upscaler.module)}

"""Commands on rasters: upscale, info, demo."""

from __future__ import annotations

import dataclasses
import json
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, cast

import typer

from slimdiffsr.cli.options import (
    BandsOption,
    BoundsOption,
    DeviceOption,
    JsonOption,
    ModelOption,
    PrecisionOption,
    RangeOption,
    ScaleOption,
    WindowOption,
    creation_options,
    four,
    integers,
    make_folder,
    value_pair,
)
from slimdiffsr.cli.show import note, plain, report, scene_progress, sentence, tell
from slimdiffsr.errors import OutputError, RasterError, SlimDiffSRError

__all__ = ["demo", "info", "upscale"]

RASTERS = (".tif", ".tiff", ".vrt", ".jp2", ".png", ".img", ".jpg", ".jpeg")
NEVER_WRITTEN = (".vrt", ".jp2", ".img", ".jpg", ".jpeg", ".webp", ".gif")


@dataclasses.dataclass(frozen=True)
class _Job:
    source: str
    target: Path


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
    all_bands: Annotated[
        bool, typer.Option("--all-bands", help="Also carry the other bands over.")
    ] = False,
    value_range: RangeOption = "auto",
    bounds: BoundsOption = None,
    window: WindowOption = None,
    format: Annotated[
        str | None, typer.Option(help="cog, gtiff or png; default: png if OUT says so, else cog.")
    ] = None,
    colour: Annotated[str, typer.Option(help="low-frequency, official or none.")] = "low-frequency",
    overlap: Annotated[int | None, typer.Option(help="Tile overlap, output pixels.")] = None,
    chunk: Annotated[int, typer.Option(help="Unit of work and resume, output pixels.")] = 2048,
    co: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="GDAL creation option; repeat.")
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace existing outputs.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress, no notes.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Enlarge rasters: same place, type, bands and empty areas; pixels 4 or 8 times smaller.

    Interrupted or killed, the same command goes on where it stopped.
    """
    from slimdiffsr.geo import SceneOptions
    from slimdiffsr.upscale import Upscaler

    options = SceneOptions(
        bands=integers("--bands", bands),
        value_range=value_pair(value_range),
        all_bands=all_bands,
        bounds=four("--bounds", bounds, float),
        window=four("--window", window, int),
        format=cast(Any, _format(format, paths[-1])),  # SceneOptions checks it
        chunk_hr_px=chunk,
        overlap_hr_px=overlap,
        creation_options=creation_options(co or []),
        overwrite=overwrite,
    )
    upscaler = Upscaler.from_pretrained(model, scale=scale, device=device, precision=precision)
    jobs = _jobs(paths, upscaler.scale, options.format)

    def run(job: _Job) -> dict[str, Any]:
        if len(jobs) > 1 and job.target.exists() and not overwrite:
            # Not a failure: an interrupted command with many inputs, given again, goes on.
            note(f"kept: {job.target} exists already; give --overwrite to replace it")
            return {"src": job.source, "dst": str(job.target), "kept": True}
        with scene_progress(job.source, quiet) as show:
            report = upscaler.upscale_scene(
                job.source, job.target, options, colour=colour, on_progress=show  # type: ignore[arg-type]
            )  # fmt: skip
        if not quiet:
            tell(report)
        return plain(report)

    _run_all(jobs, run, as_json)


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
        return report(_model_facts(path, scale), as_json)
    options = SceneOptions(
        bands=integers("--bands", bands),
        value_range=value_pair(value_range),
        bounds=four("--bounds", bounds, float),
        window=four("--window", window, int),
    )
    upscaler = Upscaler.from_pretrained(model, scale=scale, device="cpu")
    return report(plain(upscaler.plan_scene(path, options)), as_json)


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

    make_folder(out)
    upscaler = Upscaler.from_pretrained(model, scale=scale)
    source = scene or str(make_demo_scene(out / "scene.tif", scale=upscaler.scale))
    target = out / f"{Path(source).stem}_x{upscaler.scale}.tif"
    with scene_progress(source, quiet=False) as show:
        report = upscaler.upscale_scene(
            source, target, SceneOptions(overwrite=True), on_progress=show
        )
    picture = before_after_png(
        source, target, out / "before_after.png", scale=upscaler.scale, bands=report.plan.rgb_bands
    )
    tell(report)
    print(f"GeoTIFF       {target}\nbefore/after  {picture}")
    print(f"on a map      {shlex.join(['slimdiffsr', 'view', source, str(target)])}")


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
            note(f"error: {sentence(error)}")
            results.append({"src": job.source, "error": sentence(error)})
    if as_json:
        print(json.dumps(results, indent=1, allow_nan=False))
    if failed:
        note(f"{failed} of {len(jobs)} inputs failed")
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
    if folder.is_file() or (folder.suffix.lower() in RASTERS and not folder.is_dir()):
        raise OutputError(
            f"several inputs need a folder as output, but {folder} is the name of a file"
        )
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
    make_folder(folder)
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


def _rasters(source: str) -> list[str]:
    folder = Path(source)
    if not folder.is_dir():
        return [source]
    found = sorted(str(p) for p in folder.iterdir() if p.suffix.lower() in RASTERS)
    if not found:
        raise RasterError(f"no raster in the folder {source}: looked for {', '.join(RASTERS)}")
    return found


def _model_facts(source: str, scale: int | None) -> dict[str, Any]:
    from slimdiffsr.models.student import count_parameters
    from slimdiffsr.upscale import Upscaler

    upscaler = Upscaler.from_pretrained(source, scale=scale, device="cpu")
    return {**plain(upscaler.spec), "parameters": count_parameters(upscaler.model)}

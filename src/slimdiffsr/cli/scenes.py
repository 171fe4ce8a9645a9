"""Commands on rasters: upscale and demo."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from slimdiffsr.cli.batch import run_all
from slimdiffsr.cli.estimate import estimate_run
from slimdiffsr.cli.lines import library_lines
from slimdiffsr.cli.options import (
    AddressOption,
    AlphaOption,
    AnyScaleOption,
    BandsOption,
    BatchOption,
    BoundsCrsOption,
    BoundsOption,
    CpusOption,
    DevicesOption,
    EngineOption,
    GpusOption,
    JsonOption,
    ModelOption,
    PrecisionOption,
    RangeOption,
    RuntimeOption,
    ScaleOption,
    VerboseOption,
    WindowOption,
    WorkersOption,
    creation_options,
    four,
    integers,
    make_folder,
    refuse_existing,
    value_pair,
)
from slimdiffsr.cli.probing import probe_for
from slimdiffsr.cli.scales import scales, suffix_of
from slimdiffsr.cli.sending import sent_to
from slimdiffsr.cli.sensing import (
    AssetsOption,
    BboxOption,
    DatetimeOption,
    NodataOption,
    OffsetOption,
    ResolutionOption,
    ScaleFactorOption,
    SensorOption,
    SignOption,
    bands_beside,
    expand_items,
    nodata_of,
    place_of,
    resolution_of,
    sensor_options,
    with_shared_range,
)
from slimdiffsr.cli.show import (
    note,
    plain,
    scene_progress,
    scenes_progress,
    tell,
    tell_plan,
)
from slimdiffsr.cli.work import Work, WorkList, check_there, plan_work
from slimdiffsr.errors import ConfigError, OutputError

if TYPE_CHECKING:
    from slimdiffsr.crews import ModelPlan
    from slimdiffsr.geo import KnownRaster, Progress, SceneOptions, ScenePlan, SceneReport, Workers
    from slimdiffsr.geo.probe import Probe
    from slimdiffsr.sensors import SensorOptions
    from slimdiffsr.upscale import Upscaler

__all__ = ["demo", "upscale"]


def upscale(
    paths: Annotated[
        list[str],
        typer.Argument(metavar="IN... OUT", help="Rasters or folders, and the output or folder."),
    ],
    model: ModelOption = "tiny-x4",
    scale: AnyScaleOption = None,
    device: DevicesOption = "auto",
    precision: PrecisionOption = "auto",
    runtime: RuntimeOption = "auto",
    workers: WorkersOption = None,
    batch: BatchOption = None,
    engine: EngineOption = "here",
    address: AddressOption = None,
    cpus_per_worker: CpusOption = 2,
    gpus_per_worker: GpusOption = 0,
    bands: BandsOption = None,
    all_bands: Annotated[
        str | None,
        typer.Option(help="The other bands too: bicubic, or network (with detail of those seen)."),
    ] = None,
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
    datetime: DatetimeOption = None,
    window: WindowOption = None,
    resolution: ResolutionOption = None,
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
    recursive: Annotated[
        bool, typer.Option("--recursive", "-r", help="Also look into folders inside folders.")
    ] = False,
    before_after: Annotated[
        Path | None, typer.Option(metavar="PNG", help="Also draw input and result, side by side.")
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress, no notes.")] = False,
    verbose: VerboseOption = False,
    as_json: JsonOption = False,
) -> None:
    """Enlarge rasters: same place, type, bands and empty areas; pixels 4 or 8 times smaller.

    Interrupted or killed, the same command goes on where it stopped.
    """
    if len(paths) == 2:
        check_there(paths[:1])
    from slimdiffsr.crews import ModelPlan
    from slimdiffsr.geo import SceneOptions

    of_sensor = sensor_options(sensor, offset, scale_factor, assets, sign)
    options = SceneOptions(
        bands=integers("--bands", bands),
        value_range=value_pair(value_range),
        alpha=cast(Any, alpha),
        nodata=nodata_of(nodata),
        all_bands=bands_beside(all_bands),
        **place_of(bounds, bounds_crs, bbox),
        window=four("--window", window, int),
        **resolution_of(resolution),
        format=cast(Any, _format(format, paths[-1])),  # SceneOptions checks it
        chunk_hr_px=chunk,
        overlap_hr_px=overlap,
        creation_options=creation_options(co or []),
        overwrite=overwrite,
    )
    of_model, of_output = scales(model, scale)
    options = dataclasses.replace(options, output_scale=of_output)
    plan = ModelPlan(
        model, of_model, device, precision, runtime, batch=batch, colour=cast(Any, colour)
    )
    upscaler = plan.upscaler_here(workers)
    with sent_to(paths[-1]) as target:
        paths = [*expand_items(paths[:-1], bbox, datetime), target]
        found = plan_work(
            paths,
            suffix_of(options, upscaler.scale),
            png=options.format == "png",
            recursive=recursive,
        )
        if before_after is not None:
            _check_picture(before_after, found, options)
        inputs = {}
        if value_range == "shared":
            inputs = with_shared_range([work.source for work in found.works], options, of_sensor)
        if upscaler.runtimes.depends_on_size and not found.many and found.works:
            first = upscaler.plan_scene(found.works[0].source, options, sensor=of_sensor)
            plan = dataclasses.replace(plan, tiles=first.tiles)
        with (
            library_lines(verbose),
            probe_for([work.source for work in found.works]) as probe,
            _crew(plan, workers, Engine(engine, address, cpus_per_worker, gpus_per_worker)) as crew,
            scenes_progress(len(found.works), quiet or crew is None or not found.many) as together,
        ):
            run = _Run(
                upscaler, crew, options, of_sensor, inputs, colour, found.many, probe, before_after,
                quiet, verbose, together,
            )  # fmt: skip
            status = run_all(found, run, as_json, crew)
    if status:
        raise typer.Exit(status)


@dataclasses.dataclass(frozen=True)
class Engine:
    """Where the workers are: processes here, or on a Ray cluster."""

    name: str
    address: str | None
    cpus: float
    gpus: float


def _crew(plan: ModelPlan, workers: int | None, engine: Engine) -> AbstractContextManager[Any]:
    from slimdiffsr.crews import open_workers_of

    if engine.name == "here":
        return open_workers_of(plan, workers)
    if engine.name != "ray":
        raise ConfigError(f"--engine must be here or ray, got {engine.name!r}")
    from slimdiffsr.scale_out.ray_crew import RayShare, open_ray_crew

    share = RayShare(engine.cpus, engine.gpus, workers)
    return open_ray_crew(plan, share, engine.address)


@dataclasses.dataclass(frozen=True)
class _Run:
    """What ``upscale`` does with one raster."""

    upscaler: Upscaler
    crew: Workers | None
    options: SceneOptions
    sensor: SensorOptions
    inputs: dict[str, KnownRaster]  # those that more is known of
    colour: str
    many: bool
    probe: Probe | None
    before_after: Path | None
    quiet: bool
    verbose: bool
    together: Callable[[str], Callable[[Progress], None]] | None  # one bar for all
    looking: Lock = dataclasses.field(default_factory=Lock)  # the probe does one thing at a time

    def __call__(self, work: Work, place: str) -> dict[str, Any]:
        if self.many and work.target.exists() and not self.options.overwrite:
            # Not a failure: an interrupted command with many inputs, given again, goes on.
            note(f"{place}kept: {work.target} exists already; give --overwrite to replace it")
            return {"src": work.source, "dst": str(work.target), "kept": True}
        if self.probe:
            with self.looking:
                self._look(work.source)
        together = self.together and self.together(work.source)
        with scene_progress(work.source, self.quiet or together is not None, place) as show:
            report = self.upscaler.upscale_scene(
                self.inputs.get(work.source, work.source), work.target, self.options,
                sensor=self.sensor, colour=cast(Any, self.colour), crew=self.crew,
                on_plan=lambda plan: self._tell_plan(plan, place), on_progress=together or show,
            )  # fmt: skip
        if not self.quiet:
            tell(report, place)
        if self.before_after is not None:
            _draw(report, self.before_after)
        return plain(report)

    def _look(self, source: str) -> None:
        from slimdiffsr.sensors import is_product

        assert self.probe is not None
        if not is_product(source):
            self.probe.look(source)

    def _tell_plan(self, plan: ScenePlan, place: str) -> None:
        if not self.quiet:
            tell_plan(plan, estimate_run(self.upscaler, plan), place)
        if self.verbose:
            for name, value in plain(plan).items():
                note(f"  {name}: {value}")


def _check_picture(picture: Path, found: WorkList, options: SceneOptions) -> None:
    from slimdiffsr.sensors import is_product

    if options.resolution is not None or (options.output_scale or 1) % 1:
        raise ConfigError("--before-after needs a whole scale: leave it or --resolution out")
    if any(is_product(work.source) for work in found.works):
        raise ConfigError("--before-after draws rasters, and no products or items: leave it out")
    if found.many:
        raise ConfigError("--before-after draws one picture: give one input and one output file")
    if picture.suffix.lower() != ".png":
        raise OutputError(f"--before-after draws a PNG: name {picture} .png")
    refuse_existing(picture, options.overwrite)


def _draw(report: SceneReport, picture: Path) -> None:
    from slimdiffsr.demo import before_after_png

    plan = report.plan
    before_after_png(
        plan.src, report.dst, picture,
        scale=round(plan.scale), bands=plan.rgb_bands, sr_bands=plan.rgb_output_bands, window=plan.window,
    )  # fmt: skip


def demo(
    out: Annotated[Path, typer.Option(help="Folder for the scene and the pictures.")] = Path(
        "demo"
    ),
    scene: Annotated[str | None, typer.Option(help="Your own raster instead.")] = None,
    model: ModelOption = "tiny-x4",
    scale: ScaleOption = None,
) -> None:
    """Enlarge a generated scene, or your own, and draw a before/after picture."""
    from slimdiffsr.demo import make_demo_scene
    from slimdiffsr.geo import SceneOptions
    from slimdiffsr.upscale import Upscaler

    make_folder(out)
    upscaler = Upscaler.from_pretrained(model, scale=scale)
    source = scene or str(make_demo_scene(out / "scene.tif", scale=upscaler.scale))
    target = out / f"{Path(source).stem}_x{upscaler.scale}.tif"
    with scene_progress(source, quiet=False) as show:
        report = upscaler.upscale_scene(
            source, target, SceneOptions(overwrite=True),
            on_plan=lambda plan: tell_plan(plan, estimate_run(upscaler, plan)), on_progress=show,
        )  # fmt: skip
    picture = out / "before_after.png"
    _draw(report, picture)
    tell(report)
    print(f"GeoTIFF       {target}\nbefore/after  {picture}")
    print(f"on a map      {shlex.join(['slimdiffsr', 'view', source, str(target)])}")


def _format(asked: str | None, target: str) -> str:
    """The format asked for, or that of the output's name; they must not contradict."""
    from slimdiffsr.geo.formats import check_name, format_of_name

    if target == "-":
        raise OutputError("the output must be a file: a GeoTIFF cannot be written to a pipe")
    if Path(target).is_dir() or target.endswith(("/", "\\")):
        return asked or "cog"
    found = asked or format_of_name(target)
    if found in ("cog", "gtiff", "png"):
        check_name(target, cast(Any, found))
    return found

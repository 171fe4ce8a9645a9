"""Commands for many machines: plan, work, status, finish."""

from __future__ import annotations

import dataclasses
import json
import os
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from slimdiffsr.cli.options import (
    AddressOption,
    BandsOption,
    CpusOption,
    DeviceOption,
    EngineOption,
    GpusOption,
    JsonOption,
    ModelOption,
    PrecisionOption,
    RangeOption,
    RuntimeOption,
    ScaleOption,
    creation_options,
    integers,
    value_pair,
)
from slimdiffsr.cli.show import counting_progress, duration, note, size
from slimdiffsr.errors import ConfigError, JobError

if TYPE_CHECKING:
    from slimdiffsr.scale_out.jobfile import JobFile
    from slimdiffsr.scale_out.places import Place
    from slimdiffsr.scale_out.ray_crew import RayShare

__all__ = ["finish", "plan", "status", "work"]

# Where batch systems say which of their tasks this is, and which number they count from.
TASKS = (
    ("SLURM_ARRAY_TASK_ID", "SLURM_ARRAY_TASK_MIN"),
    ("JOB_COMPLETION_INDEX", ""),
    ("AWS_BATCH_JOB_ARRAY_INDEX", ""),
)
INCOMPLETE = 6  # exit status of finish when scenes are left
JobArgument = Annotated[
    str, typer.Argument(metavar="JOB", help="The job: a folder that all machines see, or s3://...")
]


def plan(
    paths: Annotated[
        list[str],
        typer.Argument(metavar="IN... OUT", help="Rasters or folders; a folder or s3:// address."),
    ],
    job: Annotated[str, typer.Option(metavar="JOB", help="Where the job lies: a folder, s3://...")],
    inputs: Annotated[
        Path | None, typer.Option(help="A text file with one more input in each line.")
    ] = None,
    shards: Annotated[int, typer.Option(min=1, help="How many shards of equal work.")] = 1,
    unit: Annotated[int, typer.Option(min=1, help="Chunks that a worker takes at a time.")] = 4,
    model: ModelOption = "tiny-x4",
    scale: ScaleOption = None,
    device: Annotated[str, typer.Option(help="Of the workers: cpu or cuda.")] = "cpu",
    precision: PrecisionOption = "auto",
    runtime: RuntimeOption = "auto",
    bands: BandsOption = None,
    all_bands: Annotated[
        bool, typer.Option("--all-bands", help="Also carry the other bands over.")
    ] = False,
    value_range: RangeOption = "auto",
    format: Annotated[str, typer.Option(help="cog, gtiff or png.")] = "cog",
    colour: Annotated[str, typer.Option(help="low-frequency, official or none.")] = "low-frequency",
    overlap: Annotated[int | None, typer.Option(help="Tile overlap, output pixels.")] = None,
    chunk: Annotated[int, typer.Option(help="Side of a chunk, output pixels.")] = 2048,
    co: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="GDAL creation option; repeat.")
    ] = None,
    rate: Annotated[
        float | None, typer.Option(help="Mpx/s of one worker, as bench --scene measures it.")
    ] = None,
    price: Annotated[float | None, typer.Option(help="Of one worker's hour.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Write a job: what is to be done, for any number of workers on any machines.

    Interrupted, the same command goes on where it stopped. A job that is planned never changes.
    """
    from slimdiffsr.geo import SceneOptions
    from slimdiffsr.scale_out.costs import cost_of
    from slimdiffsr.scale_out.places import check_writable, open_place
    from slimdiffsr.scale_out.planning import plan_job
    from slimdiffsr.scale_out.request import Request, declared_spec

    options = SceneOptions(
        bands=integers("--bands", bands), value_range=value_pair(value_range), all_bands=all_bands,
        format=cast(Any, format), chunk_hr_px=chunk, overlap_hr_px=overlap,
        creation_options=creation_options(co or []),
    )  # fmt: skip
    spec = declared_spec(model, scale, device, precision, runtime, colour)
    place = open_place(job)
    check_writable(place)
    sources, output = _sources(paths, inputs, spec.scale, format)
    with counting_progress("planning") as show:
        planned = plan_job(
            place, sources, output, Request(model, spec, options, colour),
            shards=shards, unit_chunks=unit, on_scene=lambda done: show(done, None),
        )  # fmt: skip
    costs = cost_of(planned, rate, price)
    if as_json:
        print(json.dumps(dataclasses.asdict(costs), indent=1))
        return
    note(
        f"{costs.inputs} inputs ({costs.inputs_failed} that cannot be worked on), {costs.chunks} "
        f"chunks, {costs.tiles} tiles, {costs.pixels_hr / 1e9:.3f} Gpx"
    )
    note(
        f"reads {size(costs.bytes_read)}, keeps up to {size(costs.bytes_of_chunks)} of chunks, "
        f"writes about {size(costs.bytes_written)}"
    )
    if costs.machine_hours is not None:
        money = "" if costs.money is None else f", {costs.money:.2f} in money"
        note(f"{costs.machine_hours:.2f} hours of one worker at {rate:g} Mpx/s{money}")
    print(job)


def _sources(
    paths: list[str], inputs: Path | None, scale: int, format: str
) -> tuple[Iterator[tuple[str, str]], str]:
    """(input, name of its output) for each, and where the outputs go."""
    from slimdiffsr.cli.work import plan_work

    *given, output = paths
    listed = _lines(inputs) if inputs is not None else []
    found = plan_work(
        [*given, *listed, "outputs/"], f"x{scale}", png=format == "png", recursive=False
    )
    for words in found.notes:
        note(f"note: {words}")
    refused = ((source, "") for source, _ in found.refused)
    works = ((work.source, work.target.relative_to("outputs").as_posix()) for work in found.works)
    return iter([*works, *refused]), output


def _lines(path: Path) -> list[str]:
    try:
        return [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, ValueError) as error:
        raise ConfigError(f"cannot read the list of inputs {path}: {error}") from None


def work(
    job: JobArgument,
    shard: Annotated[
        str | None,
        typer.Option(metavar="I/N", help="Which shard, from 0; else the batch system's."),
    ] = None,
    help_others: Annotated[
        bool,
        typer.Option("--help-others/--only-own", help="Go on with others' shards after one's own."),
    ] = True,
    device: DeviceOption = "auto",
    engine: EngineOption = "here",
    address: AddressOption = None,
    cpus_per_worker: CpusOption = 2,
    gpus_per_worker: GpusOption = 0,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
) -> None:
    """Do a share of a job. Can be killed and repeated at any time, anywhere, also twice at once."""
    from slimdiffsr.scale_out.places import open_place

    place = open_place(job)
    planned = _read(place)
    if engine == "ray":
        from slimdiffsr.scale_out.ray_crew import RayShare

        share = RayShare(cpus_per_worker, gpus_per_worker)
        return _work_on_ray(job, planned, address, share, device)
    if engine != "here":
        raise ConfigError(f"engine must be here or ray, got {engine!r}")
    own = _own_shard(shard, planned.shard_count)
    from slimdiffsr.scale_out.run import work_here

    with counting_progress("units", quiet=quiet) as show:
        done = work_here(
            job, own, device, help_others=help_others,
            on_unit=lambda now: show(now.units, planned.units),
        )  # fmt: skip
    _tell_failures((words for words in done.failures), "failed")
    note(f"{done.units} units, {done.chunks} chunks, {done.px / 1e6:.1f} Mpx")
    return None


def _work_on_ray(
    job: str, planned: JobFile, address: str | None, share: RayShare, device: str
) -> None:
    from slimdiffsr.scale_out.ray_crew import connect, run_on_ray
    from slimdiffsr.scale_out.run import work_here

    with connect(address) as ray:
        answers = run_on_ray(
            ray, share,
            lambda scratch: work_here(job, None, device, scratch=scratch),
            lambda ended: None,
        )  # fmt: skip
    units = sum(answer.units for answer in answers)
    note(f"{units} of {planned.units} units by {len(answers)} Ray workers")


def _tell_failures(failures: Iterable[str], word: str) -> None:
    """One line an input: its first reason, and how many parts of it failed."""
    by_input: dict[str, list[str]] = {}
    for words in failures:
        by_input.setdefault(words.split(": ", 1)[0], []).append(words)
    for reasons in by_input.values():
        more = f" (and {len(reasons) - 1} times more)" if len(reasons) > 1 else ""
        note(f"{word}: {reasons[0]}{more}")


def _own_shard(asked: str | None, shards: int) -> int | None:
    """The shard of this worker, from 0; None where there is no telling."""
    if asked is not None:
        first, slash, count = asked.partition("/")
        if not (first.isdecimal() and (not slash or count.isdecimal())):
            raise ConfigError(f"--shard must be I/N, as in 0/8, got {asked!r}")
        if slash and int(count) != shards:
            raise JobError(f"the job has {shards} shards, and --shard {asked} means {count}")
        return _checked(int(first), shards, f"--shard {asked}")
    for name, base in TASKS:
        if os.environ.get(name, "").isdecimal():
            number = int(os.environ[name]) - int(os.environ.get(base, "0") or 0)
            return _checked(number, shards, f"{name}={os.environ[name]}")
    return None


def _checked(number: int, shards: int, source: str) -> int:
    if not 0 <= number < shards:
        raise JobError(f"{source} is out of range: the job has shards 0 to {shards - 1}")
    return number


def _read(place: Place) -> JobFile:
    from slimdiffsr.geo.job import package_version
    from slimdiffsr.scale_out.jobfile import read_job

    return read_job(place, package_version())


def status(job: JobArgument, as_json: JsonOption = False) -> None:
    """How far a job is: done, failed, left, the rate, the expected end."""
    from slimdiffsr.scale_out.places import open_place
    from slimdiffsr.scale_out.status import look_at_job

    place = open_place(job)
    found = look_at_job(place, _read(place))
    if as_json:
        print(json.dumps(dataclasses.asdict(found), indent=1))
        return
    left = found.units - found.units_done - found.units_set_aside
    print(
        f"{found.units_done} of {found.units} units done, {found.units_begun} begun, {left} left, "
        f"{found.units_set_aside} set aside"
    )
    if found.seconds_left and found.units_per_hour:
        print(
            f"{found.units_per_hour:.0f} units an hour: about {duration(found.seconds_left)} to go"
        )
    for aside, word in ((True, "set aside"), (False, "failed, to be tried again")):
        some = [f for f in found.failures if f.set_aside == aside]
        _tell_failures((f"{f.src}: {f.reason}" for f in some), word)


def finish(
    job: JobArgument,
    keep_chunks: Annotated[
        bool, typer.Option("--keep-chunks", help="Do not delete chunks of finished outputs.")
    ] = False,
    scratch: Annotated[
        Path | None, typer.Option(help="Folder for outputs on their way to a store.")
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Check every chunk, make the outputs and a mosaic over them; what lacks chunks is reported."""
    from slimdiffsr.scale_out.finish import finish_job
    from slimdiffsr.scale_out.places import open_place

    place = open_place(job)
    planned = _read(place)
    with (
        counting_progress("outputs", quiet=quiet) as show,
        tempfile.TemporaryDirectory(prefix="slimdiffsr-", dir=scratch) as folder,
    ):
        found = finish_job(
            place, planned, scratch=Path(folder), keep_chunks=keep_chunks,
            on_scene=lambda done: show(done, planned.scenes),
        )  # fmt: skip
    if as_json:
        print(json.dumps(dataclasses.asdict(found), indent=1))
    else:
        note(f"{len(found.outputs)} of {planned.scenes} outputs are in {planned.output}")
        if found.mosaic:
            note(f"mosaic: {found.mosaic}")
        for src, reason in found.failures.items():
            note(f"left: {src}: {reason}")
    if found.failures:
        raise typer.Exit(INCOMPLETE)

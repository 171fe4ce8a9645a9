"""The command line: parse, call one function, report. Nothing heavy is imported before it runs."""

from __future__ import annotations

import errno
import os
import sys
from contextlib import suppress
from typing import Annotated, Any

import click
import typer
from typer.core import TyperGroup

from slimdiffsr.cli import evaluate, figures, jobs, models, scenes, sensing, testset, train
from slimdiffsr.cli.bench import bench
from slimdiffsr.cli.check import check
from slimdiffsr.cli.export import export
from slimdiffsr.cli.information import info
from slimdiffsr.cli.lines import open_standard_files
from slimdiffsr.cli.show import is_out_of_memory, note, sentence
from slimdiffsr.cli.view import view
from slimdiffsr.errors import ConfigError, InterruptedRunError, OutputError, SlimDiffSRError

__all__ = ["app", "main", "rio_command"]

EXTRAS = {
    "accelerate": "train",
    "PIL": "report",
    "tensorboard": "train",
    "matplotlib": "report",
    "pystac_client": "stac",
    "planetary_computer": "stac",
}

RASTERS, MACHINES, TRAINING = "Rasters", "Many machines", "Training"
COMPARISON, FILES = "Comparison", "Model files"
UsageError: Any = typer.BadParameter.__base__  # click's, or that of the copy that typer brings

ORDER = (
    *("upscale", "view", "info", "sensors", "search", "check", "models", "demo"),
    *("plan", "work", "status", "finish"),
    *("train", "merge-teacher", "interpolate"),
    *("make-testset", "evaluate", "draw", "bench"),
    *("export", "import-weights", "import-lpips", "import-dists"),
)


class _Friendly(TyperGroup):
    """Errors of ours become one sentence and an exit status, here and under ``rio``."""

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ANN401  typer's own Context
        """Commands as ``--help`` shows them; typer itself puts train and draw last."""
        return sorted(super().list_commands(ctx), key=ORDER.index)

    def main(self, *args: Any, **how: Any) -> Any:  # noqa: ANN401  typer's own
        """What a shell calls: a wrong use is one sentence too."""
        how["standalone_mode"] = False
        try:
            status = super().main(*args, **how)
        except UsageError as error:
            if type(error).__name__ == "NoArgsIsHelpError":
                error.show()
            else:
                command = error.ctx.command_path if error.ctx else "slimdiffsr"
                note(f"error: {error.format_message().rstrip('.')}: see {command} --help")
            sys.exit(ConfigError.exit_status)
        sys.exit(status if isinstance(status, int) else 0)

    def invoke(self, ctx: Any) -> Any:  # noqa: ANN401  typer's own Context
        """Run a command."""
        # Read by OpenMP when torch loads it. Threads that spin while they wait make a network many
        # times slower as soon as anything else, such as our own writer, wants their cores.
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
        try:
            result = super().invoke(ctx)
            if sys.stdout is not None:
                sys.stdout.flush()
        except (SlimDiffSRError, ModuleNotFoundError, MemoryError, RuntimeError, OSError) as error:
            words, status = _in_a_sentence(error)
            note(f"error: {words}")
            raise typer.Exit(status) from None
        except KeyboardInterrupt:
            note("stopped; the same command goes on from here")
            raise typer.Exit(InterruptedRunError.exit_status) from None
        return result


def _in_a_sentence(error: Exception) -> tuple[str, int]:
    """What an error means to the user, and the exit status; raises it again if it is our own."""
    if isinstance(error, SlimDiffSRError):
        return sentence(error), error.exit_status
    if isinstance(error, ModuleNotFoundError):
        package = (error.name or "").split(".")[0]
        if package in EXTRAS:
            hint = f"pip install 'slimdiffsr[{EXTRAS[package]}]'"
            return f"this needs the package {package}: {hint}", ConfigError.exit_status
    if is_out_of_memory(error):
        return sentence(error), ConfigError.exit_status
    if isinstance(error, OSError) and error.errno in (errno.EPIPE, errno.ENOSPC):
        _give_up_stdout()
        return f"the summary could not be printed: {error.strerror}", OutputError.exit_status
    raise error


def _give_up_stdout() -> None:
    # Else Python tries once more when it ends, and fails with a traceback.
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


app = typer.Typer(
    name="slimdiffsr",
    cls=_Friendly,
    help="Super-resolve satellite and aerial imagery: whole georeferenced scenes, one command.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
RASTER_COMMANDS = (
    scenes.upscale,
    info,
    sensing.sensors,
    sensing.search,
    view,
    check,
    scenes.demo,
)
for command in RASTER_COMMANDS:
    app.command(rich_help_panel=RASTERS)(command)
app.command("models", rich_help_panel=RASTERS)(models.list_models)
app.command(rich_help_panel=MACHINES)(jobs.plan)
app.command(rich_help_panel=MACHINES)(jobs.work)
app.command(rich_help_panel=MACHINES)(jobs.status)
app.command(rich_help_panel=MACHINES)(jobs.finish)
app.command("merge-teacher", rich_help_panel=TRAINING)(models.merge_teacher)
app.command(rich_help_panel=TRAINING)(models.interpolate)
app.command("make-testset", rich_help_panel=COMPARISON)(testset.make_testset)
app.command(rich_help_panel=COMPARISON)(evaluate.evaluate)
app.command(rich_help_panel=COMPARISON)(bench)
app.command(rich_help_panel=FILES)(export)
app.command("import-weights", rich_help_panel=FILES)(models.import_weights)
app.command("import-lpips", rich_help_panel=FILES)(models.import_lpips)
app.command("import-dists", rich_help_panel=FILES)(testset.import_dists)

train_app = typer.Typer(
    help="Train: uncertainty estimator, prior, teacher, student.", no_args_is_help=True
)
train_app.command("uncertainty")(train.train_uncertainty)
train_app.command("prior")(train.train_prior)
train_app.command("teacher")(train.train_teacher)
train_app.command("student")(train.train_student)
app.add_typer(train_app, name="train", rich_help_panel=TRAINING)

draw_app = typer.Typer(
    help="Draw the paper's figures: crops, cost, radar, maps.", no_args_is_help=True
)
draw_app.command("crops")(figures.draw_crops)
draw_app.command("cost")(figures.draw_cost)
draw_app.command("radar")(figures.draw_radar)
draw_app.command("maps")(figures.draw_maps)
app.add_typer(draw_app, name="draw", rich_help_panel=COMPARISON)


def _show_version(wanted: bool) -> None:
    if not wanted:
        return
    import platform
    from importlib.metadata import version

    import rasterio

    print(f"slimdiffsr {version('slimdiffsr')}")
    print(f"Python {platform.python_version()}, {platform.platform()}")
    print(
        f"torch {version('torch')}, rasterio {version('rasterio')}, GDAL {rasterio.__gdal_version__}"
    )
    raise typer.Exit


@app.callback()
def _top(
    version: Annotated[
        bool,
        typer.Option(
            "--version", help="Print the versions that a bug report needs.", callback=_show_version
        ),
    ] = False,
) -> None:
    pass


def main() -> None:
    """The console command."""
    open_standard_files()
    try:
        app()
    except OSError as error:  # of --help and --version, which are printed before any command
        words, status = _in_a_sentence(error)
        note(f"error: {words}")
        sys.exit(status)


@click.command(
    "slimdiffsr",
    add_help_option=False,
    context_settings={"ignore_unknown_options": True, "allow_extra_args": True},
)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def rio_command(arguments: tuple[str, ...]) -> None:
    """Super-resolve rasters with slimdiffsr."""
    app(list(arguments), prog_name="rio slimdiffsr")

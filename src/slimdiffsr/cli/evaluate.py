"""The command that compares methods on test sets."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from slimdiffsr.cli.options import DeviceOption
from slimdiffsr.cli.show import counting_progress, note
from slimdiffsr.errors import ConfigError, DataError, InterruptedRunError, ScaleError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from slimdiffsr.evaluate import Method, PairedFolder, Report
    from slimdiffsr.evaluate import Progress as Step
    from slimdiffsr.figures.detail import Box

__all__ = ["crops_figure", "evaluate", "open_sets"]

LARGEST_HR_PX = 512  # larger images are shown in part in the HTML report
CROPPED_IMAGES = 3  # rows of crops.png
METRIC_HELP = (
    "psnr_y, ssim_y, lpips_alex, lpips_vgg, lpips_squeeze, dists, niqe, musiq, maniqa, clipiqa; "
    "repeat. Default: the first two, and those whose weights are given. Measures of trust are "
    "always taken."
)


def evaluate(
    out: Annotated[Path, typer.Option(help="Folder of the report; the same again goes on.")],
    model: Annotated[
        list[str] | None,
        typer.Option(
            "--model", "-m", help="[NAME=]MODEL, a model as for upscale; repeat to compare."
        ),
    ] = None,
    peer: Annotated[
        list[str] | None,
        typer.Option(
            help="[NAME=]FILE of another network: known weights (.pth, .safetensors), TorchScript, "
            "ONNX. After a comma: range=0:1, -1:1 or 0:255; multiple=8; tile=128."
        ),
    ] = None,
    outputs: Annotated[
        list[str] | None, typer.Option(help="NAME=FOLDER of what a method made elsewhere.")
    ] = None,
    teacher: Annotated[
        list[str] | None,
        typer.Option(
            help="[NAME=]FILE of merge-teacher, which looks at the truth; [NAME=]FILE,mean: its "
            "estimator's mean instead."
        ),
    ] = None,
    data: Annotated[
        list[Path] | None, typer.Option(help="Test set, of make-testset or alike; repeat for more.")
    ] = None,
    lr: Annotated[Path | None, typer.Option(help="Without --data: folder of inputs.")] = None,
    hr: Annotated[
        Path | None, typer.Option(help="Folder of true images of the same names.")
    ] = None,
    scale: Annotated[
        int | None, typer.Option("--scale", "-s", help="Default: the models' or the data's.")
    ] = None,
    metric: Annotated[list[str] | None, typer.Option(help=METRIC_HELP)] = None,
    lpips: Annotated[Path | None, typer.Option(help="LPIPS weights, .safetensors.")] = None,
    weights: Annotated[
        Path | None,
        typer.Option(help="Folder with lpips_alex.safetensors and so on, and dists.safetensors."),
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only so many images of a set.")] = None,
    pictures: Annotated[int, typer.Option(min=0, help="Pictures in the HTML report.")] = 24,
    save_outputs: Annotated[
        bool, typer.Option(help="Keep PNGs of all outputs; the pictures need them.")
    ] = True,
    colour: Annotated[
        str, typer.Option(help="Of our models: low-frequency, official or none.")
    ] = "low-frequency",
    whole: Annotated[
        bool, typer.Option(help="Our models see each image in one piece, as in the paper.")
    ] = False,
    device: DeviceOption = "auto",
) -> None:
    """Compare models, peers and ready outputs on test sets: tables, crops, and an HTML report."""
    from slimdiffsr.evaluate import Store, choose_metrics, pool, report_markdown, write_tables
    from slimdiffsr.evaluate import evaluate as run
    from slimdiffsr.evaluate.iqa import licence_note
    from slimdiffsr.evaluate.store import STORE_FILE
    from slimdiffsr.evaluate.teachers import TeacherFile, load_teacher_file
    from slimdiffsr.runtime.devices import pick_device

    how = {"device": device, "colour": colour, "whole": whole}
    loaded = _load(model or [], peer or [], scale, how)
    found = _find_scale(
        scale, [method for _, method in loaded if not isinstance(method, str)], data
    )
    sets = [_first(pairs, limit) for pairs in open_sets(data or [], lr, hr, found)]
    methods = _methods(loaded, sets[0].scale, how)
    if not methods and not outputs and not teacher:
        raise ConfigError("nothing to compare: give --model, --peer, --outputs or --teacher")
    teachers = [load_teacher_file(TeacherFile.parse(text), device) for text in teacher or []]
    metrics = choose_metrics(metric, lpips=lpips, weights=weights, device=pick_device(device))
    if (licence := licence_note(metrics)) is not None:
        note(f"note: {licence}")
    ready = [_ready(outputs or [], pairs.about.get("name", "")) for pairs in sets]
    reports: list[Report] = []
    try:
        with Store.open(out / STORE_FILE) as store:
            for pairs, made in zip(sets, ready, strict=True):
                name = pairs.describe()["name"]
                every = [*methods, *(on(pairs) for on in teachers), *made]
                save_to = out / "outputs" / name if save_outputs else None
                with counting_progress(name) as show:
                    told = _told(show)
                    reports.append(
                        run(every, pairs, metrics, store=store, save_to=save_to, progress=told)
                    )
    except (KeyboardInterrupt, InterruptedRunError):
        raise InterruptedRunError(
            f"stopped; what is scored is kept in {out}, and the same command goes on from there"
        ) from None
    shown = [*reports, pool(reports)] if len(reports) > 1 else reports
    write_tables(out, shown)
    if save_outputs:
        _draw(out, shown, list(zip(sets, reports, strict=True)), pictures)
    print(report_markdown(shown))
    failed = sum(len(report.failures) for report in reports)
    if failed:
        note(f"{failed} failures: see 'Not scored' in {out / 'report.md'}")
        raise typer.Exit(1)


def _told(show: Callable[..., None]) -> Callable[[Step], None]:
    return lambda step: show(step.done, step.total, step.method)


Loaded = list[tuple[str, "Method | str"]]  # by name; what is made later is named again


def _load(models: list[str], peers: list[str], scale: int | None, how: dict[str, Any]) -> Loaded:
    # What has a scale of its own; an interpolation is made when the scale is known.
    from slimdiffsr.evaluate import our_model
    from slimdiffsr.evaluate.methods import unique_names
    from slimdiffsr.evaluate.peers import PeerFile, load_peer
    from slimdiffsr.upscale import BASELINES

    loaded: Loaded = []
    for name, source in unique_names(models).items():
        made = source if source in BASELINES else our_model(name, source, scale=scale, **how)
        loaded.append((name, made))
    for text in peers:
        method = load_peer(PeerFile.parse(text), how["device"])
        loaded.append((method.name, method))
    return loaded


def _methods(loaded: Loaded, scale: int, how: dict[str, Any]) -> list[Method]:
    from slimdiffsr.evaluate import Method, our_model

    return [
        method if isinstance(method, Method) else our_model(name, method, scale=scale, **how)
        for name, method in loaded
    ]


def _find_scale(scale: int | None, methods: list[Method], data: list[Path] | None) -> int | None:
    # The scale asked for, else the models', else the only one that the first set has.
    own = {method.scale: method.name for method in methods if method.scale is not None}
    if scale is None and len(own) > 1:
        each = ", ".join(f"{name} {times} times" for times, name in sorted(own.items()))
        raise ScaleError(f"models of different scales cannot be compared: {each}")
    if scale is not None or own:
        return scale if scale is not None else next(iter(own))
    if data and not data[0].is_dir():
        raise DataError(f"no such folder: {data[0]}")
    there = sorted(data[0].glob("lr_x*")) if data else []
    if data and len(there) != 1:
        raise ScaleError(
            f"{data[0]} has {', '.join(p.name for p in there) or 'no lr_x4 or the like'}: give --scale"
        )
    return int(there[0].name.removeprefix("lr_x")) if there else None


def open_sets(
    data: list[Path], lr: Path | None, hr: Path | None, scale: int | None
) -> list[PairedFolder]:
    """Test sets at a scale, or one pair of folders. Raises ConfigError and DataError."""
    from slimdiffsr.evaluate import PairedFolder, open_testset

    if bool(data) == (lr is not None and hr is not None):
        raise ConfigError("give --data TESTSET, or both --lr and --hr")
    if lr is not None and hr is not None:
        return [PairedFolder.open(lr, hr, scale)]
    sets = [open_testset(folder, cast(int, scale)) for folder in data]
    names = [pairs.describe()["name"] for pairs in sets]
    if len(set(names)) < len(names):
        raise ConfigError(f"two test sets have one name: {', '.join(names)}; rename a folder")
    return sets


def _first(pairs: PairedFolder, limit: int | None) -> PairedFolder:
    if limit is None:
        return pairs
    kept = set(pairs.names[:limit])
    lr_files, hr_files = (
        {name: path for name, path in files.items() if name in kept}
        for files in (pairs.lr_files, pairs.hr_files)
    )
    return dataclasses.replace(pairs, lr_files=lr_files, hr_files=hr_files)


def _ready(outputs: list[str], set_name: str) -> list[Method]:
    # With several sets a folder may hold one of each set's name.
    from slimdiffsr.evaluate.peers import ready_outputs

    methods = []
    for text in outputs:
        name, equals, folder = text.partition("=")
        if not equals or not name or not folder:
            raise ConfigError(f"--outputs must be NAME=FOLDER, got {text!r}")
        own = Path(folder) / set_name
        methods.append(ready_outputs(name, own if own.is_dir() else Path(folder)))
    return methods


def _draw(
    out: Path, reports: list[Report], sets: list[tuple[PairedFolder, Report]], pictures: int
) -> None:
    from slimdiffsr.evaluate.page import build_page
    from slimdiffsr.evaluate.pictures import read_pictures, spread
    from slimdiffsr.files.tensors import write_atomically

    share = -(-pictures // len(sets))
    shown = (
        picture
        for pairs, report in sets
        for picture in read_pictures(
            pairs, report, out / "outputs" / report.name, spread(pairs.names, share),
            largest_hr_px=LARGEST_HR_PX,
        )
    )  # fmt: skip
    page = build_page(reports, shown)
    write_atomically(out / "report.html", page.html)
    size = f"{len(page.html) / 1e6:.1f} MB, {page.pictures} of {page.images} images"
    note(f"{out / 'report.html'}: {size}")
    try:
        from slimdiffsr.figures.canvas import write_png
    except ModuleNotFoundError as error:
        note(f"no crops.png without {error.name}: pip install 'slimdiffsr[report]'")
        return
    for pairs, report in sets:
        names = spread(pairs.names, CROPPED_IMAGES)
        name = "crops.png" if len(sets) == 1 else f"crops_{report.name}.png"
        note(str(write_png(crops_figure(pairs, report, out, names), out / name)))


def crops_figure(
    pairs: PairedFolder,
    report: Report,
    out: Path,
    names: list[str],
    box: Box | None = None,
) -> Figure:
    """Images of a report side by side; out: the report's folder. Raises DataError."""
    from slimdiffsr.evaluate.pictures import captions, read_pictures
    from slimdiffsr.figures.crops import Comparison, draw_crops

    pictures = list(read_pictures(pairs, report, out / "outputs" / report.name, names))
    if not pictures:
        raise DataError(f"none of {', '.join(names)} can be shown: no outputs in {out / 'outputs'}")
    likeness = [m.name for m in report.measured if m.name.startswith(("psnr", "lpips", "dists"))][
        :2
    ]
    return draw_crops(
        [
            Comparison(
                p.name, p.lr, p.scale, p.results, captions(report, p.name, likeness, "\n"), box
            )
            for p in pictures
        ]
    )

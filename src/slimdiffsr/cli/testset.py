"""Commands that prepare a comparison: make-testset, import-dists."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from slimdiffsr.cli.options import refuse_existing
from slimdiffsr.cli.show import counting_progress, note

__all__ = ["import_dists", "make_testset"]

LAYOUT_HELP = (
    "aid, nwpu, dota, dior, real-refrssrd or folder; default: recognised by its folders and names."
)


def make_testset(
    source: Annotated[Path, typer.Argument(help="A published data set, or a folder of images.")],
    out: Annotated[Path, typer.Argument(help="Folder to make; the same again goes on.")],
    scale: Annotated[
        list[int] | None, typer.Option("--scale", "-s", help="2, 4 or 8; repeat for more.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the sample and of each image.")] = 20260,
    images: Annotated[
        int | None, typer.Option(help="How many; default: the paper's number, else all.")
    ] = None,
    layout: Annotated[str | None, typer.Option(help=LAYOUT_HELP)] = None,
    max_side: Annotated[
        int | None, typer.Option(help="Crop larger images around their centre: 1024 for DOTA.")
    ] = None,
) -> None:
    """Make low-resolution test images by the paper's degradation, with a manifest.

    evaluate --data OUT measures on them.
    """
    from slimdiffsr.evaluate.testset import TestsetOptions, make_testset

    options = TestsetOptions(tuple(scale or (4,)), seed, images, layout, max_side)
    with counting_progress("images") as show:
        done = make_testset(source, out, options, progress=show)
    kept = f", {done.kept} kept" if done.kept else ""
    note(f"{out}: {done.made} images made{kept}")
    for reason in done.left_out.values():
        note(f"left out: {reason}")
    print(out)
    if done.left_out:
        raise typer.Exit(1)


def import_dists(
    weights: Annotated[Path, typer.Argument(help="The authors' weights.pt: alpha and beta.")],
    vgg: Annotated[Path, typer.Argument(help="LPIPS over VGG16, of import-lpips --net vgg.")],
    target: Annotated[Path, typer.Argument(help="The .safetensors file to write.")],
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an existing file.")
    ] = False,
) -> None:
    """Join the two parts of DISTS, for evaluate --metric dists."""
    from slimdiffsr.evaluate.distances import import_dists

    refuse_existing(target, overwrite)
    print(f"{target}  sha256 {import_dists(weights, vgg, target)}")

"""The command check: what can be said of a result without a truth."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Annotated, Any

import typer

from slimdiffsr.cli.options import JsonOption, integers
from slimdiffsr.cli.show import counting_progress, note

__all__ = ["check"]

INCONSISTENT = 3  # exit status


def check(
    source: Annotated[str, typer.Argument(metavar="IN", help="The input raster.")],
    result: Annotated[str, typer.Argument(metavar="OUT", help="Its enlargement, by any program.")],
    bands: Annotated[
        str | None, typer.Option(help="The input's band for each of the result's: 3,2,1.")
    ] = None,
    error: Annotated[
        float | None, typer.Option(help="Report the share of pixels that differ by more.")
    ] = None,
    every_block: Annotated[
        bool, typer.Option("--all", help="The whole scene, not 256 blocks spread over it.")
    ] = False,
    html: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the report as one page.")
    ] = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Exit status 3 when it is not consistent.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Whether a result still says what its input says: values, place, frequencies, empty pixels.

    New detail is not judged by this: no input tells whether it is true.
    """
    from slimdiffsr.check import build_check_page, check_result, judge
    from slimdiffsr.files.tensors import write_atomically

    with counting_progress("checking") as show:
        findings = check_result(
            source, result, bands=integers("--bands", bands), error=error,
            every_block=every_block, on_block=show,
        )  # fmt: skip
    verdict = judge(findings)
    if html is not None:
        write_atomically(html, build_check_page(findings, verdict))
        note(f"written: {html}")
    if as_json:
        print(json.dumps(_plain(findings) | dataclasses.asdict(verdict), indent=1))
    else:
        print(verdict.sentence)
        _tell(findings)
    if strict and not verdict.consistent:
        raise typer.Exit(INCONSISTENT)


def _plain(findings: Any) -> dict[str, Any]:  # noqa: ANN401  Findings, whose module is heavy
    plain = dataclasses.asdict(dataclasses.replace(findings, worst=()))
    del plain["worst"]
    return plain


def _tell(findings: Any) -> None:  # noqa: ANN401  Findings, whose module is heavy
    for band in findings.bands:
        above = ""
        if band.share_above is not None:
            above = f", {band.share_above:.2%} beyond {findings.error:g}"
        note(
            f"band {band.result_band} ({band.name}): bias {band.bias:+.4g}, mean change "
            f"{band.mean_abs:.4g} ({band.mean_abs / band.spread:.2%} of the spread), contrast "
            f"{band.contrast:.3f}{above}"
        )
    if findings.blocks_seen < findings.blocks:
        note(f"{findings.blocks_seen} of {findings.blocks} blocks looked at; --all for the rest")

"""How the paper counts the parameters of the students of Tables 5 and 6."""

from __future__ import annotations

from typing import NamedTuple

from slimdiffsr.models.sd_vae import LATENTS
from slimdiffsr.models.spec import UNetSpec
from slimdiffsr.models.student import BaseStudent, LatentStudent, count_parameters

__all__ = ["Counts", "count"]


class Counts(NamedTuple):
    """Parameters that run; the same with what the release registers and never runs; the paper's."""

    used: int
    registered: int
    paper: int


def count(student: BaseStudent | LatentStudent) -> Counts:
    """Parameter counts of a row, which the student's config names (MS 9).

    ``registered`` adds the time MLP to all, and conv_in, conv_out and two convolutions of TAESD to
    the fused ones. The paper's number differs for ``no_qgam`` alone: it holds the idle
    cross-attention and leaves out the two fused convolutions.
    """
    spec, name = student.unet.spec, student.config.ablation
    used = count_parameters(student)
    registered = used + _time_mlp(spec.widths[0])
    if isinstance(student, LatentStudent):
        return Counts(used, registered, registered)
    registered += _conv3x3(64, LATENTS) + _conv3x3(LATENTS, 64)
    ends = 3 if name == "no_sap" else LATENTS  # that variant's idle ends are built for RGB
    registered += _conv3x3(ends, spec.widths[0]) + _conv3x3(spec.widths[0], ends)
    if name != "no_qgam":
        return Counts(used, registered, registered)
    merges = count_parameters(student.merge_in) + count_parameters(student.merge_out)
    return Counts(used, registered, registered + _cross_attention(spec) - merges)


def _conv3x3(inputs: int, outputs: int) -> int:
    return 9 * inputs * outputs + outputs


def _time_mlp(outer: int) -> int:
    width = 4 * outer
    return (outer + 1) * width + (width + 1) * width


def _cross_attention(spec: UNetSpec) -> int:
    blocks = 2 * spec.layers + 1  # transformers a level, down and up
    # A norm, query and output over the width, key and value over the text.
    return sum(
        blocks * (2 * w + w * w + (w * w + w) + 2 * spec.text_width * w) for w in spec.widths
    )

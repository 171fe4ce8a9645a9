"""Semantic-aware pruning (section 3.3.2, MS 8.3): the student's first weights, from its teacher's.

Pure functions on weight dicts under our names: nothing is changed, nothing is loaded.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

from torch import Tensor

from slimdiffsr.errors import WeightsError
from slimdiffsr.models.spec import UNetSpec

__all__ = ["Pruned", "prune", "teacher_name"]

# The student's two levels are the teacher's two finest; its one ResBlock below stands on what was
# the first of the third level.
_UNET_LEVELS = (
    (r"^unet\.down_blocks\.([01])\.", r"down_blocks.\1."),
    (r"^unet\.mid_block\.", "down_blocks.2.resnets.0."),
    (r"^unet\.up_blocks\.0\.", "up_blocks.2."),
    (r"^unet\.up_blocks\.1\.", "up_blocks.3."),
    (r"^unet\.(norm_out|conv_in|conv_out)\.", r"\1."),
)


class Pruned(NamedTuple):
    """A student's weights, and which of them were inherited; the others are the fresh ones."""

    weights: dict[str, Tensor]
    inherited: frozenset[str]


def teacher_name(name: str) -> str | None:
    """The teacher's name of a weight of the student's UNet; None outside the UNet."""
    for pattern, replacement in _UNET_LEVELS:
        if re.match(pattern, name):
            return re.sub(pattern, replacement, name)
    return None


def taesd_name(name: str) -> str | None:
    """TAESD's name of a weight of the student's autoencoder; None elsewhere."""
    if name.startswith("codec."):  # all of TAESD
        return name.removeprefix("codec.")
    if name.startswith("encoder."):
        return name
    # Without its first convolution the decoder's indices are one less.
    match = re.match(r"decoder\.(\d+)\.(.*)", name)
    return f"decoder.{int(match[1]) + 1}.{match[2]}" if match else None


def starts_fresh(name: str, spec: UNetSpec) -> bool:
    """Whether a weight belongs to a part that Stable Diffusion does not have."""
    if not name.startswith("unet."):
        return name.startswith("merge_")
    if spec.mid == "attention":
        return True  # without semantic-aware pruning every width differs
    replaced = {
        "conv1": spec.conv1 == "fsc",
        "conv2": spec.conv2 == "dsc",
        "attention": spec.attention == "qgam",
    }
    return any(f".{part}." in name and new for part, new in replaced.items())


def prune(
    fresh: Mapping[str, Tensor],
    spec: UNetSpec,
    teacher: Mapping[str, Tensor],
    taesd: Mapping[str, Tensor] | None,
) -> Pruned:
    """The student's weights: Stable Diffusion's and TAESD's where the part was kept, else fresh.

    fresh: the state dict of a new student, whose UNet has ``spec``. teacher: of the teacher's UNet,
    plain or with LoRA merged. taesd: of ``Taesd``, or None where another autoencoder stands, which
    keeps what it has. Raises WeightsError when a kept part is missing or of another shape.
    """
    weights = dict(fresh)
    inherited = set()
    wrong = []
    for name, own in fresh.items():
        if starts_fresh(name, spec):
            continue
        source, theirs = teacher, teacher_name(name)
        if theirs is None:
            if taesd is None:
                continue
            source, theirs = taesd, taesd_name(name)
        value = source.get(theirs) if theirs is not None else None
        if value is None or value.shape != own.shape:
            wrong.append(name)
            continue
        weights[name] = value.detach().to(own.dtype).clone()
        inherited.add(name)
    if wrong:
        raise WeightsError(
            f"the teacher has no fitting weights for {len(wrong)} of the student's, such as "
            f"{', '.join(wrong[:3])}: student and teacher need the same widths and layers"
        )
    return Pruned(weights, frozenset(inherited))

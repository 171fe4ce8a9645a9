"""The lean student: shapes, its start, and what it cannot do to a plain surface."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from slimdiffsr.errors import ConfigError
from slimdiffsr.models.lean import LeanStudent
from slimdiffsr.models.student import build_student
from slimdiffsr.settings.config import DistillConfig, LeanConfig, ModelConfig, parse, to_dict
from slimdiffsr.settings.presets import tiny_model, tiny_training
from slimdiffsr.stages.run import fresh


def small(scale: int = 4, levels: int = 2) -> LeanStudent:
    doublings = scale.bit_length() - 1
    lean = {
        "widths": (8, 12, 16)[:levels],
        "depths": (1,) * levels,
        "kernel": 3,
        "decoder_widths": (6,) * doublings,
    }
    model = {"name": "s", "scale": scale, "kind": "lean", "lean": lean}
    student = fresh(lambda: build_student(parse(ModelConfig, model)), 0)
    assert isinstance(student, LeanStudent)
    return student.eval()


@pytest.mark.parametrize("scale", [2, 4, 8])
@pytest.mark.parametrize("levels", [1, 2, 3])
def test_it_takes_any_shape_of_whole_cells(scale: int, levels: int) -> None:
    student = small(scale, levels)
    unit = student.config.multiple_lr_px
    assert unit == 2 ** (levels - 1)
    with torch.no_grad():
        made = student(torch.zeros(2, 3, 3 * unit, 5 * unit))
    assert made.shape == (2, 3, 3 * unit * scale, 5 * unit * scale)


def test_it_adds_to_a_bilinear_enlargement() -> None:
    student = small()
    nn.init.zeros_(student.out.weight)
    assert student.out.bias is not None
    nn.init.zeros_(student.out.bias)
    x = torch.rand(1, 3, 8, 12, generator=torch.Generator().manual_seed(1)) * 2 - 1
    expected = F.interpolate(x, size=(32, 48), mode="bilinear", align_corners=False)
    torch.testing.assert_close(student(x), expected)


@pytest.mark.parametrize("colour", [-0.8, 0.0, 0.7])
def test_a_plain_input_stays_plain_whatever_the_weights(colour: float) -> None:
    with torch.no_grad():
        made = small(levels=3)(torch.full((1, 3, 64, 64), colour))
    inside = made[..., 100:-100, 100:-100]
    # Zero padding reaches inwards as far as the kernels do, and no statistics carry it further.
    torch.testing.assert_close(inside, inside[..., :1, :1].expand_as(inside))


def test_what_lies_beyond_its_reach_does_not_matter() -> None:
    student = small(levels=2)
    x = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(2))
    other = x.clone()
    other[..., 40:] = 0
    with torch.no_grad():
        a, b = student(x), student(other)
    assert torch.equal(a[..., : 4 * 16], b[..., : 4 * 16])
    assert not torch.equal(a[..., : 4 * 40], b[..., : 4 * 40])


def test_decoder_widths_fit_the_scale() -> None:
    with pytest.raises(ConfigError, match=r"needs 3 lean\.decoder_widths"):
        parse(ModelConfig, to_dict(tiny_model(4)) | {"scale": 8, "overlap_hr_px": 64})
    with pytest.raises(ConfigError, match="one depth a level"):
        parse(LeanConfig, {"widths": (8, 16), "depths": (1,)})


def test_it_has_no_blocks_for_a_teacher() -> None:
    config = to_dict(tiny_training(4)) | {"distill": to_dict(DistillConfig())}
    with pytest.raises(ConfigError, match="distill must be none"):
        parse(type(tiny_training(4)), config)

from __future__ import annotations

import json

import pytest
from teachers import micro_teacher

from slimdiffsr.settings.config import parse, to_dict
from slimdiffsr.settings.presets import PRESETS
from slimdiffsr.stages.teacher_config import TEACHERS, TeacherConfig

pytestmark = pytest.mark.usefixtures("one_thread")


def test_the_papers_values_are_the_presets() -> None:
    teacher, student = TEACHERS["paper-x8"], PRESETS["paper-x8"]
    assert (teacher.steps, teacher.batch, teacher.crop_hr_px, teacher.lr) == (25_000, 2, 512, 2e-4)
    assert (student.steps, student.batch, student.crop_hr_px, student.lr) == (
        100_000,
        16,
        512,
        5e-5,
    )
    assert (teacher.unet_rank, teacher.decoder_rank) == (32, 16)
    assert student.distill is not None
    assert student.distill.mmd_weight == 0.1
    assert student.weight_decay == 0 < teacher.weight_decay  # Adam, and AdamW
    for loss in (teacher.loss, student.loss):
        assert (loss.l1, loss.lpips, loss.lpips_net, loss.gan) == (1, 2.5, "vgg", 0.25)
    for name, config in TEACHERS.items():
        assert parse(TeacherConfig, json.loads(json.dumps(to_dict(config)))) == config
        assert PRESETS[name].recipe == config.recipe
        assert PRESETS[name].crop_hr_px == config.crop_hr_px


def test_settings_that_a_teacher_does_not_have_are_refused() -> None:
    with pytest.raises(ValueError, match="ema=0"):
        micro_teacher(ema=0.9)
    with pytest.raises(ValueError, match="2 cannot be worked through in 4"):
        micro_teacher(accumulate=4)

"""A few steps of a run whose results are thrown away: whether it works, and how long a step takes."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from slimdiffsr.settings.config import LoopConfig
from slimdiffsr.training.loop import Progress
from slimdiffsr.training.notices import Tell

__all__ = ["seconds_a_step"]

STEPS = 4  # the first prepares what the others use


class _EnoughError(BaseException):
    """Ends a run without being kept, as an error would be."""


def seconds_a_step(stage: Callable[..., Any], config: LoopConfig, tell: Tell) -> float:
    """Time of a step with all losses, validation and saving left aside.

    stage: called with settings, an output folder, ``on_progress`` and ``tell``; whatever is missing or
    does not fit raises here what it would raise in the run.
    """
    clocks: list[float] = []

    def watch(progress: Progress) -> None:
        clocks.append(time.monotonic())
        if len(clocks) == STEPS:
            raise _EnoughError

    with (
        TemporaryDirectory(prefix="slimdiffsr-trial-") as folder,
        contextlib.suppress(_EnoughError),
    ):
        stage(_shortened(config), Path(folder), on_progress=watch, tell=tell)
    return (clocks[-1] - clocks[0]) / max(1, len(clocks) - 1)


def _shortened(config: LoopConfig) -> LoopConfig:
    changes: dict[str, Any] = {
        "steps": max(STEPS, config.steps),
        "log_every": 1,
        "save_every": 10**9,
        "validation_images": 0,
        "pool": 0,
    }
    loss = getattr(config, "loss", None)
    if loss is not None:
        changes["loss"] = dataclasses.replace(loss, gan_from=0, perceptual_from=0)
    return dataclasses.replace(config, **changes)

"""What the two stages share whose only network learns on a frozen codec's latents."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from accelerate.accelerator import Accelerator
from torch import Tensor, nn

from slimdiffsr.files.stages import describe_codec, save_network
from slimdiffsr.models.sd_vae import KLCodec, Taesd
from slimdiffsr.settings.config import LoopConfig
from slimdiffsr.stages.learner import Learner
from slimdiffsr.stages.run import Run, RunPaths, fresh
from slimdiffsr.stages.validation import validation_set
from slimdiffsr.training.loop import Progress, TrainResult

__all__ = ["LatentTask", "train_on_latents"]

M = TypeVar("M", bound=nn.Module)
C = TypeVar("C", bound=LoopConfig)


class LatentTask(Generic[M]):
    """A network that learns alone, named ``kind`` here and on disk; the codec stays as it is."""

    kind: str
    unit_hr_px: int  # what the sides of validation images must be multiples of

    def __init__(
        self,
        config: LoopConfig,
        paths: RunPaths,
        codec: Taesd | KLCodec,
        accelerator: Accelerator,
    ) -> None:
        self.accelerator = accelerator
        self.device: torch.device = accelerator.device
        self.codec = codec.to(self.device).eval().requires_grad_(False)
        network = fresh(self.build, config.seed)
        self.learner = Learner(config, self.kind, network, accelerator, paths.start)
        self.modules = self.learner.modules
        self.optimizers = self.learner.optimizers
        self.base_lr = self.learner.base_lr
        self.averages = self.learner.averages
        self.validation = validation_set(config, paths, self.unit_hr_px)

    def build(self) -> M:
        """The network before its first step."""
        raise NotImplementedError

    def update(self, lr: Tensor, hr: Tensor, step: int) -> dict[str, Tensor]:
        """As the loop's ``Task`` says."""
        raise NotImplementedError

    def validate(self, step: int, out: Path) -> dict[str, float]:
        """As the loop's ``Task`` says."""
        raise NotImplementedError


def train_on_latents(
    run: Run[C],
    build: Callable[[Run[C]], LatentTask[Any]],
    codec: Taesd | KLCodec,
    file: Path,
    spec: Any,  # noqa: ANN401  any dataclass of plain values
    about: Mapping[str, str],
    *,
    max_minutes: float | None,
    on_progress: Callable[[Progress], None] | None,
) -> TrainResult:
    """Run a ``LatentTask`` on this codec alone, and write its network into ``file``.

    build: the task of a run. about: metadata, beside the run's own and the codec's.
    """
    about_codec = describe_codec(codec)
    run = run.stands_on(about_codec)
    task = build(run)
    result = run.loop(task, max_minutes=max_minutes, on_progress=on_progress)
    if run.accelerator.is_main_process:
        metadata = run.about(result) | about_codec | dict(about)
        save_network(file, task.learner.averaged(), spec, task.kind, metadata)
    return result

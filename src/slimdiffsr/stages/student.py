"""Stage 2, the student; so far with its reconstruction losses alone, no teacher."""

from __future__ import annotations

import copy
import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import torch
from accelerate.accelerator import Accelerator
from torch import Tensor, nn
from torch.optim import Optimizer

from slimdiffsr.checkpoint import load_strict, load_tensors, save_model
from slimdiffsr.config import TrainConfig, to_dict
from slimdiffsr.models.discriminator import UNetDiscriminator
from slimdiffsr.models.student import build_student
from slimdiffsr.stages.reconstruction import Reconstruction, load_lpips
from slimdiffsr.stages.run import RunPaths, channels_last, fresh, make_optimizer, start_run
from slimdiffsr.stages.validation import score, validation_set
from slimdiffsr.training import Average, Progress, TrainResult, bare, train

__all__ = ["train_student"]


def train_student(
    config: TrainConfig,
    paths: RunPaths,
    *,
    max_minutes: float | None = None,
    on_progress: Callable[[Progress], None] | None = None,
) -> TrainResult:
    """Train a student from scratch with L1 + LPIPS + adversarial loss (Eq. 20).

    Writes ``model.safetensors``, the resumable state, TensorBoard logs and validation pictures into
    ``paths.out``; the same call again goes on where the last one stopped.
    """
    run = start_run(config, paths)
    task = StudentTask(config, paths, run.accelerator)
    result = train(
        config, task, run.batches, paths.out, run.accelerator,
        max_minutes=max_minutes, on_progress=on_progress,
    )  # fmt: skip
    if run.accelerator.is_main_process:
        about = {"step": str(result.step), "train_config": json.dumps(to_dict(config))}
        save_model(paths.out / "model.safetensors", task.averaged(), config.model, about)
    return dataclasses.replace(result, unreadable=result.unreadable + run.unreadable)


class StudentTask:
    """The student, its adversary, and how they learn."""

    def __init__(self, config: TrainConfig, paths: RunPaths, accelerator: Accelerator) -> None:
        self.config = config
        self.accelerator = accelerator
        device = accelerator.device
        lpips = load_lpips(paths.lpips)
        if isinstance(lpips, nn.Module):
            lpips.to(device)
        student = fresh(lambda: build_student(config.model), config.seed).to(device)
        if paths.start is not None:
            load_strict(student, load_tensors(paths.start)[0], str(paths.start))
        adversary = fresh(lambda: UNetDiscriminator(config.discriminator_width), config.seed)
        adversary.to(device)
        channels_last(student)
        channels_last(adversary)
        self.optimizers: dict[str, Optimizer] = {
            "student": make_optimizer(config, student),
            "adversary": make_optimizer(config, adversary),
        }
        self.base_lr = {"student": config.lr, "adversary": config.lr_adversary or config.lr}
        self.averages = {"student": Average(student, config.ema)} if config.ema else {}
        self.validation = validation_set(
            config, paths, config.model.multiple_lr_px * config.model.scale
        )
        self.student = accelerator.prepare(torch.compile(student) if config.compile else student)
        self.adversary = accelerator.prepare(adversary)
        self.modules: dict[str, nn.Module] = {"student": self.student, "adversary": self.adversary}
        self.reconstruction = Reconstruction(
            config.loss, lpips, self.adversary, accelerator, config.seed
        )

    def update(self, lr: Tensor, hr: Tensor, step: int) -> dict[str, Tensor]:
        """One step of the student, then one of its adversary."""
        lr = lr.to(memory_format=torch.channels_last)
        hr = hr.to(memory_format=torch.channels_last)
        with self.accelerator.autocast():
            sr = self.student(lr)
        total, losses = self.reconstruction.loss(sr, hr, step)
        self._descend("student", self.student, total)
        if self.reconstruction.adversarial(step):
            losses["adversary"] = self.reconstruction.adversary_loss(sr, hr)
            self._descend("adversary", self.adversary, losses["adversary"])
        for average in self.averages.values():
            average.update(bare(self.student), step)
        return {name: value.detach() for name, value in losses.items()}

    def _descend(self, name: str, module: nn.Module, loss: Tensor) -> None:
        self.accelerator.backward(loss)
        self.accelerator.clip_grad_norm_(module.parameters(), self.config.grad_clip)
        self.optimizers[name].step()
        self.optimizers[name].zero_grad(set_to_none=True)

    def averaged(self) -> nn.Module:
        """The student with its averaged weights, in evaluation mode."""
        student = copy.deepcopy(bare(self.student)).eval()
        if "student" in self.averages:
            student.load_state_dict(self.averages["student"].weights)
        return student

    def validate(self, step: int, out: Path) -> dict[str, float]:
        """Metrics over the fixed set, and one PNG of it."""
        student = self.averaged()
        return score(
            lambda lr, _: student(lr),
            self.validation,
            self.reconstruction.lpips,
            out / "validation" / f"{step:07d}.png",
            self.accelerator.device,
        )

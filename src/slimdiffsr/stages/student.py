"""Stage 2, the student: L_Rec, and with a teacher L_Rec + L_Dis (Eq. 23)."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import torch
from accelerate.accelerator import Accelerator
from torch import Tensor, nn
from torch.optim import Optimizer

from slimdiffsr.errors import ConfigError
from slimdiffsr.files.stages import CodecKind, load_codec
from slimdiffsr.files.students import save_model
from slimdiffsr.files.teachers import load_base_unet, load_teacher
from slimdiffsr.files.tensors import file_sha256, load_strict, load_tensors
from slimdiffsr.method.teacher import Teacher
from slimdiffsr.models.lean import LeanStudent
from slimdiffsr.models.sd_vae import Taesd
from slimdiffsr.models.student import (
    BaseStudent,
    LatentStudent,
    MatchedStudent,
    Student,
    build_student,
    enlarge_bicubic,
)
from slimdiffsr.settings.config import TrainConfig
from slimdiffsr.stages.adversarial import Alternation, Attempt, build_adversary
from slimdiffsr.stages.distilled import Distillation, Imitator, inherit
from slimdiffsr.stages.graphs import prepare
from slimdiffsr.stages.reconstruction import Reconstruction
from slimdiffsr.stages.run import (
    RunPaths,
    channels_last,
    check_crop,
    check_scale,
    fresh,
    lpips_of,
    make_optimizer,
    recompute_blocks,
    start_run,
)
from slimdiffsr.stages.validation import LARGEST_PX, score, validation_set
from slimdiffsr.training.loop import Average, Progress, TrainResult
from slimdiffsr.training.notices import Tell, say_nothing

__all__ = ["train_student"]


def train_student(
    config: TrainConfig,
    paths: RunPaths,
    *,
    max_minutes: float | None = None,
    on_progress: Callable[[Progress], None] | None = None,
    tell: Tell = say_nothing,
) -> TrainResult:
    """Train a student with L1 + LPIPS + adversarial loss (Eq. 20), and as ``paths.teacher`` does.

    Writes ``model.safetensors``, the resumable state, TensorBoard logs and validation pictures into
    ``paths.out``; the same call again goes on where the last one stopped.
    """
    run = start_run(config, paths, tell=tell)
    config = run.config
    if paths.teacher is not None and paths.teacher.is_file():
        run = run.stands_on({"teacher": file_sha256(paths.teacher)})
    unit_hr_px = config.model.multiple_lr_px * config.model.scale
    validation = run.material.fixed(config.validation_images, unit_hr_px, LARGEST_PX)
    if validation is None or paths.validation is not None:
        validation = validation_set(config, paths, unit_hr_px)
    task = StudentTask(config, paths, run.accelerator, validation)
    result = run.loop(task, max_minutes=max_minutes, on_progress=on_progress)
    if run.accelerator.is_main_process:
        save_model(
            paths.out / "model.safetensors", task.averaged(), config.model, run.about(result)
        )
    return result


def find_teacher(config: TrainConfig, paths: RunPaths) -> Teacher | None:
    """The teacher, where the config has a use for one. Raises ConfigError and WeightsError."""
    if config.distill is None and config.init != "teacher":
        if paths.teacher is not None:
            raise ConfigError(
                "this config has no use for a teacher (distill=none, init="
                f"{config.init}): leave out --teacher, or take a config that distils"
            )
        return None
    if paths.teacher is None:
        raise ConfigError(
            "this config needs a teacher: give --teacher FILE, or set distill=none and init=fresh"
        )
    check_scale(config, paths.teacher)
    teacher = load_teacher(paths.teacher)
    check_crop(config, teacher.unet.spec)
    return teacher


def first_student(config: TrainConfig, paths: RunPaths, teacher: Teacher | None) -> Student:
    """The student before its first step: fresh, inherited by pruning, or from ``paths.start``."""
    if config.init != "sd" and (paths.unet or paths.sd_folder):
        raise ConfigError(
            f"--unet and --sd-folder are where init=sd begins, this config has init={config.init}: "
            "leave them out, or set init=sd"
        )
    student = fresh(lambda: build_student(config.model), config.seed)
    if config.init != "fresh" and isinstance(student, BaseStudent | LatentStudent):
        _inherit(student, config, paths, teacher)
    if paths.start is not None:
        load_strict(student, load_tensors(paths.start)[0], str(paths.start))
    return student


def _inherit(
    student: BaseStudent | LatentStudent,
    config: TrainConfig,
    paths: RunPaths,
    teacher: Teacher | None,
) -> None:
    # From the UNet that config.init names, and the autoencoder that the student is built on.
    if config.init == "teacher" and teacher is not None:
        unet = teacher.unet
    else:
        unet, _ = load_base_unet(paths.unet, paths.sd_folder)
    kind: CodecKind = "kl" if config.model.ablation == "kl" else "taesd"
    if teacher is not None and isinstance(teacher.codec, Taesd) == (kind == "taesd"):
        codec = teacher.codec
    else:
        codec = load_codec(kind, paths.codec_folder)
    taesd = codec.state_dict() if isinstance(codec, Taesd) else None
    inherit(student, unet.state_dict(), taesd)
    if isinstance(student, LatentStudent) and taesd is None:
        load_strict(student.codec, codec.state_dict(), "Stable Diffusion's autoencoder")


class StudentTask:
    """The student, its adversary, perhaps its teacher, and how they learn."""

    def __init__(
        self,
        config: TrainConfig,
        paths: RunPaths,
        accelerator: Accelerator,
        validation: Sequence[tuple[Tensor, Tensor]] = (),
    ) -> None:
        self.config = config
        self.accelerator = accelerator
        device = accelerator.device
        lpips = lpips_of(config.loss, paths.lpips, device)
        teacher = find_teacher(config, paths)
        self.student = first_student(config, paths, teacher)
        if config.checkpointing and not isinstance(self.student, LeanStudent):
            recompute_blocks(self.student.unet, getattr(self.student, "codec", None))
        channels_last(self.student.to(device))
        adversary = fresh(
            lambda: build_adversary(
                config.adversary, config.discriminator_width, paths.dino, lpips
            ),
            config.seed,
        )
        channels_last(adversary.to(device))
        self.modules: dict[str, nn.Module] = {"student": self.student, "adversary": adversary}
        learner: nn.Module = self.student
        self.distillation = None
        if teacher is not None and config.distill is not None:
            assert not isinstance(self.student, LeanStudent)  # the config refuses it
            learner = self._imitator(self.student, teacher).to(device)
            self.distillation = Distillation(
                config.distill, teacher, config.seed, accelerator, graphs=config.graphs
            )
        self.optimizers: dict[str, Optimizer] = {
            "student": make_optimizer(config, learner),
            "adversary": make_optimizer(config, adversary),
        }
        self.base_lr = {"student": config.lr, "adversary": config.lr_adversary or config.lr}
        self.averages = {"student": Average(self.student, config.ema)} if config.ema else {}
        self.validation = validation
        self.learner = prepare(learner, accelerator, compiled=config.compile, graphs=config.graphs)
        self.reconstruction = Reconstruction(
            config.loss, lpips, adversary, accelerator, config.seed, graphs=config.graphs
        )
        networks = {"student": self.learner, "adversary": self.reconstruction.adversary}
        self.alternation = Alternation(
            config, accelerator, self.reconstruction, networks, self.optimizers
        )

    def _imitator(self, student: MatchedStudent, teacher: Teacher) -> nn.Module:
        mid = self.config.distill is not None and self.config.distill.mid
        imitator = fresh(lambda: Imitator(student, teacher.unet.spec, mid=mid), self.config.seed)
        self.modules["adapters"] = imitator.adapters  # resumed, but not part of the model
        return imitator

    def update(self, lr: Tensor, hr: Tensor, step: int) -> dict[str, Tensor]:
        """One step of the student, then one of its adversary."""
        lr = lr.to(memory_format=torch.channels_last)
        hr = hr.to(memory_format=torch.channels_last)
        losses = self.alternation.update("student", partial(self._attempt, step), (lr, hr), step)
        for average in self.averages.values():
            average.update(self.student, step)
        return losses

    def _attempt(self, step: int, lr: Tensor, hr: Tensor) -> Attempt:
        """L_Rec, or with a teacher Eq. 23."""
        with self.accelerator.autocast():
            made = self.learner(lr)
        if self.distillation is None:
            return Attempt(made, *self.reconstruction.loss(made, hr, lr, step))
        sr, adapted = made
        total, terms = self.reconstruction.loss(sr, hr, lr, step)
        enlarged = enlarge_bicubic(lr, self.config.model.scale)
        imitation, more = self.distillation.loss(adapted, enlarged, hr, step)
        return Attempt(sr, total + imitation, terms | more)

    def averaged(self) -> nn.Module:
        """The student with its averaged weights, in evaluation mode."""
        student = copy.deepcopy(self.student).eval()
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

"""Stage 1, the single-step teacher with adaptive timesteps (Eqs. 20 to 22)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from accelerate.accelerator import Accelerator
from torch import Tensor, nn
from torch.optim import Optimizer

from slimdiffsr.files.stages import ESTIMATOR_FILE, written_by_run
from slimdiffsr.files.teachers import (
    Adaptation,
    TeacherBase,
    build_teacher,
    hash_base,
    save_adapted,
)
from slimdiffsr.method.losses import total_variation
from slimdiffsr.method.teacher import Teacher
from slimdiffsr.models.student import enlarge_bicubic
from slimdiffsr.stages.adversarial import Alternation, Attempt, build_adversary
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
from slimdiffsr.stages.teacher_config import TeacherConfig
from slimdiffsr.stages.validation import draw_maps, score, validation_set
from slimdiffsr.training.loop import Average, Progress, TrainResult
from slimdiffsr.training.notices import Tell, say_nothing

__all__ = ["train_teacher"]


def train_teacher(
    config: TeacherConfig,
    paths: RunPaths,
    base: TeacherBase,
    *,
    max_minutes: float | None = None,
    on_progress: Callable[[Progress], None] | None = None,
    tell: Tell = say_nothing,
) -> TrainResult:
    """Adapt a diffusion model to restoration in one step: L_Rec + lambda_TV L_TV (Eq. 22).

    Writes ``teacher.safetensors``, which holds what trained and is to be merged, the resumable
    state, logs and pictures into ``paths.out``; the same call again goes on.
    """
    run = start_run(config, paths, tell=tell)
    config = run.config
    check_scale(config, written_by_run(base.estimator, ESTIMATOR_FILE))
    adaptation = Adaptation(
        config.predictor, config.unet_rank, config.decoder_rank, config.train_conv_in
    )
    teacher = fresh(
        lambda: build_teacher(
            base,
            config.predictor,
            prompt_cache=paths.out / "prompt.safetensors",
            detach_embedding=config.detach_embedding,
        ),
        config.seed,
    )
    hashes = hash_base(teacher)
    run = run.stands_on(hashes)
    rng = torch.Generator().manual_seed(config.seed)
    fresh(lambda: adapted(teacher, adaptation, rng), config.seed)
    task = TeacherTask(config, paths, teacher, run.accelerator)
    result = run.loop(task, max_minutes=max_minutes, on_progress=on_progress)
    if run.accelerator.is_main_process:
        save_adapted(
            paths.out / "teacher.safetensors", teacher, adaptation, hashes, run.about(result)
        )
    return result


def adapted(teacher: Teacher, adaptation: Adaptation, rng: torch.Generator) -> Teacher:
    """The same teacher, ready for stage 1."""
    adaptation.apply(teacher, rng)
    return teacher


def trained_part(teacher: Teacher) -> nn.ParameterDict:
    """The very parameters that train, and no others: what a run saves and resumes."""
    trained = {n: p for n, p in teacher.named_parameters() if p.requires_grad}
    return nn.ParameterDict({name.replace(".", "/"): p for name, p in trained.items()})


class TeacherTask:
    """The teacher, its adversary, and how they learn."""

    def __init__(
        self, config: TeacherConfig, paths: RunPaths, teacher: Teacher, accelerator: Accelerator
    ) -> None:
        self.config = config
        self.accelerator = accelerator
        self.bare = teacher
        check_crop(config, teacher.unet.spec)
        device = accelerator.device
        lpips = lpips_of(config.loss, paths.lpips, device)
        teacher.to(device)
        if config.checkpointing:
            recompute_blocks(teacher.unet, teacher.codec)
        adversary = fresh(
            lambda: build_adversary(
                config.adversary, config.discriminator_width, paths.dino, lpips
            ),
            config.seed,
        )
        channels_last(adversary.to(device))
        self.modules: dict[str, nn.Module] = {
            "teacher": trained_part(teacher),
            "adversary": adversary,
        }
        self.optimizers: dict[str, Optimizer] = {
            "teacher": make_optimizer(config, teacher),
            "adversary": make_optimizer(config, adversary),
        }
        self.base_lr = {"teacher": config.lr, "adversary": config.lr_adversary or config.lr}
        self.averages: dict[str, Average] = {}
        self.validation = validation_set(config, paths, teacher.unet.spec.unit_hr_px)
        self.teacher = prepare(teacher, accelerator, graphs=config.graphs)
        self.reconstruction = Reconstruction(
            config.loss, lpips, adversary, accelerator, config.seed, graphs=config.graphs
        )
        networks = {"teacher": self.teacher, "adversary": self.reconstruction.adversary}
        self.alternation = Alternation(
            config, accelerator, self.reconstruction, networks, self.optimizers
        )

    def update(self, lr: Tensor, hr: Tensor, step: int) -> dict[str, Tensor]:
        """One step of the teacher, then one of its adversary."""
        return self.alternation.update("teacher", partial(self._attempt, step), (lr, hr), step)

    def _attempt(self, step: int, lr: Tensor, hr: Tensor) -> Attempt:
        """Eq. 22."""
        with self.accelerator.autocast():
            sr, guidance = self.teacher(enlarge_bicubic(lr, self.config.recipe.scale), hr)
        total, terms = self.reconstruction.loss(sr, hr, lr, step)
        terms["tv"] = total_variation(guidance.alpha_bar)
        total = total + self.config.tv * terms["tv"]
        return Attempt(sr, total, {**terms, "timestep": guidance.timestep.mean()})

    def validate(self, step: int, out: Path) -> dict[str, float]:
        """Metrics with the ground truth seen and with z_mean in its place; pictures and maps."""
        folder = out / "validation"
        maps: list[Tensor] = []

        def restore(lr: Tensor, hr: Tensor | None) -> Tensor:
            sr, guidance = self.bare(enlarge_bicubic(lr, self.config.recipe.scale), hr)
            maps.append(guidance.timestep.float().cpu()[0, 0])
            image: Tensor = sr
            return image

        def measure(suffix: str, *, blind: bool) -> dict[str, float]:
            return score(
                lambda lr, hr: restore(lr, None if blind else hr),
                self.validation,
                self.reconstruction.lpips,
                folder / f"{step:07d}{suffix}.png",
                self.accelerator.device,
            )

        values = measure("", blind=False)
        draw_maps(maps, [hr for _, hr in self.validation], folder / f"{step:07d}-timestep.png")
        seen = torch.cat([m.flatten() for m in maps])
        values |= {
            "val/timestep": float(seen.mean()),
            "val/timestep_std": float(seen.std(correction=0)),
        }
        blind = measure("-mean", blind=True)
        return values | {key.replace("val/", "val_mean/"): value for key, value in blind.items()}

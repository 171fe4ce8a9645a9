"""One optimisation step at the paper's true size, with random weights, as JSON lines.

Seconds and peak memory of stage 1 (``teacher``) or of stage 2 (``student``, distilled from a
teacher without gradients), each with all losses of the paper: L1, LPIPS by VGG16, the adversary on
DINO ViT-B/16 and its own step, total variation or distillation:

    python benchmarks/full_size.py teacher --steps 1
    python benchmarks/full_size.py teacher --device cuda --bf16 --batch 2 --checkpointing on off
    python benchmarks/full_size.py student --device cuda --bf16 --batch 8 16 --steps 20
"""

import argparse
import gc
import json
import platform
import resource
import statistics
import time
from collections.abc import Callable
from itertools import product
from typing import Any

import torch
from accelerate.accelerator import Accelerator
from torch import Tensor, nn

from slimdiffsr.method.diffusion import noise_schedule
from slimdiffsr.method.losses import total_variation
from slimdiffsr.method.teacher import Teacher, adapt
from slimdiffsr.models.discriminator import DinoDiscriminator, DinoFeatures
from slimdiffsr.models.lpips import LPIPS
from slimdiffsr.models.sd_vae import build_kl
from slimdiffsr.models.spec import SD21, PredictorSpec
from slimdiffsr.models.student import BaseStudent, enlarge_bicubic
from slimdiffsr.models.uncertainty import NoiseLevelPredictor, UncertaintyEstimator
from slimdiffsr.models.unet import UNet
from slimdiffsr.settings.config import DistillConfig, LoopConfig, ModelConfig, StudentLoss
from slimdiffsr.stages.adversarial import Alternation, Attempt
from slimdiffsr.stages.distilled import Distillation, Imitator
from slimdiffsr.stages.reconstruction import Reconstruction
from slimdiffsr.stages.run import make_optimizer, recompute_blocks

Step = Callable[[Tensor, Tensor], dict[str, Tensor]]


def full_teacher(device: torch.device) -> Teacher:
    """The paper's teacher: Stable Diffusion's UNet and autoencoder, with random weights."""
    with torch.device(device):
        return _full_teacher()


def _full_teacher() -> Teacher:
    schedule = noise_schedule()
    predictor = NoiseLevelPredictor(PredictorSpec(), schedule)
    unet, estimator = UNet(SD21), UncertaintyEstimator()
    prompt = torch.randn(1, 77, 1024)
    return Teacher(unet, build_kl(), estimator, predictor, schedule, prompt=prompt)


def full_reconstruction(accelerator: Accelerator) -> tuple[Reconstruction, nn.Module]:
    """The paper's L_Rec: LPIPS by VGG16, heads on DINO ViT-B/16; backbones with random weights."""
    from transformers import ViTConfig, ViTModel

    lpips = LPIPS("vgg").eval().requires_grad_(False).to(accelerator.device)
    backbone = DinoFeatures(ViTModel(ViTConfig(), add_pooling_layer=False))
    adversary = DinoDiscriminator(backbone).to(accelerator.device)
    weights = StudentLoss(lpips_net="vgg", gan_kind="bce_s")
    return Reconstruction(weights, lpips, adversary, accelerator, seed=0), adversary


def teacher_step(accelerator: Accelerator, batch: int, checkpointing: bool) -> Step:
    """Stage 1: Eq. 22, then the adversary's step.

    With ``checkpointing`` UNet and decoder are recomputed on the way back.
    """
    teacher = full_teacher(accelerator.device)
    adapt(teacher)
    teacher.to(accelerator.device).train()
    if checkpointing:
        recompute_blocks(teacher.unet, teacher.codec)
    reconstruction, adversary = full_reconstruction(accelerator)

    def attempt(lr: Tensor, hr: Tensor) -> Attempt:
        with accelerator.autocast():
            sr, guidance = teacher(enlarge_bicubic(lr, 4), hr)
        loss, terms = reconstruction.loss(sr, hr, 1)
        terms["tv"] = total_variation(guidance.alpha_bar)
        return Attempt(sr, loss + terms["tv"], terms)

    config = LoopConfig(batch=batch, lr=2e-4, weight_decay=1e-2)
    return alternate(config, accelerator, reconstruction, teacher, adversary, attempt)


def student_step(accelerator: Accelerator, batch: int) -> Step:
    """Stage 2 with the paper's student and all four matched blocks: Eq. 23, then the adversary."""
    teacher = full_teacher(accelerator.device)
    student = BaseStudent(ModelConfig(name="base", scale=4))
    imitator = Imitator(student, teacher.unet.spec).to(accelerator.device)
    distillation = Distillation(DistillConfig(), teacher, 0, accelerator)
    reconstruction, adversary = full_reconstruction(accelerator)

    def attempt(lr: Tensor, hr: Tensor) -> Attempt:
        with accelerator.autocast():
            sr, adapted = imitator(lr)
        loss, terms = reconstruction.loss(sr, hr, 1)
        imitation, more = distillation.loss(adapted, enlarge_bicubic(lr, 4), hr, 1)
        return Attempt(sr, loss + imitation, terms | more)

    config = LoopConfig(batch=batch, lr=5e-5)
    return alternate(config, accelerator, reconstruction, imitator, adversary, attempt)


def alternate(
    config: LoopConfig,
    accelerator: Accelerator,
    reconstruction: Reconstruction,
    learner: nn.Module,
    adversary: nn.Module,
    attempt: Callable[[Tensor, Tensor], Attempt],
) -> Step:
    """The step that training takes, with all its losses."""
    networks = {"learner": learner, "adversary": adversary}
    optimizers = {name: make_optimizer(config, network) for name, network in networks.items()}
    alternation = Alternation(config, accelerator, reconstruction, networks, optimizers)
    return lambda lr, hr: alternation.update("learner", attempt, (lr, hr), 1)


def peak_gib(device: str) -> float:
    if device.startswith("cuda"):
        return torch.cuda.max_memory_allocated(device) / 2**30
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def measure(
    stage: str, device: str, batch: int, side_px: int, steps: int, bf16: bool, checkpointing: bool
) -> dict[str, Any]:
    """Run some steps of a stage; the first is not timed if there are more."""
    if device.startswith("cuda"):
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    accelerator = Accelerator(mixed_precision="bf16" if bf16 else "no", cpu=device == "cpu")
    step = (
        teacher_step(accelerator, batch, checkpointing)
        if stage == "teacher"
        else student_step(accelerator, batch)
    )
    rng = torch.Generator().manual_seed(0)
    hr = torch.rand(batch, 3, side_px, side_px, generator=rng).to(device) * 2 - 1
    lr = nn.functional.avg_pool2d(hr, 4)
    seconds = []
    for _ in range(steps):
        start = time.perf_counter()
        losses = {name: round(float(v), 4) for name, v in step(lr, hr).items()}  # waits for it
        if device == "cuda":
            torch.cuda.synchronize()  # and for the optimiser
        seconds.append(time.perf_counter() - start)
    timed = seconds[1:] or seconds
    return {
        "seconds_median": round(statistics.median(timed), 3),
        "seconds_spread": round(max(timed) - min(timed), 3),
        "steps_timed": len(timed),
        "peak_gib": round(peak_gib(device), 2),
        "losses": losses,
    }


def about(device: str) -> dict[str, Any]:
    """Machine and versions."""
    cuda = device.startswith("cuda")
    return {
        "device": torch.cuda.get_device_name() if cuda else "cpu",
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("stage", choices=["teacher", "student"])
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--bf16", action="store_true", help="bfloat16 autocast")
    parser.add_argument("--batch", type=int, nargs="+", default=[1], help="one run for each")
    parser.add_argument("--side-px", type=int, default=512)
    parser.add_argument(
        "--checkpointing",
        nargs="+",
        choices=["on", "off"],
        default=["on"],
        help="teacher: recompute on the way back; one run for each",
    )
    parser.add_argument(
        "--steps", type=int, default=3, help="the first is not timed if there are more"
    )
    args = parser.parse_args()

    for batch, checkpointing in product(args.batch, args.checkpointing):
        line = about(args.device) | {
            "stage": args.stage,
            "dtype": "bf16 autocast" if args.bf16 else "float32",
            "batch": batch,
            "side_px": args.side_px,
            "checkpointing": checkpointing == "on" if args.stage == "teacher" else None,
        }
        try:
            line |= measure(
                args.stage,
                args.device,
                batch,
                args.side_px,
                args.steps,
                args.bf16,
                checkpointing == "on",
            )
        except RuntimeError as error:  # memory, as a rule: the other runs go on
            line["error"] = str(error).splitlines()[0]
        gc.collect()
        print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()

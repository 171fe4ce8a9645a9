"""One optimisation step at the paper's true size, with random weights, as JSON lines.

Seconds and peak memory of stage 1 (``teacher``: reconstruction and total variation, without
adversary and LPIPS) or of stage 2 (``student``: distillation from a teacher without gradients):

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
from collections.abc import Callable, Iterable
from itertools import product
from typing import Any

import torch
from torch import Tensor, nn

from slimdiffsr.bench.diffusion import full_kl
from slimdiffsr.config import ModelConfig
from slimdiffsr.diffusion import noise_schedule
from slimdiffsr.distillation import Adapters, compare_features
from slimdiffsr.losses import total_variation
from slimdiffsr.models.sd_vae import KLCodec
from slimdiffsr.models.spec import SD21, PredictorSpec
from slimdiffsr.models.student import BaseStudent, enlarge_bicubic
from slimdiffsr.models.uncertainty import NoiseLevelPredictor, UncertaintyEstimator
from slimdiffsr.models.unet import UNet
from slimdiffsr.teacher import Teacher, adapt


def full_teacher(device: str) -> Teacher:
    """The paper's teacher: Stable Diffusion's UNet and autoencoder, with random weights."""
    with torch.device(device):
        return _full_teacher()


def _full_teacher() -> Teacher:
    schedule = noise_schedule()
    predictor = NoiseLevelPredictor(PredictorSpec(), schedule)
    unet, estimator = UNet(SD21), UncertaintyEstimator()
    prompt = torch.randn(1, 77, 1024)
    return Teacher(unet, full_kl(), estimator, predictor, schedule, prompt=prompt)


def teacher_step(device: str, checkpointing: bool = True) -> Callable[[Tensor, Tensor], Tensor]:
    """Stage 1; with ``checkpointing`` UNet and decoder are recomputed on the way back."""
    teacher = full_teacher(device)
    adapt(teacher)
    teacher.to(device).train()
    teacher.unet.checkpointing = checkpointing
    if checkpointing and isinstance(teacher.codec, KLCodec):
        teacher.codec.vae.enable_gradient_checkpointing()
    optimiser = torch.optim.AdamW(trained(teacher.parameters()), lr=2e-4)

    def step(lr: Tensor, hr: Tensor) -> Tensor:
        sr, guidance = teacher(enlarge_bicubic(lr, 4), hr)
        loss: Tensor = (sr - hr).abs().mean() + total_variation(guidance.alpha_bar)
        descend(optimiser, loss)
        return loss

    return step


def student_step(device: str) -> Callable[[Tensor, Tensor], Tensor]:
    """Stage 2 with the paper's student and all four matched blocks."""
    teacher = full_teacher(device).to(device).eval().requires_grad_(False)
    student = BaseStudent(ModelConfig(name="base", scale=4)).to(device)
    widths = [320, 640, 640, 320]
    adapters = Adapters(widths, widths).to(device)
    rng = torch.Generator().manual_seed(0)
    optimiser = torch.optim.Adam([*student.parameters(), *adapters.parameters()], lr=5e-5)

    def step(lr: Tensor, hr: Tensor) -> Tensor:
        enlarged = enlarge_bicubic(lr, 4)
        with torch.no_grad():
            theirs = teacher.blocks(enlarged, hr).matched
        sr, blocks = student.restore_with_blocks(enlarged)
        distilled = compare_features(adapters(blocks.matched), theirs, rng).total
        loss: Tensor = (sr - hr).abs().mean() + distilled
        descend(optimiser, loss)
        return loss

    return step


def trained(parameters: Iterable[nn.Parameter]) -> list[nn.Parameter]:
    return [p for p in parameters if p.requires_grad]


def descend(optimiser: torch.optim.Optimizer, loss: Tensor) -> None:
    optimiser.zero_grad()
    torch.autograd.backward(loss)
    optimiser.step()


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
    step = teacher_step(device, checkpointing) if stage == "teacher" else student_step(device)
    rng = torch.Generator().manual_seed(0)
    hr = torch.rand(batch, 3, side_px, side_px, generator=rng).to(device) * 2 - 1
    lr = nn.functional.avg_pool2d(hr, 4)
    seconds = []
    for _ in range(steps):
        start = time.perf_counter()
        with torch.autocast(device.split(":")[0], torch.bfloat16, enabled=bf16):
            loss = step(lr, hr).item()  # waits for the device
        if device.startswith("cuda"):
            torch.cuda.synchronize()  # and for the optimiser
        seconds.append(time.perf_counter() - start)
    timed = seconds[1:] or seconds
    return {
        "seconds_median": round(statistics.median(timed), 3),
        "seconds_spread": round(max(timed) - min(timed), 3),
        "steps_timed": len(timed),
        "peak_gib": round(peak_gib(device), 2),
        "loss": round(loss, 4),
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
    parser.add_argument("--device", default="cpu")
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

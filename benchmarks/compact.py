"""The compact pipeline, end to end: the commands of ``docs/results/compact.md`` in one process.

    python benchmarks/compact.py --data images --weights weights --out runs --pairs val STEP ...

Steps, by name, in the order in which they need each other: uncertainty, prior, teacher,
teacher-fixed, merge, merge-fixed, student, student-no-mmd, student-no-dis, tiny-distilled, outputs.
Each is one ``slimdiffsr`` command, printed before it runs, and goes on where it stopped; ``--seconds``
ends the steps in time, saved. ``--weights`` holds taesd_encoder, taesd_decoder and lpips_squeeze,
all ``.safetensors``. ``outputs`` restores the pairs with the teachers (as ``evaluate --teacher``
does too), with TAESD alone and with the estimator's mean decoded, and keeps maps and features.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from accelerate.state import AcceleratorState
from numpy.typing import NDArray
from torch import Tensor

from slimdiffsr.cli import app
from slimdiffsr.datasets.images import encode_png, to_rgb8, to_signed
from slimdiffsr.evaluate import PairedFolder
from slimdiffsr.files.stages import load_codec
from slimdiffsr.files.teachers import load_teacher
from slimdiffsr.method.teacher import Teacher
from slimdiffsr.models.student import enlarge_bicubic

STARTED = time.monotonic()
TINY = Path(__file__).parents[1] / "src/slimdiffsr/weights/tiny-x4.safetensors"


def commands(args: argparse.Namespace) -> dict[str, list[str]]:
    """What each step types."""
    out, weights = args.out, args.weights
    preset = ["--config", args.preset or f"compact-x{args.scale}"]
    codec = ["--codec-folder", f"{weights}"]
    lpips = ["--lpips", f"{weights}/lpips_squeeze.safetensors"]
    base = ["--estimator", f"{out}/uncertainty", "--unet", f"{out}/prior", *codec]
    teacher = ["train", "teacher", *preset, *base, *lpips]
    student = [
        "train",
        "student",
        *preset,
        "--teacher",
        f"{out}/merged.safetensors",
        *codec,
        *lpips,
    ]
    tiny = [
        "train", "student", "--config", "tiny-x4-distilled", "--start", args.tiny, *lpips,
        "--teacher", f"{out}/merged.safetensors",
    ]  # fmt: skip
    return {
        "uncertainty": ["train", "uncertainty", *preset, *codec],
        "prior": ["train", "prior", *preset, *codec],
        "teacher": teacher,
        "teacher-fixed": [*teacher, "--set", "predictor.mode=fixed"],
        "merge": [
            "merge-teacher", f"{out}/teacher/teacher.safetensors", f"{out}/merged.safetensors",
            *base,
        ],
        "merge-fixed": [
            "merge-teacher", f"{out}/teacher-fixed/teacher.safetensors",
            f"{out}/merged-fixed.safetensors", *base,
        ],
        "student": student,
        "student-no-mmd": [*student, "--set", "distill.mmd_weight=0"],
        "student-no-dis": [*student, "--set", "distill=none"],
        "tiny-distilled": tiny,
    }  # fmt: skip


def run(step: str, args: argparse.Namespace) -> None:
    """One step as its command, with what the machine asks for."""
    command = commands(args)[step]
    if command[0] == "train":
        command = [*command, "--data", str(args.data), "--out", f"{args.out}/{step}"]
        command += [part for assignment in args.set for part in ("--set", assignment)]
        if args.seconds:
            left = args.seconds - (time.monotonic() - STARTED)
            command += ["--max-minutes", f"{max(0.05, left / 60):.2f}"]
    say("slimdiffsr " + " ".join(command))
    AcceleratorState._reset_state(reset_partial_state=True)  # stages differ in precision
    status = app([str(part) for part in command], standalone_mode=False)
    if status:
        sys.exit(status)


def outputs(args: argparse.Namespace) -> None:
    """What the teachers make of the pairs, with the truth and without, and what guided them."""
    pairs = PairedFolder.open(args.pairs / f"lr_x{args.scale}", args.pairs / "hr", args.scale)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    codec = load_codec("taesd", args.weights).to(device)
    folder = args.out / "outputs"
    save_all(pairs, folder / "taesd", device, lambda _, hr: codec.decode(codec.encode(hr)))
    for name, file in (("teacher", "merged"), ("teacher-fixed", "merged-fixed")):
        if not (args.out / f"{file}.safetensors").is_file():
            continue
        teacher = load_teacher(args.out / f"{file}.safetensors").to(device)
        save_all(pairs, folder / name, device, lambda lr, hr, t=teacher: t(lr, hr).sr)
        save_all(pairs, folder / f"{name}-mean", device, lambda lr, _, t=teacher: t(lr, None).sr)
        save_all(
            pairs, folder / f"{name}-estimate", device,
            lambda lr, _, t=teacher: t.codec.decode(t.estimator(t.codec.encode(lr)).mean),
        )  # fmt: skip
        np.savez_compressed(folder / f"{name}.npz", **insides(teacher, pairs, device))


@torch.inference_mode()
def save_all(
    pairs: PairedFolder,
    folder: Path,
    device: torch.device,
    restore: Callable[[Tensor, Tensor], Tensor],
) -> None:
    """One PNG a pair; ``restore`` sees the enlarged LR and the truth, (1, 3, H, W) in [-1, 1]."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in pairs.names:
        lr, hr = (to_signed(image, device) for image in pairs.read(name))
        sr = to_rgb8(restore(enlarge_bicubic(lr, pairs.scale), hr)[0])
        (folder / f"{name}.png").write_bytes(encode_png(sr))
    say(str(folder))


@torch.inference_mode()
def insides(
    teacher: Teacher, pairs: PairedFolder, device: torch.device
) -> dict[str, NDArray[np.float16]]:
    """Timestep and log-variance maps of all pairs, mean features of the matched blocks."""
    kept: dict[str, NDArray[np.float16]] = {}
    for name in pairs.names:
        lr, hr = (to_signed(image, device) for image in pairs.read(name))
        enlarged = enlarge_bicubic(lr, pairs.scale)
        z_lr, guidance = teacher.guide(enlarged, hr)
        _, blind = teacher.guide(enlarged, None)
        made = teacher.estimator(z_lr)
        found = {
            "timestep": guidance.timestep[0, 0],
            "timestep-mean": blind.timestep[0, 0],
            "log_var": made.log_var[0].mean(0),
        }
        for level, feature in enumerate(teacher.blocks(enlarged, hr).matched):
            found[f"feature{level}"] = feature[0].mean(0)
        kept |= {
            f"{name}/{key}": value.float().cpu().numpy().astype(np.float16)
            for key, value in found.items()
        }
    return kept


def say(text: str) -> None:
    print(f"[{time.monotonic() - STARTED:6.1f} s] {text}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument("steps", nargs="+")
    parser.add_argument("--data", type=Path, required=True, help="folder of sharp images")
    parser.add_argument("--weights", type=Path, required=True, help="TAESD and LPIPS")
    parser.add_argument("--pairs", type=Path, help="for outputs: a folder with hr and lr_x4")
    parser.add_argument("--out", type=Path, default=Path("runs/compact"))
    parser.add_argument("--scale", type=int, default=4, choices=(4, 8))
    parser.add_argument("--preset", help="of the stages; default: compact-x4 or compact-x8")
    parser.add_argument("--tiny", default=str(TINY), help="where tiny-distilled starts")
    parser.add_argument("--seconds", type=float, help="end what trains after so long in all")
    parser.add_argument("--set", action="append", default=[], help="for each training command")
    args = parser.parse_args()
    for step in args.steps:
        outputs(args) if step == "outputs" else run(step, args)


if __name__ == "__main__":
    main()

"""Train one of the plan's runs; the same command goes on where it stopped.

    python train.py NAME --data FOLDER --out FOLDER --lpips FILE --steps N [--minutes M] [--start FILE]

Writes OUT/model.safetensors, and a line of progress now and then. ``--micro`` rehearses it.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from plan import RUNS, with_steps

from slimdiffsr.stages.run import RunPaths
from slimdiffsr.stages.student import train_student
from slimdiffsr.training.loop import Progress


def main() -> None:
    """Parse, train, report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", choices=sorted(RUNS))
    for option in ("--data", "--out", "--lpips"):
        parser.add_argument(option, type=Path, required=True)
    parser.add_argument("--start", type=Path)
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--minutes", type=float)
    parser.add_argument("--micro", action="store_true")
    args = parser.parse_args()
    config = with_steps(args.name, args.steps, rehearse=args.micro)
    folders = tuple(sorted(p for p in args.data.iterdir() if p.is_dir()))
    began = time.monotonic()

    def show(progress: Progress) -> None:
        losses = " ".join(f"{k} {v:.4f}" for k, v in progress.losses.items())
        sys.stdout.write(
            f"{time.monotonic() - began:.0f} s {progress.step}/{progress.steps} "
            f"{progress.images_per_s / config.batch:.1f} steps/s {losses}\n"
        )
        sys.stdout.flush()

    paths = RunPaths(data=folders, out=args.out, lpips=args.lpips, start=args.start)
    result = train_student(config, paths, max_minutes=args.minutes, on_progress=show)
    sys.stdout.write(
        f"done {result.step} steps, finished {result.finished}, {result.seconds:.0f} s\n"
    )


if __name__ == "__main__":
    main()

"""Start runs of the plan on an accelerator machine, each in a session of its own.

    python launch.py --data FOLDER --out FOLDER --weights FOLDER --minutes M CARD:NAME:STEPS[:START]...

``START`` is a file of the folder of weights to begin with. A run stops, with its weights saved, when
its steps are done or the minutes are over; speeds seen on H100s are in the ledger. The call returns
at once; each run writes OUT/NAME.log.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent


def start(run: str, args: argparse.Namespace) -> None:
    """One run on its card."""
    card, name, steps, *first = run.split(":")
    command = [
        sys.executable, str(HERE / "train.py"), name, "--data", str(args.data),
        "--out", str(args.out / name), "--steps", steps, "--minutes", str(args.minutes),
        "--lpips", str(args.weights / "lpips_squeeze.safetensors"),
        *(["--start", str(args.weights / first[0])] if first else []),
    ]  # fmt: skip
    env = {**os.environ, "CUDA_VISIBLE_DEVICES": card, "OMP_NUM_THREADS": "2"}
    (args.out / name).mkdir(parents=True, exist_ok=True)
    with (args.out / f"{name}.log").open("a") as log:
        subprocess.Popen(command, stdout=log, stderr=log, env=env, start_new_session=True)
    sys.stdout.write(f"card {card}: {name}, {steps} steps\n")


def main() -> None:
    """Start all runs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="+")
    for option in ("--data", "--out", "--weights"):
        parser.add_argument(option, type=Path, required=True)
    parser.add_argument("--minutes", type=float, required=True)
    args = parser.parse_args()
    for run in args.runs:
        start(run, args)


if __name__ == "__main__":
    main()

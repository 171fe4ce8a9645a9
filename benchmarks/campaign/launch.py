"""Start the plan's runs on an accelerator machine, one a card, each in a session of its own.

    python launch.py smoke|train --data FOLDER --out FOLDER --weights FOLDER [--seconds S] RUN...

``smoke`` runs each for some hundred steps on whatever images are there. ``train`` reads the speeds
out of the smoke's logs and sets the steps so that each run ends within the given seconds, cosine and
all. A RUN is a name of the plan, or NAME=START for one that begins with the weights START.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
SMOKE_STEPS = {"compact": 600}
SPARE = 0.92  # of the time, because speeds vary
STARTUP_S = 20.0


def speeds(log: Path) -> tuple[float, float]:
    """Steps a second before and after the losses have joined."""
    found = [(int(a), float(b)) for a, b in re.findall(r" (\d+)/\d+ ([\d.]+) steps/s", log.read_text())]
    if len(found) < 2:
        sys.stdout.write(log.read_text()[-1500:])
        raise SystemExit(f"{log}: no speeds")
    return max(s for _, s in found), found[-1][1]


def steps_within(seconds: float, fast: float, slow: float) -> int:
    """As many steps as fit: a third of them fast, the others slow."""
    return int(SPARE * (seconds - STARTUP_S) / (1 / 3 / fast + 2 / 3 / slow))


def start(card: int, run: str, args: argparse.Namespace, steps: int, minutes: float) -> None:
    """One run on one card."""
    name, _, first = run.partition("=")
    out = args.out / name
    out.mkdir(parents=True, exist_ok=True)
    command = [
        sys.executable, str(HERE / "train.py"), name, "--data", str(args.data), "--out", str(out),
        "--lpips", str(args.weights / "lpips_squeeze.safetensors"), "--steps", str(steps),
        "--minutes", f"{minutes:.2f}",
        *(["--start", str(args.weights / first)] if first else []),
    ]  # fmt: skip
    env = {**os.environ, "CUDA_VISIBLE_DEVICES": str(card), "OMP_NUM_THREADS": "2"}
    with (args.out / f"{name}.log").open("a") as log:
        subprocess.Popen(command, stdout=log, stderr=log, env=env, start_new_session=True)  # noqa: S603
    sys.stdout.write(f"card {card}: {run}, {steps} steps\n")


def main() -> None:
    """Start all runs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("smoke", "train"))
    parser.add_argument("runs", nargs="+")
    for option in ("--data", "--out", "--weights"):
        parser.add_argument(option, type=Path, required=True)
    parser.add_argument("--smoke", type=Path, default=Path("/tmp/smoke"))
    parser.add_argument("--seconds", type=float, default=75.0)
    args = parser.parse_args()
    for card, run in enumerate(args.runs):
        name = run.partition("=")[0]
        if args.what == "smoke":
            start(card, run, args, SMOKE_STEPS.get(name.split("-")[0], 300), args.seconds / 60)
            continue
        fast, slow = speeds(args.smoke / f"{name}.log")
        steps = steps_within(args.seconds, fast, slow)
        sys.stdout.write(json.dumps({"run": name, "fast": fast, "slow": slow}) + "\n")
        start(card, run, args, steps, args.seconds / 60)


if __name__ == "__main__":
    main()

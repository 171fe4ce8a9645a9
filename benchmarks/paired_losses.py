"""Compares runs that saw the same batches, by the losses that ``train`` printed.

    python benchmarks/paired_losses.py docs/results/compact/student*.log --first 800 --last 1500

Runs of one seed and batch see the same crops with the same random views at each step, so that their
losses differ by what they are alone. Prints each run's means over the steps that all have, and the
difference to the first run with its standard error, as a JSON line a run.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np

Losses = dict[int, dict[str, float]]


def read(path: Path) -> Losses:
    """Losses by step, of lines such as "step 100 91.2 images/s 5.0 GiB l1 0.15 lpips 0.28"."""
    found: Losses = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        words = line.split()
        if words[:1] == ["step"] and "images/s" in words:
            start = words.index("GiB") + 1 if "GiB" in words else words.index("images/s") + 1
            pairs = zip(words[start::2], words[start + 1 :: 2], strict=True)
            found[int(words[1])] = {name: float(value) for name, value in pairs}
    return found


def compare(first: Losses, other: Losses, steps: list[int], name: str) -> dict[str, float]:
    """Mean of a loss and, paired by step, what it has more than the first run."""
    values = np.array([other[step][name] for step in steps])
    more = values - np.array([first[step][name] for step in steps])
    error = more.std(ddof=1) / len(steps) ** 0.5
    figures = {"mean": values.mean(), "more": more.mean(), "standard_error": error}
    return {key: round(float(value), 4) for key, value in figures.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument("logs", nargs="+", type=Path, help="the first is what others are held to")
    parser.add_argument("--first", type=int, default=0, help="step")
    parser.add_argument("--last", type=int, default=1 << 60, help="step")
    parser.add_argument("--loss", action="append", help="default: l1, lpips, mmd")
    args = parser.parse_args()
    runs = [read(log) for log in args.logs]
    steps = sorted(s for s in set.intersection(*map(set, runs)) if args.first <= s <= args.last)
    if len(steps) < 2:
        raise SystemExit(f"the runs have {len(steps)} logged steps in common there; 2 are needed")
    for log, run in zip(args.logs, runs, strict=True):
        shared = [
            name
            for name in args.loss or ["l1", "lpips", "mmd"]
            if all(name in r[step] for r in (runs[0], run) for step in steps)
        ]
        figures = {name: compare(runs[0], run, steps, name) for name in shared}
        print(json.dumps({"run": log.stem, "steps": len(steps), **figures}))


if __name__ == "__main__":
    main()

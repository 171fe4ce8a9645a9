"""Take the averaged weights of all runs home in half precision, with their figures.

    python collect.py RUNS_FOLDER OUT_FOLDER [--sets FOLDER --lpips FILE]

A run that has not ended gives the weights of its last saved state. Files over 15 MB are cut into
pieces, ``cat`` joins them. With ``--sets`` each model is scored (see ``score``).
"""

from __future__ import annotations

import argparse
import json
import sys
import traceback
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parent))

from plan import RUNS
from score import score

from slimdiffsr.files.students import load_model, save_model
from slimdiffsr.models.student import build_student
from slimdiffsr.training.state import load_state

PIECE = 15_000_000


def weights_of(run: Path, target: Path) -> str:
    """Write a run's weights; returns what they are of."""
    config = RUNS[run.name].model
    if (run / "model.safetensors").is_file():
        loaded = load_model(str(run / "model.safetensors"))
        save_model(target, loaded.model, loaded.config, dict(loaded.metadata), torch.float16)
        return f"step {loaded.metadata.get('step')}, ended"
    state = load_state(run / "state.safetensors")
    model = build_student(config)
    model.load_state_dict(state["averages"]["student"])
    save_model(target, model, config, {"step": str(state["step"])}, torch.float16)
    return f"step {state['step']}, going on"


def main() -> None:
    """Collect, score, report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--only", help="one run, for several processes at once")
    parser.add_argument("--sets", type=Path)
    parser.add_argument("--lpips", type=Path)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    for run in sorted(p for p in args.runs.iterdir() if p.is_dir() and args.only in (None, p.name)):
        file = args.out / f"{run.name}.safetensors"
        try:
            figures = {"run": run.name, "of": weights_of(run, file)}
            if args.sets is not None:
                sets = {name: args.sets / name for name in ("val", "second")}
                figures |= score(file, sets, args.lpips)
        except Exception:
            figures = {"run": run.name, "failed": traceback.format_exc()[-800:]}
        sys.stdout.write(json.dumps(figures) + "\n")
        sys.stdout.flush()
        if file.is_file() and file.stat().st_size > PIECE:
            packed = file.read_bytes()
            for number, first in enumerate(range(0, len(packed), PIECE)):
                file.with_name(f"{file.name}.{number}").write_bytes(packed[first : first + PIECE])
            file.unlink()


if __name__ == "__main__":
    main()

"""All that a CUDA machine is asked once: cost of every row, and the paper's training steps.

    python benchmarks/accelerator.py OUT

took 234 s on one H100 when the three parts of bench had 0.3 minutes each for their runs, which was
too little; with what they have now six and a half minutes are expected, not yet tried. Writes to OUT

    bench.jsonl   bench: base, tiny, the ablations, Stable Diffusion of 1 and 50 steps; fp32 and
                  bf16; batch 1 and 8
    fresh.jsonl   cold starts of base and tiny
    steps.jsonl   seconds and memory of a training step: teacher (batch 2, with and without
                  recomputation) and student (batch 8 and 16), 512 px, bf16
    *.log         what each part said

A part that fails or takes too long loses nothing of the others. ``--device cpu --small`` tries the
parts themselves in a few minutes without a GPU.
"""

import argparse
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
ROWS = ["base", "tiny", "kl", "taesd", "no-sap", "no-dsc", "no-fsc", "no-qgam", "sd-1step"]
PEERS = ["esrgan", "swinir", "bicubic"]


@dataclass(frozen=True)
class Part:
    """A command, how long it may take, and where its JSON lines go if they are its output."""

    name: str
    command: list[str]
    limit_s: float
    lines_from_stdout: str | None = None  # the file that gets them


def bench(out: Path, device: str, rows: list[str], *options: str) -> list[str]:
    chosen = [word for row in rows for word in ("--row", row)]
    words = ["-m", "slimdiffsr", "bench", "--device", device, *chosen, *options]
    return [sys.executable, *words, "--json", str(out)]


def parts(out: Path, device: str, small: bool) -> list[Part]:
    fast = ["--no-fresh", "--runs", "100", "--warmup", "20"]
    shape = ["--out-px", "64"] if small else []
    steps = [sys.executable, str(HERE / "full_size.py")]
    training = ["--device", device, "--bf16", "--side-px", "64" if small else "512"]
    both = ["--batch", "1", "--batch", "8"]
    table = out / "bench.jsonl"
    # Time for the runs; the parts' limits leave that to count and build the rows, and more.
    bf16 = ["--precision", "bf16", *fast, *shape, "--max-minutes", "1.5"]
    fp32 = ["--precision", "fp32", *fast, *shape, "--max-minutes", "1"]
    rows = ["base", "tiny"] if small else [*ROWS, *PEERS]
    many = [] if small else ["sd-50steps"]
    teacher = [*steps, "teacher", *training, "--batch", "2", "--checkpointing", "on", "off"]
    student = [*steps, "student", *training, "--batch", "8", "16"]
    fresh = bench(out / "fresh.jsonl", device, ["base", "tiny"], "--runs", "3", "--warmup", "1")
    return [
        Part("bench-bf16", bench(table, device, [*rows, *many], *bf16, *both), 240),
        Part("bench-fp32", bench(table, device, [*rows, *many], *fp32, "--batch", "1"), 180),
        Part("bench-fp32-batch-8", bench(table, device, rows, *fp32, "--batch", "8"), 180),
        Part("steps-teacher", [*teacher, "--steps", "6"], 90, "steps.jsonl"),
        Part("steps-student", [*student, "--steps", "6"], 90, "steps.jsonl"),
        Part("fresh", [*fresh, *shape], 90),
    ]


def run(part: Part, out: Path) -> str:
    """Run a part to its end or its limit; returns how it went."""
    source = str(HERE.parent / "src")
    path = os.environ.get("PYTHONPATH")
    environment = os.environ | {
        "PYTHONPATH": source if not path else source + os.pathsep + path,
    }
    log = out / f"{part.name}.log"
    target = out / part.lines_from_stdout if part.lines_from_stdout else log
    start = time.perf_counter()
    with log.open("a") as errors, target.open("a") as lines:
        try:
            done = subprocess.run(
                part.command,
                stdout=lines,
                stderr=errors,
                timeout=part.limit_s,
                env=environment,
                check=False,
            )
            state = "done" if done.returncode == 0 else f"failed with status {done.returncode}"
        except subprocess.TimeoutExpired:
            state = "stopped at its limit"
    return f"{part.name}: {state} after {time.perf_counter() - start:.0f} s"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--small", action="store_true", help="tiny sizes, few rows: a trial")
    parser.add_argument("--only", nargs="+", help="names of parts")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    if not args.only and any(args.out.glob("*.jsonl")):
        parser.error(f"{args.out} holds results already: give another folder, or --only PART")
    for part in parts(args.out, args.device, args.small):
        if args.only and part.name not in args.only:
            continue
        print(run(part, args.out), flush=True)


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""Read real and damaged rasters as the engine does, and report what goes wrong.

    python scripts/fuzz_headers.py FOLDER... --minutes 10

Every raster in the folders is read as it is, then changed at random and read again until the time
is up. Each is read in a child process: reported are crashes, exceptions that are not the package's
own, what takes too long and what takes too much memory. Such files are kept in --keep. The same
seed and files make the same changes. Exit status 1 when something was found.
"""

from __future__ import annotations

import argparse
import json
import os
import queue
import resource
import shutil
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

SLOW_S = 20.0  # of the processor's time
PATIENCE_S = 90.0
MUCH_MEMORY_MB = 1024
NOT_RASTERS = {".py", ".c", ".h", ".md", ".rst", ".sh", ".ttf", ".cmake", ".am", ".in", ".txt"}
LARGEST_BYTES = 20_000_000
NUMBERS = (0, 1, 2, 3, 7, 8, 16, 255, 256, 1023, 32767, 32768, 65535, 2**31 - 1, 2**31, 2**32 - 1)


@dataclass(frozen=True)
class Finding:
    """What went wrong with one file."""

    kind: str  # crash, foreign, slow, memory
    words: str
    file: Path


class Worker:
    """A child process that reads rasters, one after another."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.process: subprocess.Popen[str] | None = None

    def read(self, path: Path) -> tuple[str, str]:
        """The kind of what went wrong, or "", and words."""
        if self.process is None or self.process.poll() is not None:
            self.process = subprocess.Popen(
                [sys.executable, __file__, "--worker", str(self.folder)], stdin=subprocess.PIPE,
                stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
            )  # fmt: skip
        process, answers = self.process, queue.Queue[str]()
        assert process.stdin is not None
        assert process.stdout is not None
        threading.Thread(target=lambda: answers.put(process.stdout.readline()), daemon=True).start()
        process.stdin.write(json.dumps(str(path)) + "\n")
        process.stdin.flush()
        try:
            line = answers.get(timeout=PATIENCE_S)
        except queue.Empty:
            process.kill()
            process.wait()
            return "slow", f"given up after {PATIENCE_S:g} s"
        if not line:
            return "crash", f"exit status {process.wait()}"
        kind, words = json.loads(line)
        return kind, words

    def end(self) -> None:
        """Stop the process."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()


def serve(folder: Path) -> None:
    """The child: answer each path with what went wrong."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for line in sys.stdin:
        started = time.process_time()  # others may be at work
        kind, words = read_one(json.loads(line), folder)
        seconds = time.process_time() - started
        grown_mb = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
        if not kind and seconds > SLOW_S:
            kind, words = "slow", f"{seconds:.0f} s; {words}"
        if not kind and grown_mb > MUCH_MEMORY_MB:
            kind, words = "memory", f"{grown_mb:.0f} MB; {words}"
        answers.write(json.dumps((kind, words)) + "\n")
        answers.flush()
        if kind == "memory":  # the largest so far is all that the system tells
            return


def read_one(path: str, folder: Path) -> tuple[str, str]:
    """Plan a raster and enlarge a corner of it, all bands."""
    from slimdiffsr.errors import SlimDiffSRError
    from slimdiffsr.geo import Network, SceneOptions, plan_scene, upscale_scene

    def repeat(batch: np.ndarray) -> np.ndarray:
        return batch.repeat(4, axis=2).repeat(4, axis=3)

    network = Network(scale=4, tile_hr_px=64, overlap_hr_px=16, model_id="repeat", predict=repeat)
    try:
        plan = plan_scene(path, network, SceneOptions(all_bands=True))
        options = SceneOptions(
            window=(0, 0, 16, 16), overwrite=True, format="gtiff",
            all_bands=len(plan.output_bands) <= 64,
        )  # fmt: skip
        upscale_scene(path, folder / f"out-{os.getpid()}.tif", network, options)
    except SlimDiffSRError as error:
        return (
            ("foreign", f"message of several lines: {error}")
            if "\n" in str(error)
            else ("", str(error))
        )
    except Exception as error:
        import traceback

        at = traceback.extract_tb(error.__traceback__)[-1]
        return "foreign", f"{type(error).__name__} at {at.name}: {str(error)[:200]}"
    return "", "read"


def changed(content: bytes, other: bytes, rng: np.random.Generator) -> bytes:
    """A copy with some damage."""
    result = bytearray(content)
    if not result:
        return content
    how = int(rng.integers(0, 5))
    if how == 0 and _changed_tag(result, rng):
        return bytes(result)
    if how == 1:
        return bytes(result[: int(rng.integers(1, len(result) + 1))])
    if how == 2 and other:
        size = int(rng.integers(1, 200))
        start = int(rng.integers(0, len(other)))
        at = _place(len(result), rng)
        result[at : at + size] = other[start : start + size]
        return bytes(result)
    for _ in range(int(rng.integers(1, 9))):
        result[_place(len(result), rng)] = int(
            rng.choice([0, 1, 0x7F, 0x80, 0xFF, rng.integers(0, 256)])
        )
    return bytes(result)


def _place(size: int, rng: np.random.Generator) -> int:
    """A byte, most often near the beginning or the end, where headers lie."""
    near = min(size, 1024)
    return int(
        rng.choice([rng.integers(0, size), rng.integers(0, near), size - 1 - rng.integers(0, near)])
    )


def _changed_tag(content: bytearray, rng: np.random.Generator) -> bool:
    """Another number in the first directory of a TIFF; whether it is one."""
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(bytes(content[:4]))
    if order is None:
        return False
    for _ in range(int(rng.integers(1, 4))):
        try:
            (start,) = struct.unpack_from(order + "I", content, 4)
            (count,) = struct.unpack_from(order + "H", content, start)
            entry = start + 2 + 12 * int(rng.integers(0, max(1, count)))
            where, code = [(0, "H"), (2, "H"), (4, "I"), (8, "I"), (8, "H")][
                int(rng.integers(0, 5))
            ]
            limit = 2 ** (16 if code == "H" else 32)
            number = int(rng.choice(NUMBERS)) if rng.random() < 0.7 else int(rng.integers(0, limit))
            struct.pack_into(order + code, content, entry + where, number % limit)
        except struct.error:
            return False
    return True


def main() -> int:
    """Parse, read, report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", nargs="*", type=Path)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, default=Path("fuzz-findings"))
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.worker:
        serve(given.worker)
        return 0
    paths = sorted(
        path for folder in given.folders for path in ([folder] if folder.is_file() else folder.rglob("*"))
        if path.is_file() and path.suffix not in NOT_RASTERS and path.stat().st_size <= LARGEST_BYTES
    )  # fmt: skip
    if not paths:
        parser.error("no rasters: give folders that hold some")
    with tempfile.TemporaryDirectory() as folder:
        findings, read = hunt(paths, Path(folder), given)
    kinds = Counter(finding.kind for finding in findings)
    print(json.dumps({"rasters": len(paths), "read": read, "seed": given.seed, **kinds}))
    return 1 if findings else 0


def hunt(paths: list[Path], folder: Path, given: argparse.Namespace) -> tuple[list[Finding], int]:
    """Read everything once as it is, then with changes until the time is up."""
    worker, findings, read = Worker(folder), [], 0
    rng = np.random.default_rng(given.seed)
    until = time.monotonic() + 60 * given.minutes
    while time.monotonic() < until:
        if read < len(paths):
            path = paths[read]
        else:
            origin, other = (paths[k] for k in rng.integers(0, len(paths), 2))
            path = folder / f"{read}{origin.suffix}"
            path.write_bytes(changed(origin.read_bytes(), other.read_bytes(), rng))
        read += 1
        kind, words = worker.read(path)
        if kind:
            kept = path
            if path.parent == folder:
                given.keep.mkdir(parents=True, exist_ok=True)
                kept = given.keep / f"{given.seed}-{path.name}"
                shutil.copy(path, kept)
            findings.append(Finding(kind, words, kept))
            print(f"{kind}: {kept}: {words}", flush=True)
        if path.parent == folder:
            path.unlink()
    worker.end()
    return findings, read


if __name__ == "__main__":
    sys.exit(main())

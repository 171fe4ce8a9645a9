"""Unpack the AVIF tar files into BMP files, which decode fast: python unpack.py OUT TAR..."""

from __future__ import annotations

import io
import sys
import tarfile
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from PIL import Image


def write(job: tuple[Path, bytes]) -> None:
    """Decode one image beside its place, then move it there."""
    target, packed = job
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_suffix(".part")
    Image.open(io.BytesIO(packed)).convert("RGB").save(partial, "BMP")
    partial.rename(target)


def main() -> None:
    """Decode all on all cores."""
    out = Path(sys.argv[1])
    jobs = []
    for name in sys.argv[2:]:
        with tarfile.open(name) as tar:
            for member in tar.getmembers():
                opened = tar.extractfile(member)
                if opened is not None:
                    path = Path(member.name)
                    jobs.append((out / path.parent.name / f"{path.stem}.bmp", opened.read()))
    with ProcessPoolExecutor() as pool:
        list(pool.map(write, jobs, chunksize=16))
    sys.stdout.write(f"{len(jobs)} images\n")


if __name__ == "__main__":
    main()

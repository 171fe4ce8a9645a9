"""Pack the training images for the accelerator: AVIF 4:4:4 in tar files of a size that travels.

    python benchmarks/campaign/pack.py DATA_FOLDER OUT_FOLDER [--share I/N]

Every third image of ``ucmerced``, the softest and largest source, is left out, and what
``split.held_out`` says. ``--share`` encodes a part only, for several processes at once; packing is
by ``tar``, folder by folder.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1]))

from campaign.split import held_out

QUALITY = 90  # 40 dB and more against the source


def main() -> None:
    """Encode what is not there yet."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--share", default="0/1")
    args = parser.parse_args()
    part, parts = map(int, args.share.split("/"))
    files = [p for p in sorted(args.data.glob("*/*.jpg")) if not held_out(p)]
    soft = [p for p in files if p.parent.name == "ucmerced"][::3]
    for path in sorted(set(files) - set(soft))[part::parts]:
        target = args.out / path.parent.name / f"{path.stem}.avif"
        if not target.is_file():
            target.parent.mkdir(parents=True, exist_ok=True)
            partial = target.with_suffix(".part")
            image = Image.open(path).convert("RGB")
            image.save(partial, "AVIF", quality=QUALITY, subsampling="4:4:4", speed=8)
            partial.rename(target)


if __name__ == "__main__":
    main()

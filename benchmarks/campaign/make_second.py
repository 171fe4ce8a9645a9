"""Write the second validation set as PNG: python make_second.py TRAIN_FOLDER OUT

OUT/hr/ and OUT/lr/: the middle 256 px of each image and its partner by the paper's degradation, seed
7100 + its number.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1]))

from campaign.split import SIDE_HR_PX, second_set
from slimdiffsr.datasets.images import read_rgb8
from slimdiffsr.degrade import degrade, image_generator
from slimdiffsr.settings.config import Recipe

UNIT = 32  # sides are multiples of it


def main() -> None:
    """Make all pairs."""
    root, out = Path(sys.argv[1]), Path(sys.argv[2])
    for kind in ("hr", "lr"):
        (out / kind).mkdir(parents=True, exist_ok=True)
    for number, path in enumerate(second_set(root)):
        rgb = read_rgb8(path, convert=True)
        h, w = (min(SIDE_HR_PX, side // UNIT * UNIT) for side in rgb.shape[:2])
        y, x = ((side - part) // 2 for side, part in zip(rgb.shape[:2], (h, w), strict=True))
        rgb = rgb[y : y + h, x : x + w]
        hr = torch.tensor(rgb).permute(2, 0, 1)[None].double() / 255
        lr = degrade(hr, Recipe(), [image_generator(7100 + number, 0)])[0]
        name = f"{path.parent.name}-{path.stem}.png"
        Image.fromarray(rgb).save(out / "hr" / name)
        Image.fromarray((lr * 255).round().byte().permute(1, 2, 0).numpy()).save(out / "lr" / name)


if __name__ == "__main__":
    main()

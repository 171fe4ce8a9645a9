"""Figures of a model on the campaign's sets: damaged and clean pairs of both sets, and plain ground.

    python score.py MODEL.safetensors VAL_FOLDER SECOND_FOLDER --lpips FILE [--out FOLDER]

Prints one JSON line. A set is a folder with ``hr/`` and ``lr/`` of equal names; clean inputs are the
truths averaged down. Whole images go through the network, without tiles.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from slimdiffsr.datasets.images import read_rgb8, to_rgb8
from slimdiffsr.files.pretrained import load_lpips
from slimdiffsr.files.students import load_model
from slimdiffsr.metrics import correctness, grey8, grid_energy_db, psnr_y, ssim_y

SURFACES = {
    "water": (38, 62, 70), "sand": (214, 196, 160), "asphalt": (92, 92, 96),
    "grass": (86, 112, 62), "grey": (128, 128, 128),
}  # fmt: skip
NOISE = (0.0, 0.5, 1.0, 2.0, 5.0)  # in 8-bit grey levels
Run = Callable[[Tensor], Tensor]


def as_tensor(rgb: np.ndarray) -> Tensor:
    """(h, w, 3) uint8 to (1, 3, h, w) in [-1, 1]."""
    return torch.tensor(rgb).permute(2, 0, 1)[None].float() / 127.5 - 1


def averaged(hr: np.ndarray, scale: int) -> np.ndarray:
    """The truth averaged down and rounded, (h, w, 3) uint8."""
    h, w = hr.shape[0] // scale, hr.shape[1] // scale
    return np.round(hr.reshape(h, scale, w, scale, 3).mean((1, 3))).astype(np.uint8)


def score_set(run: Run, lpips: Run, folder: Path, *, clean: bool, scale: int) -> dict[str, float]:
    """Means over a set; ``drift_pct`` are the worst image's mean and contrast, against the truth's."""
    rows = []
    for path in sorted((folder / "hr").glob("*.png")):
        hr = read_rgb8(path)
        lr = averaged(hr, scale) if clean else read_rgb8(folder / "lr" / path.name)
        made = run(as_tensor(lr)).float().cpu()
        sr = to_rgb8(made[0])
        distance = float(lpips(as_tensor(sr), as_tensor(hr)))
        shares = correctness(sr, hr, lr, scale)
        a, b = grey8(sr), grey8(hr)
        rows.append(
            (psnr_y(sr, hr), ssim_y(sr, hr), distance, grid_energy_db(a, scale),
             shares.hallucination, 100 * (a.mean() / b.mean() - 1), 100 * (a.std() / b.std() - 1))
        )  # fmt: skip
    table = np.array(rows)
    names = ("psnr_y", "ssim_y", "lpips", "grid_db", "hallucination", "mean_pct", "contrast_pct")
    means = dict(zip(names, table.mean(0).round(4).tolist(), strict=True))
    worst = float(np.abs(table[:, 5]).max())
    return {**means, "worst_mean_pct": round(worst, 2)}


def score_plain(run: Run, scale: int) -> dict[str, float]:
    """Spread of luma on plain ground, as a multiple of bicubic's, at worst; absolute without noise."""
    ratios, still = {}, 0.0
    for surface, colour in SURFACES.items():
        for sigma in NOISE:
            rng = np.random.default_rng(7)
            ground = np.array(colour) + sigma * rng.normal(size=(64, 64, 3))
            x = as_tensor(np.clip(np.round(ground), 0, 255).astype(np.uint8))
            enlarged = F.interpolate(x, scale_factor=scale, mode="bicubic")
            ours, theirs = (
                float(grey8(to_rgb8(y.float().cpu()[0]))[32:-32, 32:-32].std())
                for y in (run(x), enlarged)
            )
            if sigma == 0:
                still = max(still, ours)
            else:
                ratios[f"{surface} {sigma:g}"] = ours / max(theirs, 0.25)
    worst = max(ratios, key=lambda key: ratios[key])
    return {"worst": round(ratios[worst], 2), "where": worst, "noiseless": round(still, 2),
            "mean": round(float(np.mean(list(ratios.values()))), 2)}  # fmt: skip


@torch.inference_mode()
def score(model: Path | str, folders: dict[str, Path], lpips: Path) -> dict[str, object]:
    """All figures of a model file, by set."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    loaded = load_model(str(model))
    net, scale, unit = loaded.model.to(device), loaded.config.scale, loaded.config.multiple_lr_px

    def run(x: Tensor) -> Tensor:
        h, w = x.shape[-2:]
        padded = F.pad(x.to(device), (0, -w % unit, 0, -h % unit), mode="reflect")
        return net(padded)[..., : h * scale, : w * scale]

    distance = load_lpips(lpips)
    figures: dict[str, object] = {}
    for name, folder in folders.items():
        for clean in (False, True):
            figures[name + ("_clean" if clean else "")] = score_set(
                run, lambda a, b: distance.to(device)(a.to(device), b.to(device)),
                folder, clean=clean, scale=scale,
            )  # fmt: skip
    figures["plain"] = score_plain(run, scale)
    return figures


def main() -> None:
    """Score one model."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("val", type=Path)
    parser.add_argument("second", type=Path)
    parser.add_argument("--lpips", type=Path, required=True)
    args = parser.parse_args()
    figures = score(args.model, {"val": args.val, "second": args.second}, args.lpips)
    sys.stdout.write(json.dumps({"model": str(args.model), **figures}) + "\n")


if __name__ == "__main__":
    main()

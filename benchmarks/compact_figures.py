"""Pictures of ``docs/results/compact.md``, from what ``benchmarks/compact.py outputs`` kept.

    python benchmarks/compact_figures.py RUN/outputs --pairs val --out docs/images --image NAME ...

Writes ``compact_guidance.png`` (Fig. 15) and ``compact_features.png`` (Fig. 14), and prints what
the maps of all pairs have in common as one JSON line.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from slimdiffsr.evaluate import PairedFolder
from slimdiffsr.figures.canvas import write_png
from slimdiffsr.figures.inside import FeatureMaps, GuidanceMaps
from slimdiffsr.figures.maps import Shown, draw_features, draw_guidance

Kept = dict[str, NDArray[np.float32]]


def read(path: Path) -> Kept:
    """``NAME/what`` -> a map."""
    with np.load(path) as file:
        return {key: file[key].astype(np.float32) for key in file.files}


def guidance(kept: Kept, name: str) -> GuidanceMaps:
    """The deviation is the geometric mean over the latent's channels."""
    return GuidanceMaps(np.exp(kept[f"{name}/log_var"] / 2), kept[f"{name}/timestep"])


def features(kept: Kept, name: str) -> FeatureMaps:
    """Of up blocks 1 and 0: the last two that distillation matches."""
    return FeatureMaps(kept[f"{name}/feature2"], kept[f"{name}/feature3"])


def summary(kept: Kept, names: tuple[str, ...]) -> dict[str, float]:
    """Over all pairs: timesteps with the truth seen and without, and what they follow."""
    maps = [guidance(kept, name) for name in names]
    seen = np.concatenate([m.timestep.ravel() for m in maps])
    blind = np.concatenate([kept[f"{name}/timestep-mean"].ravel() for name in names])
    means = np.array([[m.uncertainty.mean(), m.timestep.mean()] for m in maps])
    values = {
        "timestep": seen.mean(),
        "timestep_std": seen.std(),
        "timestep_std_within": np.mean([m.timestep.std() for m in maps]),
        "timestep_p1": np.percentile(seen, 1),
        "timestep_p99": np.percentile(seen, 99),
        "timestep_mean": blind.mean(),
        "timestep_mean_std": blind.std(),
        "rank_correlation": np.mean([m.rank_correlation for m in maps]),
        "correlation_of_images": np.corrcoef(means.T)[0, 1],
    }
    return {key: round(float(value), 3) for key, value in values.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument("outputs", type=Path)
    parser.add_argument("--pairs", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--image", action="append", required=True)
    parser.add_argument("--scale", type=int, default=4)
    args = parser.parse_args()
    pairs = PairedFolder.open(args.pairs / f"lr_x{args.scale}", args.pairs / "hr", args.scale)
    adaptive, fixed = (read(args.outputs / f"{name}.npz") for name in ("teacher", "teacher-fixed"))
    shown = [Shown(name, *pairs.read(name)) for name in args.image]
    maps = [guidance(adaptive, name) for name in args.image]
    write_png(draw_guidance(shown, maps), args.out / "compact_guidance.png")
    made = [
        {"fixed": features(fixed, name), "adaptive": features(adaptive, name)}
        for name in args.image
    ]
    write_png(draw_features(shown, made), args.out / "compact_features.png")
    print(json.dumps(summary(adaptive, pairs.names)))


if __name__ == "__main__":
    main()

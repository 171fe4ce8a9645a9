"""Compares models on the same images: differences image by image, from what ``evaluate`` wrote.

    python benchmarks/paired_images.py report/images.csv student student-no-mmd --metric lpips_squeeze

Prints, for each other model and metric, how much more it has than the first, with the 95 % bootstrap
interval over the images, and on how many images: one JSON line each. Intervals of two means overlap
long before their difference is uncertain, because images differ more than models do.
"""

from __future__ import annotations

import argparse
import csv
import json
from pathlib import Path

import numpy as np

from slimdiffsr.evaluate import bootstrap_mean

Scores = dict[str, dict[tuple[str, str], float]]  # by model, then by set and image


def read(path: Path, metric: str) -> Scores:
    """What each model scored, where it did."""
    scores: Scores = {}
    with path.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            if metric not in row:
                raise SystemExit(f"no metric {metric} in {path}: there are {', '.join(row)}")
            if row[metric]:
                image = (row["set"], row["image"])
                scores.setdefault(row["model"], {})[image] = float(row[metric])
    return scores


def compare(
    first: dict[tuple[str, str], float], other: dict[tuple[str, str], float]
) -> dict[str, float]:
    """What ``other`` has more, over the images that both have."""
    images = sorted(first.keys() & other.keys())
    if not images:
        raise SystemExit("the models have no image in common")
    more = np.array([other[image] - first[image] for image in images])
    found = bootstrap_mean(more)
    return {
        "more": round(found.mean, 4),
        "low": round(found.low, 4),
        "high": round(found.high, 4),
        "images": len(images),
        "images_with_more": int((more > 0).sum()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument("images", type=Path, help="images.csv of a report")
    parser.add_argument("models", nargs="+", help="the first is what others are held to")
    parser.add_argument("--metric", action="append", required=True)
    args = parser.parse_args()
    for metric in args.metric:
        scores = read(args.images, metric)
        if missing := [model for model in args.models if model not in scores]:
            raise SystemExit(f"not in the report: {', '.join(missing)}; it has {', '.join(scores)}")
        first, *others = args.models
        for other in others:
            line = {"model": other, "than": first, "metric": metric}
            print(json.dumps(line | compare(scores[first], scores[other])))


if __name__ == "__main__":
    main()

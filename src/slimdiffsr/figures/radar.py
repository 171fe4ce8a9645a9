"""Several metrics of a few models at once, as of an ablation (Fig. 13)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from matplotlib.figure import Figure

from slimdiffsr.figures.canvas import COLOURS, INK, new_figure

__all__ = ["Spoke", "draw_radar"]

INNER = 0.2  # radius of the worst value: a model that is worst in everything still has a shape
MARKERS = "os^Dv*"


@dataclass(frozen=True, slots=True)
class Spoke:
    """A metric: its name, direction, and how many digits are shown."""

    name: str
    better: Literal["higher", "lower"]
    digits: int = 2


def draw_radar(spokes: Sequence[Spoke], models: Mapping[str, Sequence[float]]) -> Figure:
    """One polygon a model, one spoke a metric, further out is better.

    Each spoke goes from the worst to the best of the models shown, whose values stand at its ends:
    shapes compare models with each other and say nothing of how large the differences are.
    """
    figure = new_figure(5.6, 5.2, layout="constrained")
    axes = figure.add_subplot(projection="polar")
    values = np.array(list(models.values()), dtype=float)  # (models, spokes)
    signs = np.array([1.0 if spoke.better == "higher" else -1.0 for spoke in spokes])
    goodness = values * signs
    worst, best = goodness.min(axis=0), goodness.max(axis=0)
    spread = np.where(best > worst, best - worst, 1.0)
    radii = np.where(best > worst, INNER + (1 - INNER) * (goodness - worst) / spread, 1.0)
    angles = np.linspace(0, 2 * np.pi, len(spokes), endpoint=False)
    for index, (name, row) in enumerate(zip(models, radii, strict=True)):
        colour = COLOURS[index % len(COLOURS)]
        marker = MARKERS[index % len(MARKERS)]
        closed = np.append(angles, angles[0]), np.append(row, row[0])
        axes.plot(*closed, color=colour, marker=marker, markersize=5, linewidth=1.6, label=name)
        axes.fill(*closed, color=colour, alpha=0.08)
    labels = []
    for spoke, low, high in zip(spokes, worst * signs, best * signs, strict=True):
        arrow = "↑" if spoke.better == "higher" else "↓"
        labels.append(f"{spoke.name} {arrow}\n{low:.{spoke.digits}f} … {high:.{spoke.digits}f}")
    axes.set_xticks(angles, labels, fontsize=8, color=INK)
    axes.tick_params(axis="x", pad=28)
    axes.set_yticks([INNER, 1.0], ["", ""])
    axes.set_ylim(0, 1.05)
    axes.set_theta_offset(np.pi / 2)  # type: ignore[attr-defined]
    axes.spines["polar"].set_visible(False)
    axes.grid(alpha=0.4)
    figure.legend(loc="outside lower center", ncols=min(len(models), 3), fontsize=8, frameon=False)
    return figure

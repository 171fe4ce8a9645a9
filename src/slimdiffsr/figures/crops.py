"""Results side by side: the whole image, and one place of it magnified for each method (Figs. 10-12)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.patches import Rectangle
from matplotlib.typing import HashableList

from slimdiffsr.figures.canvas import COLOURS, INK, WIDTH_IN, Rgb8, new_figure
from slimdiffsr.figures.detail import Box, cut, most_detailed

__all__ = ["Comparison", "draw_crops"]

CROP_SHARE = 3  # the magnified place is a third of the shorter side


@dataclass(frozen=True, slots=True)
class Comparison:
    """One image as each method restored it.

    ``results`` by name, all of one size, the truth among them where there is one; ``captions`` may
    say something of each, such as its scores. ``box``: the place to magnify, in pixels of the input;
    by default the most detailed of the truth, or of the first result.
    """

    name: str
    lr: Rgb8
    scale: int
    results: Mapping[str, Rgb8]
    captions: Mapping[str, str] = field(default_factory=dict)
    box: Box | None = None
    whole: str | None = None  # which result is shown whole; None: the last

    @property
    def shown_whole(self) -> Rgb8:
        """The result that is shown whole."""
        return self.results[self.whole or list(self.results)[-1]]

    def place(self) -> Box:
        """The place to magnify, in pixels of the input."""
        if self.box is not None:
            return self.box
        rgb = self.shown_whole
        found = most_detailed(rgb, min(rgb.shape[:2]) // CROP_SHARE, unit=self.scale)
        return Box(*(length // self.scale for length in found))


def draw_crops(comparisons: Sequence[Comparison]) -> Figure:
    """One image a row: whole with the place marked, then the place in the input and each result."""
    count = 1 + max(len(c.results) for c in comparisons)
    columns = max(2, math.ceil(count / 2))
    panel_in = WIDTH_IN / (columns + 2.2)
    figure = new_figure(WIDTH_IN, len(comparisons) * (2 * panel_in + 0.8), layout="constrained")
    rows = figure.subfigures(len(comparisons), 1, squeeze=False)[:, 0]
    for row, comparison in zip(rows, comparisons, strict=True):
        _draw_row(row, comparison, columns)
    return figure


def _draw_row(figure: SubFigure, comparison: Comparison, columns: int) -> None:
    # The whole image takes both rows of panels.
    layout: list[HashableList[str]] = [
        ["whole", *(f"{r},{c}" for c in range(columns))] for r in (0, 1)
    ]
    axes = figure.subplot_mosaic(layout, width_ratios=[2.15, *[1] * columns])
    box = comparison.place()
    _show(axes["whole"], comparison.shown_whole, comparison.name)
    _mark(axes["whole"], box.times(comparison.scale))
    panels = [axes[f"{r},{c}"] for r in (0, 1) for c in range(columns)]
    shown = {"input": cut(comparison.lr, box)}
    for name, rgb in comparison.results.items():
        shown[name] = cut(rgb, box.times(comparison.scale))
    for panel, (name, rgb) in zip(panels, shown.items(), strict=False):
        _show(panel, rgb, name, comparison.captions.get(name, ""))
    for panel in panels[len(shown) :]:
        panel.set_axis_off()


def _show(axes: Axes, rgb: Rgb8, title: str, caption: str = "") -> None:
    axes.imshow(rgb, interpolation="nearest")
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)
    axes.set_title(title, fontsize=8, color=INK, pad=3)
    if caption:
        axes.set_xlabel(caption, fontsize=7, color=INK, labelpad=2)


def _mark(axes: Axes, box: Box) -> None:
    corner, side = (box.column - 0.5, box.row - 0.5), box.side
    for colour, width in (("white", 3.0), (COLOURS[1], 1.5)):
        axes.add_patch(Rectangle(corner, side, side, fill=False, edgecolor=colour, linewidth=width))

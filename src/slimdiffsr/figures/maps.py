"""Figures of what goes on inside the networks (Figs. 14 to 16): one image a row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colorbar import Colorbar
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.image import AxesImage

from slimdiffsr.figures.canvas import INK, WIDTH_IN, Map, Rgb8, new_figure
from slimdiffsr.figures.inside import FeatureMaps, GuidanceMaps

__all__ = ["Shown", "draw_attention", "draw_features", "draw_guidance"]

COLOUR_MAP = "cividis"  # alike for all kinds of colour vision
HEAT_MAP = "inferno"  # rising in lightness too, and told from a grey image below


@dataclass(frozen=True, slots=True)
class Shown:
    """An image as it is shown beside its maps: input, and truth where there is one."""

    name: str
    lr: Rgb8
    hr: Rgb8 | None = None


def draw_guidance(images: Sequence[Shown], maps: Sequence[GuidanceMaps]) -> Figure:
    """Input, truth, uncertainty and timestep (Fig. 15); one scale of colours over all images."""
    truth = any(image.hr is not None for image in images)
    figure, grid = _grid(
        images, ["input", *(["truth"] if truth else []), "uncertainty", "timestep"]
    )
    for row, image in zip(grid, images, strict=True):
        _show_image(row, image, truth)
    columns = (
        (-2, [m.uncertainty for m in maps], "standard deviation of the latent"),
        (-1, [m.timestep for m in maps], "timestep t*"),
    )
    for column, shown, label in columns:
        norm = Normalize(*_range(shown))
        for row, values in zip(grid, shown, strict=True):
            drawn = _show_map(row[column], values, norm)
        _colour_bar(figure, drawn, [row[column] for row in grid], label)
    for row, one in zip(grid, maps, strict=True):
        if not np.isnan(one.rank_correlation):
            row[-1].set_xlabel(f"rank correlation {one.rank_correlation:+.2f}", fontsize=8)
    return figure


def draw_features(images: Sequence[Shown], features: Sequence[Mapping[str, FeatureMaps]]) -> Figure:
    """Channel means of the two finest up blocks by how the timestep is chosen (Fig. 14).

    In units of their spread: for each image and block all ways share one mean and one standard
    deviation, so a way that excites the block less looks flatter.
    """
    ways = list(features[0])
    titles = [f"{block}, {way}" for block in ("up block 1", "up block 0") for way in ways]
    figure, grid = _grid(images, ["input", *(title.replace(", ", "\n") for title in titles)])
    for row, image, made in zip(grid, images, features, strict=True):
        _show_image(row, image, False)
        blocks = ([made[way].up1 for way in ways], [made[way].up0 for way in ways])
        for axes, values in zip(row[1:], [m for b in blocks for m in _standard(b)], strict=True):
            drawn = _show_map(axes, values, Normalize(-3, 3))
    every = [axes for row in grid for axes in row[1:]]
    _colour_bar(figure, drawn, every, "channel mean of the features, in standard deviations")
    return figure


def draw_attention(
    images: Sequence[Shown], maps: Sequence[Map], queries: Sequence[int], block: str
) -> Figure:
    """Where single queries look, and all of them on average, laid over the input (Fig. 16).

    block: whose attention it is. maps: of ``attention_maps``. Colours are logarithmic, one scale over all panels: 1 where a query
    looks no more than anywhere else.
    """
    titles = ["input", *(f"query {query}" for query in queries), "mean of all"]
    figure, grid = _grid(images, titles)
    panels = [[*(m[query] for query in queries), m.mean(axis=0)] for m in maps]
    low, high = _range([panel for row in panels for panel in row])
    low, high = float(np.clip(low, 1 / 8, 1 / 2)), float(np.clip(high, 2, 64))
    norm = LogNorm(low, high)
    for row, image, values in zip(grid, images, panels, strict=True):
        _show_image(row, image, False)
        grey = image.lr.mean(axis=2)
        for axes, panel in zip(row[1:], values, strict=True):
            extent = (-0.5, grey.shape[1] - 0.5, grey.shape[0] - 0.5, -0.5)
            axes.imshow(grey, cmap="gray", vmin=0, vmax=255, extent=extent)
            drawn = axes.imshow(
                panel, cmap=HEAT_MAP, norm=norm, interpolation="nearest", extent=extent, alpha=0.7
            )
    every = [axes for row in grid for axes in row[1:]]
    label = f"attention of {block}, times that of looking everywhere alike"
    bar = _colour_bar(figure, drawn, every, label)
    ticks = [2.0**power for power in range(-3, 7) if low <= 2.0**power <= high]
    bar.set_ticks(ticks, labels=[f"{tick:g}" for tick in ticks], minor=False)
    bar.minorticks_off()
    return figure


def _grid(images: Sequence[Shown], titles: Sequence[str]) -> tuple[Figure, list[list[Axes]]]:
    # Panels as high as the images; the bar of colours lies below.
    shapes = sum(image.lr.shape[0] / image.lr.shape[1] for image in images)
    figure = new_figure(WIDTH_IN, WIDTH_IN / len(titles) * shapes + 1)
    grid = figure.subplots(len(images), len(titles), squeeze=False)
    for axes, title in zip(grid[0], titles, strict=True):
        axes.set_title(title, fontsize=8, color=INK)
    for row, image in zip(grid, images, strict=True):
        for axes in row:
            axes.set(xticks=[], yticks=[])
            axes.spines[:].set_visible(False)
        row[0].set_ylabel(image.name, fontsize=8, color=INK)
    return figure, [list(row) for row in grid]


def _show_image(row: Sequence[Axes], image: Shown, truth: bool) -> None:
    row[0].imshow(image.lr, interpolation="nearest")
    if truth and image.hr is not None:
        row[1].imshow(image.hr, interpolation="nearest")


def _show_map(axes: Axes, values: Map, norm: Normalize) -> AxesImage:
    return axes.imshow(values, cmap=COLOUR_MAP, norm=norm, interpolation="nearest")


def _colour_bar(figure: Figure, drawn: AxesImage, over: list[Axes], label: str) -> Colorbar:
    few = len(over) < 6
    bar = figure.colorbar(
        drawn, ax=over, location="bottom", shrink=0.9 if few else 0.5, aspect=20 if few else 40,
        pad=0.02,
    )  # fmt: skip
    bar.set_label(label, fontsize=8, color=INK)
    bar.ax.tick_params(labelsize=8)
    return bar


def _range(maps: Sequence[Map]) -> tuple[float, float]:
    # All but the outermost hundredth on either side, which would take the colours from the rest.
    values = np.concatenate([m.ravel() for m in maps])
    low, high = np.percentile(values, (1, 99))
    return (float(low), float(high)) if high > low else (float(low) - 0.5, float(high) + 0.5)


def _standard(maps: Sequence[Map]) -> list[Map]:
    values = np.concatenate([m.ravel() for m in maps])
    return [(m - values.mean()) / max(float(values.std()), 1e-9) for m in maps]

"""Quality against time and size (Fig. 2)."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.ticker import FuncFormatter

from slimdiffsr.errors import DataError
from slimdiffsr.figures.canvas import COLOURS, INK, new_figure

__all__ = ["Bubble", "draw_cost", "read_timings"]

LARGEST_PT2 = 1800.0  # area of the largest bubble


@dataclass(frozen=True, slots=True)
class Bubble:
    """A model: a quality with its interval, seconds an image, and parameters."""

    name: str
    quality: float
    low: float
    high: float
    seconds: float
    parameters: int


def read_timings(
    path: Path, precision: str | None = None
) -> tuple[dict[str, tuple[float, int]], str]:
    """Seconds an image and parameters by row, of the JSON lines that bench writes, at batch 1.

    precision: fp32, fp16 or bf16; by default that of the first line. Returns also what was timed,
    where. Of two lines of one row the last counts. Raises DataError.
    """
    found: dict[str, tuple[float, int]] = {}
    about = ""
    try:
        for line in path.read_text(encoding="utf-8").splitlines():
            record = json.loads(line)
            precision = precision or record["precision"]
            if (
                record["batch"] != 1
                or record["precision"] != precision
                or not record.get("median_s")
            ):
                continue
            found[record["row"]] = (record["median_s"], record.get("parameters_used", 0))
            about = f"{record['out_px']} x {record['out_px']} px, {precision}, {record['device']}"
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from None
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} holds no JSON lines of bench ({error!r})") from None
    if not found:
        raise DataError(f"{path} has no timing at batch 1 and {precision}")
    return found, about


def draw_cost(bubbles: Sequence[Bubble], quality: str, about: str) -> Figure:
    """Quality upward against seconds an image on a logarithmic axis; areas are parameters.

    quality: the metric's name, with an arrow for its better direction; where less is better the
    axis stands on its head, so that up is always better. about: what was timed, where.
    """
    figure = new_figure(6.5, 4.3, layout="constrained")
    axes = figure.subplots()
    largest = max(max(b.parameters for b in bubbles), 1)
    for bubble, colour in zip(bubbles, _cycle(len(bubbles)), strict=True):
        # A model without parameters is a point.
        area = max(LARGEST_PT2 * bubble.parameters / largest, 12.0)
        axes.errorbar(
            bubble.seconds, bubble.quality,
            yerr=[[bubble.quality - bubble.low], [bubble.high - bubble.quality]],
            color=colour, capsize=2, linewidth=1, zorder=2,
        )  # fmt: skip
        axes.scatter(
            bubble.seconds, bubble.quality, s=area, color=colour, alpha=0.55, edgecolor=INK,
            linewidth=0.6, zorder=3,
        )  # fmt: skip
        label = f"{bubble.name}\n{_count(bubble.parameters)}"
        beside = math.sqrt(area) / 2 + 4
        axes.annotate(
            label, (bubble.seconds, bubble.quality), (beside, 0), textcoords="offset points",
            fontsize=8, color=INK, va="center", zorder=4,
            path_effects=[withStroke(linewidth=2.5, foreground="white")],
        )  # fmt: skip
    _style(axes, bubbles)
    if "↓" in quality:
        axes.invert_yaxis()
    axes.set_xlabel(f"seconds an image ({about})", fontsize=9)
    axes.set_ylabel(quality, fontsize=9)
    axes.set_title("area: parameters", fontsize=8, color=INK, loc="right")
    return figure


def _style(axes: Axes, bubbles: Sequence[Bubble]) -> None:
    axes.set_xscale("log")
    times = [b.seconds for b in bubbles]
    # Room for bubbles on the left and labels on the right.
    axes.set_xlim(min(times) / 2, max(times) * 6)
    axes.margins(y=0.25)
    axes.grid(alpha=0.25)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)


def _cycle(count: int) -> list[str]:
    return [COLOURS[i % len(COLOURS)] for i in range(count)]


def _count(parameters: int) -> str:
    if parameters == 0:
        return "no parameters"
    return f"{parameters / 1e6:.3g} M" if parameters >= 1e5 else f"{parameters / 1e3:.3g} k"

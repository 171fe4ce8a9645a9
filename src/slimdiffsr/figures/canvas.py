"""What all figures share: paper, colours, and writing them as PNG.

matplotlib's objects alone, drawn by Agg: no pyplot, no global state, no display.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Literal

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from slimdiffsr.files.tensors import write_atomically

__all__ = [
    "COLOURS",
    "INK",
    "WIDTH_IN",
    "Map",
    "Rgb8",
    "new_figure",
    "png_bytes",
    "write_png",
]

Rgb8 = NDArray[np.uint8]
Map = NDArray[np.float32]

WIDTH_IN, DPI = 8.0, 150  # 1200 px: letters of 8 points are still read in a README
INK = "#222222"
# Okabe & Ito 2008, without black and yellow: told apart by people with any colour vision.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")


def new_figure(
    width_in: float, height_in: float, layout: Literal["constrained", "compressed"] = "compressed"
) -> Figure:
    """An empty figure whose parts make room for each other; sizes in inches.

    layout: compressed closes the gaps that images of fixed shape leave.
    """
    figure = Figure(figsize=(width_in, height_in), dpi=DPI, layout=layout)
    FigureCanvasAgg(figure)
    return figure


def png_bytes(figure: Figure) -> bytes:
    """The figure as a PNG file, cut to what is drawn; the same bytes each time."""
    buffer = io.BytesIO()
    figure.savefig(
        buffer, format="png", bbox_inches="tight", pad_inches=0.08, metadata={"Software": None}
    )
    return buffer.getvalue()


def write_png(figure: Figure, path: Path) -> Path:
    """Write the figure whole or not at all; the folder is made. Raises OutputError."""
    write_atomically(path, png_bytes(figure))
    return path

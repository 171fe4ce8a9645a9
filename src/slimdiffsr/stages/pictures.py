"""Pictures that validation leaves: rows of images as one PNG."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from torch import Tensor

from slimdiffsr.datasets.images import Rgb8, encode_png, to_rgb8
from slimdiffsr.files.tensors import write_atomically

__all__ = ["grey", "save_rows"]


def grey(values: Tensor, low: float, high: float, times: int) -> Rgb8:
    """A map (h, w) as (times*h, times*w, 3) uint8: ``low`` is black, ``high`` white."""
    shade = (values.float() - low) / max(high - low, 1e-6)
    large = shade.repeat_interleave(times, 0).repeat_interleave(times, 1)
    return to_rgb8(large.expand(3, -1, -1) * 2 - 1)


def save_rows(rows: Sequence[Sequence[Rgb8]], path: Path) -> None:
    """A PNG of images side by side, rows one below another, narrower ones filled with black.

    Raises OutputError.
    """
    joined = [np.hstack(list(row)) for row in rows]
    width = max(row.shape[1] for row in joined)
    whole = np.vstack([np.pad(r, ((0, 0), (0, width - r.shape[1]), (0, 0))) for r in joined])
    write_atomically(path, encode_png(whole))

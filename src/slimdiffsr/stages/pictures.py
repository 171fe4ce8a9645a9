"""Pictures that validation leaves: tensors to bytes, rows of images to one PNG."""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image
from torch import Tensor

from slimdiffsr.checkpoint import write_atomically

__all__ = ["Pixels", "grey", "save_rows", "to_uint8"]

Pixels = np.ndarray[tuple[int, ...], np.dtype[np.uint8]]


def to_uint8(rgb: Tensor) -> Pixels:
    """(3, h, w) in [-1, 1] -> (h, w, 3) uint8."""
    scaled = ((rgb.float() / 2 + 0.5).clamp(0, 1) * 255).round()
    return scaled.byte().permute(1, 2, 0).cpu().numpy()


def grey(values: Tensor, low: float, high: float, times: int) -> Pixels:
    """A map (h, w) as (times*h, times*w, 3) uint8: ``low`` is black, ``high`` white."""
    shade = (values.float() - low) / max(high - low, 1e-6)
    large = shade.repeat_interleave(times, 0).repeat_interleave(times, 1)
    return to_uint8(large.expand(3, -1, -1) * 2 - 1)


def save_rows(rows: Sequence[Sequence[Pixels]], path: Path) -> None:
    """A PNG of images side by side, rows one below another, narrower ones filled with black.

    Raises OutputError.
    """
    joined = [np.hstack(list(row)) for row in rows]
    width = max(row.shape[1] for row in joined)
    whole = np.vstack([np.pad(r, ((0, 0), (0, width - r.shape[1]), (0, 0))) for r in joined])
    png = BytesIO()
    Image.fromarray(whole).save(png, "PNG")
    write_atomically(path, png.getvalue())

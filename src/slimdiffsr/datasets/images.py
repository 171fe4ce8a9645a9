"""Image files and 8-bit pixels: read, written, and turned into what networks see and back.

Reading and writing need Pillow, which comes with the extras ``train`` and ``report``.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from slimdiffsr.errors import ConfigError, DataError

if TYPE_CHECKING:
    from PIL.ImageFile import ImageFile

__all__ = ["Rgb8", "encode_png", "image_size", "read_rgb8", "to_rgb8", "to_signed"]

Rgb8 = NDArray[np.uint8]  # (h, w, 3)


def read_rgb8(path: Path, *, convert: bool = False) -> Rgb8:
    """An image file as (h, w, 3) uint8; a grey one has its band repeated.

    convert: also take palettes, and images with alpha, which is dropped. Fit for training; measures
    of what a converter makes would not compare.

    Raises:
        ConfigError: no Pillow.
        DataError: unreadable, deeper than 8 bits; without ``convert`` anything but 8-bit RGB or
            grey.
    """
    with _opened(path) as image:
        if convert:
            _refuse_deep(image)
        kind = _kind(image)
        pixels = np.asarray(image.convert("RGB"))
    if not convert and kind not in ("RGB", "L"):
        raise DataError(f"{path} is {kind}: evaluation needs 8-bit RGB or grey without alpha")
    return pixels


def image_size(path: Path) -> tuple[int, int]:
    """Width and height, from the header alone. Raises what ``read_rgb8`` with convert raises."""
    with _opened(path) as image:
        _refuse_deep(image)
        width, height = image.size
    return width, height


def encode_png(rgb: Rgb8) -> bytes:
    """(h, w, 3) uint8 as a PNG file."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(rgb)).save(buffer, "PNG")
    return buffer.getvalue()


def to_signed(rgb: Rgb8, device: torch.device | str = "cpu") -> Tensor:
    """(h, w, 3) uint8 -> (1, 3, h, w) float32 in [-1, 1]."""
    return torch.tensor(rgb, device=device).permute(2, 0, 1)[None].float() / 127.5 - 1


def to_rgb8(rgb: Tensor) -> Rgb8:
    """(3, h, w) about [-1, 1] -> (h, w, 3) uint8, rounded and clamped."""
    levels = ((rgb.float() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
    return np.asarray(levels.permute(1, 2, 0).cpu().numpy())


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[ImageFile]:
    try:
        from PIL import Image
    except ImportError:
        raise ConfigError(
            "reading image files needs Pillow: pip install 'slimdiffsr[train]'"
        ) from None
    try:
        with Image.open(path) as image:
            yield image
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(f"cannot read the image {path}: {error}") from None


def _refuse_deep(image: ImageFile) -> None:
    # Pillow would clip such values at 255, or keep the upper eight bits of a range that is not used.
    if image.mode.startswith(("I", "F")) or _kind(image) == "16-bit or deeper":
        raise ValueError(f"8-bit images are needed, this one is deeper (of mode {image.mode})")


def _kind(image: ImageFile) -> str:
    # Pillow hands 16-bit colour out as 8-bit without a word; the raw mode tells.
    if any(";16" in str(tile[3]) for tile in image.tile) or image.mode.startswith("I"):
        return "16-bit or deeper"
    if "transparency" in image.info or image.mode in ("RGBA", "LA", "PA", "RGBa"):
        return "transparent"
    return image.mode

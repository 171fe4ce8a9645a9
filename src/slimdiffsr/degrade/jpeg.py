"""JPEG round trip: what an image looks like after baseline JPEG coding with 4:2:0 chroma.

Only the lossy steps of ITU-T T.81 are done (colour, subsampling, DCT, quantisation); entropy
coding loses nothing. Quality is a real number and the tables are not rounded, as in the authors'
degradation.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from slimdiffsr.errors import ConfigError, DataError

__all__ = ["jpeg"]

# ITU-T T.81, tables K.1 and K.2; rows are vertical frequencies. K.1 lies on its side, as in the
# authors' code: for the standard's own, pass the image transposed.
_LUMA_TABLE = (
    (16, 12, 14, 14, 18, 24, 49, 72),
    (11, 12, 13, 17, 22, 35, 64, 92),
    (10, 14, 16, 22, 37, 55, 78, 95),
    (16, 19, 24, 29, 56, 64, 87, 98),
    (24, 26, 40, 51, 68, 81, 103, 112),
    (40, 58, 57, 87, 109, 104, 121, 100),
    (51, 60, 69, 80, 103, 113, 120, 103),
    (61, 55, 56, 62, 77, 92, 101, 99),
)
_CHROMA_TABLE = (
    (17, 18, 24, 47, 99, 99, 99, 99),
    (18, 21, 26, 66, 99, 99, 99, 99),
    (24, 26, 56, 99, 99, 99, 99, 99),
    (47, 66, 99, 99, 99, 99, 99, 99),
    (99, 99, 99, 99, 99, 99, 99, 99),
    (99, 99, 99, 99, 99, 99, 99, 99),
    (99, 99, 99, 99, 99, 99, 99, 99),
    (99, 99, 99, 99, 99, 99, 99, 99),
)

# ITU-T T.871 (JFIF), 8-bit values; chroma is kept centred on 0.
_TO_YCC = (
    (0.299, 0.587, 0.114),
    (-0.168736, -0.331264, 0.5),
    (0.5, -0.418688, -0.081312),
)
_TO_RGB = (
    (1.0, 0.0, 1.402),
    (1.0, -0.344136, -0.714136),
    (1.0, 1.772, 0.0),
)


def jpeg(images: Tensor, quality: Tensor) -> Tensor:
    """Code and decode each image at its quality.

    Args:
        images: (b, 3, h, w) in [0, 1], any size; padded inside to multiples of 16 by repeating the
            last row and column.
        quality: (b,) in [1, 100], real.

    Returns:
        (b, 3, h, w) in [0, 1], not rounded to 8 bits. Not differentiable.
    """
    if images.ndim != 4 or images.shape[1] != 3 or quality.shape != images.shape[:1]:
        raise DataError(
            "jpeg takes images (b, 3, h, w) and one quality for each image (b,), got "
            f"{tuple(images.shape)} and {tuple(quality.shape)}"
        )
    if not ((quality >= 1) & (quality <= 100)).all():
        raise ConfigError(f"JPEG quality must be in [1, 100], got {quality.tolist()}")
    height, width = images.shape[-2:]
    padded = F.pad(images, (0, -width % 16, 0, -height % 16), mode="replicate")
    factor = quality_factor(quality.to(images))
    luma, chroma = _to_ycc(padded)
    luma = _quantise_blocks(luma - 128, _table(images, _LUMA_TABLE), factor) + 128
    chroma = _quantise_blocks(F.avg_pool2d(chroma, 2), _table(images, _CHROMA_TABLE), factor)
    chroma = F.interpolate(chroma, scale_factor=2, mode="nearest")
    return _to_rgb(luma, chroma)[..., :height, :width].clamp(0, 1)


def quality_factor(quality: Tensor) -> Tensor:
    """The factor on the quantisation tables at a quality in [1, 100], libjpeg's convention."""
    return torch.where(quality < 50, 50 / quality, 2 - quality / 50)


def _quantise_blocks(planes: Tensor, table: Tensor, factor: Tensor) -> Tensor:
    """Round the 8 x 8 DCT coefficients of (b, c, h, w) to multiples of table (64,) * factor (b,)."""
    b, c, h, w = planes.shape
    basis = _dct_basis(planes)
    blocks = planes.reshape(b, c, h // 8, 8, w // 8, 8).transpose(3, 4).reshape(b, -1, 64)
    # At quality 100 the factor is 0: nothing is quantised. The floor keeps 0/0 out, and its
    # steps are far below float32's own.
    steps = (table * factor[:, None]).clamp_min(1e-6).unsqueeze(1)
    coefficients = (blocks @ basis.T).div_(steps).round_().mul_(steps)
    blocks = (coefficients @ basis).reshape(b, c, h // 8, w // 8, 8, 8)
    return blocks.transpose(3, 4).reshape(b, c, h, w)


def _dct_basis(like: Tensor) -> Tensor:
    """The orthonormal two-dimensional DCT-II of 8 x 8 blocks: (64 frequencies, 64 pixels)."""
    n = torch.arange(8, dtype=torch.float64)
    line = torch.cos((2 * n[None, :] + 1) * n[:, None] * (math.pi / 16)) / 2
    line[0] /= math.sqrt(2)
    return torch.kron(line, line).to(like)


def _table(like: Tensor, rows: tuple[tuple[int, ...], ...]) -> Tensor:
    return like.new_tensor(rows).flatten()


def _to_ycc(rgb: Tensor) -> tuple[Tensor, Tensor]:
    """(b, 3, h, w) in [0, 1] to luma (b, 1, h, w) in [0, 255], chroma (b, 2, h, w) about 0."""
    ycc = torch.einsum("kc,bchw->bkhw", rgb.new_tensor(_TO_YCC) * 255, rgb)
    return ycc[:, :1], ycc[:, 1:]


def _to_rgb(luma: Tensor, chroma: Tensor) -> Tensor:
    ycc = torch.cat((luma, chroma), dim=1)
    return torch.einsum("kc,bchw->bkhw", ycc.new_tensor(_TO_RGB) / 255, ycc)

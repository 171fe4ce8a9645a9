"""Cubic and Lanczos enlargement: the baselines that every model must beat."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from slimdiffsr.errors import ScaleError

__all__ = ["Bicubic", "Lanczos", "keys_cubic", "lanczos_window"]


def keys_cubic(x: float, a: float = -0.5) -> float:
    """Cubic convolution kernel, zero beyond 2 (Keys 1981, IEEE TASSP 29(6), Eq. 15 at -0.5).

    With a = -0.5 it reproduces quadratics, and is what GDAL and Pillow call cubic; PyTorch's and
    OpenCV's a = -0.75 rings more.
    """
    x = abs(x)
    if x < 1:
        return ((a + 2) * x - (a + 3)) * x * x + 1
    if x < 2:
        return (((x - 5) * x + 8) * x - 4) * a
    return 0.0


def lanczos_window(x: float, lobes: int = 3) -> float:
    """Sinc under a sinc of ``lobes`` times its width, zero beyond ``lobes`` (Duchon 1979)."""
    if x == 0:
        return 1.0
    if abs(x) >= lobes:
        return 0.0
    angle = math.pi * x
    return lobes * math.sin(angle) * math.sin(angle / lobes) / angle**2


class _Separable(nn.Module):
    """Enlarges by a whole factor with one kernel along each axis."""

    weights: Tensor

    def __init__(self, scale: int, kernel: Callable[[float], float], reach_lr_px: int) -> None:
        super().__init__()
        if scale < 1:
            raise ScaleError(f"scale must be a whole number of at least 1, got {scale}")
        self.scale = scale
        self.reach_lr_px = reach_lr_px
        weights = phase_weights(scale, kernel, reach_lr_px)
        # Not persistent: there is nothing to load, and a checkpoint of a baseline is empty.
        self.register_buffer("weights", weights, persistent=False)

    def forward(self, rgb_lr: Tensor) -> Tensor:
        """Enlarge; pixel areas stay aligned, so corners of the images coincide.

        rgb_lr: (b, c, h, w), by convention c = 3 in [-1, 1]. Edge pixels are repeated outwards.
        Returns (b, c, scale*h, scale*w) of the same dtype and device, in the same range but for
        the kernel's overshoot at edges, which is not clamped.
        """
        b, c, h, w = rgb_lr.shape
        pad, weights = self.reach_lr_px, self.weights.to(rgb_lr)
        planes = F.pad(rgb_lr, (pad, pad, pad, pad), mode="replicate").flatten(0, 1)[:, None]
        rows = F.conv2d(planes, weights[:, None, :, None])  # (b*c, scale, h, w + 2 pad)
        rows = rows.transpose(1, 2).reshape(b * c, 1, self.scale * h, w + 2 * pad)
        both = F.conv2d(rows, weights[:, None, None, :])  # (b*c, scale, scale*h, w)
        return both.permute(0, 2, 3, 1).reshape(b, c, self.scale * h, self.scale * w)


class Bicubic(_Separable):
    """Cubic convolution with a = -0.5: what GDAL's and Pillow's users mean by cubic."""

    def __init__(self, scale: int) -> None:
        super().__init__(scale, keys_cubic, reach_lr_px=2)


class Lanczos(_Separable):
    """Lanczos enlargement with three lobes, weights normalised to preserve constants."""

    def __init__(self, scale: int) -> None:
        super().__init__(scale, lanczos_window, reach_lr_px=3)


def phase_weights(scale: int, kernel: Callable[[float], float], reach_lr_px: int) -> Tensor:
    """Weights of the neighbours of an input pixel in each of the output pixels inside it.

    Output pixel p of an input pixel has its centre at (p + 0.5) / scale - 0.5 from the input
    pixel's centre.

    Returns:
        (scale, 2 * reach_lr_px + 1) float32; each row sums to 1.
    """
    rows = [
        [kernel(k - ((p + 0.5) / scale - 0.5)) for k in range(-reach_lr_px, reach_lr_px + 1)]
        for p in range(scale)
    ]
    weights = torch.tensor(rows, dtype=torch.float64)
    return (weights / weights.sum(dim=1, keepdim=True)).float()

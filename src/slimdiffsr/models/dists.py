"""DISTS (Ding et al. 2020, arXiv 2004.07728): structure and texture similarity of VGG16 features.

Weights come from a file with ``features.*`` (VGG16, under its published names), ``alpha`` and
``beta`` (DISTS).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from slimdiffsr.models.lpips import vgg16_features

__all__ = ["DISTS"]

TAPS = (3, 8, 15, 22, 29)  # the last ReLU of each of VGG16's five groups
CHANNELS = (3, 64, 128, 256, 512, 512)  # of the image itself, then of the taps
STABLE = 1e-6  # c1 and c2 of the paper


class L2Pool(nn.Module):
    """Root of the locally averaged square, halving the size: pooling without aliasing."""

    kernel: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        hann = torch.tensor([0.25, 0.5, 0.25])
        kernel = hann[:, None] * hann[None, :]
        self.register_buffer("kernel", kernel.expand(channels, 1, 3, 3).clone(), False)

    def forward(self, x: Tensor) -> Tensor:
        """x: (b, channels, h, w). Returns (b, channels, ceil(h / 2), ceil(w / 2))."""
        power = F.conv2d(x * x, self.kernel, stride=2, padding=1, groups=x.shape[1])
        return (power + 1e-12).sqrt()


class DISTS(nn.Module):
    """Distance of structure and texture; 0 for equal images, towards 1 for unlike ones.

    Symmetric. Small shifts and resampled texture cost little, unlike in LPIPS. Images keep their
    size, as in pyiqa (the authors' own script first shrinks the smaller side to 256 px).
    """

    mean: Tensor
    spread: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.features = vgg16_features()
        pools = [i for i, layer in enumerate(self.features) if isinstance(layer, nn.MaxPool2d)]
        for index, channels in zip(pools, CHANNELS[1:5], strict=True):
            self.features[index] = L2Pool(channels)
        self.alpha = nn.Parameter(torch.full((1, sum(CHANNELS), 1, 1), 0.1))
        self.beta = nn.Parameter(torch.full((1, sum(CHANNELS), 1, 1), 0.1))
        for name, values in (("mean", (0.485, 0.456, 0.406)), ("spread", (0.229, 0.224, 0.225))):
            self.register_buffer(name, torch.tensor(values).view(1, 3, 1, 1), False)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """a, b: RGB (n, 3, h, w) in [-1, 1]. Returns one distance an image, (n,) float32."""
        total = self.alpha.sum() + self.beta.sum()
        texture_weights = torch.split(self.alpha / total, list(CHANNELS), dim=1)
        structure_weights = torch.split(self.beta / total, list(CHANNELS), dim=1)
        similar = a.new_zeros(len(a), dtype=torch.float32)
        levels = zip(self._levels((a + 1) / 2), self._levels((b + 1) / 2), strict=True)
        for level, (x, y) in enumerate(levels):
            texture, structure = similarities(x.float(), y.float())
            similar = similar + (texture_weights[level] * texture).sum((1, 2, 3))
            similar = similar + (structure_weights[level] * structure).sum((1, 2, 3))
        return 1 - similar

    def _levels(self, image: Tensor) -> list[Tensor]:
        # The image in [0, 1], then the taps.
        levels = [image]
        x = (image - self.mean) / self.spread
        for index, layer in enumerate(self.features):
            x = layer(x)
            if index in TAPS:
                levels.append(x)
        return levels


def similarities(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Texture, of channel means (Eq. 5), and structure, of covariances (Eq. 6): (b, c, 1, 1) each."""
    mean_x, mean_y = x.mean((2, 3), keepdim=True), y.mean((2, 3), keepdim=True)
    var_x = (x - mean_x).square().mean((2, 3), keepdim=True)
    var_y = (y - mean_y).square().mean((2, 3), keepdim=True)
    covariance = (x * y).mean((2, 3), keepdim=True) - mean_x * mean_y
    texture = (2 * mean_x * mean_y + STABLE) / (mean_x**2 + mean_y**2 + STABLE)
    structure = (2 * covariance + STABLE) / (var_x + var_y + STABLE)
    return texture, structure

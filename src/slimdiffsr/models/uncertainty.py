"""Uncertainty estimator UE_phi (Eq. 1) and noise-level predictor Pred_theta (Eq. 10)."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from slimdiffsr.models.spec import PredictorSpec

__all__ = ["NoiseLevelPredictor", "Uncertainty", "UncertaintyEstimator"]

LOG_VAR_RANGE = (-10.0, 6.0)  # keeps exp(s) and exp(-s) finite


class Uncertainty(NamedTuple):
    """z_mean and s = ln z_var of Eq. 1, both (b, 4, h, w)."""

    mean: Tensor
    log_var: Tensor


class EstimatorBlock(nn.Module):
    """Two convolutions without bias around a ReLU, plus a shortcut; nothing after the sum."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.shortcut = (
            nn.Identity() if inputs == outputs else nn.Conv2d(inputs, outputs, 1, bias=False)
        )

    def forward(self, x: Tensor) -> Tensor:
        """x: (b, inputs, h, w). Returns (b, outputs, h, w)."""
        out: Tensor = self.shortcut(x) + self.conv2(F.relu(self.conv1(x)))
        return out


class UncertaintyEstimator(nn.Module):
    """Plain residual network on the latent, reach 10 cells around (MS 2); 266,304 parameters."""

    def __init__(self, latents: int = 4, width: int = 64, *, var_channels: int = 4) -> None:
        super().__init__()
        self.split = (latents, var_channels)
        self.blocks = nn.Sequential(
            EstimatorBlock(latents, width),
            *(EstimatorBlock(width, width) for _ in range(3)),
            EstimatorBlock(width, latents + var_channels),
        )

    def forward(self, z_lr: Tensor) -> Uncertainty:
        """z_lr: (b, 4, h, w). One variance channel, if so built, is repeated over all four."""
        delta, log_var = self.blocks(z_lr).split(self.split, dim=1)
        mean = z_lr + delta
        return Uncertainty(mean, log_var.clamp(*LOG_VAR_RANGE).expand_as(mean))


class PredictorBlock(nn.Module):
    """Convolution, ReLU, convolution, plus the input; starts near the identity."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, padding=1)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)
        with torch.no_grad():
            for conv in (self.conv1, self.conv2):
                conv.weight.mul_(0.1)

    def forward(self, x: Tensor) -> Tensor:
        """x: (b, c, h, w). Returns the same shape."""
        out: Tensor = x + self.conv2(F.relu(self.conv1(x)))
        return out


class MapHead(nn.Module):
    """One number a position."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.hidden = nn.Conv2d(width, width, 3, padding=1)
        self.out = nn.Conv2d(width, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        """x: (b, c, h, w). Returns (b, 1, h, w)."""
        out: Tensor = self.out(F.leaky_relu(self.hidden(x), 0.1))
        return out


class ScalarHead(nn.Module):
    """One number an image, from the mean and the spread of each channel."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(2 * width, 2 * width)
        self.out = nn.Linear(2 * width, 1)

    def forward(self, x: Tensor) -> Tensor:
        """x: (b, c, h, w). Returns (b, 1, 1, 1)."""
        spread, mean = torch.std_mean(x, dim=(2, 3))
        out: Tensor = self.out(F.leaky_relu(self.hidden(torch.cat((mean, spread), 1)), 0.1))
        return out[:, :, None, None]


class NoiseLevelPredictor(nn.Module):
    """Pred_theta of Eq. 10: the noise level abar_target, a map or one number an image (MS 3).

    Starts at abar(t_start) everywhere, or at Eq. 9 where ``spec.param`` says so; always
    inside [abar(t_max), abar(t_min)]. ``schedule`` is abar_t, falling, (T,).
    """

    def __init__(self, spec: PredictorSpec, schedule: Tensor, latents: int = 4) -> None:
        super().__init__()
        self.spec = spec
        # Python floats: exact in any precision, and nothing to save.
        self.lowest, self.highest = float(schedule[spec.t_max]), float(schedule[spec.t_min])
        self.start = float(schedule[spec.t_start])
        self.trunk = nn.Sequential(
            nn.Conv2d(2 * latents, spec.width, 3, padding=1),
            nn.LeakyReLU(0.1),
            *(PredictorBlock(spec.width) for _ in range(spec.blocks)),
        )
        self.head = ScalarHead(spec.width) if spec.mode == "scalar" else MapHead(spec.width)
        nn.init.zeros_(self.head.out.weight)
        share = (self.start - self.lowest) / (self.highest - self.lowest)
        offset = 0.0 if spec.param == "eq9" else math.log(share / (1 - share))
        nn.init.constant_(self.head.out.bias, offset)  # type: ignore[arg-type]  # has a bias
        if spec.mode == "fixed":
            self.requires_grad_(False)

    def forward(self, z_gt: Tensor, log_var: Tensor) -> Tensor:
        """z_gt, log_var: (b, 4, h, w). Returns abar: (b, 1, h, w), or (b, 1, 1, 1); float32."""
        spec = self.spec
        if spec.mode == "fixed":
            return z_gt.new_full((len(z_gt), 1, 1, 1), self.start, dtype=torch.float32)
        s = torch.zeros_like(log_var) if spec.mode == "gt_only" else log_var
        h = self.head(self.trunk(torch.cat((z_gt, s), dim=1))).float()
        if spec.param == "eq9":
            # logit(abar) = log SNR = log sigma_gt^2 - s: Eq. 9, bent by the network.
            axes = (1, 2, 3) if spec.mode == "scalar" else (1,)
            h = h + spec.log_signal_variance - s.float().mean(axes, keepdim=True)
        out: Tensor = self.lowest + (self.highest - self.lowest) * h.sigmoid()
        return out

"""The teacher's diffusion arithmetic: Eqs. 6 to 9 and 11, and the one-step clean latent.

Always in float32 or better: some neighbouring noise levels differ by 6e-5, which bfloat16 cannot tell
apart. A noise level may be one number, one an image (b, 1, 1, 1), or a map (b, 1, h, w).
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from slimdiffsr.errors import ConfigError

__all__ = [
    "PredictionType",
    "add_noise",
    "align_noise_level",
    "invert_timestep",
    "noise_schedule",
    "predict_clean",
    "prediction_target",
    "snr",
    "uncertainty_snr",
]

PredictionType = Literal["epsilon", "v_prediction"]
TRAIN_STEPS = 1000
BETA_START, BETA_END = 0.00085, 0.012
_KINDS = "prediction type must be 'epsilon' or 'v_prediction'"


def noise_schedule() -> Tensor:
    """abar_t of Stable Diffusion 2 and SD-Turbo: (1000,) float32, falling from .99915 to .00466.

    beta_t is linear in its square root ("scaled linear"); abar is the running product of 1 - beta.
    """
    roots = torch.linspace(BETA_START**0.5, BETA_END**0.5, TRAIN_STEPS, dtype=torch.float64)
    return (1 - roots**2).cumprod(0).float()


def add_noise(clean: Tensor, noise: Tensor, alpha_bar: Tensor) -> Tensor:
    """z_t of Eq. 6. clean, noise: (b, 4, h, w). Returns the same shape, float32."""
    alpha_bar = _exact(alpha_bar)
    return alpha_bar.sqrt() * _exact(clean) + (1 - alpha_bar).sqrt() * _exact(noise)


def snr(alpha_bar: Tensor) -> Tensor:
    """Signal-to-noise ratio of the diffusion process (Eq. 7)."""
    alpha_bar = _exact(alpha_bar)
    return alpha_bar / (1 - alpha_bar)


def uncertainty_snr(signal_variance: Tensor, z_var: Tensor) -> Tensor:
    """Signal-to-noise ratio implied by the uncertainty (Eq. 8)."""
    return _exact(signal_variance) / _exact(z_var)


def align_noise_level(signal_variance: Tensor, z_var: Tensor) -> Tensor:
    """abar_target at which both ratios agree (Eq. 9), in (0, 1)."""
    signal_variance, z_var = _exact(signal_variance), _exact(z_var)
    return signal_variance / (signal_variance + z_var)


def invert_timestep(alpha_bar: Tensor, schedule: Tensor) -> Tensor:
    """t* of Eq. 11: table lookup and linear interpolation, differentiable in ``alpha_bar``.

    alpha_bar: any shape. schedule: (T,), falling, as ``noise_schedule`` gives it. Returns the same
    shape as alpha_bar: fractional timesteps in [0, T - 1]; levels outside the table are clamped.
    """
    levels = _exact(schedule).to(alpha_bar.device).flip(0)  # rising, as binary search needs
    last = len(levels) - 1
    x = _exact(alpha_bar).clamp(levels[0], levels[-1])
    upper = torch.searchsorted(levels, x.detach().contiguous()).clamp(1, last)
    below, above = levels[upper - 1], levels[upper]
    # Timesteps fall by one from entry to entry: t_(j-1) = T - 1 - (j - 1), t_j - t_(j-1) = -1.
    return (last - (upper - 1)) - (x - below) / (above - below)


def prediction_target(
    clean: Tensor, noise: Tensor, alpha_bar: Tensor, kind: PredictionType
) -> Tensor:
    """What a UNet of that kind should predict from ``add_noise``'s result; float32.

    ``v_prediction``: v = sqrt(abar) noise - sqrt(1 - abar) clean (Salimans & Ho 2022, appendix D).
    """
    clean, noise, alpha_bar = _exact(clean), _exact(noise), _exact(alpha_bar)
    if kind == "epsilon":
        return noise
    if kind == "v_prediction":
        return alpha_bar.sqrt() * noise - (1 - alpha_bar).sqrt() * clean
    raise ConfigError(f"{_KINDS}, got {kind!r}")


def predict_clean(
    noisy: Tensor, prediction: Tensor, alpha_bar: Tensor, kind: PredictionType
) -> Tensor:
    """Clean latent in one step from what the UNet predicts; float32, not clamped.

    noisy, prediction: (b, 4, h, w); alpha_bar broadcasts against them. ``epsilon`` is Ho et al.
    2020, Eq. 15 (Eq. 6 solved for z_0); ``v_prediction`` is Salimans & Ho 2022, appendix D.
    """
    noisy, prediction, alpha_bar = _exact(noisy), _exact(prediction), _exact(alpha_bar)
    signal, noise = alpha_bar.sqrt(), (1 - alpha_bar).sqrt()
    if kind == "epsilon":
        return (noisy - noise * prediction) / signal
    if kind == "v_prediction":
        return signal * noisy - noise * prediction
    raise ConfigError(f"{_KINDS}, got {kind!r}")


def _exact(x: Tensor) -> Tensor:
    return x if x.dtype == torch.float64 else x.float()

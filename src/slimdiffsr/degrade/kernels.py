"""Blur kernels of the degradation: each family is an equation, then one is drawn from a config.

Sources: Wang et al. 2021 (Real-ESRGAN), section 3, for the families and how they are mixed; MS 12
for the values. Kernels are evaluated in float64, given out in float32 and sum to 1.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from slimdiffsr.degrade.draws import chance, choose, uniform
from slimdiffsr.settings.config import Blur

__all__ = [
    "KERNEL_SIZE",
    "draw_kernel",
    "draw_sinc_kernel",
    "gaussian_kernel",
    "generalized_gaussian_kernel",
    "pad_kernel",
    "plateau_kernel",
    "sinc_kernel",
]

KERNEL_SIZE = 21  # side of every drawn kernel; smaller ones stand in its middle

_SMALL_SIZE = 13  # sinc kernels below this side cannot hold the rings of a low cut-off


def gaussian_kernel(size: int, sigma_x: float, sigma_y: float, theta: float = 0.0) -> Tensor:
    """Gaussian exp(-q/2), q = c' S^-1 c (Wang et al. 2021).

    Args:
        size: side of the kernel, odd.
        sigma_x: standard deviation along the first principal axis, in pixels.
        sigma_y: the same along the second.
        theta: angle from the x axis to the first principal axis, in radians, towards rising rows.

    Returns:
        (size, size), rows are y, summing to 1.
    """
    return _normalise(torch.exp(-0.5 * _quadratic_form(size, sigma_x, sigma_y, theta)))


def generalized_gaussian_kernel(
    size: int, sigma_x: float, sigma_y: float, theta: float, beta: float
) -> Tensor:
    """Generalised Gaussian exp(-q^beta / 2) (Liu et al. 2020); beta 1 is the Gaussian."""
    return _normalise(torch.exp(-0.5 * _quadratic_form(size, sigma_x, sigma_y, theta) ** beta))


def plateau_kernel(size: int, sigma_x: float, sigma_y: float, theta: float, beta: float) -> Tensor:
    """Plateau 1 / (1 + q^beta), flat on top and heavy in the tails (Wang et al. 2021)."""
    return _normalise(1 / (1 + _quadratic_form(size, sigma_x, sigma_y, theta) ** beta))


def sinc_kernel(size: int, cutoff: float) -> Tensor:
    """Ideal circular low-pass, w J1(w r) / (2 pi r), whose rings mimic over-sharpened images.

    Args:
        size: side of the kernel, odd.
        cutoff: the cut-off frequency w in radians per pixel; pi passes nearly everything.

    Returns:
        (size, size), summing to 1, negative in places.
    """
    x, y = _centred_grid(size)
    radius = torch.hypot(x, y)
    middle = size // 2
    radius[middle, middle] = 1.0  # any value but 0: the limit is put in below
    kernel = cutoff * torch.special.bessel_j1(cutoff * radius) / (2 * math.pi * radius)
    kernel[middle, middle] = cutoff**2 / (4 * math.pi)
    return _normalise(kernel)


def pad_kernel(kernel: Tensor, size: int = KERNEL_SIZE) -> Tensor:
    """The kernel in the middle of (size, size) zeros."""
    rim = (size - kernel.shape[-1]) // 2
    return torch.nn.functional.pad(kernel, (rim, rim, rim, rim))


def draw_kernel(blur: Blur, rng: torch.Generator) -> Tensor:
    """A kernel of the mixture that ``blur`` describes: (21, 21), summing to 1.

    Whether blurring happens at all (``blur.prob``) is for the caller to draw.
    """
    size = _draw_size(blur, rng)
    if chance(blur.sinc_prob, rng):
        return pad_kernel(sinc_kernel(size, _draw_cutoff(size, rng)))
    kind = blur.kinds[choose(blur.kind_probs, rng)]
    family, _, shape = kind.rpartition("-")
    sigma_x = uniform(blur.sigma, rng)
    sigma_y, theta = sigma_x, 0.0
    if shape == "aniso":
        sigma_y = uniform(blur.sigma, rng)
        theta = uniform((-math.pi, math.pi), rng)
    match family:
        case "gen":
            beta = _draw_beta(blur.beta_generalized, rng)
            kernel = generalized_gaussian_kernel(size, sigma_x, sigma_y, theta, beta)
        case "plateau":
            beta = _draw_beta(blur.beta_plateau, rng)
            kernel = plateau_kernel(size, sigma_x, sigma_y, theta, beta)
        case _:
            kernel = gaussian_kernel(size, sigma_x, sigma_y, theta)
    return pad_kernel(kernel)


def draw_sinc_kernel(blur: Blur, rng: torch.Generator) -> Tensor:
    """The last filter: sinc of any size with cut-off U(pi/3, pi), (21, 21) (MS 12)."""
    size = _draw_size(blur, rng)
    return pad_kernel(sinc_kernel(size, uniform((math.pi / 3, math.pi), rng)))


def _draw_size(blur: Blur, rng: torch.Generator) -> int:
    return blur.sizes[choose([1 / len(blur.sizes)] * len(blur.sizes), rng)]


def _draw_cutoff(size: int, rng: torch.Generator) -> float:
    lowest = math.pi / 3 if size < _SMALL_SIZE else math.pi / 5
    return uniform((lowest, math.pi), rng)


def _draw_beta(bounds: tuple[float, float], rng: torch.Generator) -> float:
    # Half of the draws fall below 1 and half above, however far the bounds are from 1, as in
    # Wang et al. 2021. So half of the plateaus, whose bounds begin at 1, have beta exactly 1.
    low, high = bounds
    turn = min(max(1.0, low), high)
    return uniform((low, turn) if chance(0.5, rng) else (turn, high), rng)


def _centred_grid(size: int) -> tuple[Tensor, Tensor]:
    """Column and row offsets from the middle pixel, each (size, size)."""
    axis = torch.arange(size, dtype=torch.float64) - size // 2
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    return x, y


def _quadratic_form(size: int, sigma_x: float, sigma_y: float, theta: float) -> Tensor:
    """q = c' S^-1 c at every offset c = (x, y); S has the given axes. (size, size)."""
    x, y = _centred_grid(size)
    along = math.cos(theta) * x + math.sin(theta) * y
    across = math.cos(theta) * y - math.sin(theta) * x
    return (along / sigma_x) ** 2 + (across / sigma_y) ** 2


def _normalise(kernel: Tensor) -> Tensor:
    return (kernel / kernel.sum()).to(torch.float32)

"""How close a result is to the truth, pixel by pixel and window by window."""

from __future__ import annotations

import numpy as np

from slimdiffsr.errors import DataError
from slimdiffsr.metrics.image import Grey, Rgb8, check_pair, luma

__all__ = ["psnr_y", "ssim_y"]

_SSIM_WINDOW_PX = 11
_SSIM_SIGMA_PX = 1.5
_SSIM_C1 = (0.01 * 255.0) ** 2
_SSIM_C2 = (0.03 * 255.0) ** 2


def psnr_y(sr: Rgb8, hr: Rgb8) -> float:
    """Peak signal-to-noise ratio on luma, in dB. Higher is better; identical images give inf.

    Data range 255, though Y itself spans 219 levels: the convention of the super-resolution
    literature. BT.601 Y in 16..235, no border crop, symmetric in its arguments.

    Raises:
        DataError: sizes differ, or an image is not (h, w, 3) uint8.
    """
    check_pair(sr, hr)
    mse = float(np.mean((luma(sr) - luma(hr)) ** 2))
    return float("inf") if mse == 0 else 10.0 * float(np.log10(255.0**2 / mse))


def ssim_y(sr: Rgb8, hr: Rgb8) -> float:
    """Structural similarity on luma, at most 1. Higher is better; identical images give 1.

    Wang et al. 2004, IEEE TIP 13(4), Eq. 13, with the reference MATLAB settings: 11x11 Gaussian
    window of sigma 1.5, K1 = 0.01, K2 = 0.03, biased moments, mean over the valid region only (the
    5 px next to each border have no full window). Data range 255, BT.601 Y in 16..235, no other
    border crop, no prior shrinking, symmetric in its arguments. scikit-image and BasicSR agree;
    pyiqa counts windows that anti-correlate as 0, which made a mean of 0.5925 of our 0.5921
    (bicubic on 48 NAIP images at 4x).

    Raises:
        DataError: sizes differ, an image is not (h, w, 3) uint8, or a side is under 11 px.
    """
    check_pair(sr, hr)
    if min(sr.shape[:2]) < _SSIM_WINDOW_PX:
        raise DataError(
            f"SSIM needs at least {_SSIM_WINDOW_PX} px on each side, got {sr.shape[1]} x "
            f"{sr.shape[0]}: leave it out for images this small"
        )
    x, y = luma(sr), luma(hr)
    mean_x, mean_y = _gaussian_mean(x), _gaussian_mean(y)
    var_x = _gaussian_mean(x * x) - mean_x**2
    var_y = _gaussian_mean(y * y) - mean_y**2
    cov = _gaussian_mean(x * y) - mean_x * mean_y
    likeness = (2 * mean_x * mean_y + _SSIM_C1) * (2 * cov + _SSIM_C2)
    scale = (mean_x**2 + mean_y**2 + _SSIM_C1) * (var_x + var_y + _SSIM_C2)
    return float(np.mean(likeness / scale))


def _gaussian_mean(grey: Grey) -> Grey:
    # (h, w) -> (h - 10, w - 10): SSIM's window at each place where it fits.
    offset = np.arange(_SSIM_WINDOW_PX) - _SSIM_WINDOW_PX // 2
    weights = np.exp(-(offset**2) / (2 * _SSIM_SIGMA_PX**2))
    weights /= weights.sum()
    rows = grey.shape[0] - _SSIM_WINDOW_PX + 1
    columns = grey.shape[1] - _SSIM_WINDOW_PX + 1
    down = sum((v * grey[i : i + rows] for i, v in enumerate(weights)), np.zeros(()))
    across = sum((v * down[:, i : i + columns] for i, v in enumerate(weights)), np.zeros(()))
    return np.asarray(across)

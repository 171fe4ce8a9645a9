"""Image quality measures, as functions of arrays.

Conventions for every function here: images are (height, width, 3) 8-bit RGB unless the docstring
says otherwise, nothing is cropped from the border, arithmetic is float64, and one image gives one
float. ``sr`` is the image judged, ``hr`` the truth, ``lr`` the input that ``sr`` was made from.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from slimdiffsr.errors import DataError

__all__ = [
    "grey8",
    "grid_energy_db",
    "luma",
    "psnr_y",
    "radial_spectrum_gap_db",
    "reflectance_consistency",
    "ssim_y",
]

Rgb8 = NDArray[np.uint8]
Grey = NDArray[np.float64]

# ITU-R BT.601 luma for R, G, B in 0..255, with the digits of MATLAB's rgb2ycbcr.
_LUMA = np.array([65.481, 128.553, 24.966]) / 255.0
_LUMA_BLACK = 16.0

_SSIM_WINDOW_PX = 11
_SSIM_SIGMA_PX = 1.5
_SSIM_C1 = (0.01 * 255.0) ** 2
_SSIM_C2 = (0.03 * 255.0) ** 2

# Frequency bins: a lattice line is +-1 bin wide under a Hann window; its surroundings are the
# square ring from 4 to 6 bins away, which the line's own side lobes do not reach.
_LINE_BINS = 1
_RING_BINS = (4, 6)


def luma(rgb: Rgb8) -> Grey:
    """BT.601 Y of an 8-bit image, not rounded.

    Args:
        rgb: (h, w, 3) uint8.

    Returns:
        (h, w) in [16, 235]: white is 235, black 16. MATLAB's ``rgb2ycbcr`` rounds this to whole
        levels, the published Python ports do not; the difference in PSNR is below 0.01 dB.

    Raises:
        DataError: not a (h, w, 3) uint8 array.
    """
    _check_rgb8("image", rgb)
    return np.asarray(rgb.astype(np.float64) @ _LUMA + _LUMA_BLACK)


def grey8(rgb: Rgb8) -> Grey:
    """BT.601 luma over the full range, in whole 8-bit levels: what Pillow calls mode "L".

    Grid energy is published on this one: the rounding puts a floor of 1/12 squared level under the
    spectrum, so that lattices far too faint to be seen do not count.

    Args:
        rgb: (h, w, 3) uint8.

    Returns:
        (h, w) whole numbers in [0, 255].

    Raises:
        DataError: not a (h, w, 3) uint8 array.
    """
    _check_rgb8("image", rgb)
    weighted = rgb.astype(np.int64) @ np.array([19595, 38470, 7471])  # BT.601 in 1/65536
    return np.asarray((weighted + 0x8000) >> 16, dtype=np.float64)


def psnr_y(sr: Rgb8, hr: Rgb8) -> float:
    """Peak signal-to-noise ratio on luma, in dB. Higher is better; identical images give inf.

    Data range 255, though Y itself spans 219 levels: the convention of the super-resolution
    literature. BT.601 Y in 16..235, no border crop, symmetric in its arguments.

    Raises:
        DataError: sizes differ, or an image is not (h, w, 3) uint8.
    """
    _check_pair(sr, hr)
    mse = float(np.mean((luma(sr) - luma(hr)) ** 2))
    return float("inf") if mse == 0 else 10.0 * float(np.log10(255.0**2 / mse))


def ssim_y(sr: Rgb8, hr: Rgb8) -> float:
    """Structural similarity on luma, at most 1. Higher is better; identical images give 1.

    Wang et al. 2004, IEEE TIP 13(4), Eq. 13, with the reference MATLAB settings: 11x11 Gaussian
    window of sigma 1.5, K1 = 0.01, K2 = 0.03, biased moments, mean over the valid region only (the
    5 px next to each border have no full window). Data range 255, BT.601 Y in 16..235, no other
    border crop, no prior shrinking, symmetric in its arguments.

    Raises:
        DataError: sizes differ, an image is not (h, w, 3) uint8, or a side is under 11 px.
    """
    _check_pair(sr, hr)
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


def grid_energy_db(grey: NDArray[np.floating], scale: int) -> float:
    """How much an upsampler's lattice shows, in dB. Lower is better; true images give about -1.

    Spectral power at the frequencies (i/scale, j/scale) cycles per pixel, (0, 0) left out, over
    the power just beside them, as a mean of decibels over these frequencies. It catches what
    a perceptual distance may not see: a net that paints a faint pattern with the period of its
    upsampler. One image with a line structure of that period may give a few dB; the mean over many
    images tells. No truth is needed, and the measure does not depend on brightness or contrast.

    The image is cropped at its lower and right edge to a multiple of 4 * scale, so that the lattice
    falls on frequency bins, its mean removed and a Hann window applied.

    Args:
        grey: (h, w), any range; published figures are of ``grey8``.
        scale: the upscaling factor whose lattice is looked for, at least 2.

    Raises:
        DataError: not two-dimensional, not finite, or under 16 * scale pixels on a side.
    """
    if scale < 2:
        raise DataError(f"grid energy needs a scale of at least 2, got {scale}")
    if grey.ndim != 2 or min(grey.shape) < 16 * scale:
        raise DataError(
            f"grid energy at {scale}x needs a (h, w) image of at least {16 * scale} px on each "
            f"side, got shape {grey.shape}"
        )
    h, w = (side - side % (4 * scale) for side in grey.shape)
    power = _windowed_power(np.asarray(grey[:h, :w], dtype=np.float64))
    reach = np.arange(-_RING_BINS[1], _RING_BINS[1] + 1)
    distance = np.maximum(np.abs(reach)[:, None], np.abs(reach)[None, :])
    on_line, beside = distance <= _LINE_BINS, distance >= _RING_BINS[0]
    # An image without any power, a blank one, has no grid: the floor makes its ratio 0 dB.
    floor = 1e-12 * max(float(power.max()), 1.0)
    decibels = []
    for lattice in range(1, scale * scale):
        row, column = lattice // scale * h // scale, lattice % scale * w // scale
        patch = power[np.ix_((row + reach) % h, (column + reach) % w)]
        decibels.append(
            10.0 * np.log10((patch[on_line].mean() + floor) / (patch[beside].mean() + floor))
        )
    return float(np.mean(decibels))


def radial_spectrum_gap_db(sr: Rgb8, hr: Rgb8, *, lowest: float = 0.0) -> float:
    """Mean gap between two radial power spectra, in dB. Lower is better; identical gives 0.

    For 32 rings of equal width from ``lowest`` to 0.5 cycles per pixel, the mean power of each
    image's luma under a Hann window; the result is the mean over the rings of the absolute
    difference in dB. It sees missing fine detail (a blurred image) and invented detail alike, at
    the wrong place or not. BT.601 Y in 16..235, no border crop, symmetric in its arguments.

    Args:
        sr: (h, w, 3) uint8.
        hr: (h, w, 3) uint8.
        lowest: in cycles per pixel; 0.5 / scale looks only at what the input cannot hold.

    Raises:
        DataError: sizes differ, not (h, w, 3) uint8, or under 64 px on a side.
    """
    _check_pair(sr, hr)
    if min(sr.shape[:2]) < 64:
        raise DataError(f"the spectrum gap needs at least 64 px on each side, got {sr.shape[:2]}")
    if not 0 <= lowest < 0.5:
        raise DataError(f"lowest must be in [0, 0.5) cycles per pixel, got {lowest}")
    a, b = (_radial_power(luma(image), lowest) for image in (sr, hr))
    # One grey level of rounding noise per pixel: power below it is not picture.
    floor = 1.0 / 12.0
    return float(np.mean(np.abs(10.0 * np.log10((a + floor) / (b + floor)))))


def reflectance_consistency(sr: NDArray[np.generic], lr: NDArray[np.generic], scale: int) -> float:
    """Mean absolute change of the measured values, in units of the input. Lower is better.

    The result averaged over blocks of scale x scale pixels must give back the input: the idea of
    opensr-test's reflectance distance (Aybar et al. 2024, IEEE GRSL 21). All bands, no border
    crop, any range. An input that is itself noisy or blurred keeps even the true image above 0.

    Args:
        sr: (scale*h, scale*w, bands), integer or float.
        lr: (h, w, bands), in the same units.
        scale: the upscaling factor.

    Raises:
        DataError: sr is not scale times lr.
    """
    h, w, *bands = lr.shape
    if sr.shape != (scale * h, scale * w, *bands) or len(bands) != 1:
        raise DataError(
            f"reflectance consistency needs an image of exactly {scale} times the input: "
            f"got {sr.shape} from {lr.shape}"
        )
    blocks = sr.astype(np.float64).reshape(h, scale, w, scale, *bands)
    return float(np.mean(np.abs(blocks.mean(axis=(1, 3)) - lr.astype(np.float64))))


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


def _windowed_power(grey: Grey) -> Grey:
    # (h, w) -> (h, w) power, normalised so that white noise of variance v has mean power v.
    if not np.isfinite(grey).all():
        raise DataError("the image holds NaN or infinite values: fill them before measuring")
    window = np.outer(np.hanning(grey.shape[0]), np.hanning(grey.shape[1]))
    spectrum = np.fft.fft2((grey - grey.mean()) * window)
    return np.asarray(np.abs(spectrum) ** 2 / np.sum(window**2))


def _radial_power(grey: Grey, lowest: float, rings: int = 32) -> Grey:
    # (h, w) -> (rings,) mean power from lowest to 0.5 cycles per pixel.
    power = _windowed_power(grey)
    h, w = grey.shape
    frequency = np.hypot(np.fft.fftfreq(h)[:, None], np.fft.fftfreq(w)[None, :])
    ring = np.floor((frequency - lowest) / (0.5 - lowest) * rings).astype(np.int64)
    inside = (ring >= 0) & (ring < rings)
    count = np.bincount(ring[inside], minlength=rings)
    total = np.bincount(ring[inside], weights=power[inside], minlength=rings)
    return np.asarray(total / np.maximum(count, 1))


def _check_pair(sr: Rgb8, hr: Rgb8) -> None:
    _check_rgb8("sr", sr)
    _check_rgb8("hr", hr)
    if sr.shape != hr.shape:
        raise DataError(
            f"images to compare must have the same size: got sr {sr.shape} and hr {hr.shape}"
        )


def _check_rgb8(name: str, rgb: Rgb8) -> None:
    if rgb.dtype != np.uint8 or rgb.ndim != 3 or rgb.shape[2] != 3 or rgb.size == 0:
        raise DataError(
            f"{name} must be a (h, w, 3) uint8 RGB array: got shape {rgb.shape}, {rgb.dtype}"
        )

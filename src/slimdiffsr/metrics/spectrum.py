"""What the power spectrum tells: painted grids, and missing or invented detail."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from slimdiffsr.errors import DataError
from slimdiffsr.metrics.image import Grey, Rgb8, check_pair, luma

__all__ = ["grid_energy_db", "radial_spectrum_gap_db"]

# Frequency bins: a lattice line is +-1 bin wide under a Hann window; its surroundings are the
# square ring from 4 to 6 bins away, which the line's own side lobes do not reach.
_LINE_BINS = 1
_RING_BINS = (4, 6)


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
    check_pair(sr, hr)
    if min(sr.shape[:2]) < 64:
        raise DataError(f"the spectrum gap needs at least 64 px on each side, got {sr.shape[:2]}")
    if not 0 <= lowest < 0.5:
        raise DataError(f"lowest must be in [0, 0.5) cycles per pixel, got {lowest}")
    a, b = (_radial_power(luma(image), lowest) for image in (sr, hr))
    # One grey level of rounding noise per pixel: power below it is not picture.
    floor = 1.0 / 12.0
    return float(np.mean(np.abs(10.0 * np.log10((a + floor) / (b + floor)))))


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

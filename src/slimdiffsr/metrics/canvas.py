"""What a model paints on plain ground, and what it does to an image's tone."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from slimdiffsr.errors import DataError
from slimdiffsr.metrics.image import Grey, Rgb8, check_pair, check_rgb8, grey8, luma

__all__ = ["canvas_db", "contrast_drift_pct", "mean_drift_pct"]

PATCH_HR_PX = 64
HOP_HR_PX = 32
SHARE = 8  # one patch in so many, the plainest
LEAST = 4  # patches at least, where the image has them
_RING_BINS = (3, 5)  # surroundings of a line; the line's own side lobes reach 2 bins
SECTORS = 8
_LOWEST_BIN = 4  # periods up to 16 px: below it the ring would reach the surface's own slope


def canvas_db(sr: Rgb8, lr: Rgb8, scale: int) -> float:
    """How much a regular texture of any angle and period stands out on plain ground, in dB.

    The power spectra of the patches of 64 px whose input is plainest (an eighth of them, four at
    least) are averaged, each under a Hann window. The result is the greatest excess of any place in
    the spectrum, 3 x 3 bins, over the highest of the eight sectors, in mean decibels, of the square
    ring 3 to 5 bins away. So a hatch counts whatever its direction, with periods of 2 to 16 px; noise
    does not, nor the edge of a band that was cut off, which has neighbours as high on one side. No
    truth is needed. True images give about 2, white noise 2 to 3, a hatch of half a grey level 8. A
    fence or a ploughed field on plain ground counts as well, and so does the lattice that resampling
    leaves of noise: judge by means over many images, beside the truth's.

    Args:
        sr: (scale * h, scale * w, 3) uint8, at least 64 px on a side.
        lr: (h, w, 3) uint8, what it was made from: says where the ground is plain.
        scale: the upscaling factor.

    Raises:
        DataError: types or sizes do not fit.
    """
    check_rgb8("sr", sr)
    check_rgb8("lr", lr)
    if sr.shape[:2] != (lr.shape[0] * scale, lr.shape[1] * scale):
        raise DataError(f"sr {sr.shape} is not {scale} times lr {lr.shape} on each side")
    if min(sr.shape[:2]) < PATCH_HR_PX:
        raise DataError(
            f"the canvas measure needs at least {PATCH_HR_PX} px on a side, got {sr.shape[:2]}"
        )
    grey = grey8(sr)
    power = np.mean([_power(grey[y : y + PATCH_HR_PX, x : x + PATCH_HR_PX])
                     for y, x in _plainest(luma(lr), scale)], axis=0)  # fmt: skip
    return float(_excess(power).max())


def mean_drift_pct(sr: Rgb8, hr: Rgb8) -> float:
    """How far the mean of the result is from the truth's, in percent of it, BT.601 grey."""
    check_pair(sr, hr)
    return float(100 * abs(grey8(sr).mean() / max(grey8(hr).mean(), 1.0) - 1))


def contrast_drift_pct(sr: Rgb8, hr: Rgb8, scale: int) -> float:
    """How far the contrast that the input can hold is from the truth's, in percent of it.

    Contrast is the standard deviation of BT.601 grey, averaged down by ``scale`` first, so that
    missing or invented fine detail does not count; under one grey level it is one. Raises DataError
    where sizes differ.
    """
    check_pair(sr, hr)
    ours, true = (float(_averaged(grey8(image), scale).std()) for image in (sr, hr))
    return 100 * abs(ours - true) / max(true, 1.0)


def _averaged(grey: Grey, scale: int) -> Grey:
    h, w = (side // scale for side in grey.shape)
    cut = grey[: h * scale, : w * scale].reshape(h, scale, w, scale)
    return np.asarray(cut.mean(axis=(1, 3)))


def _plainest(lr: Grey, scale: int) -> list[tuple[int, int]]:
    # Upper left corners, in pixels of the result, of the patches whose input varies least.
    side, hop = PATCH_HR_PX // scale, HOP_HR_PX // scale
    corners = [
        (y, x)
        for y in range(0, lr.shape[0] - side + 1, hop)
        for x in range(0, lr.shape[1] - side + 1, hop)
    ]
    spread = [float(lr[y : y + side, x : x + side].std()) for y, x in corners]
    count = max(LEAST, len(corners) // SHARE)
    order = np.argsort(spread, kind="stable")[:count]
    return [(corners[i][0] * scale, corners[i][1] * scale) for i in order]


def _power(patch: Grey) -> Grey:
    # (n, n) -> (n, n), zero frequency in the middle; white noise of variance v has mean power v.
    window = np.outer(np.hanning(len(patch)), np.hanning(len(patch)))
    spectrum = np.fft.fft2((patch - patch.mean()) * window)
    return np.asarray(np.fft.fftshift(np.abs(spectrum) ** 2) / np.sum(window**2))


def _excess(power: Grey) -> NDArray[np.float64]:
    # Of each bin that is looked at, in dB over its surroundings. One grey level of rounding noise a
    # pixel is the floor: a texture below it cannot be seen.
    floor, n, reach = 1.0 / 12.0, len(power), _RING_BINS[1]
    wrapped = np.pad(power + floor, reach, mode="wrap")
    decibels = 10 * np.log10(wrapped)
    line = np.zeros((n, n))
    sectors, count = np.zeros((SECTORS, n, n)), np.zeros(SECTORS)
    for dy in range(-reach, reach + 1):
        for dx in range(-reach, reach + 1):
            place = np.s_[reach + dy : reach + dy + n, reach + dx : reach + dx + n]
            distance = max(abs(dy), abs(dx))
            if distance <= 1:
                line += wrapped[place] / 9
            elif distance >= _RING_BINS[0]:
                sector = round(math.atan2(dy, dx) / (2 * math.pi) * SECTORS) % SECTORS
                sectors[sector] += decibels[place]
                count[sector] += 1
    around = (sectors / count[:, None, None]).max(axis=0)
    axis = np.arange(n) - n // 2
    looked_at = np.hypot(axis[:, None], axis[None, :]) >= _LOWEST_BIN
    return np.asarray((10 * np.log10(line) - around)[looked_at])

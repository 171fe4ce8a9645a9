"""Which share of a result's new detail is true, missing or invented, after opensr-test."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from slimdiffsr.errors import DataError
from slimdiffsr.metrics.image import Grey, Rgb8, check_pair, check_rgb8

__all__ = ["Correctness", "correctness", "match_histogram"]

_BORDER_HR_PX = 16
_QUIET_SHARE = 0.75  # of the pixels, where input and truth differ least, do not count
_LAMBDA = 0.05  # of each of the three scores
_TEMPERATURE = 0.25
_TINY = 1e-8


@dataclass(frozen=True, slots=True)
class Correctness:
    """Three shares that sum to 1: detail that is true, missing, and invented."""

    improvement: float  # higher is better
    omission: float  # lower is better; near 1 for an image that adds nothing to its input
    hallucination: float  # lower is better


def correctness(sr: Rgb8, hr: Rgb8, lr: Rgb8, scale: int) -> Correctness:
    """Improvement, omission and hallucination of a result (Aybar et al. 2024, IEEE GRSL 21).

    With distances of each pixel, relative to that between enlarged input and truth, of the result
    to the truth (``d_im``) and to the enlarged input (``d_om``): improvement has a small first one,
    omission a small second one, hallucination neither. A softmin over the three scores makes shares
    of them, and the mean over the pixels that count gives the result. RGB in [0, 1], the fractional
    difference |x - y| / |x + y| averaged over the bands, the input enlarged bilinearly, the result's
    histogram matched to the truth's, 16 px of border left out, and the quarter of the pixels
    counted (and all that differ as much in ``d_im`` or ``d_om``) where input and truth differ most.
    Not symmetric: ``sr`` and ``hr`` have their parts.

    The constants and formulas are those of the package opensr-test 1.3.3, ``Metrics().compute``, to
    which a stored comparison holds it. What differs: the result is not moved onto the truth first
    (that is what ``spatial_shift_lr_px`` measures), and arithmetic is float64.

    Args:
        sr: (scale*h, scale*w, 3) uint8.
        hr: (scale*h, scale*w, 3) uint8.
        lr: (h, w, 3) uint8.
        scale: the upscaling factor.

    Raises:
        DataError: sizes do not fit, not uint8 RGB, under 64 px on a side, or three
            equal images.
    """
    check_pair(sr, hr)
    check_rgb8("lr", lr)
    if sr.shape[:2] != (scale * lr.shape[0], scale * lr.shape[1]) or min(sr.shape[:2]) < 64:
        raise DataError(
            f"correctness needs a result of {scale} times the input and of at least 64 px a side: "
            f"got {sr.shape} from {lr.shape}"
        )
    edge_lr_px = _BORDER_HR_PX // scale
    sr, hr = (_inside(image, edge_lr_px * scale) for image in (sr, hr))
    result, truth = match_histogram(sr, hr) / 255.0, hr / 255.0
    enlarged = _enlarge(_inside(lr, edge_lr_px) / 255.0, scale)
    reference, to_truth, to_input = (
        _fractional_difference(*images)
        for images in ((enlarged, truth), (result, truth), (result, enlarged))
    )
    quiet = np.sort(reference, axis=None)[int(_QUIET_SHARE * reference.size) - 1]
    counts = (reference > quiet) | (to_truth > quiet) | (to_input > quiet)
    if not counts.any():
        raise DataError("input, result and truth are all the same: there is nothing to judge")
    with np.errstate(divide="ignore"):  # whatever changes a perfect pixel is hallucination
        shares = _shares(to_truth[counts] / reference[counts], to_input[counts] / reference[counts])
    return Correctness(*(float(share) for share in shares.mean(axis=1)))


def match_histogram(image: Rgb8, template: Rgb8) -> Grey:
    """``image`` with each band's levels replaced by those of the same rank in ``template``.

    (h, w, 3) uint8 each; the sizes may differ. Equal levels stay equal, and ranks between two of the
    template's interpolate linearly: skimage's ``match_histograms``. Returns (h, w, 3) in [0, 255].
    """
    matched = np.empty(image.shape, dtype=np.float64)
    for band in range(image.shape[-1]):
        counts, wanted = (
            np.bincount(levels[..., band].ravel(), minlength=256) for levels in (image, template)
        )
        present = np.flatnonzero(wanted)
        ranks = np.cumsum(wanted)[present] / wanted.sum()
        table = np.interp(np.cumsum(counts) / counts.sum(), ranks, present.astype(np.float64))
        matched[..., band] = table[image[..., band]]
    return matched


def _shares(d_im: Grey, d_om: Grey) -> NDArray[np.float64]:
    # (n,) relative distances -> (3, n) shares of improvement, omission, hallucination.
    bend = 1 - np.exp(-(d_im + d_om - 1) * _LAMBDA)
    scores = np.stack([d_im + d_om * bend, d_om + d_im * bend, np.exp(-d_im * d_om * _LAMBDA)])
    weights = np.exp(-(scores - scores.min(axis=0)) / _TEMPERATURE)
    return np.asarray(weights / weights.sum(axis=0))


def _fractional_difference(x: Grey, y: Grey) -> Grey:
    # (h, w, bands) -> (h, w)
    return np.asarray((np.abs(x - y) / np.abs(x + y + _TINY)).mean(axis=-1))


def _inside(image: Rgb8, edge_px: int) -> Rgb8:
    h, w = image.shape[:2]
    return image[edge_px : h - edge_px, edge_px : w - edge_px]


def _enlarge(image: Grey, scale: int) -> Grey:
    # (h, w, bands) -> (scale*h, scale*w, bands), bilinear, edges repeated.
    for axis in (0, 1):
        side = image.shape[axis]
        place = np.clip((np.arange(scale * side) + 0.5) / scale - 0.5, 0, side - 1)
        low = np.minimum(place.astype(np.int64), max(side - 2, 0))
        shape = tuple(-1 if i == axis else 1 for i in range(image.ndim))
        share = (place - low).reshape(shape)
        high = np.minimum(low + 1, side - 1)
        image = image.take(low, axis) * (1 - share) + image.take(high, axis) * share
    return image

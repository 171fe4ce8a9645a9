"""The canvas on plain ground, and the drift of tone."""

from __future__ import annotations

import numpy as np
import pytest

from slimdiffsr.errors import DataError
from slimdiffsr.metrics import canvas_db, contrast_drift_pct, mean_drift_pct
from slimdiffsr.metrics.image import Rgb8

SCALE = 4
PLAIN = np.full((48, 48, 3), 120, np.uint8)


def ground(hatch: np.ndarray | float = 0.0, noise: float = 2.0, seed: int = 0) -> Rgb8:
    rng = np.random.default_rng(seed)
    grey = 120 + noise * rng.normal(size=(192, 192)) + hatch
    return np.clip(np.round(grey), 0, 255).astype(np.uint8)[..., None].repeat(3, axis=2)


def hatch(degrees: float, period_px: float) -> np.ndarray:
    y, x = np.mgrid[:192, :192]
    angle = np.deg2rad(degrees)
    across = x * np.cos(angle) + y * np.sin(angle)
    return np.asarray(np.sin(2 * np.pi * across / period_px))


@pytest.mark.parametrize("degrees", [0, 20, 45, 77, 90, 135])
@pytest.mark.parametrize("period_px", [2.5, 4, 8, 14])
def test_a_hatch_of_half_a_level_under_noise_of_two_is_seen_at_any_angle(
    degrees: float, period_px: float
) -> None:
    assert canvas_db(ground(0.6 * hatch(degrees, period_px)), PLAIN, SCALE) > 7


@pytest.mark.parametrize("noise", [0.0, 0.3, 1.0, 5.0, 20.0])
def test_white_noise_is_no_hatch(noise: float) -> None:
    assert canvas_db(ground(noise=noise), PLAIN, SCALE) < 4


def test_a_spectrum_that_falls_off_is_no_hatch() -> None:
    spectrum = np.fft.fft2(np.random.default_rng(1).normal(size=(192, 192)))
    f = np.hypot(np.fft.fftfreq(192)[:, None], np.fft.fftfreq(192)[None])
    soft = np.fft.ifft2(spectrum * np.exp(-((f / 0.08) ** 2))).real
    assert canvas_db(ground(40 * soft, noise=0), PLAIN, SCALE) < 4


def test_a_hatch_counts_where_the_input_is_plain_only() -> None:
    lr = np.random.default_rng(2).integers(0, 256, (48, 48, 3), dtype=np.uint8)
    lr[:, :24] = 120
    marks = 3 * hatch(45, 8)
    left, right = marks.copy(), marks.copy()
    left[:, 96:] = 0
    right[:, :96] = 0
    assert canvas_db(ground(left), lr, SCALE) > 15
    assert canvas_db(ground(right), lr, SCALE) < 6


def test_sizes_that_do_not_fit_are_told() -> None:
    with pytest.raises(DataError, match="not 4 times"):
        canvas_db(ground(), PLAIN[:40], SCALE)
    with pytest.raises(DataError, match="at least 64 px"):
        canvas_db(ground()[:32, :32], PLAIN[:8, :8], SCALE)


def test_drift_of_mean_and_contrast_are_what_was_done_to_the_image() -> None:
    rng = np.random.default_rng(3)
    coarse = rng.integers(80, 120, (24, 24, 1)).repeat(8, 0).repeat(8, 1).repeat(3, 2)
    true = coarse.astype(np.uint8)
    brighter = (true + 10).astype(np.uint8)
    assert mean_drift_pct(brighter, true) == pytest.approx(1000 / true.mean(), abs=0.01)
    assert contrast_drift_pct(brighter, true, SCALE) == pytest.approx(0, abs=0.01)
    doubled = (2 * true.astype(int) - 80).astype(np.uint8)
    assert contrast_drift_pct(doubled, true, SCALE) == pytest.approx(100, abs=0.5)


def test_fine_detail_is_no_contrast() -> None:
    true = ground(noise=0)
    rough = true.copy()
    rough[::2] += 20
    rough[1::2] -= 20
    assert contrast_drift_pct(rough, true, SCALE) < 1

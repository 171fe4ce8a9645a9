from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from patterns import pattern, reduced, repeated, results
from PIL import Image
from scipy.ndimage import fourier_shift, gaussian_filter  # type: ignore[attr-defined]
from skimage.exposure import match_histograms
from skimage.metrics import structural_similarity
from skimage.registration import phase_cross_correlation

from slimdiffsr.errors import DataError
from slimdiffsr.metrics import (
    Correctness,
    correctness,
    grey8,
    grid_energy_db,
    luma,
    match_histogram,
    psnr_y,
    radial_spectrum_gap_db,
    reflectance_consistency,
    spatial_shift_lr_px,
    ssim_y,
    subpixel_shift,
)

SHARED = Path(__file__).parents[2] / "shared" / "data" / "val"

Rgb8 = NDArray[np.uint8]
Metric = Callable[[Rgb8, Rgb8], float]

reference_ssim: Any = structural_similarity
reference_shift: Any = phase_cross_correlation
reference_match: Any = match_histograms

GOLDEN = json.loads((Path(__file__).parent / "golden" / "metrics.json").read_text())


def scenery(seed: int, size: tuple[int, int] = (96, 80)) -> Rgb8:
    """Colour noise with a falling spectrum, (h, w, 3): as natural as noise gets."""
    rng = np.random.default_rng(seed)
    octaves = [
        sigma * gaussian_filter(rng.normal(size=(*size, 3)), (sigma, sigma, 0.5))
        for sigma in (0.5, 1, 2, 4, 8)
    ]
    field = np.sum(octaves, axis=0)
    return np.asarray(np.clip(128 + 40 * field / field.std(), 0, 255).astype(np.uint8))


def noisy(image: Rgb8, sigma: float, seed: int = 9) -> Rgb8:
    rng = np.random.default_rng(seed)
    return np.clip(image + rng.normal(scale=sigma, size=image.shape), 0, 255).astype(np.uint8)


def test_luma_runs_from_16_to_235_and_weighs_as_bt601() -> None:
    colours = np.array([[[0, 0, 0], [255, 255, 255], [255, 0, 0], [0, 255, 0]]], dtype=np.uint8)
    expected = [16, 235, 16 + 219 * 0.299, 16 + 219 * 0.587]
    np.testing.assert_allclose(luma(colours)[0], expected, atol=1e-2)


def test_grey8_is_pillows_mode_l() -> None:
    image = scenery(1)
    np.testing.assert_array_equal(grey8(image), np.asarray(Image.fromarray(image).convert("L")))


@pytest.mark.parametrize("offset", [1, 3, 20])
def test_psnr_of_a_constant_offset_has_its_closed_form(offset: int) -> None:
    dark = np.full((16, 24, 3), 100, dtype=np.uint8)
    bright = (dark + offset).astype(np.uint8)
    expected = 20 * np.log10(255 / (offset * 219 / 255))
    assert psnr_y(bright, dark) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_ssim_equals_scikit_image_on_the_valid_region(seed: int) -> None:
    truth = scenery(seed)
    image = noisy(gaussian_filter(truth, (1, 1, 0)), 6)
    _, full = reference_ssim(
        luma(image), luma(truth), gaussian_weights=True, sigma=1.5,
        use_sample_covariance=False, data_range=255, full=True,
    )  # fmt: skip
    assert ssim_y(image, truth) == pytest.approx(float(full[5:-5, 5:-5].mean()), abs=1e-9)


@pytest.mark.parametrize(("name", "metric"), [("psnr", psnr_y), ("ssim", ssim_y)])
def test_psnr_and_ssim_equal_basicsrs_on_stored_examples(name: str, metric: Metric) -> None:
    hr = pattern(96, 128, seed=4)
    for key, sr in results(hr, 4).items():
        expected = GOLDEN["basicsr"][name][key]
        assert metric(sr, hr) == pytest.approx(expected, abs=GOLDEN["basicsr"]["tolerance"]), key


def test_pyiqas_ssim_differs_only_where_windows_anti_correlate() -> None:
    hr = pattern(96, 128, seed=4)
    ours = {key: ssim_y(sr, hr) for key, sr in results(hr, 4).items()}
    theirs = GOLDEN["pyiqa"]["ssim"]
    for key in ("repeated", "checkered", "darker"):
        assert ours[key] == pytest.approx(theirs[key], abs=1e-3)
    assert ours["moved"] < 0 < theirs["moved"]


def test_identity_gives_the_best_value() -> None:
    image = scenery(3)
    assert psnr_y(image, image) == float("inf")
    assert ssim_y(image, image) == pytest.approx(1, abs=1e-12)
    assert radial_spectrum_gap_db(image, image) == 0


@pytest.mark.parametrize("metric", [psnr_y, ssim_y, radial_spectrum_gap_db])
def test_full_reference_metrics_are_symmetric(metric: Metric) -> None:
    a, b = scenery(4), noisy(scenery(4), 12)
    assert metric(a, b) == pytest.approx(metric(b, a), abs=1e-9)


@pytest.mark.parametrize(
    ("metric", "sign"), [(psnr_y, 1), (ssim_y, 1), (radial_spectrum_gap_db, -1)]
)
def test_more_noise_is_worse(metric: Metric, sign: int) -> None:
    truth = scenery(5)
    values = [sign * metric(noisy(truth, sigma), truth) for sigma in (2, 5, 10, 25)]
    assert values == sorted(values, reverse=True)


def test_blur_opens_the_spectrum_gap_and_most_of_it_at_high_frequencies() -> None:
    truth = scenery(6, (128, 128))
    blurred = gaussian_filter(truth, (1.2, 1.2, 0))
    whole = radial_spectrum_gap_db(blurred, truth)
    assert 1 < whole < radial_spectrum_gap_db(blurred, truth, lowest=0.25)


def test_white_noise_that_doubles_its_power_gaps_by_3_db() -> None:
    rng = np.random.default_rng(0)
    weak, strong = (
        np.repeat(np.clip(128 + rng.normal(scale=s, size=(256, 256, 1)), 0, 255), 3, axis=2)
        for s in (15, 15 * np.sqrt(2))
    )
    gap = radial_spectrum_gap_db(strong.astype(np.uint8), weak.astype(np.uint8))
    assert gap == pytest.approx(10 * np.log10(2), abs=0.25)


def test_images_without_a_lattice_have_no_grid_energy() -> None:
    values = [grid_energy_db(luma(scenery(seed, (128, 128))), 4) for seed in range(12)]
    # Decibels of few bins average a little under 0: the mean of a log is below the log of a mean.
    assert abs(np.mean(values)) < 1.2
    assert grid_energy_db(np.full((64, 64), 7.0), 4) == pytest.approx(0, abs=0.1)


@pytest.mark.parametrize("scale", [2, 4, 8])
@pytest.mark.parametrize("amplitude", [1.0, 4.0])
def test_a_painted_grid_raises_the_grid_energy_by_its_share_of_power(
    scale: int, amplitude: float
) -> None:
    side = 256
    rng = np.random.default_rng(scale)
    noise = rng.normal(scale=8.0, size=(side, side))
    impulses = np.zeros((side, side))
    impulses[::scale, ::scale] = amplitude * scale**2  # puts the amplitude on each lattice line
    # A cosine of amplitude a holds a^2 side^2 in one bin of an unwindowed spectrum where noise of
    # variance v holds v a pixel; of the Hann window the 3 x 3 bins catch all of the line's power.
    line = amplitude**2 * side**2 / 9
    expected = 10 * np.log10(1 + line / 64.0)
    assert grid_energy_db(noise + impulses, scale) == pytest.approx(expected, abs=0.6)


def test_grid_energy_ignores_brightness_contrast_and_ragged_size() -> None:
    image = luma(scenery(7, (130, 141)))
    value = grid_energy_db(image, 4)
    assert grid_energy_db(3 * image - 20, 4) == pytest.approx(value, abs=1e-6)
    assert grid_energy_db(image[:128, :128], 4) == pytest.approx(
        grid_energy_db(image[:130, :130], 4), abs=1e-9
    )


def test_reflectance_consistency_is_the_mean_change_of_the_block_means() -> None:
    lr = scenery(8, (12, 10))
    sr = np.repeat(np.repeat(lr.astype(np.float64), 4, axis=0), 4, axis=1)
    texture = np.tile([[1.0, -1.0], [-1.0, 1.0]], (24, 20))[:, :, None]
    assert reflectance_consistency(sr + texture, lr, 4) == pytest.approx(0)
    assert reflectance_consistency(sr + 2.5, lr, 4) == pytest.approx(2.5)


def test_more_change_of_the_block_means_is_less_consistent() -> None:
    lr = scenery(8, (24, 20))
    values = [reflectance_consistency(noisy(repeated(lr, 4), s), lr, 4) for s in (0, 4, 10, 25)]
    assert values == sorted(values)
    assert values[0] == 0


# Place


def test_a_result_on_its_input_has_no_shift() -> None:
    lr = scenery(10, (40, 48))
    assert spatial_shift_lr_px(repeated(lr, 4), lr, 4) == pytest.approx(0, abs=0.005)
    blank = np.full((16, 16, 3), 90, dtype=np.uint8)
    assert spatial_shift_lr_px(repeated(blank, 2), blank, 2) == 0


@pytest.mark.parametrize("moved_hr_px", [(1, 0), (0, 2), (3, -2), (-6, 9)])
def test_a_known_displacement_is_measured(moved_hr_px: tuple[int, int]) -> None:
    # Windows of one scene, so that nothing wraps around: what is displaced is the content.
    scene = gaussian_filter(scenery(11, (320, 320)), (2, 2, 0))
    hr = scene[32:288, 32:288]
    down, right = moved_hr_px
    sr = scene[32 + down : 288 + down, 32 + right : 288 + right]
    expected = float(np.hypot(down, right)) / 4
    assert spatial_shift_lr_px(sr, reduced(hr, 4), 4) == pytest.approx(expected, abs=0.06)


def test_a_larger_displacement_measures_more() -> None:
    scene = gaussian_filter(scenery(12, (160, 200)), (2, 2, 0))
    lr = reduced(scene[:, :160], 4)
    values = [spatial_shift_lr_px(scene[:, x : x + 160], lr, 4) for x in (0, 1, 2, 4, 8, 16)]
    assert values == sorted(values)


@pytest.mark.parametrize("shift", [(0.0, 0.0), (0.37, -0.81), (-2.25, 1.5), (3.99, 0.01)])
def test_the_subpixel_shift_is_scikit_images(shift: tuple[float, float]) -> None:
    reference = luma(scenery(13, (48, 61)))
    moved = np.fft.ifft2(fourier_shift(np.fft.fft2(reference), shift)).real
    rng = np.random.default_rng(0)
    moved += rng.normal(scale=3, size=moved.shape)
    expected, _, _ = reference_shift(reference, moved, upsample_factor=100, normalization=None)
    found = subpixel_shift(reference, moved)
    np.testing.assert_allclose(found, expected, atol=0.0101)  # one step of the grid
    np.testing.assert_allclose(found, np.negative(shift), atol=0.03)
    np.testing.assert_allclose(subpixel_shift(moved, reference), np.negative(found), atol=0.0101)


# Detail that is true, missing or invented


@pytest.mark.parametrize("scale", [4, 8])
def test_correctness_equals_opensr_tests_on_stored_examples(scale: int) -> None:
    golden = GOLDEN["opensr_test"]
    hr = pattern(96, 128, seed=scale)
    for key, sr in results(hr, scale).items():
        found = correctness(sr, hr, reduced(hr, scale), scale)
        shares = [found.improvement, found.omission, found.hallucination]
        np.testing.assert_allclose(shares, golden[f"x{scale}"][key], atol=golden["tolerance"])


def test_the_truth_has_correctness_in_closed_form() -> None:
    # No distance to the truth and 1 to the input: scores 0, 1 and 1, through a softmin at 1/4.
    hr = scenery(14, (96, 96))
    wrong = np.exp(-4) / (1 + 2 * np.exp(-4))
    found = correctness(hr, hr, reduced(hr, 4), 4)
    assert found.improvement == pytest.approx(1 - 2 * wrong, abs=1e-9)
    assert found.omission == pytest.approx(wrong, abs=1e-9)
    assert found.hallucination == pytest.approx(wrong, abs=1e-9)


def test_the_shares_sum_to_one_and_follow_what_was_done() -> None:
    hr = scenery(15, (128, 128))
    lr = reduced(hr, 4)
    soft = np.asarray(Image.fromarray(lr).resize((128, 128), Image.Resampling.BILINEAR))
    better = ((hr.astype(int) + soft) // 2).astype(np.uint8)
    found = {
        "soft": correctness(soft, hr, lr, 4),
        "better": correctness(better, hr, lr, 4),
        "invented": correctness(noisy(soft, 60), hr, lr, 4),
    }
    for shares in found.values():
        total = shares.improvement + shares.omission + shares.hallucination
        assert total == pytest.approx(1)

    def most(what: str) -> str:
        return max(found, key=lambda name: getattr(found[name], what))

    assert most("omission") == "soft"
    assert most("improvement") == "better"
    assert most("hallucination") == "invented"


def test_more_invented_detail_is_more_hallucination() -> None:
    hr = scenery(16, (96, 96))
    found = [correctness(noisy(hr, s), hr, reduced(hr, 4), 4) for s in (0, 5, 15, 40)]
    values = [shares.hallucination for shares in found]
    assert values == sorted(values)
    assert isinstance(found[0], Correctness)


def test_histograms_are_matched_as_in_scikit_image() -> None:
    image, template = scenery(17, (40, 44)), scenery(18, (50, 30)) // 2 + 60
    expected = reference_match(image.astype(float), template.astype(float), channel_axis=-1)
    np.testing.assert_allclose(match_histogram(image, template), expected, atol=1e-9)


@pytest.mark.parametrize("metric", [psnr_y, ssim_y, radial_spectrum_gap_db])
def test_different_sizes_are_an_error_that_names_both(metric: Metric) -> None:
    with pytest.raises(DataError, match=r"\(96, 80, 3\).*\(96, 84, 3\)"):
        metric(scenery(0), scenery(0, (96, 84)))


def test_wrong_kinds_of_image_are_errors_that_say_what_came() -> None:
    image = scenery(0)
    with pytest.raises(DataError, match="uint16"):
        psnr_y(image.astype(np.uint16), image)
    with pytest.raises(DataError, match=r"\(96, 80, 4\)"):
        luma(np.zeros((96, 80, 4), dtype=np.uint8))
    with pytest.raises(DataError, match="at least 11 px"):
        ssim_y(image[:10], image[:10])
    with pytest.raises(DataError, match="at least 64 px"):
        grid_energy_db(luma(image)[:60], 4)
    with pytest.raises(DataError, match="NaN"):
        grid_energy_db(np.full((64, 64), np.nan), 4)
    with pytest.raises(DataError, match="scale of at least 2"):
        grid_energy_db(luma(image), 1)
    with pytest.raises(DataError, match="lowest"):
        radial_spectrum_gap_db(image, image, lowest=0.5)
    with pytest.raises(DataError, match=r"4 times.*\(90, 80, 3\)"):
        reflectance_consistency(image[:90], image[:24, :20], 4)
    with pytest.raises(DataError, match="at least 16 px a side"):
        spatial_shift_lr_px(image[:60, :60], image[:15, :15], 4)
    with pytest.raises(DataError, match="NaN"):
        subpixel_shift(np.full((16, 16), np.nan), np.zeros((16, 16)))
    with pytest.raises(DataError, match="cannot register"):
        subpixel_shift(np.zeros((16, 16)), np.zeros((16, 17)))
    with pytest.raises(DataError, match="of 4 times the input and of at least 64 px"):
        correctness(image, image, image[:23, :20], 4)
    blank = np.full((64, 64, 3), 9, dtype=np.uint8)
    with pytest.raises(DataError, match="nothing to judge"):
        correctness(blank, blank, blank[:16, :16], 4)


def test_published_figures_of_the_validation_pairs_come_out() -> None:
    if not SHARED.exists():
        pytest.skip("the validation pairs are not here")
    peers = json.loads((SHARED / "peers.json").read_text())
    psnr, ssim, grid = [], [], []
    for path in sorted((SHARED / "hr").glob("*.png")):
        hr = np.asarray(Image.open(path).convert("RGB"))
        # Pillow's bicubic (a = -0.5), not torch's (a = -0.75: 24.136 and 0.5926).
        size = (hr.shape[1], hr.shape[0])
        lr = Image.open(SHARED / "lr_x4" / path.name).convert("RGB")
        sr = np.asarray(lr.resize(size, Image.Resampling.BICUBIC))
        psnr.append(psnr_y(sr, hr))
        ssim.append(ssim_y(sr, hr))
        grid.append(grid_energy_db(grey8(hr), 4))
    assert len(psnr) == 48
    assert np.mean(psnr) == pytest.approx(peers["bicubic"]["psnr_y"], abs=0.01)
    assert np.mean(ssim) == pytest.approx(peers["bicubic"]["ssim_y"], abs=0.002)
    assert np.mean(grid) == pytest.approx(peers["hr"]["grid_energy_db"], abs=0.05)

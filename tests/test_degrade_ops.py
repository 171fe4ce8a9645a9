from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.ndimage
import scipy.stats
import torch
from numpy.typing import NDArray
from torch import Generator, Tensor

from slimdiffsr.degrade.ops import (
    ResizeMode,
    add_gaussian_noise,
    add_poisson_noise,
    blur,
    quantise,
    resize,
    resize_by,
)
from slimdiffsr.errors import DataError

ndimage: Any = scipy.ndimage  # has no types
stats: Any = scipy.stats

PARITY = Path(__file__).parents[2] / "shared" / "parity" / "degradation.npz"
RARE = 1e-4  # generators are seeded, so a p-value below this means a wrong law, not bad luck

Array = NDArray[np.float64]
AddNoise = Callable[[Tensor, Tensor, Tensor, list[Generator]], Tensor]


def noise_image(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(shape, generator=Generator().manual_seed(seed))


def generators(*seeds: int) -> list[Generator]:
    return [Generator().manual_seed(seed) for seed in seeds]


# Blur


@pytest.mark.parametrize("side", [3, 9, 21])
@pytest.mark.parametrize("size", [(40, 53), (21, 22), (11, 31)])
def test_blur_is_scipys_correlation_with_a_mirrored_border(
    side: int, size: tuple[int, int]
) -> None:
    images = noise_image(2, 3, *size)
    kernels = noise_image(2, side, side, seed=1)  # no symmetry, so a flipped kernel would show
    kernels /= kernels.sum(dim=(1, 2), keepdim=True)
    blurred = blur(images, kernels)
    assert blurred.dtype == torch.float32
    for image, kernel, result in zip(images, kernels, blurred, strict=True):
        for band, result_band in zip(image, result, strict=True):
            expected = ndimage.correlate(
                band.double().numpy(), kernel.double().numpy(), mode="mirror"
            )
            np.testing.assert_allclose(result_band.numpy(), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("size", [(1, 1), (10, 10), (7, 40)])
def test_blur_of_an_image_too_small_to_mirror_repeats_its_edge(size: tuple[int, int]) -> None:
    image = noise_image(1, 3, *size)
    kernel = noise_image(1, 21, 21, seed=1) / 220
    expected = ndimage.correlate(
        image[0, 1].double().numpy(), kernel[0].double().numpy(), mode="nearest"
    )
    np.testing.assert_allclose(blur(image, kernel)[0, 1].numpy(), expected, rtol=0, atol=1e-6)


def test_blur_with_a_single_one_changes_nothing() -> None:
    image = noise_image(1, 3, 33, 47)
    delta = torch.zeros(1, 21, 21)
    delta[0, 10, 10] = 1
    torch.testing.assert_close(blur(image, delta), image, rtol=0, atol=1e-6)


@pytest.mark.skipif(not PARITY.exists(), reason="the shared parity arrays are not here")
def test_blur_equals_the_authors_filtered_image() -> None:
    arrays = np.load(PARITY)
    image, kernel = (torch.from_numpy(arrays[name]) for name in ("image", "gauss_aniso"))
    result = blur(image, kernel[None]).numpy()
    np.testing.assert_allclose(result, arrays["blur_gauss_aniso"], rtol=0, atol=1e-5)


@pytest.mark.parametrize("shape", [(1, 4, 4), (2, 5, 5), (1, 5, 7), (5, 5)])
def test_blur_rejects_kernels_that_do_not_fit_and_names_them(shape: tuple[int, ...]) -> None:
    with pytest.raises(DataError, match=r"one odd square kernel.*got \("):
        blur(noise_image(1, 3, 30, 30), torch.ones(shape))


# Resize: each mode as a dense matrix that maps input rows to output rows


def area_matrix(n_in: int, n_out: int) -> Array:
    matrix = np.zeros((n_out, n_in))
    for i in range(n_out):
        start, stop = i * n_in // n_out, -(-(i + 1) * n_in // n_out)
        matrix[i, start:stop] = 1 / (stop - start)
    return matrix


def tap_matrix(n_in: int, n_out: int, ratio: float, mode: str) -> Array:
    """Pixel centres at half integers; the edge pixel is repeated."""

    def weight(distance: float) -> float:
        d = abs(distance)
        if mode == "bilinear":
            return max(0.0, 1 - d)
        if d <= 1:  # Keys' cubic with a = -0.75
            return 1.25 * d**3 - 2.25 * d**2 + 1
        return -0.75 * d**3 + 3.75 * d**2 - 6 * d + 3 if d < 2 else 0.0

    matrix = np.zeros((n_out, n_in))
    for i in range(n_out):
        centre = (i + 0.5) * ratio - 0.5
        for j in range(math.floor(centre) - 1, math.floor(centre) + 3):
            matrix[i, min(max(j, 0), n_in - 1)] += weight(centre - j)
    return matrix


@pytest.mark.parametrize("mode", ["area", "bilinear", "bicubic"])
@pytest.mark.parametrize("size", [(20, 13), (41, 29), (7, 60)])
def test_resize_is_the_separable_resampling_of_its_definition(
    mode: ResizeMode, size: tuple[int, int]
) -> None:
    image = noise_image(1, 3, 40, 29)
    rows, columns = (
        area_matrix(n, m) if mode == "area" else tap_matrix(n, m, n / m, mode)
        for n, m in zip((40, 29), size, strict=True)
    )
    expected = rows @ image.double().numpy() @ columns.T
    np.testing.assert_allclose(resize(image, size, mode).numpy(), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
@pytest.mark.parametrize("factor", [0.37, 0.811, 1.43])
def test_resize_by_places_pixels_by_the_factor_and_not_by_the_rounded_size(
    mode: ResizeMode, factor: float
) -> None:
    image = noise_image(1, 3, 40, 29)
    rows, columns = (tap_matrix(n, int(n * factor), 1 / factor, mode) for n in (40, 29))
    expected = rows @ image.double().numpy() @ columns.T
    np.testing.assert_allclose(resize_by(image, factor, mode).numpy(), expected, rtol=0, atol=2e-5)


def test_resize_by_never_makes_an_image_vanish() -> None:
    assert resize_by(noise_image(1, 3, 2, 9), 0.3, "bilinear").shape == (1, 3, 1, 2)


# Noise


def test_gaussian_noise_is_normal_with_the_asked_width_for_each_image() -> None:
    images = noise_image(2, 3, 64, 64)
    sigma = torch.tensor([2.0, 11.0])
    noisy = add_gaussian_noise(images, sigma, torch.tensor([False, False]), generators(1, 2))
    for noise, level in zip((noisy - images) * 255, sigma.tolist(), strict=True):
        assert stats.kstest(noise.numpy().ravel(), stats.norm(0, level).cdf).pvalue > RARE
        correlations = np.corrcoef(noise.flatten(1).numpy())[np.triu_indices(3, 1)]
        assert np.abs(correlations).max() < 0.06  # about 4 / sqrt(4096)


def test_gaussian_noise_of_neighbours_differs_and_does_not_touch_the_input() -> None:
    images = torch.full((2, 3, 16, 16), 0.5)
    sigma = torch.tensor([5.0, 5.0])
    noisy = add_gaussian_noise(images, sigma, torch.tensor([False, False]), generators(1, 2))
    assert not torch.equal(noisy[0], noisy[1])
    assert torch.equal(images, torch.full_like(images, 0.5))


@pytest.mark.parametrize("add_noise", [add_gaussian_noise, add_poisson_noise])
def test_grey_noise_is_the_same_in_all_bands_and_only_where_asked(add_noise: AddNoise) -> None:
    images = noise_image(2, 3, 32, 32)
    noisy = add_noise(
        images, torch.tensor([2.0, 2.0]), torch.tensor([True, False]), generators(1, 2)
    )
    same, free = noisy - images
    torch.testing.assert_close(same[0], same[1], rtol=0, atol=1e-6)
    torch.testing.assert_close(same[0], same[2], rtol=0, atol=1e-6)
    assert (free[0] - free[1]).abs().max() > 1e-3


def poisson_field(image: Tensor, scale: float, grey: bool, seed: int = 3) -> Array:
    noisy = add_poisson_noise(image, torch.tensor([scale]), torch.tensor([grey]), generators(seed))
    return (noisy - image).double().numpy()


def test_poisson_counts_of_a_flat_image_follow_scipys_poisson_law() -> None:
    level = 153  # one distinct value: one unit of light is white, so the mean count is 0.6
    image = torch.full((1, 3, 60, 60), level / 255)
    counts = np.rint(poisson_field(image, 1.0, grey=False) + level / 255).astype(int).ravel()
    observed = np.bincount(np.minimum(counts, 4), minlength=5)
    law = stats.poisson(level / 255)
    expected = counts.size * np.array([*law.pmf(range(4)), law.sf(3)])
    assert stats.chisquare(observed, expected).pvalue > RARE


@pytest.mark.parametrize(("distinct", "units"), [(3, 4), (5, 8), (200, 256)])
@pytest.mark.parametrize("scale", [0.3, 2.0])
def test_poisson_variance_is_the_light_over_the_units_times_the_squared_scale(
    distinct: int, units: int, scale: float
) -> None:
    levels = torch.linspace(20, 240, distinct).round()
    image = (levels / 255).repeat_interleave(math.ceil(48000 / distinct)).view(1, 1, 1, -1)
    image = image.expand(1, 3, 1, -1).contiguous()
    noise = poisson_field(image, scale, grey=False).ravel() / scale
    light = image.double().numpy().ravel()
    standard = noise / np.sqrt(light / units)
    assert abs(standard.mean()) < 4 / math.sqrt(standard.size)
    assert abs(standard.var() - 1) < 0.03
    # Every count is whole.
    counts = (noise + light) * units
    np.testing.assert_allclose(counts, np.rint(counts), atol=2e-3)


def test_grey_poisson_noise_has_the_variance_of_the_luma() -> None:
    colour = torch.tensor([0.2, 0.9, 0.4]).view(1, 3, 1, 1)
    image = colour.expand(1, 3, 200, 200).contiguous()
    luma = np.rint(255 * (0.299 * 0.2 + 0.587 * 0.9 + 0.114 * 0.4)) / 255
    noise = poisson_field(image, 1.0, grey=True)[0, 0]
    assert abs(noise.mean()) < 4 * math.sqrt(luma / noise.size)
    assert noise.var() == pytest.approx(luma, rel=0.03)  # one distinct value: one unit


@pytest.mark.parametrize("add_noise", [add_gaussian_noise, add_poisson_noise])
def test_noise_rejects_parameters_that_do_not_match_the_batch(add_noise: AddNoise) -> None:
    images = noise_image(2, 3, 8, 8)
    two, flags = torch.ones(2), torch.tensor([True, False])
    for sigma, grey, seeds in (
        (two[:1], flags, (1, 2)),
        (two, flags[:1], (1, 2)),
        (two, flags, (1,)),
    ):
        with pytest.raises(DataError, match="each of 2 images"):
            add_noise(images, sigma, grey, generators(*seeds))


def test_quantise_clips_and_rounds_to_the_nearest_of_256_values() -> None:
    values = torch.tensor([-0.4, 0.0, 0.49 / 255, 0.51 / 255, 100.4 / 255, 1.0, 7.0])
    expected = torch.tensor([0, 0, 0, 1, 100, 255, 255]) / 255
    assert torch.equal(quantise(values), expected)

from __future__ import annotations

import json
import math
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.stats
import torch
from numpy.typing import NDArray
from scipy import special
from torch import Tensor

from slimdiffsr.degrade import kernels
from slimdiffsr.degrade.kernels import (
    draw_kernel,
    draw_sinc_kernel,
    gaussian_kernel,
    generalized_gaussian_kernel,
    pad_kernel,
    plateau_kernel,
    sinc_kernel,
)
from slimdiffsr.settings.config import Blur

stats: Any = scipy.stats  # has no types

PARITY = Path(__file__).parents[2] / "shared" / "parity"
RARE = 1e-4  # generators are seeded, so a p-value below this means wrong odds, not bad luck

Array = NDArray[np.float64]

ELLIPSES = [(1.3, 1.3, 0.0), (1.4, 0.4, 0.7), (0.5, 1.2, -2.5), (0.2, 0.2, 0.0)]


def offsets(size: int) -> Array:
    """(size, size, 2) of (x, y) from the middle."""
    half = size // 2
    y, x = np.mgrid[-half : half + 1, -half : half + 1].astype(np.float64)
    return np.stack((x, y), axis=-1)


def covariance(sigma_x: float, sigma_y: float, theta: float) -> Array:
    turn = np.array([[math.cos(theta), -math.sin(theta)], [math.sin(theta), math.cos(theta)]])
    spread: Array = turn @ np.diag([sigma_x**2, sigma_y**2]) @ turn.T
    return spread


def mahalanobis(size: int, ellipse: tuple[float, float, float]) -> Array:
    """Squared distance through an inverted matrix, where the code turns the axes."""
    c = offsets(size)
    squared: Array = np.einsum("yxi,ij,yxj->yx", c, np.linalg.inv(covariance(*ellipse)), c)
    return squared


def assert_same_kernel(kernel: Tensor, expected: Array, within: float = 1e-7) -> None:
    assert kernel.dtype == torch.float32
    np.testing.assert_allclose(kernel.numpy(), expected / expected.sum(), rtol=0, atol=within)


@pytest.mark.parametrize("ellipse", ELLIPSES)
@pytest.mark.parametrize("size", [7, 21])
def test_gaussian_is_the_bivariate_normal_density(
    size: int, ellipse: tuple[float, float, float]
) -> None:
    density = stats.multivariate_normal([0, 0], covariance(*ellipse)).pdf(offsets(size))
    assert_same_kernel(gaussian_kernel(size, *ellipse), density)


def test_gaussian_has_the_covariance_that_was_asked_for() -> None:
    kernel = gaussian_kernel(21, 1.4, 0.9, 0.7).double().numpy()
    measured = np.einsum("yx,yxi,yxj->ij", kernel, offsets(21), offsets(21))
    np.testing.assert_allclose(measured, covariance(1.4, 0.9, 0.7), atol=1e-4)


@pytest.mark.parametrize("ellipse", ELLIPSES)
@pytest.mark.parametrize("beta", [0.5, 1.0, 1.7])
def test_generalized_gaussian_is_its_closed_form(
    ellipse: tuple[float, float, float], beta: float
) -> None:
    expected = np.exp(-0.5 * mahalanobis(21, ellipse) ** beta)
    assert_same_kernel(generalized_gaussian_kernel(21, *ellipse, beta), expected)


def test_generalized_gaussian_of_beta_one_is_the_gaussian() -> None:
    assert torch.equal(
        generalized_gaussian_kernel(15, 1.1, 0.6, 0.3, 1.0), gaussian_kernel(15, 1.1, 0.6, 0.3)
    )


@pytest.mark.parametrize("ellipse", ELLIPSES)
@pytest.mark.parametrize("beta", [1.0, 1.4])
def test_plateau_is_its_closed_form(ellipse: tuple[float, float, float], beta: float) -> None:
    expected = 1 / (1 + mahalanobis(21, ellipse) ** beta)
    assert_same_kernel(plateau_kernel(21, *ellipse, beta), expected)


@pytest.mark.parametrize("cutoff", [math.pi / 5, 1.2566, math.pi / 2, math.pi])
@pytest.mark.parametrize("size", [7, 13, 21])
def test_sinc_is_scipys_bessel_function_over_the_radius(size: int, cutoff: float) -> None:
    radius = np.linalg.norm(offsets(size), axis=-1)
    radius[size // 2, size // 2] = 1e-9  # close enough to the limit, and not the code's formula
    expected = cutoff * special.j1(cutoff * radius) / (2 * np.pi * radius)
    # torch's Bessel function is good to about 1e-7.
    assert_same_kernel(sinc_kernel(size, cutoff), expected, within=1e-6)


def test_sinc_passes_frequencies_below_the_cutoff_and_stops_those_above() -> None:
    cutoff = math.pi / 2
    response = np.abs(np.fft.fft2(sinc_kernel(21, cutoff).numpy(), s=(128, 128)))
    axis = 2 * np.pi * np.fft.fftfreq(128)
    frequency = np.hypot(axis[:, None], axis[None, :])
    assert response[frequency < 0.6 * cutoff].min() > 0.85
    assert response[(frequency > 1.4 * cutoff) & (frequency < np.pi)].max() < 0.15


def test_a_padded_kernel_stands_in_the_middle_of_zeros() -> None:
    padded = pad_kernel(torch.ones(7, 7))
    assert padded.shape == (21, 21)
    assert padded[7:14, 7:14].sum() == padded.sum() == 49


def authors_kernels() -> list[dict[str, Any]]:
    path = PARITY / "degradation.json"
    entries: list[dict[str, Any]] = json.loads(path.read_text()) if path.exists() else []
    return [entry for entry in entries if "size" in entry]


@pytest.mark.skipif(not PARITY.exists(), reason="the shared parity arrays are not here")
def test_every_family_equals_the_authors_kernels() -> None:
    arrays = np.load(PARITY / "degradation.npz")
    entries = authors_kernels()
    assert len(entries) == 6
    for entry in entries:
        sigma_x = entry.get("sigma_x", 1.0)
        ellipse = (sigma_x, entry.get("sigma_y", sigma_x), entry.get("theta", 0.0))
        match entry["kind"]:
            case "Gaussian":
                kernel = gaussian_kernel(entry["size"], *ellipse)
            case "generalised Gaussian":
                kernel = generalized_gaussian_kernel(entry["size"], *ellipse, entry["beta"])
            case "plateau":
                kernel = plateau_kernel(entry["size"], *ellipse, entry["beta"])
            case _:
                kernel = pad_kernel(sinc_kernel(entry["size"], entry["cutoff"]))
        np.testing.assert_allclose(
            kernel.numpy(), arrays[entry["name"]], rtol=0, atol=1e-6, err_msg=entry["name"]
        )


def test_drawn_kernels_sum_to_one_and_keep_the_images_place() -> None:
    rng = torch.Generator().manual_seed(1)
    for kernel in [draw_kernel(Blur(), rng) for _ in range(300)]:
        assert kernel.shape == (21, 21)
        assert kernel.dtype == torch.float32
        assert abs(kernel.double().sum().item() - 1) < 1e-6
        # Equal to itself turned by half a turn: no blur shifts the image.
        torch.testing.assert_close(kernel, kernel.flip(0, 1), rtol=0, atol=1e-7)


def test_the_same_generator_state_draws_the_same_kernel() -> None:
    first, second = (draw_kernel(Blur(), torch.Generator().manual_seed(5)) for _ in range(2))
    assert torch.equal(first, second)


class Spy:
    """Stands in for the kernel families and writes down what was drawn."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls: list[tuple[str, tuple[Any, ...]]] = []
        for name in ("gaussian", "generalized_gaussian", "plateau", "sinc"):
            monkeypatch.setattr(kernels, f"{name}_kernel", self.recorder(name))

    def recorder(self, name: str) -> Any:
        def record(size: int, *parameters: float) -> Tensor:
            self.calls.append((name, (size, *parameters)))
            return torch.ones(size, size)

        return record

    def parameters(self, *names: str) -> list[tuple[Any, ...]]:
        return [parameters for name, parameters in self.calls if name in names]


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> Spy:
    spy = Spy(monkeypatch)
    rng = torch.Generator().manual_seed(7)
    for _ in range(6000):
        draw_kernel(Blur(), rng)
    return spy


def test_kinds_are_drawn_with_the_papers_probabilities(drawn: Spy) -> None:
    def kind(name: str, parameters: tuple[Any, ...]) -> str:
        if name == "sinc":
            return name
        return name + ("-iso" if parameters[1] == parameters[2] else "-aniso")

    counts = Counter(kind(*call) for call in drawn.calls)
    expected = {"sinc": 0.1}
    for name, iso, aniso in (
        ("gaussian", 0.45, 0.25),
        ("generalized_gaussian", 0.12, 0.03),
        ("plateau", 0.12, 0.03),
    ):
        expected |= {f"{name}-iso": 0.9 * iso, f"{name}-aniso": 0.9 * aniso}
    assert set(counts) == set(expected)
    observed = [counts[name] for name in expected]
    assert stats.chisquare(observed, [6000 * p for p in expected.values()]).pvalue > RARE


def test_sizes_are_drawn_uniformly_from_odd_7_to_21(drawn: Spy) -> None:
    counts = Counter(parameters[0] for _, parameters in drawn.calls)
    assert sorted(counts) == [7, 9, 11, 13, 15, 17, 19, 21]
    assert stats.chisquare(list(counts.values())).pvalue > RARE


def test_widths_and_angles_are_drawn_uniformly(drawn: Spy) -> None:
    ellipses = [p[1:4] for p in drawn.parameters("gaussian", "generalized_gaussian", "plateau")]
    law = stats.uniform(0.2, 1.3).cdf
    assert stats.kstest([e[0] for e in ellipses], law).pvalue > RARE
    turned = [e for e in ellipses if e[0] != e[1]]
    assert stats.kstest([e[1] for e in turned], law).pvalue > RARE
    circle = stats.uniform(-math.pi, 2 * math.pi).cdf
    assert stats.kstest([e[2] for e in turned], circle).pvalue > RARE


def test_half_of_the_betas_fall_below_one_and_half_above(drawn: Spy) -> None:
    generalized = [p[4] for p in drawn.parameters("generalized_gaussian")]
    below = [beta for beta in generalized if beta < 1]
    above = [beta for beta in generalized if beta >= 1]
    assert stats.binomtest(len(below), len(generalized), 0.5).pvalue > RARE
    assert stats.kstest(below, stats.uniform(0.5, 0.5).cdf).pvalue > RARE
    assert stats.kstest(above, stats.uniform(1, 1).cdf).pvalue > RARE

    plateaus = [p[4] for p in drawn.parameters("plateau")]
    flat = [beta for beta in plateaus if beta == 1]
    assert stats.binomtest(len(flat), len(plateaus), 0.5).pvalue > RARE
    rest = [beta for beta in plateaus if beta != 1]
    assert stats.kstest(rest, stats.uniform(1, 0.5).cdf).pvalue > RARE


def test_the_cutoff_begins_lower_for_kernels_of_13_and_more(drawn: Spy) -> None:
    cutoffs = drawn.parameters("sinc")
    for lowest, chosen in (
        (math.pi / 3, [w for size, w in cutoffs if size < 13]),
        (math.pi / 5, [w for size, w in cutoffs if size >= 13]),
    ):
        law = stats.uniform(lowest, math.pi - lowest).cdf
        assert stats.kstest(chosen, law).pvalue > RARE


def test_the_last_sinc_filter_has_one_range_of_cutoffs_for_all_sizes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    spy = Spy(monkeypatch)
    rng = torch.Generator().manual_seed(8)
    for _ in range(2000):
        assert draw_sinc_kernel(Blur(), rng).shape == (21, 21)
    cutoffs = [cutoff for size, cutoff in spy.parameters("sinc") if size >= 13]
    law = stats.uniform(math.pi / 3, 2 * math.pi / 3).cdf
    assert stats.kstest(cutoffs, law).pvalue > RARE

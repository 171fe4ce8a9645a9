"""Enlargements, averages, fills, the colour rule and radiometry, against scipy and closed forms."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rasters import ndimage, picture

from slimdiffsr.errors import RangeError
from slimdiffsr.geo.arrays import NUMPY
from slimdiffsr.geo.colour import HALO_LR_PX, low_frequency_correction
from slimdiffsr.geo.resample import (
    bicubic_kernel,
    bilinear_kernel,
    block_mean,
    enlarge,
    fill_invalid,
    fill_near,
    gaussian,
)
from slimdiffsr.geo.values import (
    ValueRange,
    cast,
    estimate_range,
    hidden_nodata,
    looks_like_alpha,
)


@pytest.mark.parametrize("scale", [2, 4, 8])
def test_bilinear_is_scipys(scale: int) -> None:
    image = np.random.default_rng(1).random((2, 9, 14))
    ours = enlarge(NUMPY.pad(image, (1, 1, 1, 1), repeat=True), bilinear_kernel(scale))
    theirs = ndimage.zoom(image, (1, scale, scale), order=1, mode="nearest", grid_mode=True)
    np.testing.assert_allclose(ours, theirs, atol=1e-12)


@pytest.mark.parametrize("scale", [2, 4, 8])
def test_bicubic_reproduces_a_parabola_at_pixel_centres(scale: int) -> None:
    # Keys' kernel with a = -0.5 is exact for polynomials of degree two.
    def parabola(x: Any) -> Any:
        return 3 + 2 * x + 0.5 * x**2

    centres_lr = np.arange(-2, 12)
    centres_hr = (np.arange(10 * scale) + 0.5) / scale - 0.5
    image = np.repeat(parabola(centres_lr)[None, None], 5, axis=1)
    result = enlarge(image, bicubic_kernel(scale))
    np.testing.assert_allclose(result[0, 0], parabola(centres_hr), atol=1e-9)


def test_gaussian_is_scipys_with_zeros_outside() -> None:
    image = picture(3, 40, 33).astype(np.float32)
    theirs = ndimage.gaussian_filter(image, (0, 2, 2), mode="constant", truncate=4)
    np.testing.assert_allclose(gaussian(image, 2.0), theirs, atol=2e-6)


def test_block_mean_undoes_repetition() -> None:
    image = picture(2, 7, 5).astype(np.float32)
    np.testing.assert_allclose(block_mean(image.repeat(4, 1).repeat(4, 2), 4), image, rtol=1e-6)


@settings(deadline=None)  # a busy machine is no defect
@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 2**16), st.floats(0, 1))
def test_fill_keeps_valid_pixels_and_stays_among_them(
    height: int, width: int, seed: int, share: float
) -> None:
    rng = np.random.default_rng(seed)
    image = rng.random((height, width), dtype=np.float32)
    valid = rng.random((height, width)) < share
    image[~valid] = 1e6
    filled = fill_invalid(image, valid)
    np.testing.assert_array_equal(filled[valid], image[valid])
    if valid.any():
        assert filled.min() >= image[valid].min() - 1e-5
        assert filled.max() <= image[valid].max() + 1e-5
    else:
        assert (filled == 0).all()


def test_near_fill_is_the_mean_of_the_neighbourhood() -> None:
    image = np.arange(35.0).reshape(1, 5, 7)
    valid = np.ones_like(image, np.bool_)
    valid[0, 2, 3] = False
    filled = fill_near(image, valid, 1)
    around = np.delete(image[0, 1:4, 2:5].ravel(), 4)
    assert filled[0, 2, 3] == pytest.approx(around.mean())


def test_colour_rule_moves_low_frequencies_and_leaves_high_ones() -> None:
    wanted = picture(3, 90, 80).astype(np.float32)
    rows = np.mgrid[:90, :80][0]
    cast_ = (0.05 + 0.05 * np.sin(rows / 12)).astype(np.float32)
    checks = np.where((np.mgrid[:90, :80].sum(0)) % 2, 0.03, -0.03).astype(np.float32)
    correction = low_frequency_correction(wanted, wanted + cast_ + checks, None, 4)
    np.testing.assert_allclose(correction, np.repeat(-cast_[None], 3, 0), atol=4e-3)


def test_colour_rule_needs_no_more_than_its_halo() -> None:
    rng = np.random.default_rng(2)
    wanted, got = rng.random((2, 1, 100, 100), dtype=np.float32)
    valid = (rng.random((1, 100, 100)) < 0.8).astype(np.float32)
    whole = low_frequency_correction(wanted, got, valid, 4)
    halo = HALO_LR_PX
    part = (slice(None), slice(30 - halo, 60 + halo), slice(40 - halo, 55 + halo))
    alone = low_frequency_correction(wanted[part], got[part], valid[part], 4)
    inner = alone[:, halo - 1 : 31 + halo, halo - 1 : 16 + halo]
    np.testing.assert_array_equal(inner, whole[:, 29:61, 39:56])


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "int32", "float32", "float64"])
def test_values_survive_the_way_to_the_network_and_back(dtype: str) -> None:
    kind = np.dtype(dtype)
    values = np.array([[0, 7, 90, 100, 120, 127]], kind)
    valid = np.ones_like(values, np.bool_)
    span = ValueRange(10, 100)
    unit = span.to_unit(values, valid)
    assert unit.min() == 0
    assert unit.max() == 1
    back = span.from_unit(unit, kind) + span.outside(values, valid)
    np.testing.assert_array_equal(np.rint(back), values)


def test_cast_rounds_saturates_and_avoids_nodata() -> None:
    real = np.array([-7.0, 0.2, 0.6, 254.6, 300.0])
    assert cast(real, np.dtype("uint8"), None).tolist() == [0, 0, 1, 255, 255]
    assert cast(real, np.dtype("uint8"), 0).tolist() == [1, 1, 1, 255, 255]
    assert cast(real, np.dtype("uint8"), 255).tolist() == [0, 0, 1, 254, 254]
    floats = cast(np.array([-9999.0, 0, 5]), np.dtype("float32"), -9999.0)
    assert floats[0] != -9999
    assert floats[0] == pytest.approx(-9999)
    assert cast(np.zeros(2), np.dtype("float32"), 0.0).min() > 0


@pytest.mark.parametrize("dtype", ["uint8", "int16", "float32", "float64"])
@pytest.mark.parametrize("value", [0, 1, 100])
def test_a_constant_image_has_a_range(dtype: str, value: int) -> None:
    values = np.full((1, 4, 4), value, dtype)
    assert estimate_range(values, values == value).span > 0


def test_a_range_too_wide_to_use_is_refused() -> None:
    values = np.array([-1.7e308, 1.7e308])
    with pytest.raises(RangeError, match="too wide"):
        estimate_range(values, np.array([True, True]))


def test_undeclared_nodata_is_found_only_beyond_doubt() -> None:
    data = np.random.default_rng(0).normal(300, 50, 5000).astype(np.int16)
    every = np.ones_like(data, np.bool_)
    assert hidden_nodata(data, every) is None
    data[:900] = -9999
    assert hidden_nodata(data, every) == -9999
    assert hidden_nodata(np.linspace(-9999, 9999, 5000), every) is None


def test_transparency_is_told_from_near_infrared() -> None:
    infrared = np.random.default_rng(0).integers(9, 218, 10_000).astype(np.uint8)
    mask = np.where(infrared > 100, np.uint8(255), np.uint8(0))
    assert looks_like_alpha(mask)
    assert looks_like_alpha(np.full(100, 65535, np.uint16))
    assert not looks_like_alpha(infrared)

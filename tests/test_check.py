"""The check of a result against its input: every figure against one that is known."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from rasters import UTM, byte_picture, ndimage, picture, repeat, write_raster
from typer.testing import CliRunner

from slimdiffsr.check import build_check_page, check_result, judge
from slimdiffsr.check.placing import average_matrix
from slimdiffsr.cli import app
from slimdiffsr.errors import BandError, ConfigError, DataError

FINE = UTM @ Affine.scale(1 / 4)


def write_pair(
    folder: Path, lr: NDArray[Any], sr: NDArray[Any], transform: Affine = FINE, **more: Any
) -> tuple[Path, Path]:
    return (
        write_raster(folder / "lr.tif", lr, **more),
        write_raster(folder / "sr.tif", sr, transform=transform, **more),
    )


@pytest.fixture
def lr() -> NDArray[np.uint16]:
    return np.rint(picture(3, 150, 140) * 4000 + 200).astype(np.uint16)


@given(
    scale=st.floats(1, 9),
    offset=st.floats(-3, 3),
    count=st.integers(1, 6),
)
def test_averages_are_exact_integrals_of_piecewise_constant_signals(
    scale: float, offset: float, count: int
) -> None:
    fine = np.random.default_rng(0).normal(size=80)
    shares = average_matrix(scale, offset + 4, count, len(fine))
    total = np.concatenate([[0], np.cumsum(fine)])
    edges = offset + 4 + scale * np.arange(count + 1)
    integral = np.interp(edges, np.arange(81), total)
    np.testing.assert_allclose(shares @ fine, np.diff(integral) / scale, atol=1e-9)


def test_pixels_that_are_repeated_agree_in_everything(
    lr: NDArray[np.uint16], tmp_path: Path
) -> None:
    found = check_result(*write_pair(tmp_path, lr, repeat(lr, 4)), error=0.5, every_block=True)
    assert found.scale == pytest.approx((4, 4))
    assert (found.covered_lr.width, found.covered_lr.height) == (140, 150)
    assert found.compared_lr_px == 140 * 150
    for band in found.bands:
        assert (band.mean_abs, band.rms, band.share_above) == pytest.approx((0, 0, 0), abs=1e-6)
        assert band.contrast == pytest.approx(1)
        assert [ring.gain for ring in band.frequencies] == pytest.approx([1] * 4)
        assert sum(decile.pixels for decile in band.deciles) == 140 * 150
    assert found.shift_lr_px == 0


def test_a_known_change_is_measured(lr: NDArray[np.uint16], tmp_path: Path) -> None:
    changed = np.rint(repeat(lr, 4) * 1.1 + 30).astype(np.uint16)
    found = check_result(*write_pair(tmp_path, lr, changed), error=400, every_block=True)
    exact = np.rint(lr * 1.1 + 30) - lr
    for k, band in enumerate(found.bands):
        assert band.bias == pytest.approx(exact[k].mean(), abs=1e-6)
        assert band.rms == pytest.approx(np.sqrt((exact[k] ** 2).mean()), abs=1e-6)
        assert band.share_above == pytest.approx((exact[k] > 400).mean())
        assert band.contrast == pytest.approx(1.1, abs=1e-3)
        # A gain raises bright deciles more than dark ones.
        assert band.deciles[-1].bias > band.deciles[0].bias + 100
        assert [ring.gain for ring in band.frequencies] == pytest.approx([1.1] * 4, abs=0.01)
    verdict = judge(found)
    assert not verdict.consistent
    assert "brighter" in verdict.sentence
    assert "contrast" in verdict.sentence


def test_a_blur_is_seen_at_high_frequencies_only(lr: NDArray[np.uint16], tmp_path: Path) -> None:
    soft = np.rint(ndimage.gaussian_filter(repeat(lr, 4).astype(float), (0, 4, 4)))
    found = check_result(*write_pair(tmp_path, lr, soft.astype(np.uint16)), every_block=True)
    for band in found.bands:
        gains = [ring.gain for ring in band.frequencies]
        assert gains[0] > 0.9
        assert gains[3] < 0.5
        assert gains == sorted(gains, reverse=True)


@pytest.mark.parametrize("shift", [0.0, 0.5, 1.0])
def test_a_displacement_is_measured(shift: float, lr: NDArray[np.uint16], tmp_path: Path) -> None:
    moved = ndimage.shift(repeat(lr, 4).astype(float), (0, 0, 4 * shift), order=1, mode="nearest")
    found = check_result(
        *write_pair(tmp_path, lr, np.rint(moved).astype(np.uint16)), every_block=True
    )
    assert found.shift_lr_px == pytest.approx(shift, abs=0.06)


@pytest.mark.parametrize(
    ("fine", "size"),
    [(Affine.scale(1 / 3), (450, 420)), (Affine.scale(0.4, 0.4), (375, 350))],
    ids=["3x", "2.5x"],
)
def test_any_ratio_of_pixels(
    fine: Affine, size: tuple[int, int], lr: NDArray[np.uint16], tmp_path: Path
) -> None:
    flat = np.full_like(lr, 700)
    sr = np.full((3, *size), 700, np.uint16)
    found = check_result(*write_pair(tmp_path, flat, sr, UTM @ fine))
    assert found.bands[0].mean_abs == pytest.approx(0, abs=1e-6)
    assert found.compared_lr_px == 150 * 140


def test_a_part_of_the_scene_is_laid_where_it_is(lr: NDArray[np.uint16], tmp_path: Path) -> None:
    part = lr[:, 20:90, 32:100]
    where = UTM @ Affine.translation(32, 20) @ Affine.scale(1 / 4)
    found = check_result(*write_pair(tmp_path, lr, repeat(part, 4), where))
    assert (found.covered_lr.col, found.covered_lr.row) == (32, 20)
    assert (found.covered_lr.width, found.covered_lr.height) == (68, 70)
    assert found.bands[2].mean_abs == pytest.approx(0, abs=1e-6)


def test_emptiness_that_changed_is_counted(lr: NDArray[np.uint16], tmp_path: Path) -> None:
    holed = lr.copy()
    holed[:, :10, :20] = 0
    sr = repeat(lr, 4)
    sr[:, 200:240, 100:180] = 0
    found = check_result(*write_pair(tmp_path, holed, sr, nodata=0))
    assert found.filled_lr_px == 200
    assert found.emptied_lr_px == 10 * 20
    verdict = judge(found)
    assert "200 valid input pixels are empty in it" in verdict.reasons
    assert "200 empty input pixels are filled in it" in verdict.reasons


def test_a_painted_grid_is_named(tmp_path: Path) -> None:
    lr = byte_picture(1, 160, 160)
    lattice = np.kron(np.ones((160, 160)), np.pad([[8]], ((0, 3), (0, 3))))
    sr = np.clip(repeat(lr, 4) + lattice, 0, 255).astype(np.uint8)
    clean = ndimage.zoom(lr.astype(float), (1, 4, 4), order=1, grid_mode=True, mode="nearest")
    painted = judge(check_result(*write_pair(tmp_path, lr, sr)))
    assert any("grid" in reason for reason in painted.reasons)
    smooth = judge(check_result(*write_pair(tmp_path, lr, np.rint(clean).astype(np.uint8))))
    assert not any("grid" in reason for reason in smooth.reasons)


def test_bands_are_taken_from_the_tag_from_the_call_or_in_order(
    lr: NDArray[np.uint16], tmp_path: Path
) -> None:
    src, dst = write_pair(tmp_path, lr, repeat(lr[::-1], 4))
    assert check_result(src, dst).bands[0].mean_abs > 0
    assert check_result(src, dst, bands=(3, 2, 1)).bands[0].mean_abs < 1e-6
    with rasterio.open(dst, "r+") as dataset:
        dataset.update_tags(SLIMDIFFSR_BANDS="3,2,1")
    assert [band.input_band for band in check_result(src, dst).bands] == [3, 2, 1]


def test_a_result_of_ours_is_consistent(tmp_path: Path) -> None:
    from slimdiffsr import Upscaler

    smooth = ndimage.gaussian_filter(byte_picture(3, 96, 96), (0, 1, 1))
    src = write_raster(tmp_path / "lr.tif", smooth, photometric="RGB")
    Upscaler.from_pretrained("bicubic", device="cpu").upscale_scene(src, tmp_path / "sr.tif")
    verdict = judge(check_result(src, tmp_path / "sr.tif"))
    assert verdict.consistent, verdict.sentence


@pytest.mark.parametrize(
    ("change", "error", "says"),
    [
        ({"transform": FINE @ Affine.translation(9000, 0)}, DataError, "another place"),
        ({"transform": UTM @ Affine.scale(2)}, DataError, "not finer"),
        ({"transform": FINE @ Affine.rotation(3)}, DataError, "rotated"),
        ({"crs": "EPSG:4326"}, DataError, "another coordinate system"),
    ],
)
def test_what_cannot_be_compared_is_said(
    change: dict[str, Any],
    error: type[Exception],
    says: str,
    lr: NDArray[np.uint16],
    tmp_path: Path,
) -> None:
    src = write_raster(tmp_path / "lr.tif", lr)
    dst = write_raster(tmp_path / "sr.tif", repeat(lr, 4), **({"transform": FINE} | change))
    with pytest.raises(error, match=says):
        check_result(src, dst)


def test_wrong_arguments_are_said(lr: NDArray[np.uint16], tmp_path: Path) -> None:
    src, dst = write_pair(tmp_path, lr, repeat(lr, 4))
    with pytest.raises(BandError, match="4"):
        check_result(src, dst, bands=(4, 2, 1))
    with pytest.raises(ConfigError, match="positive"):
        check_result(src, dst, error=0)
    one = write_raster(tmp_path / "one.tif", lr[:1])
    with pytest.raises(BandError, match="belong together"):
        check_result(one, dst)


def test_the_page_holds_the_figures_and_loads_nothing(
    lr: NDArray[np.uint16], tmp_path: Path
) -> None:
    found = check_result(*write_pair(tmp_path, lr, repeat(lr, 4)))
    page = build_check_page(replace(found, result_path="<b>.tif"), judge(found)).decode()
    assert "Consistent with its input" in page
    assert "&lt;b&gt;.tif" in page
    assert "@" not in page.replace("@media", "")
    assert 'src="http' not in page
    assert "url(" not in page
    assert page.count("data:image/png;base64,") == 4 * len(found.worst) > 0


def test_the_command(lr: NDArray[np.uint16], tmp_path: Path) -> None:
    src, dst = write_pair(tmp_path, lr, np.rint(repeat(lr, 4) * 1.2).astype(np.uint16))
    html = tmp_path / "check.html"
    arguments = ["check", str(src), str(dst), "--error", "100", "--html", str(html), "--json"]
    done = CliRunner().invoke(app, arguments)
    told = json.loads(done.stdout)
    assert done.exit_code == 0
    assert told["consistent"] is False
    assert told["bands"][0]["share_above"] > 0.99
    assert html.stat().st_size > 10_000
    assert CliRunner().invoke(app, [*arguments, "--strict"]).exit_code == 3
    plain = CliRunner().invoke(app, ["check", str(src), str(src)])
    assert plain.exit_code == 0
    assert plain.stdout.startswith("Consistent with its input")

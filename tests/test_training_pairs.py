"""Real pairs: matched by place or name, registered to a tenth of a pixel, drawn without gaps."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import torch
from affine import Affine
from numpy.typing import NDArray
from rasterio.errors import NotGeoreferencedWarning
from rasterio.warp import transform as project
from students import micro_training

from slimdiffsr.errors import DataError
from slimdiffsr.settings.config import StudentLoss
from slimdiffsr.stages import RunPaths, train_student
from slimdiffsr.stages.material import PAIRS_FILE, gather_pairs
from slimdiffsr.training.matching import match_folders
from slimdiffsr.training.notices import Notice
from slimdiffsr.training.pairs import RealPairs, register

pytestmark = pytest.mark.usefixtures("one_thread")

SIDE_LR, SCALE, LR_M = 64, 4, 8.0
WEST, NORTH = 600_000.0, 4_400_000.0
UTM = "EPSG:32610"


def ground(x_m: NDArray[Any], y_m: NDArray[Any]) -> NDArray[np.float64]:
    """A scene that is known everywhere, (3, ...) in [0, 1]: waves of 30 m and more, from a seed."""
    rng = np.random.default_rng(3)
    bands = []
    for _ in range(3):
        waves = np.zeros(np.broadcast_shapes(x_m.shape, y_m.shape))
        for _ in range(12):
            length, angle, phase = rng.uniform(30, 200), rng.uniform(0, np.pi), rng.uniform(0, 6.28)
            across = np.cos(angle) * x_m + np.sin(angle) * y_m
            waves = waves + np.cos(2 * np.pi * across / length + phase)
        bands.append(0.5 + waves / 28)
    return np.clip(np.stack(bands), 0, 1)


def seen(pixel_m: float, side: int, west: float, north: float) -> NDArray[np.float64]:
    """What pixels of that size see: means over points 2 m apart or less, (3, side, side)."""
    n = max(1, round(pixel_m / 2))
    at = (np.arange(n * side) + 0.5) * pixel_m / n
    points = ground(west - WEST + at[None, :], NORTH - north + at[:, None])
    return np.asarray(points.reshape(3, side, n, side, n).mean((2, 4)))


def write(
    path: Path, values: NDArray[np.float64], west: float, north: float, pixel_m: float,
    top: int = 255, crs: str | None = UTM, **more: Any,
) -> Path:  # fmt: skip
    path.parent.mkdir(parents=True, exist_ok=True)
    dtype = "uint8" if top == 255 else "uint16"
    place = Affine(pixel_m, 0, west, 0, -pixel_m, north) if crs else Affine.identity()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with rasterio.open(
            path, "w", driver="GTiff", count=3, height=values.shape[1], width=values.shape[2],
            dtype=dtype, crs=crs, transform=place, photometric="RGB", **more,
        ) as dst:  # fmt: skip
            dst.write((values * top).round().astype(dtype))
    return path


def write_pair(
    folder: Path, shift_lr_px: tuple[float, float], name: str = "a", top: int = 255, **more: Any
) -> None:
    """LR where it says it is, and HR that must be moved (down, right) by that much to lie on it."""
    down, right = shift_lr_px
    lr = seen(LR_M, SIDE_LR, WEST, NORTH)
    write(folder / "low" / f"{name}_lr.tif", lr, WEST, NORTH, LR_M, top, **more)
    # It shows what lies further north and west than it says: moved down and right it fits.
    hr = seen(LR_M / SCALE, SCALE * SIDE_LR, WEST + right * LR_M, NORTH - down * LR_M)
    write(folder / "high" / f"{name}_hr.tif", hr, WEST, NORTH, LR_M / SCALE, top, **more)


@pytest.mark.parametrize("shift", [(0.0, 0.0), (0.37, -0.62), (-1.25, 0.8), (2.4, 3.1)])
def test_known_shifts_are_found_to_a_tenth_of_a_pixel(
    tmp_path: Path, shift: tuple[float, float]
) -> None:
    write_pair(tmp_path, shift)
    ((match,), _) = match_folders(tmp_path / "low", tmp_path / "high", SCALE, 16)
    found = register(match, SCALE)
    np.testing.assert_allclose(found.shift_lr_px, shift, atol=0.1)
    assert found.likeness > 0.99


@pytest.mark.parametrize("top", [255, 4095])
def test_registered_crops_show_the_same_ground(tmp_path: Path, top: int) -> None:
    write_pair(tmp_path, (1.3, -0.6), top=top)
    told: list[Notice] = []
    folders = (tmp_path / "low", tmp_path / "high")
    samples = gather_pairs(micro_training(), folders, told.append).samples
    assert isinstance(samples, RealPairs)
    assert any("HR is moved by 1.43 LR pixels in the median" in n.text for n in told)
    assert any("taken as black" in n.text for n in told) == (top > 255)
    errors, unregistered = [], []
    for number in range(8):
        lr, hr, passed = samples[number]
        assert (lr.shape, hr.shape, passed) == ((3, 16, 16), (3, 64, 64), ())
        small = hr.view(3, 16, 4, 16, 4).mean((2, 4))
        errors.append(float((small - lr).abs().mean()))
        unregistered.append(float((small.roll(1, 1) - lr).abs().mean()))
    assert np.mean(errors) < 0.01
    assert np.mean(unregistered) > 5 * np.mean(errors)


def test_pairs_are_found_by_place_whatever_they_are_called_and_cropped_to_what_both_show(
    tmp_path: Path,
) -> None:
    write(tmp_path / "low" / "scene.tif", seen(LR_M, 64, WEST, NORTH), WEST, NORTH, LR_M)
    east = WEST + 20 * LR_M
    hr = seen(2.0, 120, east, NORTH - 80)
    write(tmp_path / "high" / "other.tif", hr, east, NORTH - 80, 2.0)
    far = WEST + 1e5
    write(tmp_path / "high" / "far.tif", hr, far, NORTH, 2.0)
    ((match,), left_out) = match_folders(tmp_path / "low", tmp_path / "high", SCALE, 16)
    assert match.hr.name == "other.tif"
    window = match.window_lr
    assert (window.y, window.x, window.height, window.width) == (10, 20, 30, 30)
    assert not left_out
    assert register(match, SCALE).shift_lr_px == pytest.approx((0, 0), abs=0.05)


def test_hr_of_other_pixels_and_another_crs_is_brought_onto_lrs_grid(tmp_path: Path) -> None:
    lr = seen(LR_M, 64, WEST, NORTH)
    write(tmp_path / "low" / "a.tif", lr, WEST, NORTH, LR_M)
    # The same ground on a grid in degrees, of pixels of about 1.5 m.
    xs, ys = project(UTM, "EPSG:4326", [WEST, WEST + 512], [NORTH, NORTH - 512])
    step = abs(xs[1] - xs[0]) / 340
    lon = xs[0] + (np.arange(340) + 0.5) * step
    lat = ys[0] - (np.arange(260) + 0.5) * step
    grid = np.meshgrid(lon, lat)
    east, north = project("EPSG:4326", UTM, grid[0].ravel().tolist(), grid[1].ravel().tolist())
    shape = grid[0].shape
    values = ground(np.reshape(east, shape) - WEST, NORTH - np.reshape(north, shape))
    write(tmp_path / "high" / "b.tif", values, xs[0], ys[0], step, crs="EPSG:4326")
    samples = gather_pairs(micro_training(), (tmp_path / "low", tmp_path / "high"), print).samples
    assert isinstance(samples, RealPairs)
    assert np.hypot(*samples.registered[0].shift_lr_px) < 0.1
    lr_crop, hr_crop, _ = samples[0]
    assert (hr_crop.view(3, 16, 4, 16, 4).mean((2, 4)) - lr_crop).abs().mean() < 0.01


def test_pairs_without_a_place_are_found_by_their_names(tmp_path: Path) -> None:
    write_pair(tmp_path, (0.5, 0.5), crs=None)
    write(tmp_path / "low" / "b.tif", seen(LR_M, 64, WEST, NORTH), 0, 0, 1, crs=None)
    write(tmp_path / "high" / "b_x4.tif", seen(2.0, 100, WEST, NORTH), 0, 0, 1, crs=None)
    write(tmp_path / "low" / "c.tif", seen(LR_M, 64, WEST, NORTH), 0, 0, 1, crs=None)
    ((match,), left_out) = match_folders(tmp_path / "low", tmp_path / "high", SCALE, 16)
    assert (match.lr.name, match.hr.name) == ("a_lr.tif", "a_hr.tif")
    np.testing.assert_allclose(register(match, SCALE).shift_lr_px, (0.5, 0.5), atol=0.1)
    assert "100 x 100, not 4 times as many" in left_out[tmp_path / "low" / "b.tif"]
    assert "has no partner" in left_out[tmp_path / "low" / "c.tif"]


def test_other_places_and_gaps_are_left_out(tmp_path: Path) -> None:
    write_pair(tmp_path, (0.0, 0.0))
    noise = np.random.default_rng(0).random((3, 64, 64))
    write(tmp_path / "low" / "n_lr.tif", noise, 0, 0, 1, crs=None)
    noise = np.random.default_rng(1).random((3, 256, 256))
    write(tmp_path / "high" / "n_hr.tif", noise, 0, 0, 1, crs=None)
    path = tmp_path / "high" / "a_hr.tif"
    with rasterio.open(path, "r+") as dst:
        dst.nodata = 0
        values = dst.read()
        values[:, :, 128:] = 0
        dst.write(values)
    material = gather_pairs(micro_training(), (tmp_path / "low", tmp_path / "high"), print)
    (why,) = material.left_out.values()
    assert "do not show the same: their correlation is" in why
    for number in range(6):
        assert material.samples[number][1].min() > 0.05  # nothing of the empty half
    assert material.notes[0]["lr"].endswith("a_lr.tif")


def test_nothing_that_fits_says_why(tmp_path: Path) -> None:
    write_pair(tmp_path, (0.0, 0.0))
    with pytest.raises(
        DataError, match=r"no images in .*none: --pairs takes a folder of LR and one"
    ):
        match_folders(tmp_path / "low", tmp_path / "none", SCALE, 16)
    (tmp_path / "high" / "a_hr.tif").unlink()
    write(tmp_path / "high" / "z.tif", seen(2.0, 64, WEST, NORTH), WEST + 1e6, NORTH, 2.0)
    with pytest.raises(DataError, match=r"no pairs in .*has no partner: no HR image shows 16 px"):
        gather_pairs(micro_training(), (tmp_path / "low", tmp_path / "high"), print)


def test_a_student_learns_from_pairs_and_goes_on(tmp_path: Path) -> None:
    write_pair(tmp_path, (0.25, -0.5))
    paths = RunPaths((), tmp_path / "out", pairs=(tmp_path / "low", tmp_path / "high"))
    config = micro_training(
        steps=2, validate_every=2, loss=StudentLoss(lpips=0, gan=0), validation_images=1
    )
    told: list[Notice] = []
    result = train_student(config, paths, tell=told.append)
    assert result.finished
    (pair,) = json.loads((tmp_path / "out" / PAIRS_FILE).read_text())
    np.testing.assert_allclose(pair["shift_lr_px"], (0.25, -0.5), atol=0.1)
    (figures,) = (n.text for n in told if "validated" in n.text)
    assert "psnr_y" in figures
    assert "lpips" not in figures  # nobody gave its weights
    assert (tmp_path / "out" / "validation" / "0000002.png").is_file()


def test_mirrored_crops_are_mirrored_alike(tmp_path: Path) -> None:
    write_pair(tmp_path, (0.0, 0.0))
    config = micro_training(flip_all=True)
    samples = gather_pairs(config, (tmp_path / "low", tmp_path / "high"), print).samples
    for number in range(12):
        lr, hr, _ = samples[number]
        small = hr.view(3, 16, 4, 16, 4).mean((2, 4))
        assert torch.mean((small - lr).abs()) < 0.01

"""The models that ship, through the engine, on real imagery and on the generated scene."""

from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from rasters import fixture, ndimage, read, scene_figures, write_raster
from safetensors import safe_open

from slimdiffsr import Upscaler
from slimdiffsr.datasets.images import read_rgb8, to_signed
from slimdiffsr.demo import make_demo_scene
from slimdiffsr.files.pretrained import load_lpips
from slimdiffsr.files.students import BUNDLED
from slimdiffsr.geo import SceneOptions
from slimdiffsr.metrics import grey8, grid_energy_db, psnr_y
from slimdiffsr.models.student import count_parameters

SHARED = Path(__file__).parents[2] / "shared"
POOLING_LR_PX = 16  # tiny's pooling window, on the scene's grid


@cache
def upscaler(name: str) -> Upscaler:
    return Upscaler.from_pretrained(name, device="cpu")


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The generated scene below its corner without data: streets, houses, cars, trees."""
    folder = tmp_path_factory.mktemp("town")
    scene = read(make_demo_scene(folder / "scene.tif", size_lr_px=(304, 256)))
    rows = slice(48, None)
    assert (scene[:, rows] > 0).all()
    return write_raster(folder / "town.tif", scene[:, rows], photometric="RGB")


FARMLAND = pytest.param("naip_farmland_5m", marks=pytest.mark.slow)


@pytest.fixture(params=["town", "naip_chico_rgbn_utm_u8", FARMLAND])
def scene(request: pytest.FixtureRequest) -> tuple[Path, int]:
    """A raster, and the side of the part that is looked at."""
    if request.param == "town":
        return request.getfixturevalue("town"), 160
    return fixture(request.param), 400 if request.param == "naip_farmland_5m" else 160


def run(name: str, src: Path, out: Path, side: int, offset_lr_px: int = 0) -> NDArray[Any]:
    upscaler(name).upscale_scene(
        src, out, SceneOptions(
            window=(0, 0, side, side), overwrite=True, format="gtiff",
            grid_offset_lr_px=(offset_lr_px, offset_lr_px),
        ),
    )  # fmt: skip
    return read(out)


def window_ratio(image: NDArray[Any], scale: int) -> float:
    """Mean gradient across the borders of the pooling windows by that beside them."""
    ratios = []
    for axis in (1, 2):
        gradient = np.abs(np.diff(image.astype(float), axis=axis)).mean((0, 3 - axis))
        step = POOLING_LR_PX * scale
        borders = np.arange(step, len(gradient) - 4 * scale, step) - 1
        beside = np.concatenate([borders + k * scale for k in range(-4, 5) if k])
        ratios.append(gradient[borders].mean() / gradient[beside].mean())
    return float(np.mean(ratios))


@pytest.mark.slow
def test_tiny_x4_shows_no_seams_and_keeps_colours(scene: tuple[Path, int], tmp_path: Path) -> None:
    src, side = scene
    out = tmp_path / "out.tif"
    spec = upscaler("tiny-x4").spec
    half_lr_px = spec.tile_hr_px // 2 // spec.scale
    lr = read(src)[:3, :side, :side]
    sr, shifted = run("tiny-x4", src, out, side), run("tiny-x4", src, out, side, half_lr_px)
    figures = scene_figures(lr, sr, shifted, spec.tile_hr_px, spec.overlap_hr_px)
    assert figures.seam_ratio <= 1.05
    assert 38 <= figures.shift_psnr_db < 100  # the shift does change the tiles
    assert figures.low_pass_rms <= 1
    assert figures.mean_error <= 0.2
    # Inside the tiles: as against an enlargement in one piece, which has no windows.
    untiled = ndimage.zoom(lr.astype(float), (1, 4, 4), order=3, grid_mode=True, mode="mirror")
    assert window_ratio(sr, 4) <= 1.05 * window_ratio(untiled, 4)
    # And it is no blur: much more fine detail than the smooth enlargement.
    assert np.abs(np.diff(sr.astype(float))).mean() > 1.3 * np.abs(np.diff(untiled)).mean()


def test_the_window_figure_sees_windows(town: Path) -> None:
    blocks = np.kron(np.random.default_rng(0).normal(0, 3, (1, 16, 16)), np.ones((1, 64, 64)))
    untiled = ndimage.zoom(
        read(town).astype(float), (1, 4, 4), order=3, grid_mode=True, mode="mirror"
    )
    assert window_ratio(untiled + blocks, 4) > 1.2 * window_ratio(untiled, 4)


@pytest.mark.slow
def test_tiny_x8_shows_no_seams_and_keeps_colours(town: Path, tmp_path: Path) -> None:
    out, side, spec = tmp_path / "out.tif", 160, upscaler("tiny-x8").spec
    lr = read(town)[:3, :side, :side]
    sr = run("tiny-x8", town, out, side)
    shifted = run("tiny-x8", town, out, side, spec.tile_hr_px // 2 // 8)
    figures = scene_figures(lr, sr, shifted, spec.tile_hr_px, spec.overlap_hr_px)
    assert figures.seam_ratio <= 1.05
    assert 38 <= figures.shift_psnr_db < 100
    assert figures.low_pass_rms <= 1
    assert figures.mean_error <= 0.2
    untiled = ndimage.zoom(lr.astype(float), (1, 8, 8), order=3, grid_mode=True, mode="mirror")
    assert window_ratio(sr, 8) <= 1.05 * window_ratio(untiled, 8)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "side", "agrees_db"), [("compact-x4", 144, 33), ("compact-x8", 128, 29)]
)
def test_compact_shows_no_seams_and_keeps_colours(
    name: str, side: int, agrees_db: float, town: Path, tmp_path: Path
) -> None:
    # It pools over its whole tile, as the paper's student: another tiling makes other detail, but no
    # border shows.
    out, spec = tmp_path / "out.tif", upscaler(name).spec
    lr = read(town)[:3, :side, :side]
    sr = run(name, town, out, side)
    half_step_hr_px = (spec.tile_hr_px - spec.overlap_hr_px) // 2
    shifted = run(name, town, out, side, half_step_hr_px // spec.scale)
    figures = scene_figures(lr, sr, shifted, spec.tile_hr_px, spec.overlap_hr_px)
    assert figures.seam_ratio <= 1.05
    assert agrees_db <= figures.shift_psnr_db < 100
    assert figures.low_pass_rms <= 1
    assert figures.mean_error <= 0.2


@pytest.mark.parametrize("name", sorted(BUNDLED))
def test_the_files_that_ship_are_small_and_in_half_precision(name: str) -> None:
    path = Path(str(resources.files("slimdiffsr") / "weights" / f"{name}.safetensors"))
    tiny = name.startswith("tiny")
    assert path.stat().st_size < (5e6 if tiny else 25e6)
    with safe_open(path, framework="pt") as file:
        assert {file.get_tensor(key).dtype for key in file.keys()} == {torch.float16}  # noqa: SIM118
        assert {"config", "tensors_sha256"} <= file.metadata().keys()
    assert count_parameters(upscaler(name).module) <= (2_100_000 if tiny else 11_500_000)


def test_water_and_fields_stay_calm() -> None:
    # A faint gradient with sensor noise: nothing may be painted on it.
    rows, cols = np.mgrid[:128, :128]
    noise = np.random.default_rng(5).normal(0, 1.2, (128, 128, 3))
    water = np.stack([58 + cols / 32, 84 + rows / 32, 78 + 0 * rows], -1) + noise
    image = np.clip(np.round(water), 1, 255).astype(np.uint8)
    out = upscaler("tiny-x4").upscale(image)
    inside = out[64:-64, 64:-64].astype(float)
    smooth = ndimage.gaussian_filter(inside, (16, 16, 0))
    assert 0.1 < (inside - smooth).std() < 1.3  # the noise may change its look, not its strength


def pairs(scale: int) -> list[tuple[NDArray[np.uint8], NDArray[np.uint8]]]:
    folder, weights = SHARED / "data" / "val", SHARED / "weights" / "lpips_squeeze.safetensors"
    if not folder.exists() or not weights.exists():
        pytest.skip(f"no {folder} or {weights}: the validation images are not in the repository")
    names = sorted(path.name for path in (folder / "hr").glob("*.png"))[::8]
    assert len(names) == 6
    lr, hr = folder / f"lr_x{scale}", folder / "hr"
    return [(read_rgb8(lr / name), read_rgb8(hr / name)) for name in names]


# Floors well below what the models reached when they were published; the cards have the figures.
@pytest.mark.parametrize(
    ("name", "scale", "furthest", "loss_db"),
    [
        ("tiny-x4", 4, 0.34, 0.5),
        pytest.param("compact-x4", 4, 0.27, 2.2, marks=pytest.mark.slow),
        pytest.param("compact-x8", 8, 0.34, 2.2, marks=pytest.mark.slow),
    ],
)
def test_the_sharp_models_are_far_sharper_than_bicubic_and_paint_no_grid(
    name: str, scale: int, furthest: float, loss_db: float
) -> None:
    tested = pairs(scale)  # skips where they are not
    distance = load_lpips(SHARED / "weights" / "lpips_squeeze.safetensors")

    def figures(of: Upscaler) -> NDArray[np.float64]:
        rows = []
        for lr, hr in tested:
            sr: NDArray[np.uint8] = of.upscale(lr)
            lpips = float(distance(to_signed(sr), to_signed(hr)))
            rows.append((lpips, psnr_y(sr, hr), grid_energy_db(grey8(sr), scale)))
        return np.array(rows)

    lpips, psnr, grid = figures(upscaler(name)).T
    bicubic = figures(Upscaler.from_pretrained("bicubic", scale=scale, device="cpu"))
    assert (lpips < 0.5 * bicubic[:, 0]).all()
    assert lpips.mean() < furthest
    assert psnr.mean() > bicubic[:, 1].mean() - loss_db
    assert grid.mean() < 1.5
    assert grid.max() < 3

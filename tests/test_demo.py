from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from numpy.typing import NDArray
from PIL import Image
from rasterio.enums import ColorInterp

from slimdiffsr.demo import before_after_png, make_demo_scene
from slimdiffsr.demo.font import text_mask
from slimdiffsr.demo.paint import Canvas, value_noise
from slimdiffsr.errors import DataError, OutputError, RasterError

SIZE_LR_PX = (72, 88)


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("demo")
    truth = folder / "deeper" / "truth.tif"
    lr = make_demo_scene(folder / "lr.tif", size_lr_px=SIZE_LR_PX, truth_path=truth)
    return lr, truth


def read(path: Path) -> NDArray[np.generic]:
    with rasterio.open(path) as src:
        return np.asarray(src.read())


def write(path: Path, bands: NDArray[np.generic], nodata: float | None = None) -> Path:
    with rasterio.open(
        path, "w", driver="GTiff", count=bands.shape[0], height=bands.shape[1],
        width=bands.shape[2], dtype=bands.dtype, nodata=nodata, crs="EPSG:32633",
        transform=Affine(10, 0, 500000, 0, -10, 5000000),
    ) as dst:  # fmt: skip
        dst.write(bands)
    return path


def enlarged(bands: NDArray[np.generic], scale: int) -> NDArray[np.generic]:
    return np.repeat(np.repeat(bands, scale, axis=1), scale, axis=2)


def shown(path: Path) -> NDArray[np.uint8]:
    with Image.open(path) as image:
        assert (image.mode, image.format) == ("RGB", "PNG")
        return np.asarray(image)


def test_scene_has_its_size_crs_nodata_and_bands(scene: tuple[Path, Path]) -> None:
    with rasterio.open(scene[0]) as src:
        assert (src.count, src.height, src.width) == (3, *SIZE_LR_PX)
        assert src.dtypes == ("uint8",) * 3
        assert (src.crs.to_epsg(), src.nodata) == (32610, 0)
        assert src.transform.a == -src.transform.e == 2.4
        assert src.colorinterp == (ColorInterp.red, ColorInterp.green, ColorInterp.blue)
        mask = src.dataset_mask() > 0
    assert not mask[0, 0]
    assert mask[-1, -1]
    assert 0.8 < mask.mean() < 0.98


def test_valid_pixels_are_nowhere_nodata_in_any_band(scene: tuple[Path, Path]) -> None:
    pixels = read(scene[0])
    np.testing.assert_array_equal((pixels == 0).any(axis=0), (pixels == 0).all(axis=0))


def test_truth_covers_the_same_ground_and_averages_to_the_input(
    scene: tuple[Path, Path],
) -> None:
    with rasterio.open(scene[0]) as lr, rasterio.open(scene[1]) as truth:
        assert truth.bounds == pytest.approx(lr.bounds)
        assert truth.transform.a == pytest.approx(0.6)
        assert truth.shape == (4 * lr.height, 4 * lr.width)
        low, high = lr.read().astype(float), truth.read().astype(float)
    h, w = SIZE_LR_PX
    mean = high.reshape(3, h, 4, w, 4).mean(axis=(2, 4))
    valid = (low > 0).all(axis=0)
    assert (mean[:, ~valid] == 0).all()
    difference = (low - mean)[:, valid]
    assert abs(difference.mean()) < 0.2
    assert difference.std() < 9  # the sensor's blur and noise


def test_the_same_seed_gives_the_same_scene_and_another_another(
    scene: tuple[Path, Path], tmp_path: Path
) -> None:
    again = make_demo_scene(tmp_path / "again.tif", size_lr_px=SIZE_LR_PX)
    other = make_demo_scene(tmp_path / "other.tif", size_lr_px=SIZE_LR_PX, seed=1)
    np.testing.assert_array_equal(read(again), read(scene[0]))
    assert (read(other) != read(again)).mean() > 0.5


def test_scenes_that_cannot_be_painted_or_written_are_errors(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="at least 16 x 16"):
        make_demo_scene(tmp_path / "a.tif", size_lr_px=(8, 40))
    with pytest.raises(DataError, match="scale 3"):
        make_demo_scene(tmp_path / "a.tif", scale=3)
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot write the demo scene"):
        make_demo_scene(tmp_path / "file" / "a.tif", size_lr_px=(16, 16))


def test_canvas_turns_and_clips_its_patches() -> None:
    canvas = Canvas(100, 200, 0.5, angle=0.3)
    assert canvas.patch(500, 0, 3, 3) is None
    patch = canvas.patch(0, 0, 10, 4)
    assert patch is not None
    patch.fill(patch.cover(patch.box(0, 0, 10, 4)), (255, 255, 255))
    painted_m2 = canvas.rgb[..., 0].sum() / 255 * 0.5**2
    assert painted_m2 == pytest.approx(20 * 8, rel=0.01)
    assert canvas.whole().rgb.shape == (100, 200, 3)


def test_value_noise_has_unit_variance_and_its_cell_size() -> None:
    noise = value_noise(np.random.default_rng(0), 200, 300, [20])
    assert noise.shape == (200, 300)
    assert noise.std() == pytest.approx(1, abs=1e-3)
    assert np.abs(np.diff(noise, axis=0)).max() < 0.6


def test_picture_shows_both_with_two_details(scene: tuple[Path, Path], tmp_path: Path) -> None:
    out = before_after_png(*scene, tmp_path / "new" / "picture.png", scale=4)
    picture = shown(out)
    assert picture.shape == (816, 1048, 3)
    left, right = picture[36:548, 8:520].astype(float), picture[36:548, 528:1040].astype(float)
    assert abs(left.mean() - right.mean()) < 4
    # The truth is sharper than the input's square pixels are within themselves.
    assert np.corrcoef(left.ravel(), right.ravel())[0, 1] > 0.7
    for colour in ((255, 214, 64), (96, 220, 255)):
        assert (picture == colour).all(axis=2).sum() > 1000
    assert list(tmp_path.glob("new/*")) == [out]


def test_cubic_enlargement_is_smoother_than_nearest(
    scene: tuple[Path, Path], tmp_path: Path
) -> None:
    rough = shown(before_after_png(*scene, tmp_path / "a.png", scale=4))
    smooth = shown(before_after_png(*scene, tmp_path / "b.png", scale=4, enlarge="cubic"))
    step = [
        np.abs(np.diff(p[36:548, 8:520].astype(float), axis=1)).max(axis=2).max(axis=1).mean()
        for p in (rough, smooth)
    ]
    assert step[1] < step[0]


@pytest.mark.parametrize("dtype", ["uint16", "int16", "float32"])
@pytest.mark.parametrize("count", [1, 3, 4])
def test_other_types_and_band_counts_are_stretched(tmp_path: Path, dtype: str, count: int) -> None:
    rng = np.random.default_rng(0)
    bands = (1000 + 300 * rng.random((count, 200, 150))).astype(dtype)
    lr, sr = write(tmp_path / "lr.tif", bands), write(tmp_path / "sr.tif", enlarged(bands, 2))
    panel = shown(before_after_png(lr, sr, tmp_path / "out.png", scale=2))[36:548, 8:520]
    assert panel.min() == 0
    assert panel.max() == 255
    assert 110 < panel.mean() < 145


def test_places_without_data_are_avoided_or_grey(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    bands = rng.integers(1000, 3000, (1, 600, 600)).astype("float32")
    bands[:, :, :350] = np.nan
    lr, sr = write(tmp_path / "lr.tif", bands), write(tmp_path / "sr.tif", enlarged(bands, 4))
    panel = shown(before_after_png(lr, sr, tmp_path / "a.png", scale=4))[36:548, 8:520]
    assert not (panel == (64, 66, 70)).all(axis=2).any()

    empty = np.zeros((3, 40, 40), dtype="uint16")
    lr = write(tmp_path / "lr.tif", empty, nodata=0)
    sr = write(tmp_path / "sr.tif", enlarged(empty, 4), nodata=0)
    panel = shown(before_after_png(lr, sr, tmp_path / "b.png", scale=4))[36:548, 8:520]
    assert (panel == (64, 66, 70)).all(axis=2).mean() > 0.8


@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 7, 300), (1, 40, 3)])
def test_rasters_of_a_few_pixels_can_be_shown(tmp_path: Path, shape: tuple[int, int, int]) -> None:
    bands = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    lr, sr = write(tmp_path / "lr.tif", bands), write(tmp_path / "sr.tif", enlarged(bands, 8))
    picture = shown(before_after_png(lr, sr, tmp_path / "out.png", scale=8))
    assert picture.shape == (816, 1048, 3)


def test_chosen_bands_are_shown_and_wrong_ones_are_an_error(tmp_path: Path) -> None:
    bands = np.zeros((4, 50, 50), dtype=np.uint8)
    bands[3] = 200
    lr, sr = write(tmp_path / "lr.tif", bands), write(tmp_path / "sr.tif", enlarged(bands, 2))
    picture = shown(before_after_png(lr, sr, tmp_path / "a.png", scale=2, bands=(4, 1, 2)))
    assert tuple(picture[300, 300]) in {(200, 0, 0), (255, 214, 64), (96, 220, 255)}
    with pytest.raises(DataError, match="one or three of 1 to 4"):
        before_after_png(lr, sr, tmp_path / "a.png", scale=2, bands=(5,))


def test_rasters_that_do_not_belong_together_or_cannot_be_read_are_errors(
    scene: tuple[Path, Path], tmp_path: Path
) -> None:
    with pytest.raises(DataError, match="not 8 times"):
        before_after_png(*scene, tmp_path / "a.png", scale=8)
    with pytest.raises(RasterError, match=r"nothing\.tif"):
        before_after_png(tmp_path / "nothing.tif", scene[1], tmp_path / "a.png", scale=4)
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot write the picture"):
        before_after_png(*scene, tmp_path / "file" / "a.png", scale=4)


def test_letters_are_drawn_at_their_size_and_unknown_ones_left_blank() -> None:
    assert text_mask("AB", size=3).shape == (21, 36)
    assert text_mask("a").tolist() == text_mask("A").tolist()
    assert text_mask("m").tolist() != text_mask("M").tolist()
    assert not text_mask("€ ").any()

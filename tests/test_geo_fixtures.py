"""Every real raster gives a correct output or the right error."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from numpy.typing import NDArray
from rasterio.errors import NotGeoreferencedWarning
from rasters import FIXTURES, fixture, read, scene_figures, wobbly
from rio_cogeo.cogeo import cog_validate

from slimdiffsr.errors import RasterError
from slimdiffsr.geo import SceneOptions, upscale_scene

NETWORK = wobbly(tile_hr_px=512, overlap_hr_px=64)
# Of these, a part in the middle is enough.
LARGE = {
    "riotiler_cog_dateline",
    "riotiler_cog_int16",
    "riotiler_cog_hirise_mars",
    "rasterio_alpha",
}
NAMES = sorted(path.stem for path in FIXTURES.glob("*.tif")) or ["no real rasters here"]


def open_any(path: Path) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        return rasterio.open(path)


def empty_pixels(dataset: Any, band: int, values: NDArray[Any]) -> NDArray[np.bool_]:
    """Nodata, NaN and masked pixels, found without the package."""
    nodata = dataset.nodatavals[band - 1]
    empty: NDArray[np.bool_] = ~np.isfinite(values)
    if nodata is not None:
        empty |= values == nodata
    flags = [flag.name for flag in dataset.mask_flag_enums[0]]
    if "per_dataset" in flags and not any(c.name == "alpha" for c in dataset.colorinterp):
        empty |= dataset.dataset_mask() == 0
    return empty


@pytest.mark.parametrize("name", NAMES)
def test_every_real_raster(name: str, tmp_path: Path) -> None:
    path = fixture(name)
    out = tmp_path / "out.tif"
    if name == "rasterio_corrupt":
        with pytest.raises(RasterError, match=r"rasterio_corrupt\.tif is damaged: cannot read"):
            upscale_scene(path, out, NETWORK)
        assert list(tmp_path.iterdir()) == []
        return
    with open_any(path) as src:
        window = (src.width // 2 - 150, src.height // 2 - 150, 300, 300) if name in LARGE else None
    report = upscale_scene(path, out, NETWORK, SceneOptions(window=window))
    assert cog_validate(out, strict=True)[0]
    with open_any(path) as src, open_any(out) as dst:
        compare_headers(src, dst, report.plan.window)
        compare_pixels(src, dst, report.plan.window)


def compare_headers(src: Any, dst: Any, window: tuple[int, int, int, int]) -> None:
    assert (dst.width, dst.height) == (4 * window[2], 4 * window[3])
    assert dst.crs == src.crs
    assert dst.nodata == src.nodata or (np.isnan(dst.nodata) and np.isnan(src.nodata))
    assert len(dst.gcps[0]) == len(src.gcps[0])
    if not src.transform.is_identity:
        corner = src.xy(window[1] + window[3], window[0] + window[2], offset="ul")
        size = abs(src.transform.a)
        np.testing.assert_allclose(dst.xy(0, 0, offset="ul"), src.xy(
            window[1], window[0], offset="ul"), atol=1e-6 * size)  # fmt: skip
        np.testing.assert_allclose(
            dst.xy(dst.height, dst.width, offset="ul"), corner, atol=1e-6 * size
        )
    if src.colorinterp[0].name != "palette":
        assert dst.dtypes[0] == src.dtypes[0]
        flags = [flag.name for flag in src.mask_flag_enums[0]]
        if "alpha" not in flags:
            assert [flag.name for flag in dst.mask_flag_enums[0]] == flags
        assert all(dst.tags().get(k) == v for k, v in src.tags().items() if k[:3] != "OVR")


def compare_pixels(src: Any, dst: Any, window: tuple[int, int, int, int]) -> None:
    col, row, width, height = window
    area = rasterio.windows.Window(col, row, width, height)
    for number, colour in enumerate(dst.colorinterp, 1):
        if src.colorinterp[0].name == "palette":
            return
        names = [c.name for c in src.colorinterp]
        # Bands without colour names are in order, and those shown are named.
        band = 1 + names.index(colour.name) if colour.name in names[1:] else number
        before, after = src.read(band, window=area), dst.read(number)
        if colour.name == "alpha":
            np.testing.assert_array_equal(after, np.kron(before, np.ones((4, 4), before.dtype)))
            continue
        empty_lr = empty_pixels(src, band, src.read(band))[row : row + height, col : col + width]
        empty_hr = np.kron(empty_lr, np.ones((4, 4), np.bool_))
        np.testing.assert_array_equal(empty_pixels(dst, number, after), empty_hr)
        if empty_lr.all():
            continue
        means = np.where(empty_hr, 0, after).astype(float).reshape(height, 4, width, 4).mean((1, 3))
        error = (means - before)[~empty_lr].mean()
        span = np.ptp(before[~empty_lr].astype(float)) or 1.0
        assert abs(error) <= max(0.2, 0.002 * span), (number, error)


@pytest.mark.parametrize("name", ["naip_chico_rgbn_utm_u8", "naip_farmland_5m"])
def test_no_seams_on_real_imagery(name: str, tmp_path: Path) -> None:
    path, out = fixture(name), tmp_path / "out.tif"
    window = (0, 0, 400, 400) if name == "naip_farmland_5m" else None  # from the grid's corner
    lr = read(path)[:3, :400, :400]

    def run(**options: Any) -> NDArray[Any]:
        upscale_scene(path, out, NETWORK, SceneOptions(window=window, overwrite=True, **options))
        return read(out)

    tile, overlap = NETWORK.tile_hr_px, NETWORK.overlap_hr_px
    half = (tile - overlap) // 2 // NETWORK.scale
    sr, shifted = run(), run(grid_offset_lr_px=(half, half))
    figures = scene_figures(lr, sr, shifted, tile, overlap)
    assert figures.seam_ratio <= 1.05
    assert figures.shift_psnr_db >= 38
    assert figures.low_pass_rms <= 1
    assert figures.mean_error <= 0.2

"""Generated stand-ins for real rasters, cheap networks, and the figures that judge seams."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from affine import Affine
from numpy.typing import NDArray
from scipy import ndimage as untyped_ndimage

from slimdiffsr.geo import Network

ndimage: Any = untyped_ndimage  # scipy tells type checkers nothing of its C functions

FIXTURES = Path(__file__).parents[2] / "shared" / "data" / "geotiff"
UTM = Affine(0.6, 0, 594717.6, 0, -0.6, 4403031.0)


def fixture(name: str) -> Path:
    """A real raster, or skip: those files are not part of the repository."""
    path = FIXTURES / f"{name}.tif"
    if not path.exists():
        pytest.skip(f"no {path}: the real rasters are not part of the repository")
    return path


def picture(bands: int, height: int, width: int, seed: int = 0) -> NDArray[np.float64]:
    """(bands, height, width) in [0, 1]: fields, roofs, a road and grain."""
    rng = np.random.default_rng(seed)
    noise = rng.standard_normal((bands, height, width))
    fields = ndimage.gaussian_filter(noise, (0, 12, 12), mode="reflect")
    fields /= max(float(np.abs(fields).max()), 1e-9)
    image = 0.45 + 0.25 * fields + 0.02 * noise
    for _ in range(height * width // 700):
        row, col = rng.integers(0, height), rng.integers(0, width)
        image[:, row : row + rng.integers(3, 12), col : col + rng.integers(3, 12)] = rng.random(
            (bands, 1, 1)
        )
    rows, cols = np.mgrid[:height, :width]
    image[:, np.abs(rows - 0.4 * cols - height / 5) < 2] = 0.8
    clipped: NDArray[np.float64] = np.clip(image, 0.02, 0.98)
    return clipped


def byte_picture(bands: int, height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    """The picture in 5 ... 250."""
    return np.rint(picture(bands, height, width, seed) * 255).astype(np.uint8)


def write_raster(path: Path, values: NDArray[Any], **profile: Any) -> Path:
    """A GeoTIFF in UTM with the values (bands, height, width); ``mask`` writes an internal one."""
    mask = profile.pop("mask", None)
    colours = profile.pop("colorinterp", None)
    tags = profile.pop("tags", {})
    descriptions = profile.pop("descriptions", None)
    settings = {"driver": "GTiff", "crs": "EPSG:26910", "transform": UTM, **profile}
    count, height, width = values.shape
    with (
        rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True),  # type: ignore[no-untyped-call]
        rasterio.open(
            path, "w", count=count, height=height, width=width, dtype=values.dtype, **settings
        ) as dataset,
    ):
        if colours:
            dataset.colorinterp = colours
        if descriptions:
            dataset.descriptions = descriptions
        dataset.update_tags(**tags)
        dataset.write(values)
        if mask is not None:
            dataset.write_mask(mask)
    return path


def read(path: Path) -> NDArray[Any]:
    """All bands."""
    with rasterio.open(path) as dataset:
        values: NDArray[Any] = dataset.read()
    return values


def repeat(values: NDArray[Any], scale: int) -> NDArray[Any]:
    """Nearest enlargement, written independently of the package."""
    return np.kron(values, np.ones((1, scale, scale), values.dtype))


def nearest(scale: int = 4, tile_hr_px: int = 64, overlap_hr_px: int = 16, **more: Any) -> Network:
    """The network that repeats pixels."""

    def predict(batch: NDArray[np.float32]) -> NDArray[np.float32]:
        return batch.repeat(scale, axis=2).repeat(scale, axis=3)

    return _network("nearest", predict, scale, tile_hr_px, overlap_hr_px, more)


def wobbly(
    scale: int = 4,
    tile_hr_px: int = 64,
    overlap_hr_px: int = 16,
    strength: float = 0.03,
    **more: Any,
) -> Network:
    """Bilinear and sharpened, with a gain, an offset and a sharpness that hang on the whole tile.

    Stands in for a network that pools over its tile: pasted side by side its tiles show seams.
    """

    def predict(batch: NDArray[np.float32]) -> NDArray[np.float32]:
        # Repeating and averaging over one input pixel is linear interpolation. No matrix products:
        # their threads get in each other's way when tests run side by side.
        big = ndimage.uniform_filter(batch.repeat(scale, 2).repeat(scale, 3), (1, 1, scale, scale))
        detail = big - ndimage.uniform_filter(big, (1, 1, 2 * scale + 1, 2 * scale + 1))
        mood = np.sin(400 * batch.mean((1, 2, 3), keepdims=True))
        result = (1 + strength * mood) * big + strength * mood + (0.5 + 0.1 * mood) * detail
        single: NDArray[np.float32] = result.astype(np.float32)
        return single

    return _network("wobbly", predict, scale, tile_hr_px, overlap_hr_px, more)


def _network(
    name: str, predict: Any, scale: int, tile_hr_px: int, overlap_hr_px: int, more: dict[str, Any]
) -> Network:
    return Network(
        scale=scale,
        tile_hr_px=tile_hr_px,
        overlap_hr_px=overlap_hr_px,
        **{"predict": predict, "model_id": name, "weights_sha256": "0" * 64, **more},
    )


@dataclass(frozen=True)
class SceneFigures:
    """The figures that a scene must reach: no seams, no dependence on the grid, no colour cast."""

    seam_ratio: float  # gradient across tile borders by that beside them, as against no tiles
    shift_psnr_db: float  # against the same scene with the grid shifted by half a tile
    low_pass_rms: float  # grey levels, against the input, sigma 4 input pixels
    mean_error: float  # grey levels, the worst band


def scene_figures(
    lr: NDArray[Any], sr: NDArray[Any], shifted: NDArray[Any], tile_hr_px: int, overlap_hr_px: int
) -> SceneFigures:
    """(b, h, w) input and two outputs, uint8, all valid -> the figures of ``sr``."""
    scale = sr.shape[-1] // lr.shape[-1]
    error = np.mean((sr.astype(float) - shifted) ** 2)
    means = sr.reshape(len(lr), lr.shape[1], scale, lr.shape[2], scale).mean((2, 4), float)
    missing = means - lr
    # Scenes have rhythms of their own, such as JPEG blocks: an enlargement in one piece shows them.
    untiled = ndimage.zoom(
        lr.astype(float), (1, scale, scale), order=3, grid_mode=True, mode="mirror"
    )
    low = ndimage.gaussian_filter(missing, (0, 4, 4), mode="reflect")
    return SceneFigures(
        seam_ratio=seam_ratio(sr, scale, tile_hr_px, overlap_hr_px)
        / seam_ratio(untiled, scale, tile_hr_px, overlap_hr_px),
        shift_psnr_db=float(10 * np.log10(255**2 / max(float(error), 1e-12))),
        low_pass_rms=float(np.sqrt(np.mean(low**2))),
        mean_error=float(np.abs(missing.mean((1, 2))).max()),
    )


def seam_ratio(sr: NDArray[Any], scale: int, tile_hr_px: int, overlap_hr_px: int) -> float:
    """Mean gradient across the borders of tiles by the mean gradient beside them.

    Beside means up to four input pixels away, at the same place inside an input pixel: any
    enlargement, tiled or not, has its own rhythm there.
    """
    step = tile_hr_px - overlap_hr_px
    ratios = []
    for axis in (1, 2):
        gradient = np.abs(np.diff(sr.astype(float), axis=axis)).mean((0, 3 - axis))
        # The first and last pixel of every tile, where a paste would leave a step. The first tile
        # sticks out of the scene by the overlap.
        starts = np.arange(step - overlap_hr_px, len(gradient), step)
        borders = np.concatenate([starts - 1, starts + overlap_hr_px - 1])
        borders = borders[(borders >= 0) & (borders < len(gradient))]
        beside = np.concatenate([borders + k * scale for k in range(-4, 5) if k])
        beside = beside[(beside >= 0) & (beside < len(gradient))]
        ratios.append(gradient[borders].mean() / gradient[beside].mean())
    return float(max(ratios))

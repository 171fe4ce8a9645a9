"""A generated overhead scene: town, farmland and a river, as a georeferenced raster.

Painted at 8 pixels for each input pixel, then averaged as a sensor does, so the truth at 2, 4 or
8 times the input's resolution is known.
"""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import rasterio
from affine import Affine
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.errors import RasterioIOError

from slimdiffsr.demo import ground
from slimdiffsr.demo.ground import Field, Texture
from slimdiffsr.demo.objects import car, flat_roof, house, tree
from slimdiffsr.demo.paint import Canvas, Colour, Plane, levels
from slimdiffsr.errors import DataError, OutputError

__all__ = ["make_demo_scene", "paint_scene"]

Rgb8 = NDArray[np.uint8]

OVERSAMPLE = 8
NODATA = 0
STREET_ANGLE = 0.16  # radians
EPSG = 32610
UPPER_LEFT_M = (583_200.0, 4_401_600.0)

ROOFS: tuple[Colour, ...] = (
    (148, 142, 136), (120, 112, 106), (168, 118, 92), (152, 92, 72), (184, 176, 164),
    (98, 98, 104), (176, 152, 124), (205, 200, 192), (128, 132, 140),
)  # fmt: skip
LEAVES: tuple[Colour, ...] = (
    (82, 104, 60), (66, 90, 54), (98, 116, 66), (58, 78, 52), (112, 120, 72),
)  # fmt: skip
HALLS: tuple[Colour, ...] = ((214, 213, 208), (186, 188, 190), (160, 166, 172))

MAIN_ROAD_U, CROSS_ROAD_V, RIVER_V = -40.0, 60.0, 262.0


def make_demo_scene(
    path: Path,
    *,
    seed: int = 0,
    size_lr_px: tuple[int, int] = (320, 320),
    resolution_m: float = 2.4,
    truth_path: Path | None = None,
    scale: int = 4,
) -> Path:
    """Write a generated scene as a GeoTIFF: uint8 RGB, UTM zone 10 north, nodata 0 in one corner.

    Args:
        path: the GeoTIFF to write; its folder is made.
        seed: the same seed gives the same pixels.
        size_lr_px: (height, width) of the raster.
        resolution_m: metres per pixel; things keep their size in metres.
        truth_path: also write the same scene at ``resolution_m / scale``, sharp and without noise.
        scale: of the truth, 2, 4 or 8.

    Returns:
        ``path``.

    Raises:
        DataError: a size, resolution or scale that cannot be painted.
        OutputError: a file cannot be written.
    """
    if min(size_lr_px) < 16 or resolution_m <= 0 or scale not in (2, 4, 8):
        raise DataError(
            "a demo scene needs at least 16 x 16 px, a positive resolution and scale 2, 4 or 8: "
            f"got {size_lr_px}, {resolution_m} m, scale {scale}"
        )
    rng = np.random.default_rng(seed)
    fine = paint_scene(rng, size_lr_px, resolution_m)
    valid = ~_outside_footprint(size_lr_px)
    sensed = _box_mean(_blur(fine, sigma_px=0.30 * OVERSAMPLE), OVERSAMPLE)
    sensed += rng.normal(scale=1.2, size=sensed.shape)
    _write(path, sensed, valid, resolution_m)
    if truth_path is not None:
        truth = _box_mean(fine, OVERSAMPLE // scale)
        enlarged = np.repeat(np.repeat(valid, scale, axis=0), scale, axis=1)
        _write(truth_path, truth, enlarged, resolution_m / scale)
    return path


def paint_scene(
    rng: np.random.Generator, size_lr_px: tuple[int, int], resolution_m: float
) -> Plane:
    """The scene without sensor, sampled ``OVERSAMPLE`` times finer than ``resolution_m``.

    Returns (8*height, 8*width, 3) float32 in 8-bit levels.
    """
    height, width = (OVERSAMPLE * side for side in size_lr_px)
    canvas = Canvas(height, width, resolution_m / OVERSAMPLE, STREET_ANGLE)
    texture = Texture.make(rng, canvas)
    ground.grass(canvas, texture)
    _farmland(canvas, texture, rng)
    shore = ground.river(canvas, texture, RIVER_V, width=30)
    _riverside(canvas, rng, shore)
    reach = canvas.reach_m
    _streets(canvas, texture, reach)
    _houses(canvas, texture, rng, reach)
    _business_park(canvas, texture, rng)
    main = (MAIN_ROAD_U, -reach, MAIN_ROAD_U, reach)
    ground.road(canvas, texture, main, 15, "main")
    ground.road(canvas, texture, (-reach, CROSS_ROAD_V, reach, CROSS_ROAD_V), 11, "main")
    _traffic(canvas, rng, reach)
    _orchard_and_avenue(canvas, rng)
    return canvas.rgb


def _farmland(canvas: Canvas, texture: Texture, rng: np.random.Generator) -> None:
    colours: tuple[Colour, ...] = (
        (112, 128, 76), (166, 146, 108), (88, 112, 66), (186, 168, 122), (132, 112, 86),
        (100, 122, 70), (148, 150, 96),
    )  # fmt: skip
    edges_v = (-520, -290, -172, -60, 48)
    for i, (top, bottom) in enumerate(itertools.pairwise(edges_v)):
        edge_u = -60.0
        while edge_u > -560:
            width = float(rng.uniform(85, 170))
            colour = colours[int(rng.integers(len(colours)))]
            what = Field(
                edge_u - width / 2, (top + bottom) / 2, width / 2 - 3, (bottom - top) / 2 - 3, colour,
                "u" if rng.random() < 0.5 else "v", float(rng.choice([2.4, 3.2, 4.0, 5.5])),
                float(rng.uniform(0.04, 0.13)),
            )  # fmt: skip
            ground.field(canvas, texture, what)
            edge_u -= width
        ground.road(canvas, texture, (-560, top, -50, top), 4 + i % 2, "track")
    for u, colour in ((330.0, (172, 148, 114)), (-250.0, (124, 134, 82))):
        ground.field(canvas, texture, Field(u, 395, 160, 75, colour, "u", 4.0, 0.08))
    ground.pivot(canvas, texture, -215, -174, 104)


def _riverside(canvas: Canvas, rng: np.random.Generator, shore: Plane) -> None:
    reach = canvas.reach_m
    middle = canvas.rgb.shape[1] / 2 * canvas.pixel_m, canvas.rgb.shape[0] / 2 * canvas.pixel_m
    cos, sin = np.cos(STREET_ANGLE), np.sin(STREET_ANGLE)
    places = rng.uniform((-reach, 90), (reach, 420), (2600, 2))
    wood_places = rng.uniform((-300, 110), (-70, 200), (420, 2))
    places = np.concatenate((places, wood_places))
    for u, v in places[np.argsort(places[:, 1])]:
        column = int((cos * u - sin * v + middle[0]) / canvas.pixel_m)
        row = int((sin * u + cos * v + middle[1]) / canvas.pixel_m)
        if not (0 <= row < shore.shape[0] and 0 <= column < shore.shape[1]):
            continue
        wood = u < MAIN_ROAD_U - 30 and 90 < v < 215 + 20 * np.sin(u / 40)
        near = 3 < shore[row, column] < float(rng.exponential(8)) + (120 if wood else 2)
        if near and abs(u - MAIN_ROAD_U) > 14 and v > CROSS_ROAD_V + 16:
            tree(canvas, rng, (u, v), float(rng.uniform(2.2, 5.2)), _pick(rng, LEAVES))


def _streets(canvas: Canvas, texture: Texture, reach: float) -> None:
    for u in _streets_u(reach):
        ground.road(canvas, texture, (u, -reach, u, CROSS_ROAD_V), 8.5, "street")
    for v in _streets_v(reach):
        ground.road(canvas, texture, (MAIN_ROAD_U, v, reach, v), 8.5, "street")


def _streets_u(reach: float) -> list[float]:
    return [float(u) for u in np.arange(MAIN_ROAD_U + 138, reach + 138, 138)]


def _streets_v(reach: float) -> list[float]:
    return [float(v) for v in np.arange(CROSS_ROAD_V - 84, -reach - 84, -74)]


def _houses(canvas: Canvas, texture: Texture, rng: np.random.Generator, reach: float) -> None:
    lefts = [MAIN_ROAD_U + 6, *_streets_u(reach)]
    for left, right in itertools.pairwise(lefts):
        for street in [CROSS_ROAD_V - 3, *_streets_v(reach)]:
            for side in (-1, 1):
                if street > 0 and side > 0:
                    continue
                u = left + 19.0
                while u < right - 17:
                    lot = float(rng.uniform(18, 23))
                    if rng.random() < 0.93:
                        _lot(canvas, texture, rng, (u, street, side))
                    u += lot


def _lot(
    canvas: Canvas, texture: Texture, rng: np.random.Generator, at: tuple[float, float, int]
) -> None:
    # One lot: lawn, drive, perhaps a pool, the house, trees behind it.
    u, street, side = at
    patch = canvas.patch(u, street + side * 21, 10, 15.5)
    if patch is None:
        return
    lawn = _pick(rng, ((112, 122, 78), (98, 118, 70), (146, 136, 100), (126, 128, 88)))
    light = texture.on(patch, 0.06, 0.04)[..., None]
    inside = patch.cover(patch.box(u, street + side * 21, 9.3, 14.7))
    patch.fill(0.85 * inside, light * levels(lawn))
    drive = u + float(rng.choice([-5.5, 5.5]))
    patch.fill(
        patch.cover(patch.box(drive, street + side * 10, 1.9, 5.5)), light * levels(ground.CONCRETE)
    )
    depth = float(rng.uniform(15, 17.5))
    if rng.random() < 0.16:
        pool = patch.capsule(u - 3, street + side * 31, float(rng.uniform(2, 5)), 0, 2.2)
        patch.fill(patch.cover(pool - 1.2), ground.CONCRETE)
        patch.fill(patch.cover(pool), (96, 172, 186))
    half = (float(rng.uniform(5.4, 7.6)), float(rng.uniform(4.2, 5.4)))
    half = half if rng.random() < 0.75 else (half[1], half[0])
    colour = _pick(rng, ROOFS)
    hipped = bool(rng.random() < 0.5)
    if rng.random() < 0.4:
        wing = (float(rng.uniform(2.6, 3.4)), 4.5)
        house(canvas, drive, street + side * (depth + 3.5), wing, colour, hipped)
    house(canvas, u, street + side * depth, half, colour, hipped)
    if rng.random() < 0.6:
        car(canvas, rng, drive, street + side * 8.3, along_u=False)
    for _ in range(int(rng.integers(1, 5))):
        place = (u + float(rng.uniform(-9, 9)), street + side * float(rng.uniform(25, 35)))
        tree(canvas, rng, place, float(rng.uniform(1.3, 4.0)), _pick(rng, LEAVES))
    if rng.random() < 0.35:
        tree(canvas, rng, (u - 7.5, street + side * 8.0), float(rng.uniform(1.6, 3.2)), LEAVES[0])


def _business_park(canvas: Canvas, texture: Texture, rng: np.random.Generator) -> None:
    for u, half_u in ((30.0, 46.0), (152.0, 52.0), (270.0, 44.0), (384.0, 48.0)):
        lot = (u, 100.0, half_u, 27.0)
        ground.parking(canvas, texture, lot)
        for row in (83.0, 100.0, 117.0):
            for place in np.arange(u - half_u + 4, u + half_u - 4, 2.7):
                stall = u + (np.floor((place - u) / 2.7) + 0.5) * 2.7
                for v in (row - 2.7, row + 2.7):
                    if rng.random() < 0.5:
                        car(canvas, rng, stall, v + float(rng.normal(0, 0.2)), along_u=False)
        for corner in (u - half_u, u, u + half_u):
            tree(canvas, rng, (corner, 108.6), float(rng.uniform(2, 3)), LEAVES[1])
        flat_roof(canvas, rng, (u, 158.0), (half_u - 8, 22.0), _pick(rng, HALLS))


def _traffic(canvas: Canvas, rng: np.random.Generator, reach: float) -> None:
    for v in np.arange(-reach, reach, 34.0):
        lane = float(rng.choice([-5.6, -1.9, 1.9, 5.6]))
        car(canvas, rng, MAIN_ROAD_U + lane, v + float(rng.uniform(-15, 15)), along_u=False)
    for u in np.arange(-reach, reach, 45.0):
        lane = float(rng.choice([-2.7, 2.7]))
        car(canvas, rng, u + float(rng.uniform(-15, 15)), CROSS_ROAD_V + lane, along_u=True)
    for street in _streets_v(reach):
        for u in np.arange(MAIN_ROAD_U + 20, reach, 14.0):
            if rng.random() < 0.3:
                car(canvas, rng, u, street + float(rng.choice([-3.2, 3.2])), along_u=True)


def _orchard_and_avenue(canvas: Canvas, rng: np.random.Generator) -> None:
    for u in np.arange(-170.0, -62.0, 7.5):
        for v in np.arange(-54.0, 42.0, 6.5):
            if rng.random() < 0.96:
                place = (u + float(rng.normal(0, 0.3)), v + float(rng.normal(0, 0.3)))
                tree(canvas, rng, place, float(rng.uniform(1.7, 2.5)), LEAVES[1])
    for v in np.arange(-520.0, CROSS_ROAD_V - 12, 17.0):
        if rng.random() < 0.8:
            place = (MAIN_ROAD_U - 13, v + float(rng.uniform(-3, 3)))
            tree(canvas, rng, place, float(rng.uniform(2.4, 4.2)), _pick(rng, LEAVES))


# ---------------------------------------------------------------------------------------------


def _pick(rng: np.random.Generator, colours: tuple[Colour, ...]) -> Colour:
    # Any of the colours, a little lighter or darker.
    colour = colours[int(rng.integers(len(colours)))]
    light = float(rng.uniform(0.86, 1.14))
    return [float(c * light * rng.uniform(0.985, 1.015)) for c in colour]


def _outside_footprint(size_lr_px: tuple[int, int]) -> NDArray[np.bool_]:
    # A rotated acquisition leaves a wedge without data at the upper left corner.
    height, width = size_lr_px
    y, x = np.mgrid[:height, :width]
    return np.asarray(x / width + 3.1 * y / height < 0.42)


def _blur(rgb: Plane, sigma_px: float) -> Plane:
    # Separable Gaussian on (h, w, 3), edges repeated.
    reach = int(np.ceil(3 * sigma_px))
    weights = np.exp(-(np.arange(-reach, reach + 1) ** 2) / (2 * sigma_px**2)).astype(np.float32)
    weights /= weights.sum()
    for axis in (0, 1):
        pad = [(reach, reach) if a == axis else (0, 0) for a in range(3)]
        padded = np.pad(rgb, pad, mode="edge")
        blurred = np.zeros_like(rgb)
        for i, weight in enumerate(weights):
            blurred += weight * np.take(padded, range(i, i + rgb.shape[axis]), axis=axis)
        rgb = blurred
    return rgb


def _box_mean(rgb: Plane, factor: int) -> Plane:
    h, w, c = rgb.shape
    return np.asarray(rgb.reshape(h // factor, factor, w // factor, factor, c).mean(axis=(1, 3)))


def _write(path: Path, rgb: Plane, valid: NDArray[np.bool_], pixel_m: float) -> None:
    transform = Affine(pixel_m, 0, UPPER_LEFT_M[0], 0, -pixel_m, UPPER_LEFT_M[1])
    pixels: Rgb8 = np.clip(np.round(rgb), NODATA + 1, 255).astype(np.uint8)
    pixels[~valid] = NODATA
    height, width, count = pixels.shape
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with rasterio.open(
            path, "w", driver="GTiff", height=height, width=width, count=count, dtype="uint8",
            crs=CRS.from_epsg(EPSG), transform=transform, nodata=NODATA, photometric="RGB",
            compress="deflate", predictor=2, tiled=True, blockxsize=256, blockysize=256,
        ) as dst:  # fmt: skip
            dst.write(pixels.transpose(2, 0, 1))
            dst.descriptions = ("red", "green", "blue")
    except (OSError, RasterioIOError) as error:
        raise OutputError(f"cannot write the demo scene {path}: {error}") from None

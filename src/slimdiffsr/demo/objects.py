"""Things that stand on the ground: houses, halls, cars, trees. Sizes in metres."""

from __future__ import annotations

import numpy as np

from slimdiffsr.demo.paint import Canvas, Colour, Patch, Plane, levels

__all__ = ["car", "flat_roof", "house", "stripes", "tree"]

CARS = (
    (225, 225, 222), (200, 202, 205), (120, 124, 128), (58, 60, 64), (38, 39, 43), (150, 38, 36),
    (48, 72, 118), (178, 170, 155),
)  # fmt: skip


def house(
    canvas: Canvas, u: float, v: float, half: tuple[float, float], colour: Colour, hipped: bool
) -> None:
    """A pitched roof with its shadow: the ridge runs along the longer side."""
    half_u, half_v = half
    height = 3.6 + 0.18 * (half_u + half_v)
    patch = canvas.patch(u, v, half_u + height * 1.3, half_v + height * 1.3)
    if patch is None:
        return
    cast_shadow(canvas, patch, u, v, half, height)
    # Distance of each pixel from the eaves on the four sides decides which face it lies on.
    du, dv = half_u - np.abs(patch.u - u), half_v - np.abs(patch.v - v)
    along_u = half_u >= half_v
    faces_v = dv < du if hipped else np.full(du.shape, along_u)
    slope_u = np.where(faces_v, 0, np.sign(patch.u - u))
    slope_v = np.where(faces_v, np.sign(patch.v - v), 0)
    pitch = 0.55
    sun_u, sun_v, sun_up = canvas.sun
    light = (pitch * (slope_u * sun_u + slope_v * sun_v) + sun_up) / np.hypot(pitch, 1)
    light = 0.30 + 0.78 * np.maximum(light, 0)
    # Courses of tiles, faint; and a worn, lighter ridge.
    across = np.where(faces_v, patch.v - v, patch.u - u)
    light = light * (1 + 0.03 * np.sin(across * (2 * np.pi / 0.9)))
    inside = patch.cover(patch.box(u, v, half_u, half_v))
    patch.fill(inside, light[..., None] * np.asarray(colour, dtype=np.float32))
    ridge_u, ridge_v = (half_u - half_v, 0.12) if along_u else (0.12, half_v - half_u)
    reach = 0.0 if hipped else min(half)
    if along_u:
        ridge_u += reach
    else:
        ridge_v += reach
    ridge = patch.cover(patch.box(u, v, max(ridge_u, 0.12), max(ridge_v, 0.12))) * inside
    patch.fill(0.45 * ridge, [min(255.0, 1.2 * c) for c in colour])


def flat_roof(
    canvas: Canvas,
    rng: np.random.Generator,
    place: tuple[float, float],
    half: tuple[float, float],
    colour: Colour,
) -> None:
    """A hall 8 m high: parapet, panel seams, rows of skylights, a few ventilators."""
    (u, v), (half_u, half_v) = place, half
    patch = canvas.patch(u, v, half_u + 12, half_v + 12)
    if patch is None:
        return
    cast_shadow(canvas, patch, u, v, half, 8.0)
    base = np.asarray(colour, dtype=np.float32)
    roof = patch.box(u, v, half_u, half_v)
    patch.fill(patch.cover(roof), base * 0.80)
    seams = 1 + 0.025 * np.sin((patch.u - u) * (2 * np.pi / 2.5))
    patch.fill(patch.cover(roof + 0.7), seams[..., None] * base)
    for row in np.arange(-half_v + 7, half_v - 5, 9.0):
        for column in np.arange(-half_u + 7, half_u - 6, 8.0):
            light = patch.box(u + column, v + row, 1.9, 0.7)
            patch.fill(patch.cover(light), base * 0.72 + levels((13, 23, 31)))
    for _ in range(int(half_u * half_v / 90)):
        at = (u + rng.uniform(-0.8, 0.8) * half_u, v + rng.uniform(-0.8, 0.8) * half_v)
        size = (float(rng.uniform(0.8, 2.0)), float(rng.uniform(0.8, 1.6)))
        cast_shadow(canvas, patch, *at, size, 1.6)
        patch.fill(patch.cover(patch.box(*at, *size)), base * float(rng.uniform(0.75, 1.1)))


def car(canvas: Canvas, rng: np.random.Generator, u: float, v: float, along_u: bool) -> None:
    """A car of a common colour, with its glass."""
    half_u, half_v = (2.25, 0.9) if along_u else (0.9, 2.25)
    patch = canvas.patch(u, v, 5, 5)
    if patch is None:
        return
    cast_shadow(canvas, patch, u, v, (half_u, half_v), 1.4)
    colour = np.asarray(CARS[int(rng.integers(len(CARS)))], dtype=np.float32)
    patch.fill(patch.cover(patch.box(u, v, half_u, half_v)), colour)
    front = float(rng.choice([-1.0, 1.0]))
    for place, length in ((0.75 * front, 0.35), (-1.35 * front, 0.25)):
        at = (u + place, v) if along_u else (u, v + place)
        size = (length, 0.7) if along_u else (0.7, length)
        patch.fill(0.85 * patch.cover(patch.box(*at, *size)), (36, 42, 50))


def tree(
    canvas: Canvas,
    rng: np.random.Generator,
    place: tuple[float, float],
    radius: float,
    colour: Colour,
) -> None:
    """A round, lumpy crown, lit from the sun's side, with its shadow."""
    u, v = place
    height = 1.7 * radius + 1.5
    patch = canvas.patch(u, v, 2.4 * radius + 3, 2.4 * radius + 3)
    if patch is None:
        return
    reach_u, reach_v = (height * 0.75 * s for s in canvas.shadow)
    patch.shade(0.9 * patch.cover(patch.capsule(u, v, reach_u, reach_v, 0.88 * radius)))
    du, dv = (patch.u - u) / radius, (patch.v - v) / radius
    angle, away = np.arctan2(dv, du), np.hypot(du, dv)
    lobes = sum(
        depth * np.sin(count * angle + phase)
        for count, depth, phase in zip(
            (3, 5, 8), (0.09, 0.07, 0.05), rng.uniform(0, 2 * np.pi, 3), strict=True
        )
    )
    distance = (away - 1 - lobes) * radius
    dome = np.sqrt(np.clip(1 - away**2, 0.02, 1))
    sun_u, sun_v, sun_up = canvas.sun
    lumps = rng.normal(scale=0.09, size=away.shape).astype(np.float32)
    lumps = (
        lumps + np.roll(lumps, 1, 0) + np.roll(lumps, 1, 1) + np.roll(lumps, (1, 1), (0, 1))
    ) / 2
    light = 0.50 + 0.72 * (0.8 * (du * sun_u + dv * sun_v) + dome * sun_up) + lumps
    crown: Plane = np.clip(light, 0.18, 1.3)[..., None] * np.asarray(colour, dtype=np.float32)
    patch.fill(patch.cover(distance), crown)


def stripes(coordinate: Plane, period: float, width: float, pixel_m: float) -> Plane:
    """Cover of lines of ``width`` at each multiple of ``period``, anti-aliased."""
    off = np.abs((coordinate + period / 2) % period - period / 2)
    return np.asarray(np.clip(0.5 + (width / 2 - off) / pixel_m, 0, 1) * min(1, width / pixel_m))


def cast_shadow(
    canvas: Canvas, patch: Patch, u: float, v: float, half: tuple[float, float], height: float
) -> None:
    """Shade what a box of that height keeps from the sun."""
    steps = np.linspace(0, 1, max(2, int(height / 0.8)))
    du, dv = canvas.shadow
    boxes = [patch.box(u + t * height * du, v + t * height * dv, *half) for t in steps]
    patch.shade(patch.cover(np.min(boxes, axis=0)))

"""What lies flat: grass, fields, water, roads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from slimdiffsr.demo.objects import stripes
from slimdiffsr.demo.paint import Canvas, Colour, Patch, Plane, levels, value_noise

__all__ = ["Field", "Texture", "field", "grass", "parking", "pivot", "river", "road"]

ASPHALT = (124, 123, 122)
CONCRETE = (176, 172, 163)
PAINT = (226, 224, 214)


@dataclass(frozen=True, slots=True)
class Texture:
    """Unit noise over the whole canvas: (h, w) each, in metres of cell size."""

    fine: Plane  # 0.6 to 5 m: tufts, gravel
    broad: Plane  # 20 to 160 m: soil, moisture

    @classmethod
    def make(cls, rng: np.random.Generator, canvas: Canvas) -> Texture:
        """Draw both from ``rng``."""
        h, w, _ = canvas.rgb.shape
        px = canvas.pixel_m
        fine = value_noise(rng, h, w, [0.6 / px, 1.2 / px, 2.5 / px, 5 / px])
        return cls(fine, value_noise(rng, h, w, [20 / px, 55 / px, 160 / px]))

    def on(self, patch: Patch, fine: float, broad: float) -> Plane:
        """Brightness factor (h, w) on a patch: 1 with these standard deviations."""
        where = patch.rows, patch.columns
        return np.asarray(1 + fine * self.fine[where] + broad * self.broad[where])


@dataclass(frozen=True, slots=True)
class Field:
    """A rectangle of farmland in metres along the street grid."""

    u: float
    v: float
    half_u: float
    half_v: float
    colour: Colour
    rows: Literal["u", "v"]
    period_m: float = 3.0
    contrast: float = 0.1


def grass(canvas: Canvas, texture: Texture) -> None:
    """Cover everything with dry and green grass."""
    patch = canvas.whole()
    green = np.clip(0.5 + 0.35 * texture.broad, 0, 1)[..., None]
    colour = green * levels([112, 118, 84]) + (1 - green) * levels([158, 147, 114])
    patch.rgb[...] = colour * texture.on(patch, 0.07, 0.0)[..., None]


def field(canvas: Canvas, texture: Texture, what: Field) -> None:
    """Crop rows with uneven growth, tramlines every 24 m, a headland of another direction."""
    patch = canvas.patch(what.u, what.v, what.half_u, what.half_v)
    if patch is None:
        return
    outline = patch.box(what.u, what.v, what.half_u, what.half_v)
    across, along = (patch.v, patch.u) if what.rows == "u" else (patch.u, patch.v)
    bend = 0.5 * texture.broad[patch.rows, patch.columns]
    rows = np.sin((across + bend) * (2 * np.pi / what.period_m))
    edge = np.sin(-outline * (2 * np.pi / what.period_m))
    headland = np.clip((outline + 9) / 0.5, 0, 1)
    rows = rows + headland * (edge - rows)
    light = texture.on(patch, 0.045, 0.075) * (1 + what.contrast * rows)
    tracks = stripes(across - 0.9, 24, 0.5, patch.pixel_m) + stripes(
        across + 0.9, 24, 0.5, patch.pixel_m
    )
    light = light * (1 - 0.16 * tracks * (1 - headland))
    light = light * (1 + 0.02 * np.sin(along / 17))
    patch.fill(patch.cover(outline), light[..., None] * levels(what.colour))


def pivot(canvas: Canvas, texture: Texture, u: float, v: float, radius: float) -> None:
    """A field watered by a turning boom: rings of wheel tracks, one sector younger."""
    patch = canvas.patch(u, v, radius, radius)
    if patch is None:
        return
    du, dv = patch.u - u, patch.v - v
    away, angle = np.hypot(du, dv), np.arctan2(dv, du)
    light = texture.on(patch, 0.05, 0.06) * (1 + 0.05 * np.sin(away * (2 * np.pi / 3.2)))
    light = light * (1 - 0.22 * stripes(away, radius / 4, 1.2, patch.pixel_m))
    young = np.clip((np.sin(angle - 0.8) - 0.55) * 40, 0, 1)[..., None]
    colour = (1 - young) * levels([74, 108, 62]) + young * levels([128, 142, 86])
    patch.fill(patch.cover(away - radius), light[..., None] * colour)
    patch.fill(0.8 * patch.cover(patch.capsule(u, v, 0.86 * radius, -0.5 * radius, 0.5)), CONCRETE)


def river(canvas: Canvas, texture: Texture, middle: float, width: float) -> Plane:
    """A meandering river along u with sandy banks. Returns (h, w): metres outside the water."""
    patch = canvas.whole()
    course = middle + 26 * np.sin(patch.u / 83) + 11 * np.sin(patch.u / 37 + 1)
    uneven = 2.2 * texture.broad + 0.5 * texture.fine
    shore = np.abs(patch.v - course) / 1.1 - width / 2 + uneven
    bank = np.clip(1 - shore / 7, 0, 1) * np.clip(0.6 + 0.5 * texture.broad, 0, 1)
    patch.fill(0.75 * bank, (171, 158, 128))
    deep = np.clip(-shore / 9, 0, 1)[..., None]
    water = (1 - deep) * levels([98, 106, 90]) + deep * levels([44, 66, 70])
    patch.fill(patch.cover(shore), water * (1 + 0.02 * texture.broad)[..., None])
    return np.asarray(shore)


def road(
    canvas: Canvas,
    texture: Texture,
    line: tuple[float, float, float, float],
    width: float,
    kind: Literal["main", "street", "track"],
) -> None:
    """A straight road between two points (u0, v0, u1, v1) of which u or v is the same."""
    u0, v0, u1, v1 = line
    u, v, half_u, half_v = (u0 + u1) / 2, (v0 + v1) / 2, abs(u1 - u0) / 2, abs(v1 - v0) / 2
    patch = canvas.patch(u, v, half_u + width, half_v + width)
    if patch is None:
        return
    along_u = half_u > half_v
    across, along = (patch.v - v, patch.u) if along_u else (patch.u - u, patch.v)
    grow = (0, width / 2) if along_u else (width / 2, 0)
    outline = patch.box(u, v, half_u + grow[0], half_v + grow[1])
    surface = texture.on(patch, 0.025, 0.03)[..., None]
    if kind == "track":
        patch.fill(0.8 * patch.cover(outline), surface * levels([168, 152, 122]))
        patch.fill(0.4 * patch.cover(np.abs(across) - 0.4 + 0 * outline), (136, 132, 92))
        return
    patch.fill(
        patch.cover(outline - (1.8 if kind == "street" else 2.5)), surface * levels(CONCRETE)
    )
    patch.fill(patch.cover(outline), surface * levels(ASPHALT))
    worn = np.abs(np.abs(across) - width / 4) - 0.9
    patch.fill(0.18 * patch.cover(worn) * patch.cover(outline), (86, 86, 88))
    if kind == "main":
        inside = patch.cover(outline)
        for edge in (-width / 2 + 0.7, width / 2 - 0.7):
            patch.fill(0.8 * patch.cover(np.abs(across - edge) - 0.12) * inside, PAINT)
        dash = patch.cover(np.abs(along % 12 - 6) - 3)
        for lane in (-width / 4, width / 4):
            patch.fill(0.8 * patch.cover(np.abs(across - lane) - 0.12) * dash * inside, PAINT)
        patch.fill(0.8 * patch.cover(np.abs(across) - 0.25) * inside, (206, 176, 84))


def parking(canvas: Canvas, texture: Texture, at: tuple[float, float, float, float]) -> None:
    """Asphalt of (u, v, half_u, half_v) with rows of stalls every 17 m across v."""
    u, v, half_u, half_v = at
    patch = canvas.patch(u, v, half_u, half_v)
    if patch is None:
        return
    outline = patch.box(u, v, half_u, half_v)
    patch.fill(patch.cover(outline - 1), CONCRETE)
    light = texture.on(patch, 0.03, 0.05)[..., None]
    patch.fill(patch.cover(outline), light * levels([104, 104, 104]))
    from_row = np.abs((patch.v - v + 8.5) % 17 - 8.5)
    lines = stripes(patch.u - u, 2.7, 0.14, patch.pixel_m)
    stalls = patch.cover(from_row - 5.0) * patch.cover(outline + 3)
    patch.fill(0.8 * lines * stalls, PAINT)
    patch.fill(0.8 * patch.cover(from_row - 0.1) * patch.cover(outline + 3), PAINT)

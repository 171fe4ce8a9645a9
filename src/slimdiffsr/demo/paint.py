"""A canvas in metres and the few anti-aliased things that are painted on it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "Canvas",
    "Colour",
    "Patch",
    "Plane",
    "levels",
    "value_noise",
]

Plane = NDArray[np.float32]
Colour = Sequence[float]  # three 8-bit levels

# What is left of red, green and blue where only the sky shines.
SHADE = np.array([0.40, 0.43, 0.52], dtype=np.float32)
SUN = (0.37, 0.56, 0.74)  # unit vector to the sun: east, south, up; shadows fall to the north-west


def levels(colour: Colour) -> Plane:
    """A colour as a (3,) array."""
    return np.asarray(colour, dtype=np.float32)


@dataclass(frozen=True, slots=True)
class Patch:
    """A rectangle of the canvas: its pixels, to be painted in place, and their coordinates.

    ``rgb`` is (h, w, 3) in 8-bit levels; ``u`` and ``v`` are (h, w) in metres along and across the
    town's street grid; ``rows`` and ``columns`` are where it lies on the canvas.
    """

    rgb: Plane
    u: Plane
    v: Plane
    rows: slice
    columns: slice
    pixel_m: float

    def cover(self, distance_m: Plane) -> Plane:
        """Share of each pixel within a shape, from the signed distance to its outline."""
        return np.asarray(np.clip(0.5 - distance_m / self.pixel_m, 0, 1), dtype=np.float32)

    def box(self, u: float, v: float, half_u: float, half_v: float) -> Plane:
        """Signed distance in metres to a rectangle along the street grid; negative inside."""
        du, dv = np.abs(self.u - u) - half_u, np.abs(self.v - v) - half_v
        outside = np.hypot(np.maximum(du, 0), np.maximum(dv, 0))
        return np.asarray(outside + np.minimum(np.maximum(du, dv), 0))

    def capsule(self, u: float, v: float, du: float, dv: float, radius: float) -> Plane:
        """Signed distance in metres to a disc swept from (u, v) by (du, dv)."""
        along = ((self.u - u) * du + (self.v - v) * dv) / max(du * du + dv * dv, 1e-9)
        along = np.clip(along, 0, 1)
        return np.asarray(np.hypot(self.u - u - along * du, self.v - v - along * dv) - radius)

    def fill(self, cover: Plane, colour: Colour | Plane) -> None:
        """Paint a colour, or (h, w, 3) colours, where ``cover`` is 1."""
        paint = np.asarray(colour, dtype=np.float32)
        self.rgb[...] += cover[..., None] * (paint - self.rgb)

    def shade(self, cover: Plane) -> None:
        """Darken to the light of the sky where ``cover`` is 1."""
        self.rgb[...] *= 1 - cover[..., None] * (1 - SHADE)


class Canvas:
    """A picture of the ground on a fine grid, addressed in metres from its centre.

    The street grid (u, v) is turned by ``angle`` against the image, so that no street falls on
    a pixel row.
    """

    def __init__(self, height: int, width: int, pixel_m: float, angle: float) -> None:
        self.rgb = np.zeros((height, width, 3), dtype=np.float32)
        self.pixel_m = pixel_m
        self._cos, self._sin = math.cos(angle), math.sin(angle)
        self._middle = (width * pixel_m / 2, height * pixel_m / 2)
        u, v = self.turn(SUN[0], SUN[1])
        self.sun = (u, v, SUN[2])
        self.shadow = (-u / SUN[2], -v / SUN[2])  # of a thing one metre high, in (u, v)

    @property
    def reach_m(self) -> float:
        """No pixel is further from the centre, along u or v."""
        return math.hypot(*self._middle)

    def turn(self, x: float, y: float) -> tuple[float, float]:
        """A vector in image directions (right, down), as (u, v)."""
        return (self._cos * x + self._sin * y, -self._sin * x + self._cos * y)

    def patch(self, u: float, v: float, half_u: float, half_v: float) -> Patch | None:
        """The smallest patch that holds a rectangle of the street grid; None outside the canvas."""
        x = self._cos * u - self._sin * v + self._middle[0]
        y = self._sin * u + self._cos * v + self._middle[1]
        half_x = abs(self._cos) * half_u + abs(self._sin) * half_v
        half_y = abs(self._sin) * half_u + abs(self._cos) * half_v
        rows = _clip(y - half_y, y + half_y, self.pixel_m, self.rgb.shape[0])
        columns = _clip(x - half_x, x + half_x, self.pixel_m, self.rgb.shape[1])
        if rows.start >= rows.stop or columns.start >= columns.stop:
            return None
        x_m = (np.arange(columns.start, columns.stop, dtype=np.float32) + 0.5) * self.pixel_m
        y_m = (np.arange(rows.start, rows.stop, dtype=np.float32) + 0.5) * self.pixel_m
        right, down = np.meshgrid(x_m - self._middle[0], y_m - self._middle[1])
        grid_u = self._cos * right + self._sin * down
        grid_v = -self._sin * right + self._cos * down
        f32 = np.float32
        return Patch(
            self.rgb[rows, columns], grid_u.astype(f32), grid_v.astype(f32), rows, columns,
            self.pixel_m,
        )  # fmt: skip

    def whole(self) -> Patch:
        """All of the canvas."""
        patch = self.patch(0, 0, 2 * self.reach_m, 2 * self.reach_m)
        assert patch is not None  # the canvas has pixels
        return patch


def value_noise(rng: np.random.Generator, height: int, width: int, cells: Sequence[float]) -> Plane:
    """Smooth noise of unit variance: one octave for each cell size in pixels, equally strong.

    Returns (height, width).
    """
    total = np.zeros((height, width), dtype=np.float32)
    for cell in cells:
        rows, row_weight = _lattice(height, cell)
        columns, column_weight = _lattice(width, cell)
        knots = rng.normal(size=(rows[-1] + 2, columns[-1] + 2)).astype(np.float32)
        across = knots[:, columns] + column_weight * (knots[:, columns + 1] - knots[:, columns])
        total += across[rows] + row_weight[:, None] * (across[rows + 1] - across[rows])
    return np.asarray(total / max(float(total.std()), 1e-6), dtype=np.float32)


def _lattice(length: int, cell: float) -> tuple[NDArray[np.int64], Plane]:
    # The knot before each pixel, and the weight of the knot behind it (Perlin's smoothstep).
    position = np.arange(length) / cell
    knot = np.floor(position).astype(np.int64)
    t = (position - knot).astype(np.float32)
    return knot, t * t * (3 - 2 * t)


def _clip(low_m: float, high_m: float, pixel_m: float, length: int) -> slice:
    low, high = math.floor(low_m / pixel_m) - 1, math.ceil(high_m / pixel_m) + 1
    return slice(min(max(low, 0), length), min(max(high, 0), length))

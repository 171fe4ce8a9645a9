"""Which sensor made a product, and which of its bands are which."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from slimdiffsr.sensors.presets import SENSORS
from slimdiffsr.sensors.product import BandFacts, Product
from slimdiffsr.sensors.tables import RGB, Sensor, normal_name

__all__ = ["agreed_rgb", "recognise", "rgb_of", "roles_of"]


def recognise(
    product: Product, sensors: Mapping[str, Sensor] = SENSORS
) -> tuple[Sensor | None, str]:
    """The sensor and what gave it away; None and "" where nothing does.

    The product's own metadata come first, then collections and names of files, then names of
    bands that one sensor alone has.
    """
    if product.sensor in sensors:
        return sensors[product.sensor], "its metadata"
    for sensor in sensors.values():
        if set(sensor.collections) & set(product.words):
            return sensor, "its collection"
    for sensor in sensors.values():
        for word in product.words:
            if any(re.search(pattern, word) for pattern in sensor.files):
                return sensor, f"the name {word}"
    return _by_band_names(product.bands)


# Names that nobody else uses.
_TELLING = {
    "planetscope": {"coastal_blue", "green_i"},
    "sentinel-2-l2a": {"b8a"},
    "modis": {"sur_refl_b1", "sur_refl_b1_1"},
    "landsat-8-9-c2l2": {"sr_b6", "st_b10"},
    "landsat-4-7-c2l2": {"st_b6"},
}


def _by_band_names(bands: Sequence[BandFacts]) -> tuple[Sensor | None, str]:
    names = {normal_name(band.name) for band in bands}
    for name, telling in _TELLING.items():
        found = sorted(names & telling)
        if found:
            return SENSORS[name], f"a band named {found[0].upper()}"
    return None, ""


def roles_of(sensor: Sensor, bands: Sequence[BandFacts]) -> tuple[str | None, ...]:
    """What each band is: by its common name, else by its name, else by the usual order."""
    roles = tuple(band.role or sensor.role_of(band.name) for band in bands)
    if any(roles) and set(RGB) <= set(roles):
        return roles
    unnamed = not any(role for role in roles if role not in RGB)
    for order in sensor.orders:
        if unnamed and len(order) == len(bands) and not any(roles):
            return order
    return roles


def rgb_of(roles: Sequence[str | None]) -> tuple[int, ...] | None:
    """The numbers, from 1, of red, green and blue; None if one is missing."""
    if not set(RGB) <= set(roles):
        return None
    return tuple(roles.index(role) + 1 for role in RGB)


def agreed_rgb(
    bands: Sequence[BandFacts], sensors: Iterable[Sensor] = tuple(SENSORS.values())
) -> tuple[tuple[int, ...] | None, str]:
    """Red, green and blue by names alone, where all sensors that have such names agree.

    Without agreement None, and a sentence that says who means what; "" when no sensor fits.
    """
    if not bands or not all(band.name for band in bands):
        return None, ""
    meant: dict[tuple[int, ...], list[str]] = {}
    for sensor in sensors:
        roles = [sensor.role_of(band.name) for band in bands]
        rgb = rgb_of(roles) if all(roles) else None
        if rgb is not None:
            meant.setdefault(rgb, []).append(sensor.name)
    if len(meant) == 1:
        return next(iter(meant)), ""
    if not meant:
        return None, ""
    who = "; ".join(f"{', '.join(map(str, rgb))} on {names[0]}" for rgb, names in meant.items())
    return None, (
        f"Bands named {bands[0].name} to {bands[-1].name} are red, green, blue in different "
        f"places: {who}. Give --sensor or --bands."
    )

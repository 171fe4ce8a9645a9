"""What a sensor's products look like: one small table each, which checks itself."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

from pydantic.dataclasses import dataclass

from slimdiffsr.errors import ConfigError
from slimdiffsr.settings.config import parse, read_toml
from slimdiffsr.settings.recipe import STRICT, check

__all__ = ["RGB", "VISIBLE", "Role", "Sensor", "SensorBand", "normal_name", "read_sensor"]

RGB = ("red", "green", "blue")
VISIBLE = (*RGB, "coastal", "yellow", "green05", "pan")

# STAC's common names of bands, and "green05" for SuperDove's green of 531 nm.
Role = Literal[
    "coastal", "blue", "green05", "green", "yellow", "red", "rededge071", "rededge075",
    "rededge078", "nir", "nir08", "nir09", "cirrus", "swir12", "swir16", "swir22", "lwir11",
    "lwir12", "pan",
]  # fmt: skip

_AFTER_THE_NAME = re.compile(r"\s*[,:;(\[]|\s+-\s+")


@dataclass(frozen=True, slots=True, config=STRICT)
class SensorBand:
    """One band: what it is, and what products, drivers and catalogues call it."""

    role: Role
    names: tuple[str, ...]
    pixel_m: float


@dataclass(frozen=True, slots=True, config=STRICT)
class Sensor:
    """One kind of product: its bands, and how its numbers become reflectance.

    numbers: "reflectance" = scale * stored + offset; "picture": 8 bits, shown as they are.
    offset_rule: "sentinel-2" where the offset hangs on the baseline and on who delivers.
    black, white: the reflectance that the network sees as 0 and 1; infrared_white for bands
    beyond the visible. special: stored numbers that are no measurements, besides nodata.
    orders: what the bands are in files that do not say it, by their count.
    files: regular expressions of file and folder names; an item of a catalogue has such an id.
    """

    name: str
    title: str
    bands: tuple[SensorBand, ...]
    numbers: Literal["reflectance", "picture"] = "reflectance"
    scale: float = 1.0
    offset: float = 0.0
    offset_rule: Literal["fixed", "sentinel-2"] = "fixed"
    black: float = 0.0
    white: float = 0.3
    infrared_white: float = 0.6
    nodata: float | None = None
    special: tuple[float, ...] = ()
    orders: tuple[tuple[Role, ...], ...] = ()
    files: tuple[str, ...] = ()
    collections: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check(self.scale > 0, f"scale must be above 0, got {self.scale:g}")
        check(self.black < self.white, f"black {self.black:g} must be below white {self.white:g}")
        check(self.black < self.infrared_white, "black must be below infrared_white")
        check(bool(self.bands), "a sensor needs bands")
        roles = {band.role for band in self.bands}
        strange = sorted({role for order in self.orders for role in order} - roles)
        check(not strange, f"orders name bands that are none: {', '.join(strange)}")

    def role_of(self, name: str) -> str | None:
        """What a band of this name is, if the sensor has it."""
        wanted = normal_name(name)
        for band in self.bands:
            if wanted in (band.role, *map(normal_name, band.names)):
                return band.role
        return None

    def band(self, role: str) -> SensorBand | None:
        """The band of a role."""
        return next((band for band in self.bands if band.role == role), None)

    def white_of(self, role: str | None) -> float:
        """The reflectance that the network sees as white in a band."""
        return self.white if role is None or role in VISIBLE else self.infrared_white

    @property
    def pixel_m(self) -> float:
        """The side of the smallest pixels."""
        return min(band.pixel_m for band in self.bands)


def normal_name(name: str) -> str:
    """A band's name without what varies: "B04_10m", "Band 4", "B4, 665 nm" are all b4."""
    short = _AFTER_THE_NAME.split(name.strip().lower(), maxsplit=1)[0]
    short = re.sub(r"[\s-]+", "_", short.strip())
    short = re.sub(r"_(10|15|20|30|60)m$", "", short)
    short = re.sub(r"(^|_)band_?(?=\d)", r"\1b", short)
    return re.sub(r"(^|_)b0+(?=\d)", r"\1b", short)


def read_sensor(path: Path) -> Sensor:
    """A user's own sensor from a TOML file; its fields are those of ``Sensor``.

    Raises ConfigError for what is missing, unknown or wrong.
    """
    values = read_toml(path)
    values.setdefault("name", path.stem)
    values.setdefault("title", values["name"])
    sensor = parse(Sensor, values)
    try:
        for pattern in sensor.files:
            re.compile(pattern)
    except re.error as error:
        raise ConfigError(f"{path}: files holds no regular expression: {error}") from None
    return sensor

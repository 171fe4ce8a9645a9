"""A product judged: sensor, bands, reflectance, what is empty; ready for the engine."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slimdiffsr.errors import BandError, ConfigError
from slimdiffsr.geo.known import BandMeaning, KnownRaster
from slimdiffsr.geo.raster import open_source
from slimdiffsr.sensors.calibration import Calibration, Look, calibrate
from slimdiffsr.sensors.presets import SENSORS
from slimdiffsr.sensors.product import Product
from slimdiffsr.sensors.recognise import agreed_rgb, recognise, rgb_of, roles_of
from slimdiffsr.sensors.stac import Signing
from slimdiffsr.sensors.tables import Sensor, read_sensor

__all__ = ["SensorOptions", "find_sensor", "know"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SensorOptions:
    """What a user says of the sensor.

    sensor: "auto", a name of ``SENSORS``, or a TOML file. scale_factor, offset: reflectance =
    scale_factor * stored + offset, instead of what metadata say. assets: of a catalogue's item, by
    key or common name. sign: how its addresses become readable.
    """

    sensor: str = "auto"
    scale_factor: float | None = None
    offset: float | None = None
    assets: tuple[str, ...] = ()
    sign: Signing = "none"


def find_sensor(name: str) -> Sensor:
    """A sensor by name, or from a TOML file. Raises ConfigError."""
    if name in SENSORS:
        return SENSORS[name]
    if name.endswith(".toml"):
        return read_sensor(Path(name))
    raise ConfigError(f"no sensor {name!r}: give auto, a TOML file, or one of {', '.join(SENSORS)}")


def know(
    product: Product,
    options: SensorOptions | None = None,
    *,
    look: Callable[[KnownRaster], NDArray[Any]] | None = None,
) -> KnownRaster:
    """What the engine is to know of a product.

    look: gives some measured values of the visible bands, where the product's path cannot.

    Raises ConfigError, RangeError or BandError for options that do not fit it.
    """
    options = options or SensorOptions()
    if options.sensor == "auto":
        sensor, why = recognise(product)
    else:
        sensor, why = find_sensor(options.sensor), "as asked for"
    if sensor is None:
        return _unknown(product, options)
    roles = roles_of(sensor, product.bands)
    _check_bands(product, sensor, roles, options)
    known = KnownRaster(
        path=product.path,
        name=product.name,
        rgb=rgb_of(roles),
        rgb_reason=f"red, green and blue of {sensor.name}",
        nodata=sensor.nodata,
        coarser=product.coarser,
        files=product.files,
        derived_from=product.links,
        properties=product.properties,
        special=tuple(value for value in sensor.special if _can_hold(product.dtype, value)),
    )
    if sensor.numbers == "picture" or product.dtype == "uint8":
        said = f"Taken as {sensor.name} ({why}): 8 bits, shown as they are."
        return replace(known, special=(), remarks=(said, *product.remarks))
    look_at = _look(known) if look is None else partial(look, known)
    return _calibrated(known, product, sensor, roles, (why, look_at), options)


def _calibrated(
    known: KnownRaster,
    product: Product,
    sensor: Sensor,
    roles: tuple[str | None, ...],
    why_and_look: tuple[str, Look],
    options: SensorOptions,
) -> KnownRaster:
    why, look = why_and_look
    found = calibrate(
        product,
        sensor,
        look,
        scale=options.scale_factor,
        offset=options.offset,
    )
    meanings = tuple(
        BandMeaning(scale=scale, offset=offset, black=sensor.black, white=sensor.white_of(role))
        for scale, offset, role in zip(found.scales, found.offsets, roles, strict=True)
    )
    said = (
        f"Taken as {sensor.name} ({why}): reflectance is {_formula(found, known.rgb)} "
        f"({found.reason}), and the network sees {sensor.black:g} to {sensor.white:g} of it."
    )
    if min(found.offsets) > 0:
        known = replace(known, nodata=None)  # subtracted twice, zero is reflectance like any other
    remarks = tuple(words for words in (said, found.remark, *product.remarks) if words)
    return replace(
        known, meanings=meanings, remarks=remarks,
        range_reason=f"reflectance {sensor.black:g} to {sensor.white:g} of {sensor.name}",
    )  # fmt: skip


def _can_hold(dtype: str, value: float) -> bool:
    if dtype.startswith("float"):
        return False  # such numbers were computed: what was special is no more
    info = np.iinfo(dtype)
    return bool(info.min <= value <= info.max)


def _formula(found: Calibration, rgb: tuple[int, ...] | None) -> str:
    first = (rgb or (1,))[0] - 1
    scale, offset = found.scales[first], found.offsets[first]
    sign = "" if offset == 0 else f" {'-' if offset < 0 else '+'} {abs(offset):g}"
    return f"{scale:g} x{sign}"


def _look(known: KnownRaster) -> Callable[[], NDArray[Any]]:
    """The measured values of the visible bands (else the first), read when first asked for."""

    @cache
    def look() -> NDArray[Any]:
        with open_source(known) as source:
            sample = source.sample(known.rgb or (1,))
        measured: NDArray[Any] = sample.values[sample.valid]
        return measured

    return look


def _check_bands(
    product: Product, sensor: Sensor, roles: tuple[str | None, ...], options: SensorOptions
) -> None:
    if options.sensor == "auto" or any(roles) or len(product.bands) == 1:
        return
    names = ", ".join(band.name or "without a name" for band in product.bands[:4])
    raise BandError(
        f"{product.name} has {len(product.bands)} bands ({names}), and none is one of "
        f"{sensor.name}'s: give another --sensor, or none and --bands"
    )


def _unknown(product: Product, options: SensorOptions) -> KnownRaster:
    if options.offset is not None or options.scale_factor is not None:
        raise ConfigError(
            f"--offset and --scale-factor need a sensor, and {product.name} does not say which "
            "made it: give --sensor"
        )
    rgb, doubt = agreed_rgb(product.bands)
    return KnownRaster(
        path=product.path,
        name=product.name,
        rgb=rgb,
        rgb_reason="by band names, which mean the same on all sensors that have them",
        coarser=product.coarser,
        files=product.files,
        derived_from=product.links,
        properties=product.properties,
        remarks=tuple(words for words in (doubt, *product.remarks) if words),
    )

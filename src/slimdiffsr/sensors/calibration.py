"""From what is declared, and where that is in doubt from the values, to reflectance.

reflectance = scale * stored + offset. For most sensors both are fixed. Sentinel-2 products since
processing baseline 04.00 carry 1000 more than before; catalogues subtract it, or do not, or say
one thing and do the other, so there the values have a say.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slimdiffsr.errors import RangeError
from slimdiffsr.sensors.product import Product
from slimdiffsr.sensors.tables import Sensor

__all__ = ["Calibration", "Look", "calibrate", "is_reflectance", "offset_by_values"]

Look = Callable[[], NDArray[Any]]
"""Gives a sample of the stored numbers that are measurements, (n,)."""

_OFFSET = -0.1  # of baselines from 04.00 on: BOA_ADD_OFFSET -1000 by QUANTIFICATION_VALUE 10000
_NEW_BASELINE = 4.0
_DARK_QUANTILE = 0.001

# Stored numbers. With the offset still in it, darkness itself is 1000, and noise reaches a little
# below; without it nearly every scene has water, shadow or vegetation under 0.09.
_APPLIED_BELOW = 900.0
_UNAPPLIED_BELOW = 1500.0
_TWICE_BELOW = -150.0


@dataclass(frozen=True, slots=True)
class Calibration:
    """How stored numbers become reflectance, for all bands or for each."""

    scales: tuple[float, ...]  # one for each band
    offsets: tuple[float, ...]
    reason: str
    remark: str = ""  # a sentence, where there was doubt


def is_reflectance(dtype: str, look: Look) -> bool:
    """Whether floating-point numbers are reflectance already: hardly any is above 2."""
    if not dtype.startswith("float"):
        return False
    sample = look()
    return bool(sample.size) and float(np.quantile(np.abs(sample), 0.99)) <= 2.0


def calibrate(
    product: Product,
    sensor: Sensor,
    look: Look,
    *,
    scale: float | None = None,
    offset: float | None = None,
) -> Calibration:
    """Scale and offset of each band; ``scale`` and ``offset`` are the user's and win.

    Raises RangeError for an offset in stored numbers.
    """
    count = len(product.bands)
    _check_offset(offset, sensor, scale)
    if is_reflectance(product.dtype, look) and scale is None:
        given = 0.0 if offset is None else offset
        return Calibration((1.0,) * count, (given,) * count, "the numbers are reflectance already")
    scales = tuple(
        scale if scale is not None else sensor.scale if band.scale is None else band.scale
        for band in product.bands
    )
    if offset is not None:
        return Calibration(scales, (offset,) * count, "as asked for")
    declared = [band.offset for band in product.bands]
    if sensor.offset_rule == "sentinel-2" and not product.binding:
        found, reason, remark = _sentinel2_offset(product, look)
        return Calibration(scales, (found,) * count, reason, remark)
    offsets = tuple(sensor.offset if value is None else value for value in declared)
    said = any(value is not None for value in declared)
    reason = product.declared_by if said else f"the rule of {sensor.name}"
    return Calibration(scales, offsets, reason)


def _check_offset(offset: float | None, sensor: Sensor, scale: float | None) -> None:
    if offset is not None and abs(offset) > 2:
        raise RangeError(
            f"--offset is in reflectance, after the scale factor, got {offset:g}: for stored "
            f"numbers of {offset:g} give {offset * (scale or sensor.scale):g}"
        )


def _sentinel2_offset(product: Product, look: Look) -> tuple[float, str, str]:
    """Offset, reason, and a sentence where evidence contradicts itself or is missing."""
    claims = _claims(product)
    seen, words = offset_by_values(look())
    if not claims:
        return _without_claims(seen, words)
    first, who = claims[0]
    rivals = [(value, other) for value, other in claims if abs(value - first) > 1e-9]
    if seen is not None and (rivals or _forbids(seen, first)):
        if abs(seen - first) < 1e-9 and rivals:
            doubt = f"{rivals[0][1]} speaks for {rivals[0][0]:g}, {who} for {first:g}"
        else:
            doubt = f"{who} speaks for {first:g}"
        remark = (
            f"Whether the offset of -0.1 is still to be applied is contradictory: {doubt}; "
            f"{words}, so the offset was taken as {seen:g}. --offset overrides."
        )
        return seen, words, remark
    if rivals:
        remark = (
            f"{rivals[0][1]} speaks for an offset of {rivals[0][0]:g}, {who} for {first:g}, and "
            f"the values fit both: {first:g} was taken. --offset overrides."
        )
        return first, who, remark
    return first, who, ""


def _claims(product: Product) -> list[tuple[float, str]]:
    """What speaks for which offset, the most trustworthy first."""
    claims: list[tuple[float, str]] = []
    new = product.baseline is None or product.baseline >= _NEW_BASELINE
    if product.offset_applied is not None:
        done = product.offset_applied or not new
        claims.append((0.0 if done else _OFFSET, "the catalogue's boa_offset_applied"))
    declared = next((b.offset for b in product.bands if b.offset is not None), None)
    if declared is not None:
        claims.append((declared, product.declared_by))
    # What a catalogue subtracted, it subtracted after the processing: no contradiction.
    if product.baseline is not None and not product.offset_applied:
        claims.append((_OFFSET if new else 0.0, f"processing baseline {product.baseline:05.2f}"))
    return claims


def _forbids(seen: float, claimed: float) -> bool:
    # Dark values are proof that the offset is gone; the lack of them may be a bright scene.
    return seen > claimed + 1e-9


def _without_claims(seen: float | None, words: str) -> tuple[float, str, str]:
    if seen is None:
        return 0.0, "nothing speaks for an offset", (
            "Nothing says whether Sentinel-2's offset of -0.1 is still in the numbers, and the "
            "values fit both: it was taken as gone. --offset -0.1 overrides."
        )  # fmt: skip
    remark = (
        "" if seen == 0 else f"No metadata speak of an offset; {words}: it was taken as {seen:g}."
    )
    return seen, words, remark


def offset_by_values(sample: NDArray[Any]) -> tuple[float | None, str]:
    """The offset that the darkest of Sentinel-2's stored numbers speak for, and why.

    -0.1 where the numbers are as delivered since baseline 04.00, 0 where 1000 was subtracted (or
    never added), 0.1 where it was subtracted twice, None where both of the first two can be.
    """
    if sample.size == 0:
        return None, "there are no values"
    dark = float(np.quantile(sample.astype(np.float64), _DARK_QUANTILE))
    words = f"the darkest values are {dark:.0f}"
    verdicts: tuple[tuple[float, float | None], ...] = (
        (_TWICE_BELOW, -_OFFSET), (_APPLIED_BELOW, 0.0), (_UNAPPLIED_BELOW, _OFFSET),
    )  # fmt: skip
    return next((offset for limit, offset in verdicts if dark < limit), None), words

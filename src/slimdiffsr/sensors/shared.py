"""One range for many scenes: what is black and white is estimated from all of them together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from slimdiffsr.errors import RangeError
from slimdiffsr.geo.bands import choose_bands
from slimdiffsr.geo.known import BandMeaning, KnownRaster
from slimdiffsr.geo.raster import Source, open_source
from slimdiffsr.geo.values import estimate_range

__all__ = ["share_range"]

_SAMPLES = 100_000  # of each scene, so that all count alike


def share_range(
    rasters: Sequence[KnownRaster], bands: tuple[int, ...] | None = None
) -> list[KnownRaster]:
    """The same rasters, of which the network sees the same range.

    Of reflectance where that is known of all, else of stored numbers. bands: those that the
    network will see, if they were asked for. Raises RangeError when some are reflectance and others
    not.
    """
    if len({bool(known.meanings) for known in rasters}) > 1:
        lacking = next(known.called for known in rasters if not known.meanings)
        raise RangeError(
            f"a shared range needs inputs of one kind, and of {lacking} it is not known how its "
            "numbers become reflectance, as it is of others: give a sensor"
        )
    taken, counts = [], []
    for known in rasters:
        with open_source(known) as source:
            counts.append(len(source.names))
            taken.append(_sample(source, bands))
    pooled = np.concatenate(taken)
    found = estimate_range(pooled, np.ones(pooled.shape, np.bool_))
    said = (
        f"The network sees {found.low:g} to {found.high:g} as black to white, estimated from all "
        f"{len(rasters)} inputs; values outside are kept."
    )
    return [
        replace(
            known, range_reason="shared by all inputs", remarks=(*known.remarks, said),
            meanings=tuple(
                replace(one, black=found.low, white=found.high)
                for one in known.meanings or (BandMeaning(),) * count
            ),
        )
        for known, count in zip(rasters, counts, strict=True)
    ]  # fmt: skip


def _sample(source: Source, bands: tuple[int, ...] | None) -> NDArray[np.float64]:
    known = source.known
    choice = choose_bands(source.names, bands, False, source.alpha, (known.rgb, known.rgb_reason))
    reading = source.sample(choice.seen)
    values = []
    for k, band in enumerate(choice.seen):
        some = reading.values[k][reading.valid[k]].astype(np.float64)
        some = some[:: max(1, len(some) * len(choice.seen) // _SAMPLES)]
        one = known.meanings[band - 1] if known.meanings else BandMeaning()
        values.append(some * one.scale + one.offset)
    return np.concatenate(values)

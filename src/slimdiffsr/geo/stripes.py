"""From a blended canvas to the pixels of a chunk file: colour, units, empty pixels, other bands."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from slimdiffsr.geo.chunks import Stripe
from slimdiffsr.geo.colour import low_frequency_correction
from slimdiffsr.geo.grid import Region
from slimdiffsr.geo.job import Job
from slimdiffsr.geo.raster import Reading
from slimdiffsr.geo.resample import (
    BICUBIC_REACH,
    BILINEAR_REACH,
    bicubic_kernel,
    bilinear_kernel,
    block_mean,
    enlarge,
    enlarge_nearest,
    fill_near,
    pad_edges,
)
from slimdiffsr.geo.spec import BLOCK_HR_PX
from slimdiffsr.geo.tiles import Patch
from slimdiffsr.geo.values import cast, working_dtype

__all__ = ["Loaded", "load", "stripes"]

Element = TypeVar("Element", bound=np.generic)

_STRIP_HR_PX = 128  # rows worked on at a time: few enough to stay in the processor's cache


@dataclass(frozen=True, slots=True)
class Loaded:
    """What a chunk needs of the input."""

    patch: Patch
    reading: Reading  # the same region, in the source's units


def load(job: Job, region_lr: Region) -> Loaded:
    """Read a part of the scene and show it as the network sees it."""
    reading = job.source.read(region_lr, job.choice.seen)
    unit = np.empty(reading.values.shape, np.float32)
    for k in range(len(unit)):  # band by band: a third of the memory
        unit[k] = job.values[k].to_unit(reading.values[k], reading.valid[k])
    return Loaded(Patch(region_lr, unit, reading.valid), reading)


def stripes(
    job: Job, chunk_hr: Region, loaded: Loaded, canvas: NDArray[np.float32]
) -> Iterator[Stripe]:
    """The pixels of a chunk, block row by block row, band by band; band 0 is the mask.

    canvas: (b, h, w), the blended result over the chunk and its halo, about [0, 1].
    """
    correction = _correction(job, chunk_hr, loaded, canvas)
    for row in range(0, chunk_hr.height, BLOCK_HR_PX):
        height = min(BLOCK_HR_PX, chunk_hr.height - row)
        part_hr = Region(chunk_hr.col, chunk_hr.row + row, chunk_hr.width, height)
        for number, band in enumerate(job.choice.written, 1):
            if band == job.choice.alpha:
                pixels = _nearest(job, part_hr, band)
            elif band in job.choice.seen:
                k = job.choice.seen.index(band)
                area_hr = job.area_lr(chunk_hr).times(job.scale)
                unit = canvas[k][part_hr.slices(area_hr)]
                pixels = _seen_band(job, chunk_hr, part_hr, k, loaded, unit, correction)
            else:
                pixels = _other_band(job, part_hr, band)
            yield Stripe(number, row, pixels)
        if job.header.has_mask:
            mask = job.source.read_mask(part_hr.cover(job.scale))
            yield Stripe(0, row, enlarge_nearest(mask, job.scale))


def _correction(
    job: Job, chunk_hr: Region, loaded: Loaded, canvas: NDArray[np.float32]
) -> NDArray[np.float32] | None:
    if job.options.colour == "none":
        return None
    area_lr = job.area_lr(chunk_hr)
    where = (slice(None), *area_lr.slices(loaded.patch.region_lr))
    wanted = loaded.patch.unit[where]
    got = np.empty_like(wanted)
    limits = [one.limits(job.header.dtype) for one in job.values]
    for strip_hr in _strips(area_lr.times(job.scale), job.scale):
        strip = canvas[(slice(None), *strip_hr.slices(area_lr.times(job.scale)))]
        # What the type cannot hold is cut off first, so that its loss is made up for nearby.
        for channel, bounds in zip(strip, limits, strict=True):
            if bounds is not None:
                np.clip(channel, *bounds, out=channel)
        here = (slice(None), *strip_hr.cover(job.scale).slices(area_lr))
        got[here] = block_mean(strip, job.scale)
    return low_frequency_correction(wanted, got, loaded.patch.valid[where], job.scale)


def _strips(region_hr: Region, scale: int) -> Iterator[Region]:
    rows = max(_STRIP_HR_PX, scale)
    for row in range(region_hr.row, region_hr.row_end, rows):
        yield Region(region_hr.col, row, region_hr.width, rows).clipped(region_hr)


def _seen_band(
    job: Job,
    chunk_hr: Region,
    part_hr: Region,
    k: int,
    loaded: Loaded,
    unit: NDArray[np.float32],
    correction: NDArray[np.float32] | None,
) -> NDArray[Any]:
    values, valid = loaded.reading.values[k], loaded.reading.valid[k]
    pixels = np.empty((part_hr.height, part_hr.width), job.header.dtype)
    for strip_hr in _strips(part_hr, job.scale):
        strip_lr, here = strip_hr.cover(job.scale), strip_hr.slices(part_hr)
        real = job.values[k].from_unit(unit[here], job.header.dtype)
        added = _added(job, job.area_lr(chunk_hr), strip_lr, k, loaded, correction)
        if added is not None:
            real += enlarge(added[None], bilinear_kernel(job.scale))[0]
        of_strip = strip_lr.slices(loaded.patch.region_lr)
        pixels[here] = _finished(job, job.choice.seen[k], real, values[of_strip], valid[of_strip])
    return pixels


def _added(
    job: Job,
    area_lr: Region,
    strip_lr: Region,
    k: int,
    loaded: Loaded,
    correction: NDArray[np.float32] | None,
) -> NDArray[Any] | None:
    """What the result lacks, in source units, with the neighbours for a bilinear enlargement."""
    added: NDArray[Any] | None = None
    if correction is not None:
        near = _around(correction[k], area_lr, strip_lr, BILINEAR_REACH)
        added = job.values[k].stretched(near, job.header.dtype)
    if not job.values[k].holds(job.header.dtype):
        held_lr = loaded.patch.region_lr
        values = _around(loaded.reading.values[k], held_lr, strip_lr, BILINEAR_REACH)
        valid = _around(loaded.reading.valid[k], held_lr, strip_lr, BILINEAR_REACH)
        outside = job.values[k].outside(values, valid)
        added = outside if added is None else added + outside
    return added


def _other_band(job: Job, part_hr: Region, band: int) -> NDArray[Any]:
    # Bicubic and nothing else: detail is never invented in a band that the network did not see.
    part_lr = part_hr.cover(job.scale)
    # The reach twice: what fills an empty neighbour must not depend on where the stripe ends.
    held_lr = part_lr.grown(2 * BICUBIC_REACH).clipped(job.source.region_lr)
    reading = job.source.read(held_lr, (band,))
    work = working_dtype(job.header.dtype)
    known = np.where(reading.valid, reading.values, np.zeros((), reading.values.dtype))
    filled = fill_near(known.astype(work), reading.valid, BICUBIC_REACH)[0]
    near = _around(filled, held_lr, part_lr, BICUBIC_REACH)
    real = enlarge(near[None], bicubic_kernel(job.scale))[0]
    here = part_lr.slices(held_lr)
    return _finished(job, band, real, reading.values[0][here], reading.valid[0][here])


def _finished(
    job: Job,
    band: int,
    real_hr: NDArray[Any],
    values_lr: NDArray[Any],
    valid_lr: NDArray[np.bool_],
) -> NDArray[Any]:
    nodata = job.header.nodata
    pixels = cast(real_hr, job.header.dtype, nodata)
    if valid_lr.all():
        return pixels
    values_lr = job.source.emptied(band, values_lr, valid_lr, nodata)
    valid_hr = enlarge_nearest(valid_lr, job.scale)
    return np.where(valid_hr, pixels, enlarge_nearest(values_lr, job.scale))


def _nearest(job: Job, part_hr: Region, band: int) -> NDArray[Any]:
    reading = job.source.read(part_hr.cover(job.scale), (band,))
    return enlarge_nearest(reading.values[0], job.scale)


def _around(
    image: NDArray[Element], held_lr: Region, part_lr: Region, reach_lr_px: int
) -> NDArray[Element]:
    """A part of ``image`` with its neighbours, repeated outwards at the edge of the scene."""
    wanted = part_lr.grown(reach_lr_px)
    inside = wanted.clipped(held_lr)
    return pad_edges(
        image[inside.slices(held_lr)],
        inside.col - wanted.col,
        inside.row - wanted.row,
        wanted.col_end - inside.col_end,
        wanted.row_end - inside.row_end,
    )

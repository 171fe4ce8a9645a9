"""From a blended canvas to the pixels of a chunk: colour, units, empty pixels, other bands."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slimdiffsr.geo.arrays import NUMPY, Array, Arrays
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
    fill_near,
)
from slimdiffsr.geo.spec import BLOCK_HR_PX
from slimdiffsr.geo.tiles import Patch
from slimdiffsr.geo.values import working_dtype

__all__ = ["Loaded", "load", "seen_bands", "stripes"]


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


def stripes(job: Job, chunk_hr: Region, seen: NDArray[Any]) -> Iterator[Stripe]:
    """The pixels of a chunk, block row by block row, band by band; band 0 is the mask.

    seen: (b, h, w), the bands that the network sees, as ``seen_bands`` makes them.
    """
    for row in range(0, chunk_hr.height, BLOCK_HR_PX):
        height = min(BLOCK_HR_PX, chunk_hr.height - row)
        part_hr = Region(chunk_hr.col, chunk_hr.row + row, chunk_hr.width, height)
        for number, band in enumerate(job.choice.written, 1):
            if band == job.choice.alpha:
                pixels = _nearest(job, part_hr, band)
            elif band in job.choice.seen:
                pixels = seen[job.choice.seen.index(band), row : row + height]
            else:
                pixels = _other_band(job, part_hr, band)
            yield Stripe(number, row, pixels)
        if job.header.has_mask:
            mask = job.source.read_mask(part_hr.cover(job.scale))
            yield Stripe(0, row, NUMPY.enlarge_nearest(mask, job.scale))


def seen_bands(job: Job, chunk_hr: Region, loaded: Loaded, canvas: Array, arrays: Arrays) -> Array:
    """(b, h, w) in the output's type: the bands that the network sees, finished.

    canvas: (b, h, w), the blended result over the chunk and its halo, about [0, 1]; its values are
    used up.
    """
    area_hr = job.area_lr(chunk_hr).times(job.scale)
    added = _added(
        job, chunk_hr, loaded, _correction(job, chunk_hr, loaded, canvas, arrays), arrays
    )
    low, span = _low_and_span(job, arrays)
    parts = []
    for strip_hr in _strips(chunk_hr, arrays, job.scale):
        unit = canvas[(slice(None), *strip_hr.slices(area_hr))]
        real = arrays.as_real(unit, working_dtype(job.header.dtype)) * span
        if any(one.low != 0 for one in job.values):
            real += low
        if added is not None:
            around = strip_hr.cover(job.scale).grown(BILINEAR_REACH)
            held = chunk_hr.cover(job.scale).grown(BILINEAR_REACH)
            near = added[(slice(None), *around.slices(held))]
            real += enlarge(near, bilinear_kernel(job.scale), arrays)
        of_strip = (slice(None), *strip_hr.cover(job.scale).slices(loaded.patch.region_lr))
        values, valid = loaded.reading.values[of_strip], loaded.reading.valid[of_strip]
        parts.append(_finished(job, job.choice.seen, real, values, valid, arrays))
    return arrays.join(parts)


def _low_and_span(job: Job, arrays: Arrays) -> tuple[Any, Any]:
    """What the network sees as 0, and how far 1 lies from it: two numbers, or (b, 1, 1) each."""
    if len(set(job.values)) == 1:
        return job.values[0].low, job.values[0].span
    work = working_dtype(job.header.dtype)
    both = [(one.low, one.span) for one in job.values]
    low, span = (np.array(numbers, work)[:, None, None] for numbers in zip(*both, strict=True))
    return arrays.upload(low), arrays.upload(span)


def _correction(
    job: Job, chunk_hr: Region, loaded: Loaded, canvas: Array, arrays: Arrays
) -> Array | None:
    if job.options.colour == "none":
        return None
    area_lr = job.area_lr(chunk_hr)
    where = (slice(None), *area_lr.slices(loaded.patch.region_lr))
    limits = [one.limits(job.header.dtype) for one in job.values]
    means = []
    for strip_hr in _strips(area_lr.times(job.scale), arrays, job.scale):
        strip = canvas[(slice(None), *strip_hr.slices(area_lr.times(job.scale)))]
        # What the type cannot hold is cut off first, so that its loss is made up for nearby.
        for k, both in enumerate(limits):
            if both is not None:
                arrays.clip(strip[k], float(both[0]), float(both[1]))
        means.append(block_mean(strip, job.scale))
    wanted, valid = loaded.patch.unit[where], loaded.patch.valid[where]
    return low_frequency_correction(
        arrays.upload(wanted),
        arrays.join(means),
        None if valid.all() else arrays.upload(valid.astype(np.float32)),
        job.scale,
        arrays,
    )


def _strips(region_hr: Region, arrays: Arrays, scale: int) -> Iterator[Region]:
    rows = max(arrays.rows_at_once, scale)
    for row in range(region_hr.row, region_hr.row_end, rows):
        yield Region(region_hr.col, row, region_hr.width, rows).clipped(region_hr)


def _added(
    job: Job, chunk_hr: Region, loaded: Loaded, correction: Array | None, arrays: Arrays
) -> Array | None:
    """(b, h + 2, w + 2) on the input's grid, in source units: what the result lacks."""
    part_lr = chunk_hr.cover(job.scale)
    added: Array | None = None
    if correction is not None:
        near = _around(correction, job.area_lr(chunk_hr), part_lr, BILINEAR_REACH, arrays)
        span = _low_and_span(job, arrays)[1]
        added = arrays.as_real(near, working_dtype(job.header.dtype)) * span
    if not all(one.holds(job.header.dtype) for one in job.values):
        held_lr = part_lr.grown(BILINEAR_REACH).clipped(loaded.patch.region_lr)
        where = (slice(None), *held_lr.slices(loaded.patch.region_lr))
        bands = zip(
            job.values, loaded.reading.values[where], loaded.reading.valid[where], strict=True
        )
        outside = np.stack([one.outside(values, valid) for one, values, valid in bands])
        near = _around(arrays.upload(outside), held_lr, part_lr, BILINEAR_REACH, arrays)
        added = near if added is None else added + near
    return added


def _other_band(job: Job, part_hr: Region, band: int) -> NDArray[Any]:
    # Bicubic and nothing else: detail is never invented in a band that the network did not see.
    part_lr = part_hr.cover(job.scale)
    # The reach twice: what fills an empty neighbour must not depend on where the stripe ends.
    held_lr = part_lr.grown(2 * BICUBIC_REACH).clipped(job.source.region_lr)
    reading = job.source.read(held_lr, (band,))
    work = working_dtype(job.header.dtype)
    known = np.where(reading.valid, reading.values, np.zeros((), reading.values.dtype))
    filled = fill_near(known.astype(work), reading.valid, BICUBIC_REACH)
    near = _around(filled, held_lr, part_lr, BICUBIC_REACH, NUMPY)
    real = enlarge(near, bicubic_kernel(job.scale))
    here = (slice(None), *part_lr.slices(held_lr))
    pixels: NDArray[Any] = _finished(
        job, (band,), real, reading.values[here], reading.valid[here], NUMPY
    )[0]
    return pixels


def _finished(
    job: Job,
    bands: tuple[int, ...],
    real_hr: Array,
    values_lr: NDArray[Any],
    valid_lr: NDArray[np.bool_],
    arrays: Arrays,
) -> Array:
    """(b, h, w): rounded to the output's type; where the input is empty, its own values."""
    pixels = arrays.cast(real_hr, job.header.dtype, job.header.nodata)
    if valid_lr.all():
        return pixels
    told = [
        job.source.emptied(band, values, valid, job.header.nodata)
        for band, values, valid in zip(bands, values_lr, valid_lr, strict=True)
    ]
    empty = arrays.upload(np.stack(told))
    valid_hr = arrays.enlarge_nearest(arrays.upload(valid_lr), job.scale)
    return arrays.where(valid_hr, pixels, arrays.enlarge_nearest(empty, job.scale))


def _nearest(job: Job, part_hr: Region, band: int) -> NDArray[Any]:
    reading = job.source.read(part_hr.cover(job.scale), (band,))
    return NUMPY.enlarge_nearest(reading.values[0], job.scale)


def _around(
    image: Array, held_lr: Region, part_lr: Region, reach_lr_px: int, arrays: Arrays
) -> Array:
    """A part of ``image`` with its neighbours, repeated outwards at the edge of the scene."""
    wanted = part_lr.grown(reach_lr_px)
    inside = wanted.clipped(held_lr)
    margins = (
        inside.col - wanted.col,
        inside.row - wanted.row,
        wanted.col_end - inside.col_end,
        wanted.row_end - inside.row_end,
    )
    part = image[(slice(None), *inside.slices(held_lr))]
    return arrays.pad(part, margins, repeat=True) if any(margins) else part

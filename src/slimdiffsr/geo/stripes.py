"""From a blended canvas to the pixels of a chunk: colour, units, empty pixels, other bands."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slimdiffsr.geo.arrays import NUMPY, Array, Arrays
from slimdiffsr.geo.carried import Seen, around, finished, guided_band, nearest_band, other_band
from slimdiffsr.geo.chunks import Stripe
from slimdiffsr.geo.colour import low_frequency_correction
from slimdiffsr.geo.grid import Region
from slimdiffsr.geo.job import Job
from slimdiffsr.geo.raster import Reading
from slimdiffsr.geo.reduce import needed_hr, reduce_pixels
from slimdiffsr.geo.resample import (
    BILINEAR_REACH,
    bilinear_kernel,
    block_mean,
    enlarge,
)
from slimdiffsr.geo.spec import BLOCK_HR_PX
from slimdiffsr.geo.tiles import Patch
from slimdiffsr.geo.values import cast, working_dtype

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
    made = Seen(seen, job.finished_hr(chunk_hr))
    whole = job.written(chunk_hr)
    for row in range(0, whole.height, BLOCK_HR_PX):
        part_out = Region(
            whole.col, whole.row + row, whole.width, min(BLOCK_HR_PX, whole.height - row)
        )
        part_hr = _needed(job, part_out)
        for number, band in enumerate(job.choice.written, 1):
            if band == job.choice.alpha:
                pixels = nearest_band(job, part_hr, band)
            elif job.options.all_bands == "network":
                pixels = guided_band(job, part_hr, band, made)
            elif band in job.choice.seen:
                pixels = made.part(job.choice.seen.index(band), part_hr)
            else:
                pixels = other_band(job, part_hr, band)
            yield Stripe(number, row, _reduced(job, pixels, band, part_hr, part_out))
        if job.header.has_mask:
            mask = job.source.read_mask(part_hr.cover(job.scale))
            yield Stripe(0, row, _reduced_mask(job, mask, part_hr, part_out))


def _needed(job: Job, part_out: Region) -> Region:
    """What a part of the output is made of, in whole input pixels where it is reduced."""
    if job.ratio == 1:
        return part_out
    part_lr = needed_hr(part_out, job.ratio).cover(job.scale)
    return part_lr.clipped(job.source.region_lr).times(job.scale)


def _reduced_mask(
    job: Job, mask_lr: NDArray[np.uint8], part_hr: Region, part_out: Region
) -> NDArray[Any]:
    mask = NUMPY.enlarge_nearest(mask_lr, job.scale)
    if job.ratio == 1:
        return mask
    return reduce_pixels(mask, None, part_hr, part_out, job.ratio)[1]


def _reduced(
    job: Job, pixels: NDArray[Any], band: int, part_hr: Region, part_out: Region
) -> NDArray[Any]:
    if job.ratio == 1:
        return pixels
    if band == job.choice.alpha:
        return reduce_pixels(pixels, None, part_hr, part_out, job.ratio)[1]
    valid_lr = job.source.read(part_hr.cover(job.scale), (band,)).valid[0]
    valid = None if valid_lr.all() else NUMPY.enlarge_nearest(valid_lr, job.scale)
    means, centres, known = reduce_pixels(pixels, valid, part_hr, part_out, job.ratio)
    # Empty pixels keep their own values.
    return np.where(known, cast(means, job.header.dtype, job.header.nodata), centres)


def seen_bands(job: Job, chunk_hr: Region, loaded: Loaded, canvas: Array, arrays: Arrays) -> Array:
    """(b, h, w) in the output's type: the bands that the network sees, over ``job.finished_hr``.

    canvas: (b, h, w), the blended result over the chunk and its halo, about [0, 1]; its values are
    used up.
    """
    area_lr = job.area_lr(chunk_hr)
    area_hr = area_lr.times(job.scale)
    part_hr = job.finished_hr(chunk_hr)
    correction = _correction(job, area_lr, loaded, canvas, arrays)
    added = _added(job, part_hr.cover(job.scale), area_lr, loaded, correction, arrays)
    low, span = _low_and_span(job, arrays)
    parts = []
    for strip_hr in _strips(part_hr, arrays, job.scale):
        unit = canvas[(slice(None), *strip_hr.slices(area_hr))]
        real = arrays.as_real(unit, working_dtype(job.header.dtype)) * span
        if any(one.low != 0 for one in job.values):
            real += low
        if added is not None:
            around = strip_hr.cover(job.scale).grown(BILINEAR_REACH)
            held = part_hr.cover(job.scale).grown(BILINEAR_REACH)
            near = added[(slice(None), *around.slices(held))]
            real += enlarge(near, bilinear_kernel(job.scale), arrays)
        of_strip = (slice(None), *strip_hr.cover(job.scale).slices(loaded.patch.region_lr))
        values, valid = loaded.reading.values[of_strip], loaded.reading.valid[of_strip]
        parts.append(finished(job, job.choice.seen, real, values, valid, arrays))
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
    job: Job, area_lr: Region, loaded: Loaded, canvas: Array, arrays: Arrays
) -> Array | None:
    if job.options.colour == "none":
        return None
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
    job: Job,
    part_lr: Region,
    area_lr: Region,
    loaded: Loaded,
    correction: Array | None,
    arrays: Arrays,
) -> Array | None:
    """(b, h + 2, w + 2) on the input's grid, in source units: what the result lacks."""
    added: Array | None = None
    if correction is not None:
        near = around(correction, area_lr, part_lr, BILINEAR_REACH, arrays)
        span = _low_and_span(job, arrays)[1]
        added = arrays.as_real(near, working_dtype(job.header.dtype)) * span
    if not all(one.holds(job.header.dtype) for one in job.values):
        held_lr = part_lr.grown(BILINEAR_REACH).clipped(loaded.patch.region_lr)
        where = (slice(None), *held_lr.slices(loaded.patch.region_lr))
        bands = zip(
            job.values, loaded.reading.values[where], loaded.reading.valid[where], strict=True
        )
        outside = np.stack([one.outside(values, valid) for one, values, valid in bands])
        near = around(arrays.upload(outside), held_lr, part_lr, BILINEAR_REACH, arrays)
        added = near if added is None else added + near
    return added

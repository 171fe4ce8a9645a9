"""Bands beside what the network makes: enlarged by cubic convolution, or with its detail."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slimdiffsr.geo.arrays import NUMPY, Array, Arrays
from slimdiffsr.geo.grid import Region
from slimdiffsr.geo.guided import GUIDED_REACH, MEANS_REACH, share_detail, with_block_means
from slimdiffsr.geo.job import Job
from slimdiffsr.geo.resample import BICUBIC_REACH, bicubic_kernel, block_mean, enlarge, fill_near
from slimdiffsr.geo.values import ValueRange, working_dtype

__all__ = ["Seen", "around", "finished", "guided_band", "nearest_band", "other_band"]


@dataclass(frozen=True, slots=True)
class Seen:
    """The bands that the network saw, finished: (b, h, w) in the output's type, and where."""

    pixels: NDArray[Any]
    region_hr: Region

    def part(self, k: int, part_hr: Region) -> NDArray[Any]:
        """One of them, in a part of the region."""
        part: NDArray[Any] = self.pixels[(k, *part_hr.slices(self.region_hr))]
        return part


def guided_band(job: Job, part_hr: Region, band: int, seen: Seen) -> NDArray[Any]:
    """A band with the input's block means; one that the network did not see with its detail."""
    part_lr = part_hr.cover(job.scale)
    of_band = _range_of(job, band)
    outer_lr = part_lr.grown(GUIDED_REACH)
    held_lr = outer_lr.clipped(job.source.region_lr)
    reading = job.source.read(held_lr, (band, *job.choice.seen))
    ranges = (of_band, *job.values)
    units = np.stack([
        _unit(one, values, valid)
        for one, values, valid in zip(ranges, reading.values, reading.valid, strict=True)
    ])  # fmt: skip
    factor = job.source.known.coarser[band - 1] if job.source.known.coarser else 1
    if factor > 1 and band not in job.choice.seen:
        units[0] = _sharpened(job, band, held_lr, factor)
    here = (slice(None), *part_lr.slices(held_lr))
    near_lr = part_lr.grown(MEANS_REACH)
    if band in job.choice.seen:
        coarse = around(units[:1], held_lr, near_lr, 0, NUMPY)[0]
        fine = _seen_unit(job, seen, near_lr, (job.choice.seen.index(band),))
        unit = with_block_means(fine, coarse, job.scale)
        unit = unit[
            near_lr.times(job.scale)
            .grown(-MEANS_REACH * job.scale)
            .slices(near_lr.times(job.scale))
        ]
    else:
        unit = _shared(job, units, reading.valid, held_lr, part_lr, seen)
    work = working_dtype(job.header.dtype)
    real = unit[None].astype(work) * work.type(of_band.span) + work.type(of_band.low)
    pixels: NDArray[Any] = finished(
        job, (band,), real, reading.values[:1][here], reading.valid[:1][here], NUMPY
    )[0]
    return pixels


def _sharpened(job: Job, band: int, held_lr: Region, factor: int) -> NDArray[np.float32]:
    """(h, w): a band of larger pixels on the scene's grid, with detail of the bands seen.

    Its means over its own pixels stay.
    """
    scene = job.source.region_lr
    part = held_lr.cover(factor)
    outer = part.grown(GUIDED_REACH)
    held = outer.clipped(scene.cover(factor))
    coarse = job.source.read_coarse(held.times(factor), band, factor)
    fine = job.source.read(held.times(factor), job.choice.seen)
    guide: NDArray[np.float32] = np.mean([
        _unit(one, values, valid)
        for one, values, valid in zip(job.values, fine.values, fine.valid, strict=True)
    ], axis=0, dtype=np.float32)  # fmt: skip
    known = np.zeros((outer.height, outer.width), np.bool_)
    known[held.slices(outer)] = coarse.valid[0] & (
        block_mean(np.stack([fine.valid.all(0)]).astype(np.float32), factor)[0] == 1
    )
    own = _unit(_range_of(job, band), coarse.values[0], coarse.valid[0])
    means = block_mean(guide[None], factor)
    near = part.grown(MEANS_REACH).times(factor)
    here = around(guide[None], held.times(factor), near, 0, NUMPY)[0]
    images = (around(one, held, outer, 0, NUMPY)[0] for one in (own[None], means))
    coarse_unit, guide_means = images
    made = share_detail(coarse_unit, known, guide_means, here, factor)
    return made[held_lr.slices(part.times(factor))]


def _shared(
    job: Job,
    units: NDArray[np.float32],
    valid: NDArray[np.bool_],
    held_lr: Region,
    part_lr: Region,
    seen: Seen,
) -> NDArray[np.float32]:
    outer_lr, near_lr = part_lr.grown(GUIDED_REACH), part_lr.grown(MEANS_REACH)
    lightness = units[1:].mean(0, keepdims=True)
    coarse, means = (around(one, held_lr, outer_lr, 0, NUMPY)[0] for one in (units[:1], lightness))
    known = np.zeros((outer_lr.height, outer_lr.width), np.bool_)
    known[held_lr.slices(outer_lr)] = valid.all(0)
    guide = _seen_unit(job, seen, near_lr, tuple(range(len(job.values))))
    # Where nothing was seen there is no detail to share.
    blind = ~known[near_lr.slices(outer_lr)]
    if blind.any():
        plain = NUMPY.enlarge_nearest(means[near_lr.slices(outer_lr)], job.scale)
        guide = np.where(NUMPY.enlarge_nearest(blind, job.scale), plain, guide)
    return share_detail(coarse, known, means, guide, job.scale)


def _seen_unit(
    job: Job, seen: Seen, near_lr: Region, which: tuple[int, ...]
) -> NDArray[np.float32]:
    """(h, w): the mean of some bands seen, about [0, 1]; repeated outwards at the scene's edge."""
    near_hr = near_lr.times(job.scale)
    inside = near_hr.clipped(seen.region_hr)
    total = np.zeros((inside.height, inside.width), np.float32)
    for k in which:
        pixels = seen.pixels[k][inside.slices(seen.region_hr)]
        total += _unit(job.values[k], pixels, np.isfinite(pixels))
    mean: NDArray[np.float32] = around(
        total[None] / np.float32(len(which)), inside, near_hr, 0, NUMPY
    )[0]
    return mean


def _range_of(job: Job, band: int) -> ValueRange:
    """What counts as 0 and 1 in a band, seen or not."""
    if band in job.choice.seen:
        return job.values[job.choice.seen.index(band)]
    meanings = job.source.known.meanings
    return ValueRange(*meanings[band - 1].stored_range) if meanings else job.values[0]


def _unit(one: ValueRange, values: NDArray[Any], valid: NDArray[np.bool_]) -> NDArray[np.float32]:
    """(h, w) about [0, 1], not cut off; empty pixels take after their neighbours."""
    work = working_dtype(values.dtype)
    known = np.where(valid, values, np.zeros((), values.dtype)).astype(work)
    known = np.where(valid, (known - work.type(one.low)) * work.type(1 / one.span), work.type(0))
    filled: NDArray[np.float32] = fill_near(known[None], valid[None], BICUBIC_REACH)[0]
    return filled.astype(np.float32, copy=False)


def other_band(job: Job, part_hr: Region, band: int) -> NDArray[Any]:
    """A band enlarged by cubic convolution and nothing else: no detail is invented in it."""
    part_lr = part_hr.cover(job.scale)
    # The reach twice: what fills an empty neighbour must not depend on where the stripe ends.
    held_lr = part_lr.grown(2 * BICUBIC_REACH).clipped(job.source.region_lr)
    reading = job.source.read(held_lr, (band,))
    work = working_dtype(job.header.dtype)
    known = np.where(reading.valid, reading.values, np.zeros((), reading.values.dtype))
    filled = fill_near(known.astype(work), reading.valid, BICUBIC_REACH)
    near = around(filled, held_lr, part_lr, BICUBIC_REACH, NUMPY)
    real = enlarge(near, bicubic_kernel(job.scale))
    here = (slice(None), *part_lr.slices(held_lr))
    pixels: NDArray[Any] = finished(
        job, (band,), real, reading.values[here], reading.valid[here], NUMPY
    )[0]
    return pixels


def finished(
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


def nearest_band(job: Job, part_hr: Region, band: int) -> NDArray[Any]:
    """A band whose pixels become blocks, as transparency must."""
    reading = job.source.read(part_hr.cover(job.scale), (band,))
    return NUMPY.enlarge_nearest(reading.values[0], job.scale)


def around(
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

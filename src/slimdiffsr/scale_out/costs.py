"""What a job will take: pixels, bytes, hours, money. Arithmetic on what planning counted."""

from __future__ import annotations

from dataclasses import dataclass

from slimdiffsr.errors import ConfigError
from slimdiffsr.scale_out.jobfile import JobFile

__all__ = ["Costs", "cost_of"]

# Of the output's bytes before compression: what lies in the job's place until it is finished.
_COMPRESSED = 0.45  # typical of 8-bit imagery by DEFLATE with a predictor, overviews included


@dataclass(frozen=True, slots=True)
class Costs:
    """A job in numbers for people."""

    inputs: int
    inputs_failed: int
    chunks: int
    tiles: int
    pixels_hr: int
    bytes_read: int
    bytes_of_chunks: int
    bytes_written: int  # about, compressed
    mpx_per_s: float | None
    machine_hours: float | None
    money: float | None


def cost_of(
    job: JobFile, mpx_per_s: float | None = None, price_an_hour: float | None = None
) -> Costs:
    """What a job will take.

    mpx_per_s: output megapixels a second of one card or machine, as ``bench --scene`` measures it.
    price_an_hour: of that card or machine. Raises ConfigError for numbers that are not positive.
    """
    if mpx_per_s is not None and not mpx_per_s > 0:
        raise ConfigError(f"the rate must be positive megapixels a second, got {mpx_per_s}")
    if price_an_hour is not None and not price_an_hour >= 0:
        raise ConfigError(f"the price of an hour must not be negative, got {price_an_hour}")
    hours = None if mpx_per_s is None else job.pixels_hr / 1e6 / mpx_per_s / 3600
    return Costs(
        inputs=job.scenes,
        inputs_failed=job.failed,
        chunks=job.chunks,
        tiles=int(job.facts["tiles"]),
        pixels_hr=job.pixels_hr,
        bytes_read=int(job.facts["bytes_in"]),
        bytes_of_chunks=int(job.facts["bytes_out"]),
        bytes_written=round(_COMPRESSED * int(job.facts["bytes_out"])),
        mpx_per_s=mpx_per_s,
        machine_hours=hours,
        money=None if hours is None or price_an_hour is None else hours * price_an_hour,
    )

"""One run, decided: what is read, shown to the network and written, before any tile is run."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from fractions import Fraction
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from slimdiffsr.errors import TilingError
from slimdiffsr.geo.bands import BandChoice, choose_bands
from slimdiffsr.geo.bounds import bounds_on_raster
from slimdiffsr.geo.colour import HALO_LR_PX
from slimdiffsr.geo.formats import check_format
from slimdiffsr.geo.georef import output_scale, requested_region
from slimdiffsr.geo.grid import Region, TileGrid, chunk_count, chunk_regions
from slimdiffsr.geo.guided import MEANS_REACH
from slimdiffsr.geo.header import Header, describe_output
from slimdiffsr.geo.inputs import Inputs
from slimdiffsr.geo.output import Writing, settle_writing
from slimdiffsr.geo.raster import Source
from slimdiffsr.geo.reduce import reach_hr_px, reduced
from slimdiffsr.geo.spec import BLOCK_HR_PX, NetworkSpec, SceneOptions, ScenePlan, check_overlap
from slimdiffsr.geo.values import ValueRange, check_range, estimate_range

__all__ = ["Job", "decide", "fingerprint", "package_version", "plan_of"]


# Options that chunks do not depend on, or that the fingerprint holds as what became of them.
_RESOLVED = frozenset({
    "bands", "value_range", "bounds", "bounds_crs", "window", "chunk_hr_px", "overlap_hr_px",
    "format", "creation_options", "overwrite",
})  # fmt: skip
_SCRATCH = 2.4  # chunks, and an output that cannot be compressed with its overviews
_CANVASES = 4
_AT_REST_BYTES = 300_000_000
_CHUNK_BYTES = 1 << 27  # before compression, all bands: a chunk is held in memory when written
_CHUNK_LIMIT_LR_PX = 1024  # at 2x, 4096 output pixels would need 2048 of input


@dataclass(frozen=True, slots=True)
class Job:
    """Everything that the pixels of the output depend on."""

    source: Source
    network: NetworkSpec
    options: SceneOptions
    choice: BandChoice
    values: tuple[ValueRange, ...]  # one for each band seen
    range_reason: str
    region_lr: Region  # what is asked for
    ratio: Fraction  # of the output's pixels to the network's, along a side
    grid: TileGrid  # over the whole scene
    header: Header
    writing: Writing
    assumptions: tuple[str, ...]

    @property
    def scale(self) -> int:
        """The network's pixels for one input pixel, along a side."""
        return self.network.scale

    @property
    def window_hr(self) -> Region:
        """What is asked for, on the network's grid."""
        return self.region_lr.times(self.scale)

    def written(self, chunk_hr: Region) -> Region:
        """What a chunk becomes on the output's grid."""
        return reduced(chunk_hr, self.ratio)

    @property
    def halo_lr_px(self) -> int:
        """How far around a chunk the result must be known."""
        return self.carried_lr_px + (HALO_LR_PX if self.options.colour == "low-frequency" else 0)

    @property
    def carried_lr_px(self) -> int:
        """How far around a chunk bands must be finished: for a reduction, and to share detail."""
        reduction = -(-reach_hr_px(self.ratio) // self.scale) + (self.ratio != 1)
        return reduction + (MEANS_REACH if self.options.all_bands == "network" else 0)

    def finished_hr(self, chunk_hr: Region) -> Region:
        """A chunk with what other bands need of the bands seen around it, inside the scene."""
        scene_hr = self.source.region_lr.times(self.scale)
        return chunk_hr.grown(self.carried_lr_px * self.scale).clipped(scene_hr)

    @property
    def chunk_hr_px(self) -> int:
        """Side of a chunk: as asked for, but never more than memory allows for it."""
        side = min(self.options.chunk_hr_px, _CHUNK_LIMIT_LR_PX * self.scale)
        px_bytes = len(self.header.bands) * self.header.dtype.itemsize
        while side > BLOCK_HR_PX and side**2 * px_bytes > _CHUNK_BYTES:
            side = max(BLOCK_HR_PX, side // 2 // BLOCK_HR_PX * BLOCK_HR_PX)
        return side

    def chunks(self) -> Iterator[Region]:
        """The chunks on the network's grid of the whole scene, row by row, one at a time."""
        regions = chunk_regions(self.window_hr, self.chunk_hr_px)
        # A last chunk may be too narrow for the centre of an output pixel.
        return (region for region in regions if self.written(region).pixels)

    @property
    def chunk_count(self) -> int:
        """How many there are: of a large scene, too many to list."""
        if self.ratio == 1:
            return chunk_count(self.window_hr, self.chunk_hr_px)
        return sum(1 for _ in self.chunks())

    def area_lr(self, chunk_hr: Region) -> Region:
        """A chunk and its halo, inside the scene."""
        return chunk_hr.cover(self.scale).grown(self.halo_lr_px).clipped(self.source.region_lr)


def decide(source: Source, network: NetworkSpec, options: SceneOptions) -> Job:
    """Settle bands, range, window and grid of a run; raises the error of what does not fit."""
    overlap_hr_px = network.overlap_hr_px
    if options.overlap_hr_px is not None:
        overlap_hr_px = options.overlap_hr_px
        check_overlap(overlap_hr_px, network.tile_hr_px, network.scale)
    choice = choose_bands(
        source.names,
        options.bands,
        options.all_bands,
        source.alpha,
        (source.known.rgb, source.known.rgb_reason),
    )
    source.judge_nodata(choice.seen)
    bounds = bounds_on_raster(source, options.bounds, options.bounds_crs)
    region_lr, cut = requested_region(source, bounds, options.window)
    grid = TileGrid(
        source.region_lr,
        network.tile_hr_px // network.scale,
        overlap_hr_px // network.scale,
        options.grid_offset_lr_px,
    )
    ratio = output_scale(source, options, network.scale) / network.scale
    values, range_reason = _value_ranges(source, choice, options, region_lr)
    for one in values:
        check_range(one, source.dtype)
    provenance = {
        **_provenance(network, overlap_hr_px, values, options, choice),
        "SLIMDIFFSR_SCALE": f"{float(network.scale * ratio):g}",
    }
    region_out = reduced(region_lr.times(network.scale), ratio)
    if region_out.pixels == 0:
        raise TilingError(f"{source.path} has no pixel of the size asked for: it is too small")
    header = describe_output(source, choice, region_out, network.scale * ratio, provenance)
    check_format(header, options.format)
    writing = settle_writing(header, options.format, options.creation_options)
    return Job(
        source=source,
        network=network,
        options=options,
        choice=choice,
        values=values,
        range_reason=range_reason,
        region_lr=region_lr,
        ratio=ratio,
        grid=grid,
        header=header,
        writing=writing,
        assumptions=(
            *_assumptions(source, choice, values, range_reason),
            *header.notes,
            *cut,
            *_losses(writing, header),
        ),
    )


def _value_ranges(
    source: Source, choice: BandChoice, options: SceneOptions, region_lr: Region
) -> tuple[tuple[ValueRange, ...], str]:
    seen, known = choice.seen, source.known
    if options.value_range != "auto":
        low, high = options.value_range
        return (ValueRange(float(low), float(high)),) * len(seen), "as asked for"
    if known.meanings:
        ranges = (known.meanings[band - 1].stored_range for band in seen)
        return tuple(ValueRange(*both) for both in ranges), known.range_reason
    if source.dtype.name == "uint8":
        return (ValueRange(0.0, 255.0),) * len(seen), "uint8 as it is"
    sample, where = source.sample(seen), _looked_at(source)
    if not sample.valid.any():  # a large, nearly empty scene
        sample, where = source.sample(seen, region_lr), "the part asked for"
    reason = (
        f"estimated from {where}" if sample.valid.any() else "nothing valid to estimate it from"
    )
    return (estimate_range(sample.values, sample.valid),) * len(seen), reason


def _provenance(
    network: NetworkSpec,
    overlap_hr_px: int,
    values: tuple[ValueRange, ...],
    options: SceneOptions,
    choice: BandChoice,
) -> dict[str, str]:
    return {
        "SLIMDIFFSR_VERSION": package_version(),
        "SLIMDIFFSR_MODEL": network.model_id,
        "SLIMDIFFSR_WEIGHTS_SHA256": network.weights_sha256,
        "SLIMDIFFSR_TILE": str(network.tile_hr_px),
        "SLIMDIFFSR_OVERLAP": str(overlap_hr_px),
        "SLIMDIFFSR_VALUE_RANGE": _ranges_in_words(values),
        "SLIMDIFFSR_BANDS": ",".join(map(str, choice.seen)),
        "SLIMDIFFSR_COLOUR": options.colour,
    }


def _ranges_in_words(values: tuple[ValueRange, ...]) -> str:
    """One range, or those of the bands seen, separated by semicolons."""
    different = values[:1] if len(set(values)) == 1 else values
    return ";".join(f"{one.low!r},{one.high!r}" for one in different)


def package_version() -> str:
    """Of this package; what finished chunks and jobs were made by."""
    try:
        return version("slimdiffsr")
    except PackageNotFoundError:
        return "unknown"


def _assumptions(
    source: Source, choice: BandChoice, values: tuple[ValueRange, ...], range_reason: str
) -> tuple[str, ...]:
    said = [*source.known.remarks, *source.notes]
    if "the first" in choice.reason:
        bands = ", ".join(map(str, choice.seen))
        said.append(f"The network sees band {bands}: {choice.reason}.")
    if source.false_alpha is not None:
        fate = "carried over as data" if source.false_alpha in choice.written else "left out"
        said.append(
            f"Band {source.false_alpha} is tagged alpha but holds continuous values, as near "
            f"infrared does in some NAIP files: it is no mask here, and was {fate} (if it is "
            "transparency, say so with the alpha option)."
        )
    if source.hidden_nodata is not None:
        said.append(
            f"The value {source.hidden_nodata:g} looks like nodata that was never declared: "
            "pixels of this value were left as they are."
        )
    impossible = source.impossible_nodata(choice.seen[0])
    if impossible is not None:
        said.append(f"The declared nodata value {impossible:g} is no {source.dtype}: ignored.")
    if range_reason.startswith("estimated"):
        said.append(
            f"The network sees {values[0].low:g} to {values[0].high:g} as black to white, "
            f"{range_reason}; values outside are kept."
        )
    return tuple(said)


def _looked_at(source: Source) -> str:
    if not source.places_looked_at:
        return "the scene"
    return f"{source.places_looked_at} blocks of the scene, which is large and has no overviews"


def _losses(writing: Writing, header: Header) -> tuple[str, ...]:
    if not writing.nodata_as_mask:
        return ()
    return (
        f"The compression changes values, so the output tells empty pixels by a mask instead of "
        f"the value {header.nodata:g}.",
    )


def fingerprint(job: Job, inputs: Inputs) -> dict[str, Any]:
    """What finished chunks depend on, as JSON can hold it."""
    model = {
        f.name: getattr(job.network, f.name) for f in fields(NetworkSpec) if f.name != "arithmetic"
    }
    del model["overlap_hr_px"]  # told by the options
    options = {name: value for name, value in asdict(job.options).items() if name not in _RESOLVED}
    return {
        "slimdiffsr": package_version(),
        "input": {"raster": _raster_name(job), "files": inputs.facts()},
        "model": model,
        "arithmetic": dict(job.network.arithmetic),
        "options": {
            **options,
            "overlap_lr_px": job.grid.overlap_lr_px,
            "chunk_hr_px": job.chunk_hr_px,
            "ratio": str(job.ratio),
            "written": job.choice.written,
            "seen": job.choice.seen,
            "value_ranges": [[one.low, one.high] for one in job.values],
            "special": job.source.known.special,
            "region_lr": asdict(job.region_lr),
        },
    }


def _raster_name(job: Job) -> str:
    """Which raster of the files: a subdataset, a member of an archive, an address."""
    path = job.source.path
    if os.path.exists(path):
        return os.path.abspath(path)
    # A server may not tell the version of what it holds: then the header must do.
    header = job.header
    facts = repr((
        header.dtype, header.bands, header.transform, header.crs and header.crs.wkt,
        header.tags, [(point.row, point.col, point.x, point.y) for point in header.gcps],
    ))  # fmt: skip
    return f"{path} {hashlib.sha256(facts.encode(errors='replace')).hexdigest()}"


def _memory_bytes(job: Job) -> int:
    # Canvases and results of two chunks in float32, two chunks on their way to the disk, GDAL's
    # cache and the interpreter's own.
    side = job.chunk_hr_px + 2 * job.halo_lr_px * job.scale
    seen = _CANVASES * len(job.choice.seen) * 4 * min(side**2, job.header.region_hr.pixels)
    rows = 2 * BLOCK_HR_PX * job.chunk_hr_px * len(job.header.bands) * job.header.dtype.itemsize
    return _AT_REST_BYTES + seen + rows


def plan_of(job: Job) -> ScenePlan:
    """The job in words and numbers for people."""
    region_hr = job.header.region_hr
    region_lr = job.region_lr
    area_lr = region_lr.grown(job.halo_lr_px).clipped(job.source.region_lr)
    return ScenePlan(
        src=job.source.path,
        scale=float(job.scale * job.ratio),
        model_scale=job.scale,
        window=(region_lr.col, region_lr.row, region_lr.width, region_lr.height),
        output_width_hr_px=region_hr.width,
        output_height_hr_px=region_hr.height,
        dtype=job.header.dtype.name,
        nodata=job.header.nodata,
        rgb_bands=job.choice.seen,
        rgb_output_bands=tuple(job.choice.written.index(band) + 1 for band in job.choice.seen),
        output_bands=tuple(
            band.description or f"band {number} ({band.colour})"
            for number, band in zip(job.choice.written, job.header.bands, strict=True)
        ),
        band_reason=job.choice.reason,
        value_range=(job.values[0].low, job.values[0].high),
        range_reason=job.range_reason,
        tile_hr_px=job.network.tile_hr_px,
        overlap_hr_px=job.grid.overlap_lr_px * job.scale,
        chunk_hr_px=job.chunk_hr_px,
        tiles=job.grid.count_touching(area_lr),
        chunks=job.chunk_count,
        output_bytes=job.header.bytes,
        scratch_bytes=int(_SCRATCH * job.header.bytes),
        memory_bytes=_memory_bytes(job),
        assumptions=job.assumptions,
    )

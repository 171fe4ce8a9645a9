"""What goes into the scene engine and what comes out: network, options, plan, progress, report."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from slimdiffsr.errors import BandError, OutputError, RangeError, ScaleError, TilingError
from slimdiffsr.geo.arrays import NUMPY, Array, Arrays

__all__ = [
    "BLOCK_HR_PX",
    "AllBands",
    "AlphaRule",
    "ColourRule",
    "Network",
    "NetworkSpec",
    "OutputFormat",
    "Predict",
    "Progress",
    "SceneOptions",
    "ScenePlan",
    "SceneReport",
    "check_overlap",
]

BLOCK_HR_PX = 512  # block of the output file; chunks are multiples of it

Predict = Callable[[NDArray[np.float32]], Array]
"""(n, 3, t, t) in [0, 1] with t = tile_hr_px // scale -> (n, 3, scale*t, scale*t), about [0, 1].

``n`` is always ``Network.batch``; the result is of float32, an array of ``Network.arrays``, and not
clipped.
"""

OutputFormat = Literal["cog", "gtiff", "png"]
ColourRule = Literal["low-frequency", "none"]
AllBands = bool | Literal["network"]
AlphaRule = Literal["auto", "band", "none"]


@dataclass(frozen=True, kw_only=True)
class NetworkSpec:
    """How a scene must be cut for a network; enough to plan a run without loading weights.

    ``arithmetic``: what else decides a pixel's last bit, as pairs: runtime, precision, device,
    version. Raises ScaleError and TilingError when the numbers do not fit together.
    """

    scale: int
    tile_hr_px: int
    overlap_hr_px: int
    model_id: str
    weights_sha256: str = ""
    batch: int = 1
    arithmetic: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        if self.scale < 2 or BLOCK_HR_PX % self.scale:
            raise ScaleError(f"scale must be 2, 4, 8 or another power of two, got {self.scale}")
        if self.tile_hr_px < 1 or self.tile_hr_px % self.scale:
            raise TilingError(
                f"tile_hr_px must be a multiple of scale {self.scale}, got {self.tile_hr_px}"
            )
        check_overlap(self.overlap_hr_px, self.tile_hr_px, self.scale)
        if self.batch < 1:
            raise TilingError(f"batch must be at least 1, got {self.batch}")


@dataclass(frozen=True, kw_only=True)
class Network(NetworkSpec):
    """A network as the engine sees it: one function and how scenes are cut for it.

    arrays: where its results lie, and the work on them is done. remarks: what it has to say when
    all is done, as whole sentences for the user. repair: the same as ``predict``, slower, for tiles of
    which it gave values that are not finite.
    """

    predict: Predict
    arrays: Arrays = NUMPY
    remarks: Callable[[], tuple[str, ...]] = tuple
    repair: Predict | None = None


@dataclass(frozen=True, kw_only=True)
class SceneOptions:
    """Everything a user can choose about one run; checks itself.

    bands: 1-based bands shown to the network as red, green and blue, or one band alone.
    value_range: the (low, high) of the source's units that the network sees as 0 and 1.
    all_bands: write the bands too that the network does not see: enlarged by cubic convolution, or
    with "network" with detail of those that it sees; all then have the input's means.
    nodata: the value of empty pixels, instead of what the raster declares; "none": there is none.
    alpha: whether a band tagged alpha is transparency ("band"; untagged, the last of two or four),
    data ("none"), or what its values look like ("auto").
    bounds: (left, bottom, right, top) in the raster's CRS, or in ``bounds_crs``. window: (col_off, row_off, width,
    height) in input pixels. At most one of the two.
    output_scale: output pixels for one input pixel, along a side; default: as the network makes
    them. resolution: or the side of an output pixel, in units of the CRS or in metres.
    chunk_hr_px: side of the unit of work, at most; 1024 input pixels are the other limit.
    grid_offset_lr_px: (columns, rows) by which the tile grid starts further outside the scene.
    creation_options: GDAL creation options for the output file.
    """

    bands: tuple[int, ...] | None = None
    value_range: tuple[float, float] | Literal["auto"] = "auto"
    all_bands: AllBands = False
    nodata: float | Literal["declared", "none"] = "declared"
    alpha: AlphaRule = "auto"
    bounds: tuple[float, float, float, float] | None = None
    bounds_crs: str | None = None
    window: tuple[int, int, int, int] | None = None
    output_scale: float | None = None
    resolution: float | None = None
    resolution_unit: Literal["crs", "m"] = "crs"
    format: OutputFormat = "cog"
    colour: ColourRule = "low-frequency"
    chunk_hr_px: int = 2048
    overlap_hr_px: int | None = None  # None: the network's own
    grid_offset_lr_px: tuple[int, int] = (0, 0)
    creation_options: dict[str, str] = field(default_factory=dict)
    overwrite: bool = False

    def __post_init__(self) -> None:
        self._check_bands()
        self._check_range()
        if self.all_bands not in (False, True, "network"):
            raise BandError(f"all_bands must be True, False or network, got {self.all_bands!r}")
        self._check_scale()
        if self.bounds is not None and self.window is not None:
            raise TilingError("give either bounds or window, got both")
        if self.bounds_crs is not None and self.bounds is None:
            raise TilingError(f"bounds_crs {self.bounds_crs} needs bounds, got none")
        if self.alpha not in ("auto", "band", "none"):
            raise BandError(f"alpha must be auto, band or none, got {self.alpha!r}")
        if self.format not in ("cog", "gtiff", "png"):
            raise OutputError(f"format must be cog, gtiff or png, got {self.format!r}")
        if self.colour not in ("low-frequency", "none"):
            raise OutputError(f"colour must be low-frequency or none, got {self.colour!r}")
        if self.chunk_hr_px < BLOCK_HR_PX or self.chunk_hr_px % BLOCK_HR_PX:
            raise TilingError(
                f"chunk_hr_px must be a multiple of {BLOCK_HR_PX}, got {self.chunk_hr_px}"
            )

    def _check_scale(self) -> None:
        if self.output_scale is not None and self.resolution is not None:
            raise ScaleError("give either a scale or a resolution, got both")
        for asked in (self.output_scale, self.resolution):
            if asked is not None and not (np.isfinite(asked) and asked > 0):
                raise ScaleError(f"scale and resolution must be positive numbers, got {asked:g}")
        if self.resolution_unit not in ("crs", "m"):
            raise ScaleError(f"resolution_unit must be crs or m, got {self.resolution_unit!r}")

    def _check_bands(self) -> None:
        bands = self.bands
        if bands is None:
            return
        if len(bands) not in (1, 3) or len(set(bands)) != len(bands) or min(bands) < 1:
            raise BandError(
                f"bands must be one band or three different ones, counted from 1, got {bands}"
            )

    def _check_range(self) -> None:
        if self.value_range == "auto":
            return
        low, high = self.value_range
        if not (np.isfinite(low) and np.isfinite(high) and low < high):
            raise RangeError(f"value_range must be finite and ascending, got {low:g}, {high:g}")


@dataclass(frozen=True, kw_only=True)
class ScenePlan:
    """What a run would do; computed from the header and a decimated read."""

    src: str
    scale: float  # output pixels for one input pixel, along a side
    model_scale: int  # as the network makes them, before a reduction
    window: tuple[int, int, int, int]  # col_off, row_off, width, height in input pixels
    output_width_hr_px: int
    output_height_hr_px: int
    dtype: str
    nodata: float | None
    rgb_bands: tuple[int, ...]  # one or three, counted from 1: what the network sees
    rgb_output_bands: tuple[int, ...]  # the same bands by their numbers in the output
    output_bands: tuple[str, ...]  # names, in the order written
    band_reason: str
    value_range: tuple[float, float]  # of the first band that the network sees
    range_reason: str
    tile_hr_px: int
    overlap_hr_px: int
    chunk_hr_px: int
    tiles: int
    chunks: int
    output_bytes: int  # before compression
    scratch_bytes: int  # on the disk while it works, the output included; at most
    memory_bytes: int  # about, the network's own not included
    assumptions: tuple[str, ...]  # whole sentences for the user


@dataclass(frozen=True, kw_only=True)
class Progress:
    """Where a run stands; handed to ``on_progress`` after every batch of tiles."""

    stage: Literal["tiles", "assembling", "done"]
    chunks_done: int
    chunks: int
    output_px_done: int  # pixels of the output grid, resumed ones included
    output_px: int
    output_px_resumed: int


@dataclass(frozen=True, kw_only=True)
class SceneReport:
    """What a run did."""

    src: str
    dst: Path
    plan: ScenePlan
    tiles_run: int
    tiles_skipped: int  # nothing valid in them
    chunks_run: int
    chunks_resumed: int
    seconds: float
    mpx_per_s: float  # output megapixels computed in this run, by the whole run's time
    output_file_bytes: int
    assumptions: tuple[str, ...]
    warnings: tuple[str, ...]


def check_overlap(overlap_hr_px: int, tile_hr_px: int, scale: int) -> None:
    """Raise TilingError unless the overlap is a multiple of the scale up to half a tile."""
    if not 0 <= overlap_hr_px <= tile_hr_px // 2 or overlap_hr_px % scale:
        raise TilingError(
            f"overlap_hr_px must be a multiple of {scale} from 0 to {tile_hr_px // 2} "
            f"(half a tile), got {overlap_hr_px}"
        )

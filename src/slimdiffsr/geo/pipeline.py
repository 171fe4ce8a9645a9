"""Chunks through reading, the network and writing, all three at the same time.

One thread feeds the network with tiles of whichever chunk is next; others read ahead and write
behind. What a chunk holds depends on none of that, nor on which chunks were made before it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Container, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Protocol

from numpy.typing import NDArray

from slimdiffsr.geo.arrays import Array, Download
from slimdiffsr.geo.canvas import BlendWeights, Canvas
from slimdiffsr.geo.chunks import Stripe
from slimdiffsr.geo.grid import Region
from slimdiffsr.geo.job import Job
from slimdiffsr.geo.order import ChunkLattice
from slimdiffsr.geo.spec import Network
from slimdiffsr.geo.stripes import Loaded, load, seen_bands, stripes
from slimdiffsr.geo.tiles import TileResults

__all__ = ["ChunkList", "Deliver", "Feed", "Pipeline", "compute_chunk", "lattice_of"]

_UNDER_WAY_BYTES = 1 << 28  # of chunks that are being written, before compression

Deliver = Callable[[Region, Iterator[Stripe]], None]
"""Takes a finished chunk; called from several threads, and may take its time."""


class Feed(Protocol):
    """Where a worker's chunks come from."""

    def take(self) -> Region | None:
        """The next chunk to make; None when there is none left."""
        ...

    def coming(self) -> Container[tuple[int, int]]:
        """The places of the chunks that will come, as far as is known.

        Another container than before when some will not come after all.
        """
        ...


class ChunkList:
    """Chunks that one worker makes alone, one after another."""

    def __init__(self, lattice: ChunkLattice, chunks_hr: list[Region]) -> None:
        self._chunks = deque(chunks_hr)
        self._lattice = lattice
        self._coming = {lattice.place(chunk) for chunk in chunks_hr}

    def take(self) -> Region | None:
        """See ``Feed``."""
        if not self._chunks:
            return None
        chunk = self._chunks.popleft()
        self._coming.discard(self._lattice.place(chunk))
        return chunk

    def coming(self) -> set[tuple[int, int]]:
        """See ``Feed``."""
        return self._coming


def compute_chunk(job: Job, chunk_hr: Region, network: Network) -> list[Stripe]:
    """One chunk, computed alone: its pixels in the output's own type.

    The same pixels, to the last bit, that any run makes of it, beside whichever others.
    """
    made: list[Stripe] = []
    feed = ChunkList(lattice_of(job), [chunk_hr])
    Pipeline(job, network, feed, lambda _, pixels: made.extend(pixels)).run()
    return made


def lattice_of(job: Job) -> ChunkLattice:
    """Where the chunks of a job lie."""
    return ChunkLattice(
        job.window_hr, job.chunk_hr_px, job.halo_lr_px, job.source.region_lr, job.scale
    )


@dataclass(slots=True)
class Pipeline:
    """The chunks of a feed, made and delivered."""

    job: Job
    network: Network
    feed: Feed
    deliver: Deliver
    on_progress: Callable[[], None] = lambda: None  # in the thread that runs, after every batch
    chunks_done: int = 0
    px_done: int = 0  # of chunks delivered
    results: TileResults = field(init=False)
    _lattice: ChunkLattice = field(init=False)
    _weights: BlendWeights = field(init=False)
    _writers: int = field(init=False)
    _reading: deque[tuple[Region, Future[Loaded]]] = field(default_factory=deque)
    _open: deque[Canvas] = field(default_factory=deque)
    _writing: deque[tuple[Region, Future[None]]] = field(default_factory=deque)
    _free: list[Array] = field(default_factory=list)
    _coming: Container[tuple[int, int]] = ()

    def __post_init__(self) -> None:
        job, network = self.job, self.network
        self._lattice = lattice_of(job)
        channels = len(job.choice.seen)
        self.results = TileResults(network, job.grid, self._lattice, channels)
        chunk_bytes = job.chunk_hr_px**2 * len(job.header.bands) * job.header.dtype.itemsize
        self._writers = max(1, min(network.arrays.writers, _UNDER_WAY_BYTES // chunk_bytes))
        overlap_hr_px = job.grid.overlap_lr_px * job.scale
        self._weights = BlendWeights(network.arrays, network.tile_hr_px, overlap_hr_px)

    def px_under_way(self) -> int:
        """Pixels of chunks that are not delivered yet, as far as their tiles are run."""
        being_made = sum(c.chunk_hr.pixels * c.blended // len(c.tiles) for c in self._open)
        return being_made + sum(chunk.pixels for chunk, _ in self._writing)

    def run(self) -> None:
        """Make all chunks. Raises what reading, the network or ``deliver`` raise."""
        arrays = self.network.arrays
        with (
            ThreadPoolExecutor(arrays.readers) as readers,
            ThreadPoolExecutor(self._writers) as writers,
        ):
            self._read_ahead(readers)
            while self._reading:
                chunk_hr, loading = self._reading.popleft()
                loaded = loading.result()
                self._read_ahead(readers)
                canvas = self._new_canvas(chunk_hr, loaded)
                self._open.append(canvas)
                for k, tile in enumerate(canvas.tiles):
                    blended = k < canvas.blended  # it was there already
                    if not blended and self.results.ask(tile, loaded.patch, canvas.area_lr):
                        self._advance(writers)
                self._advance(writers)
            while self._open:
                self.results.flush()
                self._advance(writers)
            self._collect(0)

    def _read_ahead(self, readers: ThreadPoolExecutor) -> None:
        while len(self._reading) < self.network.arrays.readers:
            chunk_hr = self.feed.take()
            if chunk_hr is None:
                return
            self._reading.append((chunk_hr, readers.submit(self._load, chunk_hr)))

    def _load(self, chunk_hr: Region) -> Loaded:
        tiles = self.job.grid.touching(self._lattice.area_lr(chunk_hr))
        region_lr = tiles[0].region_lr.joined(tiles[-1].region_lr)
        return load(self.job, region_lr.clipped(self.job.source.region_lr))

    def _new_canvas(self, chunk_hr: Region, loaded: Loaded) -> Canvas:
        area_lr = self._lattice.area_lr(chunk_hr)
        area_hr = area_lr.times(self.job.scale)
        shape = (len(self.job.choice.seen), area_hr.height, area_hr.width)
        tiles = self.job.grid.touching(area_lr)
        return Canvas(chunk_hr, area_lr, loaded, tiles, self._blank(shape))

    def _blank(self, shape: tuple[int, int, int]) -> Array:
        # Fresh memory for each chunk costs more than blending into it.
        for k, image in enumerate(self._free):
            if tuple(image.shape) == shape:
                del self._free[k]
                image[:] = 0
                return image
        self._free.clear()
        return self.network.arrays.zeros(shape)

    def _advance(self, writers: ThreadPoolExecutor) -> None:
        while self._open:
            # One after another: a tile is dropped when the last chunk that needs it has used it.
            canvas = self._open[0]
            coming = self.feed.coming()
            taken = {self._lattice.place(other.chunk_hr) for other in list(self._open)[1:]}
            taken |= {self._lattice.place(chunk_hr) for chunk_hr, _ in self._reading}
            if coming is not self._coming:
                here = self._lattice.place(canvas.chunk_hr)
                self.results.forget(_Either({*taken, here}, coming))
                self._coming = coming
            canvas.advance(self.results, self._weights, _Either(taken, coming))
            if not canvas.is_complete:
                break
            self._open.popleft()
            self._finish(canvas, writers)
        self._collect(self._writers)
        self.on_progress()

    def _finish(self, canvas: Canvas, writers: ThreadPoolExecutor) -> None:
        self._collect(self._writers - 1)  # first, so that memory stays bounded
        job, arrays = self.job, self.network.arrays

        def make() -> Array:
            pixels = seen_bands(job, canvas.chunk_hr, canvas.loaded, canvas.image, arrays)
            self._free.append(canvas.image)
            return pixels

        coming = arrays.later(make, job.header.dtype)
        written = writers.submit(self._write, canvas.chunk_hr, coming)
        self._writing.append((canvas.chunk_hr, written))

    def _write(self, chunk_hr: Region, coming: Download) -> None:
        seen: NDArray[Any] = coming()
        self.deliver(chunk_hr, stripes(self.job, chunk_hr, seen))

    def _collect(self, left: int) -> None:
        """Take note of chunks that are written, and wait until at most some are not."""
        while self._writing and (len(self._writing) > left or self._writing[0][1].done()):
            chunk_hr, written = self._writing[0]
            written.result()
            self._writing.popleft()
            self.chunks_done += 1
            self.px_done += chunk_hr.pixels


@dataclass(frozen=True, slots=True)
class _Either:
    """What is in one of two sets, of which the second may be large."""

    first: set[tuple[int, int]]
    second: Container[tuple[int, int]]

    def __contains__(self, place: object) -> bool:
        return place in self.first or place in self.second

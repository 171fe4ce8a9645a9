"""One command's work: a raster of any size in, a georeferenced enlarged raster out.

The unit of work is a chunk of the output. Reading the next chunk, running tiles, and writing the
last chunk overlap; what a chunk holds depends on none of that, so a run that was killed and
started again ends in the same bytes.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from os import PathLike
from pathlib import Path

import rasterio

from slimdiffsr.errors import InterruptedRunError, RasterError
from slimdiffsr.geo.destination import assemble, check_destination, check_space, partial_path
from slimdiffsr.geo.grid import Region, Tile
from slimdiffsr.geo.inputs import look_at
from slimdiffsr.geo.job import Job, decide, fingerprint, plan_of
from slimdiffsr.geo.partial import PartialFolder, open_partial_folder
from slimdiffsr.geo.raster import open_source
from slimdiffsr.geo.shared import SharedTiles
from slimdiffsr.geo.spec import Network, NetworkSpec, Progress, SceneOptions, ScenePlan, SceneReport
from slimdiffsr.geo.stripes import load, stripes
from slimdiffsr.geo.tiles import TileRunner

__all__ = ["plan_scene", "upscale_scene"]

# GDAL's own default is a share of the machine's memory, however large that is.
_GDAL_CACHE_BYTES = 64_000_000

OnProgress = Callable[[Progress], None]


def plan_scene(
    src: str | PathLike[str], network: NetworkSpec, options: SceneOptions | None = None
) -> ScenePlan:
    """What ``upscale_scene`` would do with ``src``: sizes, tiles, bands, range, assumptions.

    Reads the header and a decimated copy only. Raises what ``upscale_scene`` would raise before
    its first tile: RasterError, BandError, RangeError, TilingError, OutputError.
    """
    with _gdal(), open_source(os.fspath(src)) as source:
        return plan_of(decide(source, network, options or SceneOptions()))


def upscale_scene(
    src: str | PathLike[str],
    dst: str | PathLike[str],
    network: Network,
    options: SceneOptions | None = None,
    *,
    on_progress: OnProgress | None = None,
) -> SceneReport:
    """Write ``src`` enlarged by ``network`` to ``dst``, in bounded memory, resumably.

    src: any path that rasterio opens. dst: a local file, which appears only when it is complete;
    until then finished chunks lie in ``dst`` + ".partial", and the same call goes on from there.
    ``on_progress`` is called in the caller's thread after every batch of tiles.

    Raises RasterError, BandError, RangeError, TilingError or OutputError for what cannot be done,
    DiskFullError when the disk fills up, PredictionError when the network's result is unusable,
    and InterruptedRunError after Ctrl-C. None of them leaves a half-written ``dst``.
    """
    started = time.monotonic()
    src, target = os.fspath(src), Path(dst)
    options = options or SceneOptions()
    check_destination(src, target, options.overwrite)
    with _gdal(), open_source(src) as source:
        inputs = look_at(src, source.dataset.files)
        job = decide(source, network, options)
        facts = fingerprint(job, inputs)
        with open_partial_folder(partial_path(target), facts, inputs) as folder:
            try:
                run = _ChunkRun(job, network, folder, on_progress)
                warned = check_space(job, target, run.bytes_resumed)
                run.work()
                run.tell("assembling")
                inputs.check_unchanged(thoroughly=True)
                assemble(job, folder, run.chunks, target)
                gone = folder.remove()
                run.tell("done")
            except KeyboardInterrupt:
                raise InterruptedRunError(_interrupted(folder)) from None
            except BaseException as error:
                _tidy(folder, src, error)
                raise
    left = "" if gone else f"{folder.path} holds files that are not ours and was kept."
    seconds = time.monotonic() - started
    return SceneReport(
        src=src,
        dst=target,
        plan=plan_of(job),
        tiles_run=run.runner.tiles_run,
        tiles_skipped=len(run.runner.empty),
        chunks_run=len(run.todo),
        chunks_resumed=len(run.chunks) - len(run.todo),
        seconds=seconds,
        mpx_per_s=(run.px - run.px_resumed) / 1e6 / max(seconds, 1e-9),
        output_file_bytes=target.stat().st_size,
        assumptions=job.assumptions,
        warnings=tuple(words for words in (folder.restarted, warned, left) if words),
    )


def _gdal() -> rasterio.Env:
    return rasterio.Env(  # type: ignore[no-untyped-call]
        GDAL_CACHEMAX=_GDAL_CACHE_BYTES, GDAL_TIFF_INTERNAL_MASK=True
    )


def _interrupted(folder: PartialFolder) -> str:
    done = folder.chunks.count()
    if done == 0:
        folder.remove()
        return "interrupted before the first chunk was finished; nothing was written"
    return f"interrupted; {done} finished chunks are kept, and the same command resumes"


def _tidy(folder: PartialFolder, src: str, error: BaseException) -> None:
    # A damaged local file stays damaged, so its chunks are of no use; a remote one may recover.
    hopeless = isinstance(error, RasterError) and Path(src).exists()
    if hopeless or folder.chunks.count() == 0:
        folder.remove()


class _ChunkRun:
    """The chunks of one run: which are done, which are left, and doing them."""

    def __init__(
        self, job: Job, network: Network, folder: PartialFolder, on_progress: OnProgress | None
    ) -> None:
        self.job, self.folder, self.on_progress = job, folder, on_progress
        self.chunks = list(job.chunks())
        self.todo = [c for c in self.chunks if not folder.chunks.is_done(c)]
        shared = SharedTiles(folder.scratch("tiles"))
        self.runner = TileRunner(network, job.grid, len(job.choice.seen), shared)
        self.px = job.header.region_hr.pixels
        self.px_resumed = self.px - sum(chunk.pixels for chunk in self.todo)
        self.px_done = self.px_resumed
        self.chunks_done = len(self.chunks) - len(self.todo)

    @property
    def bytes_resumed(self) -> int:
        """Size before compression of what is on the disk already."""
        return self.job.header.bytes * self.px_resumed // self.px

    def work(self) -> None:
        """Run all chunks that are left: read ahead by one, write behind by one."""
        tiles = [self.job.grid.touching(self.job.area_lr(chunk)) for chunk in self.todo]
        for chunk, some in zip(self.todo, tiles, strict=True):
            self.runner.expect(self.job.area_lr(chunk), some)
        self.tell("tiles")
        with ThreadPoolExecutor(1) as reader, ThreadPoolExecutor(1) as writer:
            written: Future[None] | None = None
            loading = [reader.submit(load, self.job, self._needed(some)) for some in tiles[:1]]
            for k, chunk in enumerate(self.todo):
                loaded = loading.pop().result()
                coming = tiles[k + 1] if k + 1 < len(tiles) else []
                if coming:
                    loading.append(reader.submit(load, self.job, self._needed(coming)))
                canvas = self.runner.blend(
                    self.job.area_lr(chunk),
                    tiles[k],
                    coming,
                    loaded.patch,
                    self._teller(chunk, len(tiles[k])),
                )
                if written is not None:
                    written.result()  # also: the canvas before this one is free again
                written = writer.submit(
                    self.folder.chunks.write,
                    chunk,
                    self.job.header,
                    stripes(self.job, chunk, loaded, canvas),
                )
                del loaded, canvas
                self.px_done += chunk.pixels
                self.chunks_done += 1
            if written is not None:
                written.result()

    def _needed(self, tiles: list[Tile]) -> Region:
        region_lr = tiles[0].region_lr.joined(tiles[-1].region_lr)
        return region_lr.clipped(self.job.source.region_lr)

    def _teller(self, chunk: Region, tiles: int) -> Callable[[int], None]:
        return lambda done: self.tell("tiles", chunk.pixels * done // tiles)

    def tell(self, stage: str, px_of_chunk: int = 0) -> None:
        """Report where the run stands."""
        if self.on_progress is None:
            return
        self.on_progress(
            Progress(
                stage=stage,  # type: ignore[arg-type]  # one of three literals, all in this file
                chunks_done=self.chunks_done,
                chunks=len(self.chunks),
                output_px_done=self.px_done + px_of_chunk,
                output_px=self.px,
                output_px_resumed=self.px_resumed,
            )
        )

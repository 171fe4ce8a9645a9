"""One command's work: a raster of any size in, a georeferenced enlarged raster out.

The unit of work is a chunk of the output. What a chunk holds does not depend on which others are
made beside it, by whom, or in which order, so a run that was killed and started again ends in the
same bytes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from os import PathLike
from pathlib import Path

from slimdiffsr.errors import InterruptedRunError, RasterError
from slimdiffsr.geo.chunks import Stripe
from slimdiffsr.geo.destination import assemble, check_destination, check_space, partial_path
from slimdiffsr.geo.environment import gdal
from slimdiffsr.geo.grid import Region
from slimdiffsr.geo.inputs import look_at
from slimdiffsr.geo.job import Job, decide, fingerprint, plan_of
from slimdiffsr.geo.known import KnownRaster, as_known
from slimdiffsr.geo.order import in_order
from slimdiffsr.geo.partial import PartialFolder, open_partial_folder
from slimdiffsr.geo.pipeline import ChunkList, Pipeline, lattice_of
from slimdiffsr.geo.raster import open_source
from slimdiffsr.geo.sidefiles import check_side_files
from slimdiffsr.geo.spec import Network, NetworkSpec, Progress, SceneOptions, ScenePlan, SceneReport

__all__ = ["plan_scene", "upscale_scene"]

OnProgress = Callable[[Progress], None]


def plan_scene(
    src: str | PathLike[str] | KnownRaster,
    network: NetworkSpec,
    options: SceneOptions | None = None,
) -> ScenePlan:
    """What ``upscale_scene`` would do with ``src``: sizes, tiles, bands, range, assumptions.

    Reads the header and a decimated copy only. Raises what ``upscale_scene`` would raise before
    its first tile: RasterError, BandError, RangeError, TilingError, OutputError.
    """
    options = options or SceneOptions()
    with gdal(), open_source(src, options.nodata, options.alpha) as source:
        return plan_of(decide(source, network, options))


def upscale_scene(
    src: str | PathLike[str] | KnownRaster,
    dst: str | PathLike[str],
    network: Network,
    options: SceneOptions | None = None,
    *,
    on_progress: OnProgress | None = None,
) -> SceneReport:
    """Write ``src`` enlarged by ``network`` to ``dst``, in bounded memory, resumably.

    src: any path that rasterio opens, or a raster of which more is known. dst: a local file, which appears only when it is complete;
    until then finished chunks lie in ``dst`` + ".partial", and the same call goes on from there.
    ``on_progress`` is called in the caller's thread after every batch of tiles.

    Raises RasterError, BandError, RangeError, TilingError or OutputError for what cannot be done,
    DiskFullError when the disk fills up, PredictionError when the network's result is unusable,
    and InterruptedRunError after Ctrl-C. None of them leaves a half-written ``dst``.
    """
    started = time.monotonic()
    known, target = as_known(src), Path(dst)
    options = options or SceneOptions()
    check_destination(known.called, target, options)
    with gdal(), open_source(known, options.nodata, options.alpha) as source:
        inputs = look_at(*source.files)
        check_side_files(target, options.overwrite, [file.path for file in inputs.files])
        job = decide(source, network, options)
        facts = fingerprint(job, inputs)
        with open_partial_folder(partial_path(target), facts, inputs) as folder:
            try:
                run = _ChunkRun(job, network, folder, on_progress)
                warned = check_space(job, target, run.bytes_resumed)
                run.work()
                run.tell("assembling")
                assemble(job, folder, run.chunks, target)
                gone = folder.remove()
                run.tell("done")
            except KeyboardInterrupt:
                raise InterruptedRunError(_interrupted(folder)) from None
            except BaseException as error:
                _tidy(folder, known.called, error)
                raise
    left = "" if gone else f"{folder.path} holds files that are not ours and was kept."
    seconds = time.monotonic() - started
    return SceneReport(
        src=known.called,
        dst=target,
        plan=plan_of(job),
        tiles_run=run.tiles_run,
        tiles_skipped=run.tiles_skipped,
        chunks_run=len(run.todo),
        chunks_resumed=len(run.chunks) - len(run.todo),
        seconds=seconds,
        mpx_per_s=(run.px - run.px_resumed) / 1e6 / max(seconds, 1e-9),
        output_file_bytes=target.stat().st_size,
        assumptions=job.assumptions,
        warnings=tuple(words for words in (folder.restarted, warned, left) if words),
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
        left = [c for c in self.chunks if not folder.chunks.is_done(job.written(c))]
        self.todo = in_order(left, job.grid, job.scale, network.arrays.kept_bytes)
        self.px = job.window_hr.pixels
        self.px_resumed = self.px - sum(chunk.pixels for chunk in self.todo)
        feed = ChunkList(lattice_of(job), self.todo)
        self.pipeline = Pipeline(job, network, feed, self._deliver, lambda: self.tell("tiles"))

    @property
    def bytes_resumed(self) -> int:
        """Size before compression of what is on the disk already."""
        return self.job.header.bytes * self.px_resumed // self.px

    @property
    def tiles_run(self) -> int:
        """Tiles that went through the network."""
        return self.pipeline.results.tiles_run

    @property
    def tiles_skipped(self) -> int:
        """Tiles with nothing valid in them."""
        return len(self.pipeline.results.empty)

    def work(self) -> None:
        """Run all chunks that are left."""
        self.tell("tiles")
        self.pipeline.run()

    def _deliver(self, chunk_hr: Region, stripes: Iterator[Stripe]) -> None:
        self.folder.chunks.write(self.job.written(chunk_hr), self.job.header, stripes)

    def tell(self, stage: str) -> None:
        """Report where the run stands."""
        if self.on_progress is None:
            return
        px_done = self.px_resumed + self.pipeline.px_done + self.pipeline.px_under_way()
        self.on_progress(
            Progress(
                stage=stage,  # type: ignore[arg-type]  # one of three literals, all in this file
                chunks_done=len(self.chunks) - len(self.todo) + self.pipeline.chunks_done,
                chunks=len(self.chunks),
                output_px_done=px_done,
                output_px=self.px,
                output_px_resumed=self.px_resumed,
            )
        )

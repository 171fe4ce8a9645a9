"""One command's work: a raster of any size in, a georeferenced enlarged raster out.

The unit of work is a chunk of the output. What a chunk holds does not depend on which others are
made beside it, by whom, or in which order, so a run that was killed and started again ends in the
same bytes.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from os import PathLike
from pathlib import Path

from slimdiffsr.errors import InterruptedRunError, RasterError
from slimdiffsr.geo.crew import Alone, Crew, Made, Work
from slimdiffsr.geo.destination import assemble, check_destination, check_space, partial_path
from slimdiffsr.geo.environment import gdal
from slimdiffsr.geo.inputs import look_at
from slimdiffsr.geo.job import Job, decide, fingerprint, plan_of
from slimdiffsr.geo.known import KnownRaster, as_known
from slimdiffsr.geo.partial import PartialFolder, open_partial_folder
from slimdiffsr.geo.raster import open_source
from slimdiffsr.geo.sidefiles import check_side_files
from slimdiffsr.geo.spec import Network, NetworkSpec, Progress, SceneOptions, ScenePlan, SceneReport

__all__ = ["plan_scene", "upscale_scene"]

OnPlan = Callable[[ScenePlan], None]
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
    network: Network | Crew,
    options: SceneOptions | None = None,
    *,
    on_plan: OnPlan | None = None,
    on_progress: OnProgress | None = None,
) -> SceneReport:
    """Write ``src`` enlarged by ``network`` to ``dst``, in bounded memory, resumably.

    network: this process' own, or a crew of several processes, as ``open_workers`` makes it.
    src: any path that rasterio opens, or a raster of which more is known. dst: a local file, which
    appears only when it is complete;
    until then finished chunks lie in ``dst`` + ".partial", and the same call goes on from there.
    ``on_plan`` hears once what will be done, before the first tile. ``on_progress`` is called in
    the caller's thread after every batch of tiles.

    Raises RasterError, BandError, RangeError, TilingError or OutputError for what cannot be done,
    DiskFullError when the disk fills up, PredictionError when the network's result is unusable,
    WorkerError when all of a crew is lost, and InterruptedRunError after Ctrl-C. None of them leaves a half-written ``dst``.
    """
    started = time.monotonic()
    known, target = as_known(src), Path(dst)
    options = options or SceneOptions()
    crew = Alone(network) if isinstance(network, Network) else network
    check_destination(known.called, target, options)
    with gdal(), open_source(known, options.nodata, options.alpha) as source:
        inputs = look_at(*source.files)
        check_side_files(target, options.overwrite, [file.path for file in inputs.files])
        job = decide(source, crew.spec, options)
        plan, facts = plan_of(job), fingerprint(job, inputs)
        with open_partial_folder(partial_path(target), facts, inputs) as folder:
            try:
                run = _ChunkRun(job, folder, on_progress)
                warned = check_space(job, target, run.bytes_resumed)
                if on_plan is not None:
                    on_plan(plan)
                run.work(crew, known)
                run.tell("assembling")
                assemble(job, folder, target)
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
        plan=plan,
        tiles_run=run.made.tiles_run,
        tiles_skipped=len(run.made.empty),
        chunks_run=len(run.todo),
        chunks_resumed=len(run.chunks) - len(run.todo),
        seconds=seconds,
        mpx_per_s=(run.px - run.px_resumed) / 1e6 / max(seconds, 1e-9),
        output_file_bytes=target.stat().st_size,
        assumptions=job.assumptions,
        warnings=tuple(w for w in (folder.restarted, warned, *run.made.remarks, left) if w),
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
    """The chunks of one run: which are done, which are left, and having them made."""

    def __init__(self, job: Job, folder: PartialFolder, on_progress: OnProgress | None) -> None:
        self.job, self.store, self.on_progress = job, folder.chunks, on_progress
        self.chunks = list(job.chunks())
        self.todo = [chunk for chunk in self.chunks if not self.store.is_done(job.written(chunk))]
        self.px = job.window_hr.pixels
        self.px_resumed = self.px - sum(chunk.pixels for chunk in self.todo)
        self.made = Made()
        self.px_told = 0

    @property
    def bytes_resumed(self) -> int:
        """Size before compression of what is on the disk already."""
        return self.job.header.bytes * self.px_resumed // self.px

    def work(self, crew: Crew, src: KnownRaster) -> None:
        """Have all chunks made that are left."""
        self.tell("tiles")
        if self.todo:
            work = Work(src, self.job.options, self.store, self.todo)
            self.made = crew.make(self.job, work, self._watch)

    def _watch(self, made: Made) -> None:
        self.made = made
        self.tell("tiles")

    def tell(self, stage: str) -> None:
        """Report where the run stands."""
        if self.on_progress is None:
            return
        # What several workers have under way is an estimate: never backwards, never too much.
        px_done = self.px_resumed + self.made.px + self.made.px_under_way
        self.px_told = max(self.px_told, min(px_done, self.px))
        self.on_progress(
            Progress(
                stage=stage,  # type: ignore[arg-type]  # one of three literals, all in this file
                chunks_done=len(self.chunks) - len(self.todo) + self.made.chunks,
                chunks=len(self.chunks),
                output_px_done=self.px_told,
                output_px=self.px,
                output_px_resumed=self.px_resumed,
            )
        )

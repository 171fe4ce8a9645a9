"""Who makes the chunks of a scene: this process alone, or several (``workers``)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Protocol

from slimdiffsr.geo.blocks import chunk_factors
from slimdiffsr.geo.chunks import Store, Stripe
from slimdiffsr.geo.grid import Region
from slimdiffsr.geo.job import Job
from slimdiffsr.geo.known import KnownRaster
from slimdiffsr.geo.order import in_order
from slimdiffsr.geo.pipeline import ChunkList, Feed, Pipeline, lattice_of
from slimdiffsr.geo.spec import Network, NetworkSpec, SceneOptions

__all__ = ["Alone", "Crew", "Made", "Reports", "Watch", "Work", "make_chunks"]


@dataclass(frozen=True, slots=True)
class Work:
    """The chunks of one scene that are to be made. Can be handed to another process."""

    src: KnownRaster
    options: SceneOptions
    store: Store
    chunks_hr: list[Region]  # row by row


@dataclass(slots=True)
class Made:
    """How far the work is."""

    chunks: int = 0
    px: int = 0  # of chunks that are in the store
    px_under_way: int = 0  # of others, as far as their tiles are run
    tiles_run: int = 0
    empty: set[tuple[int, int]] = field(default_factory=set)  # tiles with nothing valid in them
    remarks: list[str] = field(default_factory=list)  # sentences for the user


Watch = Callable[[Made], None]


class Crew(Protocol):
    """Makes chunks."""

    @property
    def spec(self) -> NetworkSpec:
        """The network, whoever runs it."""
        ...

    def make(self, job: Job, work: Work, watch: Watch) -> Made:
        """Make all chunks of ``work``; ``watch`` is called in this thread, again and again.

        Raises what reading, the network or the store raise; then nobody works on it any more.
        """
        ...


@dataclass(frozen=True, slots=True)
class Alone:
    """This process and its network."""

    network: Network

    @property
    def spec(self) -> NetworkSpec:
        """See ``Crew``."""
        return self.network

    def make(self, job: Job, work: Work, watch: Watch) -> Made:
        """See ``Crew``."""
        kept_bytes = self.network.arrays.kept_bytes
        order = in_order(work.chunks_hr, job.grid, job.scale, kept_bytes)
        made, feed = Made(), ChunkList(lattice_of(job), order)
        make_chunks(job, work.store, self.network, feed, made, Reports(watch))
        return made


@dataclass(frozen=True, slots=True)
class Reports:
    """Who hears of the work: of its state in the thread that works, of each chunk in any."""

    state: Watch
    chunk: Callable[[Region], None] = lambda _: None


def make_chunks(
    job: Job, store: Store, network: Network, feed: Feed, made: Made, reports: Reports
) -> None:
    """Make the chunks of a feed and put them into the store; ``made`` is kept up to date."""

    factors = chunk_factors(job.header, job.chunk_hr_px) if job.ratio == 1 else []

    def deliver(chunk_hr: Region, stripes: Iterator[Stripe]) -> None:
        store.write(job.written(chunk_hr), job.header, stripes, factors)
        reports.chunk(chunk_hr)

    def tell() -> None:
        made.chunks, made.px = pipeline.chunks_done, pipeline.px_done
        made.px_under_way = pipeline.px_under_way()
        made.tiles_run = pipeline.results.tiles_run
        reports.state(made)

    pipeline = Pipeline(job, network, feed, deliver, tell)
    made.empty = pipeline.results.empty
    pipeline.run()
    made.remarks.extend(network.remarks())
    tell()

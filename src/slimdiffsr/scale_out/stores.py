"""Where the chunks of a job's scene lie: straight in a shared folder, or as objects in a store."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from slimdiffsr.geo.chunks import ChunkStore, Stripe
from slimdiffsr.geo.grid import Region
from slimdiffsr.geo.header import Header
from slimdiffsr.geo.inputs import Inputs
from slimdiffsr.scale_out.jobfile import PlannedScene
from slimdiffsr.scale_out.places import FolderPlace, Place

__all__ = ["ObjectChunks", "chunk_prefix", "fetch_chunk", "store_of"]


def chunk_prefix(scene: PlannedScene) -> str:
    """Below it lie the chunks of a scene."""
    return f"chunks/{scene.number:07d}/"


@dataclass(frozen=True, slots=True)
class ObjectChunks:
    """Chunks that are made beside the worker, sealed, and put as one object each."""

    place: Place
    prefix: str
    local: ChunkStore

    @property
    def key(self) -> str:
        """Of the job: see ``ChunkStore``."""
        return self.local.key

    @property
    def inputs(self) -> Inputs:
        """What chunks are made from."""
        return self.local.inputs

    def is_done(self, region_hr: Region) -> bool:
        """Whether the object is there: it was put whole, and its checksum is looked at in the end."""
        return self.place.has(self.prefix + self.local.chunk_path(region_hr).name)

    def write(
        self,
        region_hr: Region,
        header: Header,
        stripes: Iterator[Stripe],
        factors: Sequence[int] = (),
    ) -> None:
        """As ``ChunkStore.write``, and PlaceError."""
        path = self.local.chunk_path(region_hr)
        self.local.write(region_hr, header, stripes, factors)
        try:
            self.place.put(self.prefix + path.name, path.read_bytes())
        finally:
            with suppress(OSError):
                path.unlink()


def store_of(
    place: Place, scene: PlannedScene, inputs: Inputs, scratch: Path
) -> ChunkStore | ObjectChunks:
    """The store of a scene's chunks; scratch: a folder of this worker, for stores that are far."""
    prefix = chunk_prefix(scene)
    if isinstance(place, FolderPlace):
        folder = place.path(prefix)
        folder.mkdir(parents=True, exist_ok=True)
        return ChunkStore(folder, scene.key, inputs)
    return ObjectChunks(place, prefix, ChunkStore(scratch, scene.key, inputs))


def fetch_chunk(place: Place, scene: PlannedScene, name: str, target: Path) -> bool:
    """Bring a chunk to where the output is made; False when it is not there."""
    key = chunk_prefix(scene) + name
    if isinstance(place, FolderPlace):
        with suppress(OSError):  # another file system, or one without hard links
            target.hardlink_to(place.path(key))
            return True
    data = place.get(key)
    if data is None:
        return False
    target.write_bytes(data)
    return True

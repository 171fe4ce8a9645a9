"""A first look at rasters, where it pays to have another process take it."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from slimdiffsr.geo.probe import Probe

__all__ = ["probe_for"]

WELL_READ = (".tif", ".tiff", ".vrt", ".png", ".jpg", ".jpeg")


def probe_for(sources: list[str]) -> AbstractContextManager[Probe | None]:
    """A process that looks first, where a crash would end more than it costs to start one.

    That is a batch, or a format whose reader damaged files are known to crash, as HDF5's.
    """
    from slimdiffsr.geo.probe import Probe

    well_read = all(Path(source).suffix.lower() in WELL_READ for source in sources)
    return nullcontext() if well_read and len(sources) < 2 else Probe()

"""One command's work: a raster of any size in, a georeferenced enlarged raster out."""

from __future__ import annotations

from collections.abc import Callable
from os import PathLike

from slimdiffsr.geo.spec import Network, NetworkSpec, Progress, SceneOptions, ScenePlan, SceneReport

__all__ = ["plan_scene", "upscale_scene"]


def plan_scene(
    src: str | PathLike[str], network: NetworkSpec, options: SceneOptions | None = None
) -> ScenePlan:
    """What ``upscale_scene`` would do with ``src``: sizes, tiles, bands, range, assumptions."""
    raise NotImplementedError


def upscale_scene(
    src: str | PathLike[str],
    dst: str | PathLike[str],
    network: Network,
    options: SceneOptions | None = None,
    *,
    on_progress: Callable[[Progress], None] | None = None,
) -> SceneReport:
    """Write ``src`` enlarged by ``network`` to ``dst``, in bounded memory, resumably."""
    raise NotImplementedError

"""The scene engine: rasters of any size through any network, georeferencing kept."""

from slimdiffsr.geo.known import BandMeaning, KnownRaster
from slimdiffsr.geo.scene import plan_scene, upscale_scene
from slimdiffsr.geo.spec import (
    Network,
    NetworkSpec,
    Predict,
    Progress,
    SceneOptions,
    ScenePlan,
    SceneReport,
)
from slimdiffsr.geo.workers import WorkerPlan, Workers, open_workers

__all__ = [
    "BandMeaning",
    "KnownRaster",
    "Network",
    "NetworkSpec",
    "Predict",
    "Progress",
    "SceneOptions",
    "ScenePlan",
    "SceneReport",
    "WorkerPlan",
    "Workers",
    "open_workers",
    "plan_scene",
    "upscale_scene",
]

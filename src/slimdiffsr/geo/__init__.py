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
    "plan_scene",
    "upscale_scene",
]

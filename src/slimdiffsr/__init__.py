"""Super-resolution of satellite and aerial imagery: whole georeferenced scenes, one command."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from slimdiffsr.geo.spec import SceneOptions
    from slimdiffsr.upscale import Upscaler
    from slimdiffsr.view import show

__all__ = ["SceneOptions", "Upscaler", "__version__", "show"]


def __getattr__(name: str) -> Any:  # noqa: ANN401  a module's attribute
    # On demand, so that "slimdiffsr --help" does not wait for torch.
    if name == "Upscaler":
        from slimdiffsr.upscale import Upscaler

        return Upscaler
    if name == "show":
        from slimdiffsr.view import show

        return show
    if name == "SceneOptions":
        from slimdiffsr.geo.spec import SceneOptions

        return SceneOptions
    if name == "__version__":
        from importlib.metadata import version

        return version("slimdiffsr")
    raise AttributeError(f"module 'slimdiffsr' has no attribute {name!r}")

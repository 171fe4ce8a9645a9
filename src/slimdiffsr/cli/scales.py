"""How much larger: which model makes it, and what is left to a reduction afterwards."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from slimdiffsr.geo import SceneOptions

__all__ = ["scales", "suffix_of"]

_OF_MODELS = (2, 4, 8)
_BASELINES = ("bicubic", "lanczos")


def scales(model: str, asked: float | None) -> tuple[int | None, float | None]:
    """The scale of the model to load (None: its own), and that of the output where it is another.

    A scale that models have is the model's; any other is made by the nearest above it, reduced.
    """
    if asked is None or asked in _OF_MODELS[1:] or asked <= 0:
        return (None if asked is None else int(asked)), None
    if model in _BASELINES:
        above = next((scale for scale in _OF_MODELS if scale >= asked), _OF_MODELS[-1])
        return above, (None if above == asked else asked)
    family = model in ("tiny", "compact")
    return (None if not family else 4 if asked < 4 else 8), asked


def suffix_of(options: SceneOptions, model_scale: int) -> str:
    """What the names of outputs end with, where they are made up: x4, x3, 2.5m."""
    if options.resolution is not None:
        return f"{options.resolution:g}{'m' if options.resolution_unit == 'm' else ''}"
    return f"x{model_scale if options.output_scale is None else options.output_scale:g}"

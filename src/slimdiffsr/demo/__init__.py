"""A generated scene to try things on, and a before/after picture of any scene."""

from slimdiffsr.demo.picture import before_after_png
from slimdiffsr.demo.scene import make_demo_scene

__all__ = ["before_after_png", "make_demo_scene"]

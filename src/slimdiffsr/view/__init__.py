"""A scene on a map in the browser: input beside results, in the same place, at the same stretch."""

from slimdiffsr.view.layers import Layer, Scene, open_scene
from slimdiffsr.view.notebook import show
from slimdiffsr.view.page import Start, write_page
from slimdiffsr.view.server import Viewer, serve

__all__ = ["Layer", "Scene", "Start", "Viewer", "open_scene", "serve", "show", "write_page"]

"""Training stages, one function each."""

from slimdiffsr.stages.reconstruction import load_lpips
from slimdiffsr.stages.run import RunPaths
from slimdiffsr.stages.student import train_student

__all__ = ["RunPaths", "load_lpips", "train_student"]

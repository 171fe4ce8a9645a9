"""Training stages, one function each."""

from slimdiffsr.stages.prior import train_prior
from slimdiffsr.stages.reconstruction import import_lpips, load_lpips
from slimdiffsr.stages.run import RunPaths
from slimdiffsr.stages.student import train_student
from slimdiffsr.stages.uncertainty import train_uncertainty

__all__ = [
    "RunPaths",
    "import_lpips",
    "load_lpips",
    "train_prior",
    "train_student",
    "train_uncertainty",
]

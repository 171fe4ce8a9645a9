"""Training stages, one function each."""

from slimdiffsr.stages.prior import train_prior
from slimdiffsr.stages.run import RunPaths
from slimdiffsr.stages.student import train_student
from slimdiffsr.stages.teacher import train_teacher
from slimdiffsr.stages.uncertainty import train_uncertainty

__all__ = ["RunPaths", "train_prior", "train_student", "train_teacher", "train_uncertainty"]

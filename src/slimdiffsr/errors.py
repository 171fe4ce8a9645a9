"""Every error a user can cause, in one family.

Each message says what was wrong, what came, and what to do. The command line prints the message
alone and leaves with ``exit_status``.
"""

from __future__ import annotations

from typing import ClassVar

__all__ = [
    "BandError",
    "ChecksumError",
    "ConfigError",
    "DataError",
    "DiskFullError",
    "InterruptedRunError",
    "JobError",
    "ModelNotFoundError",
    "OutputError",
    "PlaceError",
    "PredictionError",
    "RangeError",
    "RasterError",
    "ScaleError",
    "SlimDiffSRError",
    "TilingError",
    "TrainingError",
    "WeightsError",
    "WorkerError",
]


class SlimDiffSRError(Exception):
    """Base of all errors that slimdiffsr raises on purpose."""

    exit_status: ClassVar[int] = 2


class ConfigError(SlimDiffSRError):
    """A configuration value is out of range, of the wrong type, or unknown."""


class RasterError(SlimDiffSRError):
    """An input raster is missing, unreadable, damaged, or of a kind that cannot be upscaled."""


class BandError(SlimDiffSRError):
    """The bands asked for are not in the raster."""


class RangeError(SlimDiffSRError):
    """The value range is empty, not finite, or cannot be estimated."""


class OutputError(SlimDiffSRError):
    """The output cannot be written where it was asked for."""


class DiskFullError(OutputError):
    """The disk filled up; finished chunks are kept and the run can be resumed."""


class PlaceError(SlimDiffSRError):
    """A folder or object store cannot be reached, or does not let us in."""

    exit_status: ClassVar[int] = 4


class JobError(SlimDiffSRError):
    """A job is missing, damaged, of another version, or does not fit its worker."""

    exit_status: ClassVar[int] = 5


class PredictionError(SlimDiffSRError):
    """A network returned something unusable: the wrong shape, or values that are not finite."""


class TilingError(SlimDiffSRError):
    """Tile size, overlap, window or bounds do not fit together."""


class ModelNotFoundError(SlimDiffSRError):
    """No model of that name, path or repository."""


class ScaleError(SlimDiffSRError):
    """The model does not have the scale that was asked for."""


class ChecksumError(SlimDiffSRError):
    """A weight file is not the file that was published."""


class WeightsError(SlimDiffSRError):
    """A weight file does not fit the model: missing, unexpected or misshapen tensors."""


class DataError(SlimDiffSRError):
    """Training or evaluation data are missing, unreadable or do not match."""


class TrainingError(SlimDiffSRError):
    """Training cannot go on, for example because the loss is not finite."""


class WorkerError(SlimDiffSRError):
    """All processes or cards that worked on a scene are lost; what is finished is kept."""

    exit_status: ClassVar[int] = 1


class InterruptedRunError(SlimDiffSRError):
    """The user stopped a run; what is finished is kept and the same command resumes."""

    exit_status: ClassVar[int] = 130

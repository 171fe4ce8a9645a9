"""A run's curves and pictures for TensorBoard, and its clock."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from torch.utils.tensorboard import SummaryWriter

from slimdiffsr.datasets.images import read_rgb8
from slimdiffsr.errors import OutputError

__all__ = ["Clock", "Logger", "peak_memory_gib", "pictures_of"]


class Clock:
    """Wall time, and images per second since the last report."""

    def __init__(self, first_step: int) -> None:
        self.start = self.last = time.monotonic()
        self.last_step = first_step

    def images_per_s(self, step: int, batch: int) -> float:
        """Speed since this was last asked for."""
        now = time.monotonic()
        speed = (step - self.last_step) * batch / max(1e-9, now - self.last)
        self.last, self.last_step = now, step
        return speed

    def seconds(self) -> float:
        """Since the clock was made."""
        return time.monotonic() - self.start


def pictures_of(out: Path, step: int) -> list[Path]:
    """The pictures that a validation after ``step`` left in a run's folder."""
    return sorted((out / "validation").glob(f"{step:07d}*.png"))


class Logger:
    """TensorBoard on the main process, silent elsewhere. Raises OutputError."""

    def __init__(self, folder: Path, first_step: int, active: bool) -> None:
        self.folder = folder
        with self._whole():
            self.writer = SummaryWriter(str(folder), purge_step=first_step + 1) if active else None

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Points of curves, by their names."""
        if self.writer is None:
            return
        with self._whole():
            for name, value in values.items():
                self.writer.add_scalar(name, value, step)

    def show(self, step: int, pictures: list[Path]) -> None:
        """Pictures of a validation; one name for all steps, so that a slider leads through them."""
        if self.writer is None:
            return
        with self._whole():
            for path in pictures:
                name = f"validation{path.stem.removeprefix(f'{step:07d}')}"
                self.writer.add_image(name, read_rgb8(path), step, dataformats="HWC")

    def close(self) -> None:
        """Write what is left."""
        with contextlib.suppress(OSError):  # all that counts is reported where it is saved
            if self.writer is not None:
                self.writer.close()

    @contextlib.contextmanager
    def _whole(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise OutputError(f"cannot write logs into {self.folder}: {error.strerror}") from None


def peak_memory_gib(device: torch.device) -> float:
    """The most that the GPU had to hold so far; 0 elsewhere."""
    return torch.cuda.max_memory_allocated(device) / 2**30 if device.type == "cuda" else 0.0

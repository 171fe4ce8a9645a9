"""What ends a run from outside, as one sentence: memory that runs out, workers that are killed."""

from __future__ import annotations

import re
import signal

import torch

from slimdiffsr.errors import TrainingError

__all__ = ["explain", "ran_out_of_memory"]

SMALLER = (
    "lower batch or crop_hr_px, or work through a batch in pieces (accumulate=2; it and "
    "checkpointing=true, which recomputes, need graphs=false)"
)


def ran_out_of_memory(error: BaseException) -> bool:
    """Whether an allocation failed, of the machine's memory or of the GPU's."""
    words = str(error)
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError)
        and ("can't allocate memory" in words or "not enough memory" in words)
    )


def explain(error: BaseException, kept: str) -> TrainingError | None:
    """The error that a user can act on; None for one that is not from outside.

    kept: what was saved, as a part of a sentence.
    """
    words = str(error)
    if ran_out_of_memory(error):
        where = "the GPU" if isinstance(error, torch.OutOfMemoryError) else "this machine"
        if "DataLoader worker process" in words:
            return TrainingError(
                f"{where} ran out of memory in a data worker; {kept}: lower workers"
            )
        return TrainingError(f"{where} ran out of memory; {kept}: {SMALLER}")
    if isinstance(error, RuntimeError) and (found := re.search(r"DataLoader worker \(pid", words)):
        how = words[found.start() :]
        if signal.strsignal(signal.SIGKILL) and "Killed" in how:
            cause = "was killed, most often because the machine's memory ran out: lower workers"
        elif "Bus error" in how or "shared memory" in how:
            cause = (
                "found no room in /dev/shm: give the container more (--shm-size), or set workers=0"
            )
        else:
            cause = "ended by itself: run the command again, or set workers=0 to see why"
        return TrainingError(f"a data worker {cause}; {kept}")
    return None

"""What a run says before and between its steps, and which images it had to pass over."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from slimdiffsr.files.tensors import write_atomically

__all__ = ["LEFT_OUT_FILE", "LeftOut", "Notice", "Tell", "say_nothing"]

LEFT_OUT_FILE = "left-out.txt"
FIRST_FEW = 3


@dataclass(frozen=True, slots=True)
class Notice:
    """One sentence; or with a total, how much is done of what the text names."""

    text: str
    done: int = 0
    total: int = 0


Tell = Callable[[Notice], None]


def say_nothing(notice: Notice) -> None:
    """For callers that do not listen."""


class LeftOut:
    """Images that a run passes over, and why: the first few are told, all stand in a file."""

    def __init__(self, file: Path, tell: Tell) -> None:
        self.file = file
        self.tell = tell
        self.reasons: dict[str, str] = {}
        self.written = 0

    def note(self, reasons: Mapping[Path, str] | Iterable[tuple[str, str]]) -> None:
        """Take in images by their path; those known already are not told again."""
        found = reasons.items() if isinstance(reasons, Mapping) else reasons
        new = {str(path): why for path, why in found if str(path) not in self.reasons}
        for why in list(new.values())[: max(0, FIRST_FEW - len(self.reasons))]:
            self.tell(Notice(f"passed over: {why}"))
        self.reasons |= new
        if len(self.reasons) > FIRST_FEW >= len(self.reasons) - len(new):
            self.tell(Notice(f"more images are passed over: all of them are named in {self.file}"))

    def write(self) -> None:
        """Bring the file up to date. Raises OutputError."""
        if len(self.reasons) > self.written:
            write_atomically(
                self.file, "".join(f"{why}\n" for why in self.reasons.values()).encode()
            )
            self.written = len(self.reasons)

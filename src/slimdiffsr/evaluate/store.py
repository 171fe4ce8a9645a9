"""What has been made and scored already, so that a run that was killed goes on.

Everything is known by what it came from: an output by model and input, a score by metric and the
pixels that it compared. So a changed model, image or metric is measured again, and nothing else is.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from slimdiffsr.errors import OutputError

__all__ = ["STORE_FILE", "Store"]

STORE_FILE = "scores.jsonl"


class Store:
    """Lines of JSON, one a result, each written out at once; a torn last line is passed over."""

    def __init__(self, file: TextIO | None = None) -> None:
        """file: what new lines are added to; None keeps them in memory alone."""
        self._file = file
        self._known: dict[str, Any] = {}

    @classmethod
    @contextlib.contextmanager
    def open(cls, path: Path) -> Iterator[Store]:
        """The results in a file, which is made if it is not there. Raises OutputError."""
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            former = path.read_text(encoding="utf-8") if path.exists() else ""
            file = path.open("a", encoding="utf-8")
        except OSError as error:
            raise OutputError(f"cannot write {path}: {error.strerror}") from None
        with file:
            store = cls(file)
            if former and not former.endswith("\n"):
                store._write("\n")  # ends the torn line
            store._take_over(former)
            yield store

    def output(self, method: str, lr: str) -> str | None:
        """The hash of what a method made of an input; both by their hashes."""
        found = self._known.get(_key("output", method, lr))
        return None if found is None else str(found)

    def score(self, metric: str, scale: int, images: tuple[str, ...]) -> float | None:
        """A metric's value; images: hashes of sr, hr and lr."""
        found = self._known.get(_key("score", metric, str(scale), *images))
        return None if found is None else float(found)

    def note_output(self, method: str, lr: str, sr: str, **about: str) -> None:
        """An output was made; ``about`` is for people."""
        self._note(_key("output", method, lr), sr, about)

    def note_score(
        self, metric: str, scale: int, images: tuple[str, ...], value: float, **about: str
    ) -> None:
        """A score was taken; ``about`` is for people."""
        self._note(_key("score", metric, str(scale), *images), value, about)

    def _note(self, key: str, value: float | str, about: dict[str, str]) -> None:
        if self._known.get(key) == value:
            return
        self._known[key] = value
        # Not "Infinity", which JSON does not have; float() reads "inf" again.
        plain = str(value) if value in (float("inf"), float("-inf")) else value
        self._write(json.dumps({"key": key, "value": plain, **about}) + "\n")

    def _write(self, text: str) -> None:
        if self._file is None:
            return
        try:
            self._file.write(text)
            self._file.flush()
        except OSError as error:
            raise OutputError(f"cannot write {self._file.name}: {error.strerror}") from None

    def _take_over(self, text: str) -> None:
        for line in text.splitlines():
            with contextlib.suppress(ValueError, KeyError, TypeError):
                record = json.loads(line)
                self._known[record["key"]] = record["value"]


def _key(*parts: str) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]

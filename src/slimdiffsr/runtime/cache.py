"""Where runtimes keep what they made of a network: converted and compiled forms, by content."""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib import resources
from pathlib import Path

from torch import Tensor, nn

from slimdiffsr.files.tensors import tensors_sha256

__all__ = ["Cache", "cache_folder", "network_key"]

VARIABLE = "SLIMDIFFSR_CACHE"


def cache_folder() -> Path:
    """The user's folder for this: $SLIMDIFFSR_CACHE, or slimdiffsr in the system's cache folder."""
    if VARIABLE in os.environ:
        return Path(os.environ[VARIABLE]).expanduser()
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData" / "Local"))
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
    return base / "slimdiffsr"


def network_key(model: nn.Module, *more: str) -> str:
    """A name for a network that changes with its weights, its parts, our code for them, and more."""
    tensors: Mapping[str, Tensor] = {
        name: tensor.detach().cpu().contiguous()
        for name, tensor in (*model.named_parameters(), *model.named_buffers())
    }
    digest = hashlib.sha256(tensors_sha256(tensors).encode())
    digest.update(repr(model).encode())
    for entry in sorted((resources.files("slimdiffsr") / "models").iterdir(), key=lambda e: e.name):
        if entry.name.endswith(".py"):
            digest.update(entry.read_bytes())
    for text in more:
        digest.update(text.encode() + b"\0")
    return digest.hexdigest()[:32]


class Cache:
    """A folder of made things. One that cannot be written costs time, never the run."""

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder or cache_folder()
        self.trouble = ""  # why nothing is kept, as a sentence

    def find_or_make(self, name: str, make: Callable[[Path], None]) -> Path | None:
        """The file of a name, made by ``make`` under another one first; None if it cannot be kept."""
        target = self.folder / name
        if target.is_file():
            return target
        with self._writable() as folder:
            if folder is None:
                return None
            temporary = target.with_name(f".{os.getpid()}-{target.name}")
            try:
                make(temporary)
                _move(temporary, target)
            finally:
                for left in folder.glob(f".{os.getpid()}-*"):
                    left.unlink(missing_ok=True)
        return target if target.is_file() else None

    def subfolder(self, name: str) -> Path | None:
        """A folder for what a runtime's own package keeps; None if it cannot be written."""
        with self._writable() as folder:
            if folder is None:
                return None
            (folder / name).mkdir(exist_ok=True)
            return folder / name
        return None

    @contextmanager
    def _writable(self) -> Iterator[Path | None]:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            if not os.access(self.folder, os.W_OK):
                raise PermissionError(13, os.strerror(13))
        except OSError as error:
            self._tell(error)
            yield None
            return
        try:
            yield self.folder
        except OSError as error:
            self._tell(error)

    def _tell(self, error: OSError) -> None:
        self.trouble = (
            f"{self.folder} cannot be written ({error.strerror}), so the next run prepares the "
            f"network anew: name another folder in {VARIABLE}."
        )


def _move(temporary: Path, target: Path) -> None:
    # OpenVINO writes two files; the one that is asked for comes last.
    weights = temporary.with_suffix(".bin")
    if temporary.suffix == ".xml" and weights.exists():
        weights.replace(target.with_suffix(".bin"))
    temporary.replace(target)

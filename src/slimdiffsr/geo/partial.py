"""The folder of a run in progress: who works in it, on what, and its chunks.

``OUT.partial/`` holds ``manifest.json`` (what the job's key stands for), ``lock``, the chunks, and
while a run works the folders ``tiles`` and ``final``. Only files of these names are ever deleted.
The lock belongs to the command, not to its workers: it keeps two commands from one output.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal

from slimdiffsr.errors import OutputError
from slimdiffsr.geo.chunks import ChunkStore, sync
from slimdiffsr.geo.failures import output_error
from slimdiffsr.geo.inputs import Inputs

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

__all__ = ["PartialFolder", "job_key", "open_partial_folder"]

_MANIFEST = "manifest.json"
_LOCK = "lock"
_SCRATCH = ("final", "tiles")
_OURS = re.compile(r"(chunk-[0-9a-f-]+\.tif|scene\.vrt|part-\d+-\d+\.vrt|manifest\.json)(\.[0-9a-f]+)?(\.tmp)?(\.aux\.xml)?")  # fmt: skip


@dataclass(frozen=True, slots=True)
class PartialFolder:
    """An ``OUT.partial`` folder that this command alone works in."""

    chunks: ChunkStore
    restarted: str = ""  # why earlier chunks were thrown away, as a sentence

    @property
    def path(self) -> Path:
        """Where it is."""
        return self.chunks.path

    @property
    def vrt_path(self) -> Path:
        """The file that lays all chunks side by side."""
        return self.path / "scene.vrt"

    def scratch(self, name: Literal["final", "tiles"]) -> Path:
        """A new empty folder: for the output before it is moved into place, or for shared tiles.

        Workers that need one each make folders inside it. Raises DiskFullError or OutputError.
        """
        folder = self.path / name
        try:
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
        except OSError as error:
            raise output_error(folder, error) from None
        return folder

    def drop_scratch(self) -> None:
        """Delete such folders."""
        for name in _SCRATCH:
            shutil.rmtree(self.path / name, ignore_errors=True)

    def remove(self) -> bool:
        """Delete our files; False if foreign ones keep the folder alive."""
        with suppress(OSError):  # deleted by another, or not ours to delete
            _clear(self.path)
            (self.path / _LOCK).unlink(missing_ok=True)
            self.path.rmdir()
        return not self.path.exists()


def job_key(fingerprint: Mapping[str, Any]) -> str:
    """16 hexadecimal digits that stand for all that a job's chunks depend on."""
    text = json.dumps(fingerprint, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@contextmanager
def open_partial_folder(
    path: Path, fingerprint: Mapping[str, Any], inputs: Inputs
) -> Iterator[PartialFolder]:
    """Take an ``OUT.partial`` folder for this command, keeping chunks of an equal fingerprint.

    Raises OutputError when another command works there, when the folder is not ours, or when it
    cannot be made.
    """
    with ExitStack() as stack:
        try:
            _check_ours(path)
            path.mkdir(exist_ok=True)
            stack.enter_context(_locked(path))
            chunks = ChunkStore(path, job_key(fingerprint), inputs)
            folder = PartialFolder(chunks, _match_manifest(path, fingerprint, chunks.key))
        except OSError as error:
            raise output_error(path, error) from None
        try:
            yield folder
        finally:
            folder.drop_scratch()


def _check_ours(path: Path) -> None:
    if not path.exists():
        return
    names = {entry.name for entry in path.iterdir()} if path.is_dir() else {"a file"}
    manifest = _read_manifest(path)
    if isinstance(manifest, dict) and "slimdiffsr" in manifest:
        return
    # So a power cut may leave it. The lock is made first: without it, words are another's.
    cut = manifest is None and (_LOCK in names or _is_blank(path / _MANIFEST))
    if cut and all(_is_our_name(name) for name in names):
        return
    raise OutputError(
        f"{path} exists and was not made by slimdiffsr: move it or choose another output"
    )


def _is_blank(manifest: Path) -> bool:
    return not manifest.exists() or manifest.read_bytes().strip(b"\0 \n") in (b"", b"null")


def _is_our_name(name: str) -> bool:
    return name in (_LOCK, *_SCRATCH) or _OURS.fullmatch(name) is not None


def _read_manifest(path: Path) -> Any:  # noqa: ANN401  whatever JSON holds; None if it holds none
    try:
        return json.loads((path / _MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _match_manifest(path: Path, fingerprint: Mapping[str, Any], key: str) -> str:
    wanted = json.loads(json.dumps(fingerprint))
    found = _read_manifest(path)
    stale = [p for p in path.glob("chunk-*.tif") if not p.name.startswith(f"chunk-{key}-")]
    _clear(path, keep=f"chunk-{key}-")
    temporary = path / (_MANIFEST + ".tmp")
    temporary.write_text(json.dumps(wanted, indent=1, sort_keys=True), encoding="utf-8")
    sync(temporary)
    temporary.replace(path / _MANIFEST)
    sync(path)
    if not stale:
        return ""
    found = found if isinstance(found, dict) else {}
    return (
        f"{len(stale)} finished chunks of an earlier run were discarded and the run started over, "
        f"because this changed: {', '.join(_changes(found, wanted))}."
    )


def _changes(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    """What differs, by name; of the arithmetic also how."""
    names = sorted(key for key in {*found, *wanted} if found.get(key) != wanted.get(key))
    said = []
    for name in names:
        before, now = found.get(name), wanted.get(name)
        if name != "arithmetic" or not isinstance(before, dict) or not isinstance(now, dict):
            said.append(name)
            continue
        said += [
            f"{key} ({before.get(key)} before, {now.get(key)} now)"
            for key in {**before, **now}
            if before.get(key) != now.get(key)
        ]
    return said


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with _take_lock(path) as file:
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


def _take_lock(path: Path) -> IO[str]:
    # The lock dies with its process, so one that a killed run left behind is simply taken over.
    name = path / _LOCK
    while True:
        file = name.open("a+", encoding="ascii", errors="replace")
        if fcntl is None:
            return file
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            owner = file.read().strip() or "unknown"
            file.close()
            raise OutputError(
                f"another run (process {owner}) is writing this output now, in {path}: "
                "wait for it or choose another output"
            ) from None
        # Another run may have finished and removed the folder between opening and locking.
        if name.exists() and name.stat().st_ino == os.fstat(file.fileno()).st_ino:
            return file
        file.close()
        path.mkdir(exist_ok=True)


def _clear(path: Path, keep: str | None = None) -> None:
    for name in _SCRATCH:
        shutil.rmtree(path / name, ignore_errors=True)
    for entry in path.iterdir():
        kept = keep is not None and entry.name.startswith(keep) and entry.suffix == ".tif"
        if _OURS.fullmatch(entry.name) and not kept:
            entry.unlink()

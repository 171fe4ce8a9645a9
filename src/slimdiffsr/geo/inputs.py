"""What the input's files hold: known by their bytes, and seen to stay as they were.

A raster is more than the file that was named: masks, overviews, statistics and world files beside
it, the sources of a VRT and of the VRTs inside it. All of them are looked at.
"""

from __future__ import annotations

import hashlib
import os
import re
import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as Xml

from slimdiffsr.errors import RasterError
from slimdiffsr.geo.sidefiles import side_files

__all__ = ["FileState", "Inputs", "look_at"]

_WHOLE_BYTES = 64 << 20  # up to this size every byte is hashed
_ALL_BYTES = 1 << 30  # what is hashed of all files together: about a second
_SAMPLES = 16
_SAMPLE_BYTES = 64 << 10
_REMOTE_S = 10.0
# "/vsizip//data/in.zip/in.tif", also one in the other; a part of a file has its place in front.
_ARCHIVE = re.compile(r"^(/vsi(zip|tar|gzip|7z|rar|cached|subfile)/([\d_]+,)?)+")


@dataclass(frozen=True, slots=True)
class FileState:
    """One file as it was found.

    sha256: of all bytes, or where ``modified_ns`` and ``inode`` are given of samples of them.
    tag: what a server says of its version (ETag, or time of change); then there is no hash.
    """

    path: str
    bytes: int
    sha256: str = ""
    modified_ns: int | None = None
    inode: int | None = None
    tag: str = ""


@dataclass(frozen=True, slots=True)
class Inputs:
    """All files of an input. Can be handed to another process."""

    files: tuple[FileState, ...]
    marks: tuple[tuple[int, int, int], ...]  # of each: size, time of change, inode

    def facts(self) -> list[dict[str, Any]]:
        """What a fingerprint holds of them: nothing that another machine would see differently."""
        return [
            {key: value for key, value in asdict(file).items() if value not in (None, "")}
            | ({"path": file.path.partition("?")[0]} if _is_web(file.path) else {})  # a signature
            for file in self.files
        ]

    def check_unchanged(self, *, thoroughly: bool = False) -> None:
        """Raise RasterError when a file is not what it was; thoroughly means by its bytes."""
        for file, mark in zip(self.files, self.marks, strict=True):
            if file.tag and not thoroughly:
                continue
            try:
                same = file.tag != "" or _mark(file.path) == mark
                same = same and not (thoroughly and _state(file.path, self._share) != file)
            except OSError:
                same = False
            if not same:
                raise RasterError(
                    f"{file.path} was changed while it was read: run the same command again when "
                    "nothing writes to it any more"
                )

    @property
    def _share(self) -> int:
        return _share(len(self.files))


def look_at(path: str, listed: Iterable[str]) -> Inputs:
    """Take down the state of a raster's files.

    path: as the user gave it. listed: the files that GDAL says the raster is made of. Raises
    RasterError when one of them cannot be read.
    """
    names = sorted(_all_files([path, *listed]))
    marks, files = [], []
    for name in names:
        try:
            # The mark first: a change after it is noticed, whatever the hash has seen.
            marks.append((0, 0, 0) if _is_web(name) else _mark(name))
            files.append(_state(name, _share(len(names))))
        except OSError as error:
            reason = error.strerror or str(error)
            raise RasterError(f"{name} cannot be read: {reason}") from None
    return Inputs(tuple(files), tuple(marks))


def _all_files(names: Iterable[str]) -> set[str]:
    found: set[str] = set()
    waiting = list(names)
    while waiting:
        name = waiting.pop()
        if _is_web(name):
            found.add(name)
            continue
        local = _local_file(name)
        if local is None or local in found:
            continue
        if os.path.isdir(local):
            waiting += (os.path.join(at, file) for at, _, files in os.walk(local) for file in files)
            continue
        found.add(local)
        waiting += map(str, side_files(Path(local)))
        if local.lower().endswith(".vrt"):
            waiting += _vrt_sources(Path(local))
    return found


def _local_file(name: str) -> str | None:
    """The file on the disk behind a name, also inside an archive; None when there is none."""
    inner = _ARCHIVE.sub("", name)
    if inner != name:
        inner = inner.replace("{", "").replace("}", "")
    if not inner or inner.startswith("/vsi"):
        return None
    places = [Path(inner)]
    if inner != name:  # in.zip/in.tif
        places += [parent for parent in Path(inner).parents if parent.suffix]
    found = next((place for place in places if place.exists()), None)
    return None if found is None else os.path.abspath(found)


def _vrt_sources(path: Path) -> Iterator[str]:
    try:
        root = Xml.parse(path).getroot()
    except (OSError, Xml.ParseError):
        return
    for element in root.iter():
        if element.tag in ("SourceFilename", "SourceDataset") and element.text:
            relative = element.get("relativeToVRT") == "1"
            yield str(path.parent / element.text) if relative else element.text


def _share(count: int) -> int:
    """How many bytes of a file may be hashed."""
    return min(_WHOLE_BYTES, _ALL_BYTES // max(count, 1))


def _mark(path: str) -> tuple[int, int, int]:
    stat = os.stat(path)
    return stat.st_size, stat.st_mtime_ns, stat.st_ino


def _state(path: str, share: int) -> FileState:
    if _is_web(path):
        return _web_state(path)
    size, modified_ns, inode = _mark(path)
    with open(path, "rb") as file:
        if size <= share:
            return FileState(path, size, hashlib.file_digest(file, "sha256").hexdigest())
        count = max(2, min(_SAMPLES, share // _SAMPLE_BYTES))
        digest = hashlib.sha256()
        for k in range(count):
            file.seek((size - _SAMPLE_BYTES) * k // (count - 1))
            digest.update(file.read(_SAMPLE_BYTES))
    # Samples may miss a change, so what the disk says of it counts too.
    return FileState(path, size, digest.hexdigest(), modified_ns, inode)


def _is_web(name: str) -> bool:
    return name.startswith(("http://", "https://", "/vsicurl/http"))


def _web_state(path: str) -> FileState:
    address = path.removeprefix("/vsicurl/")
    try:
        request = urllib.request.Request(address, method="HEAD")
        with urllib.request.urlopen(request, timeout=_REMOTE_S) as answer:
            headers = answer.headers
    except (OSError, urllib.error.URLError, ValueError):
        return FileState(path, -1, tag="unknown")  # a server that answers GDAL alone
    size = headers.get("Content-Length") or ""
    tag = headers.get("ETag") or headers.get("Last-Modified") or "unknown"
    return FileState(path, int(size) if size.isdecimal() else -1, tag=tag)

"""Outputs that go to an object store: made in a folder here, sent when they are whole."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from slimdiffsr.cli.show import note

__all__ = ["sent_to"]


@contextmanager
def sent_to(target: str) -> Iterator[str]:
    """The local output that stands for ``target``; what lies there in the end is sent.

    A local target is itself. An interrupted command finds what it had made in the same folder,
    ``slimdiffsr-sending-...`` in the working directory. Raises ConfigError and PlaceError.
    """
    if "://" not in target:
        yield target
        return
    from slimdiffsr.scale_out.places import check_writable, open_place

    address, _, name = target.rpartition("/")
    place = open_place(address)
    check_writable(place)
    folder = Path(f"slimdiffsr-sending-{hashlib.sha256(target.encode()).hexdigest()[:8]}")
    folder.mkdir(exist_ok=True)
    yield f"{folder}/{name}"
    made = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    finished = [path for path in made if not any(p.suffix == ".partial" for p in path.parents)]
    for path in finished:
        key = path.relative_to(folder).as_posix()
        place.put_file(key, path)
        note(f"sent: {address}/{key}")
        path.unlink()
    if len(finished) == len(made):
        shutil.rmtree(folder, ignore_errors=True)

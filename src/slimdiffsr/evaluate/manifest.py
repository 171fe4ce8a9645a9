"""A test set's manifest, and the journal that it grows from."""

from __future__ import annotations

import errno
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from slimdiffsr.errors import DataError, DiskFullError, OutputError
from slimdiffsr.files.tensors import file_sha256, write_atomically

__all__ = ["FORMAT", "JOURNAL", "MANIFEST", "Journal", "Record", "read_manifest"]

FORMAT = "slimdiffsr-testset/1"
MANIFEST = "manifest.json"
JOURNAL = "manifest.partial.jsonl"

Record = dict[str, Any]  # one image: its name, source and index, and of each file path and hashes


@dataclass(frozen=True, slots=True)
class Journal:
    """Notes finished images in a file until the manifest can be written."""

    out: Path
    plan: dict[str, Any]  # all that decides what the files hold
    former: dict[str, Record]  # of earlier calls with this plan

    @classmethod
    @contextmanager
    def open(cls, out: Path, plan: dict[str, Any]) -> Iterator[Journal]:
        """Take up what is there. What a disk refuses becomes an OutputError; the rest stays.

        Raises:
            DataError: the folder holds a test set of another plan, or a damaged one.
            OutputError: the folder cannot be written.
        """
        try:
            journal = cls(out, plan, _former_records(out, plan))
            lines = [json.dumps(line) + "\n" for line in (plan, *journal.former.values())]
            write_atomically(out / JOURNAL, "".join(lines).encode())
            yield journal
        except (DiskFullError, OSError) as error:
            if isinstance(error, DiskFullError) or error.errno == errno.ENOSPC:
                raise DiskFullError(
                    f"the disk is full at {out}: make room and run the same again, it goes on"
                ) from None
            raise OutputError(f"cannot write the test set {out}: {error}") from None

    def whole(self, name: str) -> Record | None:
        """The former record of an image whose files are all there and as they were."""
        record = self.former.get(name)
        if record is None:
            return None
        for file in record["files"].values():
            path = self.out / file["path"]
            if not path.is_file():
                return None
            if file_sha256(path) != file["sha256"]:
                return None
        return record

    def note(self, record: Record) -> None:
        """One more image is finished."""
        with (self.out / JOURNAL).open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")

    def finish(self, records: list[Record], left_out: dict[str, str]) -> None:
        """Write the manifest; the journal has served."""
        manifest = {**self.plan, "images": records, "left_out": left_out}
        text = json.dumps(manifest, indent=1, allow_nan=False) + "\n"
        write_atomically(self.out / MANIFEST, text.encode())
        (self.out / JOURNAL).unlink()


def read_manifest(folder: Path) -> dict[str, Any] | list[Any] | None:
    """A folder's manifest: ours, a bare list of images, or None. Raises DataError."""
    path = folder / MANIFEST
    if (folder / JOURNAL).is_file():
        raise DataError(f"{folder} is not finished: run make-testset again, it goes on")
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"cannot read {path}: {error}") from None
    ours = isinstance(content, dict) and content.get("format") == FORMAT
    if not ours and not isinstance(content, list):
        raise DataError(
            f"{path} is no manifest of make-testset: remove it to use the folder as it is"
        )
    return cast(dict[str, Any] | list[Any], content)


def _former_records(out: Path, plan: dict[str, Any]) -> dict[str, Record]:
    if (out / JOURNAL).is_file():
        lines = (out / JOURNAL).read_text(encoding="utf-8").split("\n")[:-1]  # the last may be torn
        try:
            found, *records = [json.loads(line) for line in lines]
        except ValueError as error:
            raise DataError(f"{out / JOURNAL} is damaged ({error}): remove it") from None
    else:
        content = read_manifest(out)
        if content is None:
            return {}
        found = content if isinstance(content, dict) else {}
        records = found.get("images", [])
    differing = [key for key in plan if found.get(key) != plan[key]]
    if differing:
        key = differing[0]
        what = "" if key == "sources" else f" ({found.get(key)} there, {plan[key]} now)"
        raise DataError(
            f"{out} holds a test set that differs in {key}{what}: give another folder or remove it"
        )
    return {record["name"]: record for record in records}

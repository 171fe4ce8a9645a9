"""Folders, zips and tars looked into alike: names of what they hold, texts, and GDAL's paths."""

from __future__ import annotations

import tarfile
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from xml.etree import ElementTree as Xml

from slimdiffsr.errors import RasterError

__all__ = ["Store", "open_store", "read_xml"]


@dataclass(frozen=True, slots=True)
class Store:
    """A product's container. names: of all files in it, with slashes, relative to it."""

    path: Path
    kind: Literal["folder", "zip", "tar"]
    names: tuple[str, ...]

    def gdal(self, name: str) -> str:
        """What GDAL calls a file in it."""
        if self.kind == "folder":
            return str(self.path / name)
        return f"/vsi{self.kind}/{self.path.absolute()}/{name}"

    def read(self, name: str) -> bytes:
        """A file's bytes. Raises RasterError."""
        try:
            if self.kind == "folder":
                return (self.path / name).read_bytes()
            if self.kind == "zip":
                with zipfile.ZipFile(self.path) as archive:
                    return archive.read(name)
            with tarfile.open(self.path) as archive:
                file = archive.extractfile(name)
                return b"" if file is None else file.read()
        except (OSError, KeyError, zipfile.BadZipFile, tarfile.TarError) as error:
            raise RasterError(f"cannot read {name} in {self.path}: {error}") from None


def open_store(path: Path) -> Store:
    """A folder, zip or tar. Raises RasterError when it is none of these, or damaged."""
    try:
        if path.is_dir():
            files = (p for p in path.rglob("*") if p.is_file())
            return Store(
                path, "folder", tuple(sorted(p.relative_to(path).as_posix() for p in files))
            )
        if path.suffix.lower() == ".zip":
            with zipfile.ZipFile(path) as archive:
                names = tuple(name for name in archive.namelist() if not name.endswith("/"))
            return Store(path, "zip", tuple(sorted(names)))
        with tarfile.open(path) as tar:
            return Store(path, "tar", tuple(sorted(m.name for m in tar if m.isfile())))
    except (OSError, zipfile.BadZipFile, tarfile.TarError) as error:
        raise RasterError(f"{path} cannot be opened, perhaps it was cut short: {error}") from None


def read_xml(store: Store, name: str) -> Xml.Element:
    """An XML file in a store, its namespaces dropped. Raises RasterError."""
    try:
        root = Xml.fromstring(store.read(name))
    except Xml.ParseError as error:
        raise RasterError(f"{name} in {store.path} is damaged: {error}") from None
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
    return root

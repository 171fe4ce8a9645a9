"""What a command with many inputs has to do: which rasters, which outputs, and what is left out."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from slimdiffsr.errors import OutputError, RasterError

__all__ = ["RASTERS", "Work", "WorkList", "check_there", "plan_work"]

RASTERS = (".tif", ".tiff", ".vrt", ".jp2", ".png", ".img", ".jpg", ".jpeg")


@dataclass(frozen=True, slots=True)
class Work:
    """One raster and where its enlargement goes."""

    source: str
    target: Path


@dataclass(slots=True)
class WorkList:
    """All work of a command."""

    works: list[Work]
    many: bool = False  # what is there already is kept, and a failure is not the end
    in_folder: bool = False  # outputs go into a folder, which is made
    refused: list[tuple[str, str]] = field(default_factory=list)  # source, and why it is not done
    notes: list[str] = field(default_factory=list)  # what was passed over


@dataclass(frozen=True, slots=True)
class _Input:
    path: str
    subfolder: Path = Path()  # below the folder that was given
    of_folder: bool = False


def check_there(paths: list[str]) -> None:
    """Raise RasterError when a local input does not exist: before anything slow is imported."""
    for path in paths:
        if _is_missing(path):
            raise RasterError(f"{path} does not exist")


def plan_work(paths: list[str], suffix: str, *, png: bool, recursive: bool) -> WorkList:
    """Inputs and the output of a command, as works.

    Raises OutputError when they do not fit together, and RasterError when there is no raster.
    """
    if len(paths) < 2:
        raise OutputError("give at least one input and the output: slimdiffsr upscale IN... OUT")
    *sources, target = paths
    if not target.strip():
        raise OutputError("the output has no name: give a file or a folder")
    found = WorkList([], many=len(sources) > 1 or _is_folder(sources[0]), in_folder=True)
    if not found.many and not os.path.isdir(target) and not target.endswith(("/", "\\")):
        return WorkList([Work(sources[0], Path(target))])
    folder = Path(target)
    _check_folder(folder)
    inputs = [x for source in sources for x in _expand(source, folder, recursive, found)]
    targets = {
        item: folder / item.subfolder / f"{_stem(item.path)}_{suffix}{'.png' if png else '.tif'}"
        for item in inputs
    }
    _add(found, targets)
    return found


def _check_folder(folder: Path) -> None:
    from slimdiffsr.geo.formats import format_of_name

    if folder.is_dir():
        return
    if not folder.exists():
        format_of_name(folder.name)
    if folder.exists() or folder.suffix.lower() in RASTERS:
        raise OutputError(
            f"several inputs need a folder as output, but {folder} is the name of a file"
        )


def _add(found: WorkList, targets: dict[_Input, Path]) -> None:
    results = {os.path.realpath(target) for target in targets.values()}
    seen: set[str] = set()
    taken: dict[Path, str] = {}
    for item, target in targets.items():
        real = os.path.realpath(item.path)
        if real in seen:
            continue  # given twice
        seen.add(real)
        if real in results:
            found.notes.append(f"passed over: {item.path} is what another input becomes")
        elif _is_own_result(item, target):
            found.notes.append(f"passed over: {item.path} was made by slimdiffsr, in this folder")
        elif target in taken:
            reason = (
                f"would become {target}, as {taken[target]} does: enlarge it into another folder"
            )
            found.refused.append((item.path, reason))
        else:
            taken[target] = item.path
            found.works.append(Work(item.path, target))


def _expand(source: str, out: Path, recursive: bool, found: WorkList) -> list[_Input]:
    if not _is_folder(source):
        return [_Input(source)]
    top, subfolders = Path(source), []
    inputs = []
    try:
        for folder, inner in _walk(top, out, recursive):
            subfolders += inner
            names = sorted(p for p in folder.iterdir() if _is_raster(p) or _is_product(p))
            inputs += [_Input(str(p), folder.relative_to(top), of_folder=True) for p in names]
    except OSError as error:
        raise RasterError(f"the folder {source} cannot be read: {error.strerror}") from None
    if not recursive and subfolders:
        plural = "s were" if len(subfolders) > 1 else " was"
        found.notes.append(
            f"passed over: {len(subfolders)} folder{plural} not looked into, in {source}: "
            "--recursive does"
        )
    if not inputs:
        raise RasterError(f"no raster in the folder {source}: looked for {', '.join(RASTERS)}")
    return inputs


def _walk(top: Path, out: Path, recursive: bool) -> Iterator[tuple[Path, list[Path]]]:
    """Folders to look into, each with the folders inside it; not into outputs or hidden ones."""
    inner = [
        entry
        for entry in sorted(top.iterdir())
        if entry.is_dir()
        and not entry.name.startswith(".")
        and entry.suffix != ".partial"
        and os.path.realpath(entry) != os.path.realpath(out)
        and not _is_product(entry)
    ]
    yield top, inner
    if recursive:
        for entry in inner:
            yield from _walk(entry, out, recursive)


def _is_raster(path: Path) -> bool:
    # Hidden ones too are none: "._x.tif" is what macOS writes beside x.tif on foreign disks.
    return path.suffix.lower() in RASTERS and not path.name.startswith(".") and not path.is_dir()


def _is_folder(source: str) -> bool:
    """Whether rasters are to be looked for in it: a product's folder is one input."""
    return os.path.isdir(source) and not _is_product(Path(source))


def _is_product(path: Path) -> bool:
    if path.suffix in (".SAFE", ".zarr") or path.name.endswith(".SAFE.zip"):
        return True
    if not path.is_dir():
        return False
    from slimdiffsr.sensors import product_store

    return product_store(str(path)) is not None


def _stem(source: str) -> str:
    """A name for what becomes of an input: that of a file, or of an item inside one."""
    inner = source.rpartition("#")[2] if "#" in source else source
    return Path(inner).name.removesuffix(".zip").rpartition(".")[0] or Path(inner).name


def _is_own_result(item: _Input, target: Path) -> bool:
    """A result that lies where further ones go: not meant as an input when its folder was given."""
    path = Path(item.path)
    beside = os.path.realpath(path.parent) == os.path.realpath(target.parent)
    if not (item.of_folder and beside and re.search(r"_(x[\d.]+|[\d.]+m?)$", path.stem)):
        return False
    from slimdiffsr.geo.raster import open_quietly

    try:
        with open_quietly(item.path) as dataset:
            return "SLIMDIFFSR_SCALE" in dataset.tags()
    except RasterError:
        return False


def _is_missing(path: str) -> bool:
    remote = ":" in path or path.startswith(("/vsi", "<"))
    return not remote and not os.path.lexists(path)

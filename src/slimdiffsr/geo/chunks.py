"""The folder of a run in progress: lock, manifest, and chunk files that appear whole or not at all.

``OUT.partial/`` holds ``manifest.json`` (what the chunks were made from), ``lock``, one GeoTIFF for
each finished chunk, and while a run works the folders ``tiles`` and ``final``. Only files of these
names are ever deleted.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal

import rasterio
from affine import Affine
from numpy.typing import NDArray

from slimdiffsr.errors import OutputError
from slimdiffsr.geo.georef import shifted
from slimdiffsr.geo.grid import Region
from slimdiffsr.geo.header import Header
from slimdiffsr.geo.output import (
    UNREADABLE,
    is_readable,
    output_error,
)
from slimdiffsr.geo.raster import GDAL_ERRORS
from slimdiffsr.geo.spec import BLOCK_HR_PX

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

__all__ = ["PartialFolder", "Stripe", "open_partial_folder"]

_MANIFEST = "manifest.json"
_LOCK = "lock"
_SCRATCH = ("final", "tiles")
_OURS = re.compile(r"(chunk-\d+-\d+\.tif|scene\.vrt|manifest\.json)(\.tmp)?(\.msk)?(\.aux\.xml)?$")


@dataclass(frozen=True, slots=True)
class Stripe:
    """Rows of one band of a chunk (band 0: its mask), ready to be written."""

    band: int
    row_hr_px: int  # inside the chunk
    pixels: NDArray[Any]  # (h, w)


@dataclass(slots=True)
class PartialFolder:
    """An ``OUT.partial`` folder that this process alone works in."""

    path: Path
    restarted: str = ""  # why earlier chunks were thrown away, as a sentence

    def chunk_path(self, region_hr: Region) -> Path:
        """File of the chunk that begins at a place of the output grid."""
        return self.path / f"chunk-{region_hr.row:07d}-{region_hr.col:07d}.tif"

    @property
    def vrt_path(self) -> Path:
        """The file that lays all chunks side by side."""
        return self.path / "scene.vrt"

    def scratch(self, name: Literal["final", "tiles"]) -> Path:
        """A new empty folder: for the output before it is moved into place, or for shared tiles.

        Raises DiskFullError or OutputError.
        """
        folder = self.path / name
        try:
            _remove_folder(folder)
            folder.mkdir()
        except OSError as error:
            raise output_error(folder, error) from None
        return folder

    def drop_scratch(self) -> None:
        """Delete such folders."""
        for name in _SCRATCH:
            _remove_folder(self.path / name)

    def is_finished(self, region_hr: Region, header: Header) -> bool:
        """Whether a chunk is there and whole; a damaged one is deleted."""
        path = self.chunk_path(region_hr)
        if not path.exists():
            return False
        try:
            whole = _is_whole(path, region_hr, header)
        except GDAL_ERRORS:
            whole = False
        if not whole:
            path.unlink()
        return whole

    def write_chunk(self, region_hr: Region, header: Header, stripes: Iterator[Stripe]) -> None:
        """Write a chunk under a temporary name, check it, and give it its own.

        Raises DiskFullError or OutputError; the chunk is then not there.
        """
        path = self.chunk_path(region_hr)
        temporary = path.with_name(path.name + ".tmp")
        try:
            with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True):  # type: ignore[no-untyped-call]
                with rasterio.open(temporary, "w", **_profile(region_hr, header)) as dataset:
                    for stripe in stripes:
                        write_stripe(dataset, stripe)
                if not _is_whole(temporary, region_hr, header):
                    raise OSError(UNREADABLE)
            _sync(temporary)
            temporary.replace(path)
            _sync(self.path)
        except (*GDAL_ERRORS, OSError) as error:
            raise output_error(path, error) from None
        finally:
            temporary.unlink(missing_ok=True)

    def chunk_count(self) -> int:
        """Number of finished chunks."""
        return len(list(self.path.glob("chunk-*.tif")))

    def remove(self) -> bool:
        """Delete our files; False if foreign ones keep the folder alive."""
        _clear(self.path)
        (self.path / _LOCK).unlink(missing_ok=True)
        with suppress(OSError):
            self.path.rmdir()
        return not self.path.exists()


def write_stripe(dataset: Any, stripe: Stripe) -> None:  # noqa: ANN401
    """The one place where pixels go to disk."""
    height, width = stripe.pixels.shape
    window = rasterio.windows.Window(0, stripe.row_hr_px, width, height)
    if stripe.band == 0:
        dataset.write_mask(stripe.pixels, window=window)
    else:
        dataset.write(stripe.pixels, stripe.band, window=window)


@contextmanager
def open_partial_folder(path: Path, fingerprint: Mapping[str, Any]) -> Iterator[PartialFolder]:
    """Take an ``OUT.partial`` folder for this process, keeping chunks of an equal fingerprint.

    Raises OutputError when another process works there, when the folder is not ours, or when it
    cannot be made.
    """
    with ExitStack() as stack:
        try:
            _check_ours(path)
            path.mkdir(exist_ok=True)
            stack.enter_context(_locked(path))
            folder = PartialFolder(path, _match_manifest(path, fingerprint))
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
    if names <= {_LOCK, _MANIFEST + ".tmp"}:
        return
    with suppress(OSError, ValueError):
        if "slimdiffsr" in json.loads((path / _MANIFEST).read_text()):
            return
    raise OutputError(
        f"{path} exists and was not made by slimdiffsr: move it or choose another output"
    )


def _match_manifest(path: Path, fingerprint: Mapping[str, Any]) -> str:
    manifest = path / _MANIFEST
    wanted = json.loads(json.dumps(fingerprint))
    try:
        found = json.loads(manifest.read_text())
    except (OSError, ValueError):
        found = None
    if found == wanted:
        return ""
    chunks = PartialFolder(path).chunk_count()
    _clear(path)
    temporary = path / (_MANIFEST + ".tmp")
    temporary.write_text(json.dumps(wanted, indent=1, sort_keys=True))
    temporary.replace(manifest)
    if not isinstance(found, dict) or chunks == 0:
        return ""
    return (
        f"{chunks} finished chunks of an earlier run were discarded and the run started over, "
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
        file = name.open("a+", encoding="ascii")
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


def _clear(path: Path) -> None:
    PartialFolder(path).drop_scratch()
    for entry in path.iterdir():
        if _OURS.fullmatch(entry.name):
            entry.unlink()


def _remove_folder(folder: Path) -> None:
    if folder.is_dir():
        for entry in folder.iterdir():
            entry.unlink()
        folder.rmdir()


def _profile(region_hr: Region, header: Header) -> dict[str, Any]:
    # Without map coordinates pixels count downwards from 0, in halves: GDAL takes the identity and
    # its mirror image for "no transform" and warns.
    base = header.transform
    if base is None or base in (Affine.identity(), Affine.scale(1, -1)):
        base = Affine.scale(0.5, -0.5)
    return {
        "driver": "GTiff",
        "width": region_hr.width,
        "height": region_hr.height,
        "count": len(header.bands),
        "dtype": header.dtype.name,
        "crs": header.crs,
        "transform": shifted(
            base, region_hr.col - header.region_hr.col, region_hr.row - header.region_hr.row
        ),
        "nodata": header.nodata,
        "tiled": True,
        "blockxsize": BLOCK_HR_PX,
        "blockysize": BLOCK_HR_PX,
        "interleave": "band",
        "photometric": "MINISBLACK",
        # Not compressed, as the output is: once is enough. Empty blocks take no room.
        "sparse_ok": True,
        "bigtiff": "IF_SAFER",
    }


def _is_whole(path: Path, region_hr: Region, header: Header) -> bool:
    with rasterio.open(path) as dataset:
        shape = (dataset.count, dataset.height, dataset.width, dataset.dtypes[0])
        wanted = (len(header.bands), region_hr.height, region_hr.width, header.dtype.name)
        return shape == wanted and is_readable(dataset)


def _sync(path: Path) -> None:
    try:
        handle = os.open(path, os.O_RDONLY)
    except PermissionError:  # Windows opens no folders
        return
    try:
        os.fsync(handle)
    finally:
        os.close(handle)

"""TIFF directories, read and written: enough to lay compressed blocks into another file.

Adobe, TIFF 6.0 (1992); BigTIFF (2007). Nothing is decoded: fields are bytes, blocks are places.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np

__all__ = ["BlockSource", "Directory", "Field", "directories_size", "encode", "read_directories"]

WIDTH, HEIGHT, TILE_WIDTH, TILE_HEIGHT = 256, 257, 322, 323
_SUBFILE, _OFFSETS, _BYTE_COUNTS = 254, 324, 325
_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}  # fmt: skip
_INTEGERS = {1: "<u1", 3: "<u2", 4: "<u4", 16: "<u8"}
_LONG, _LONG8 = 4, 16


@dataclass(frozen=True, slots=True)
class Field:
    """The value of a tag."""

    kind: int  # as TIFF numbers its types
    count: int
    data: bytes  # little-endian


@dataclass(frozen=True, slots=True)
class BlockSource:
    """Where a compressed block lies; without bytes where a file leaves an empty one out."""

    path: str
    offset: int
    size: int


Directory = dict[int, Field]


def read_directories(file: BinaryIO, base: int = 0) -> tuple[list[Directory], bytes]:
    """All directories of a little-endian TIFF, and what lies between its header and the first.

    base: where in the file it begins. Raises ValueError for another kind of file.
    """
    file.seek(base)
    head = file.read(16)
    if head[:4] == b"II*\0":
        big, start = False, 8
        (where,) = struct.unpack_from("<I", head, 4)
    elif head[:8] == b"II+\0\x08\0\0\0":
        big, start = True, 16
        (where,) = struct.unpack_from("<Q", head, 8)
    else:
        raise ValueError("no little-endian TIFF")
    file.seek(base + start)
    between = file.read(where - start) if where > start else b""
    directories = []
    while where:
        directory, where = _read_directory(file, where, big, base)
        directories.append(directory)
    return directories, between


def _read_directory(file: BinaryIO, where: int, big: bool, base: int) -> tuple[Directory, int]:
    count_format, entry_format, next_format = ("<Q", "<HHQ8s", "<Q") if big else ("<H", "<HHI4s", "<I")  # fmt: skip
    file.seek(base + where)
    (count,) = struct.unpack(count_format, file.read(struct.calcsize(count_format)))
    entry_size = struct.calcsize(entry_format)
    entries = file.read(count * entry_size)
    (following,) = struct.unpack(next_format, file.read(struct.calcsize(next_format)))
    directory = {}
    for tag, kind, length, value in struct.iter_unpack(entry_format, entries):
        size = _SIZES[kind] * length
        if size > len(value):
            file.seek(base + int.from_bytes(value, "little"))
            value = file.read(size)
        directory[tag] = Field(kind, length, value[:size])
    return directory, following


def number(directory: Directory, tag: int, default: int = 0) -> int:
    """The first number of a field of whole numbers."""
    return int(numbers(directory, tag)[0]) if tag in directory else default


def numbers(directory: Directory, tag: int) -> np.ndarray[tuple[int], np.dtype[np.uint64]]:
    """All of them."""
    field = directory[tag]
    return np.frombuffer(field.data, _INTEGERS[field.kind]).astype(np.uint64)


def blocks(directory: Directory, path: str, base: int = 0) -> list[BlockSource]:
    """The blocks of a tiled directory, row by row. Raises KeyError for one that has strips."""
    places = zip(numbers(directory, _OFFSETS), numbers(directory, _BYTE_COUNTS), strict=True)
    return [BlockSource(path, base + int(offset), int(size)) for offset, size in places]


def is_mask(directory: Directory) -> bool:
    """Whether it is a mask of another one."""
    return bool(number(directory, _SUBFILE) & 4)


def is_reduced(directory: Directory) -> bool:
    """Whether it is an overview, or the mask of one."""
    return bool(number(directory, _SUBFILE) & 1)


def sized(directory: Directory, width: int, height: int) -> Directory:
    """The directory of another image, its blocks not yet placed."""
    size = {WIDTH: width, HEIGHT: height}
    return directory | {
        tag: Field(_LONG, 1, struct.pack("<I", value)) for tag, value in size.items()
    }


def placed(directory: Directory, offsets: Sequence[int], sizes: Sequence[int]) -> Directory:
    """The directory with its blocks at these places."""
    return directory | {
        _OFFSETS: Field(_LONG8, len(offsets), np.array(offsets, "<u8").tobytes()),
        _BYTE_COUNTS: Field(_LONG, len(sizes), np.array(sizes, "<u4").tobytes()),
    }


def directories_size(directories: Sequence[Directory], between: bytes, big: bool) -> int:
    """How many bytes ``encode`` makes of them."""
    return len(encode(directories, between, big))


def encode(directories: Sequence[Directory], between: bytes, big: bool) -> bytes:
    """The beginning of a file: header, ``between``, and all directories with their fields."""
    start = 16 if big else 8
    out = bytearray(start) + between
    out += bytes(len(out) % 2)
    first = len(out)
    link = None
    for directory in directories:
        where = len(out)
        if link is not None:
            struct.pack_into("<Q" if big else "<I", out, link, where)
        link = _append(out, directory, big)
    if big:
        struct.pack_into("<2sHHHQ", out, 0, b"II", 43, 8, 0, first)
    else:
        struct.pack_into("<2sHI", out, 0, b"II", 42, first)
    return bytes(out)


def _append(out: bytearray, directory: Directory, big: bool) -> int:
    """Add a directory; returns where the place of the next one is to be written."""
    inline, entry_size = (8, 20) if big else (4, 12)
    head = 8 if big else 2
    where = len(out)
    link = where + head + entry_size * len(directory)
    entries = struct.pack("<Q" if big else "<H", len(directory))
    outside = bytearray()
    begin = link + inline
    for tag, field in sorted(directory.items()):
        kind, data = _narrowed(field, big)
        if len(data) > inline:
            value = (begin + len(outside)).to_bytes(inline, "little")
            outside += data + bytes(len(data) % 2)
        else:
            value = data.ljust(inline, b"\0")
        entries += struct.pack("<HHQ" if big else "<HHI", tag, kind, field.count) + value
    out += entries + bytes(inline) + outside
    return link


def _narrowed(field: Field, big: bool) -> tuple[int, bytes]:
    # A classic TIFF has no numbers of eight bytes.
    if big or field.kind != _LONG8:
        return field.kind, field.data
    return _LONG, np.frombuffer(field.data, "<u8").astype("<u4").tobytes()

"""Pairs of images in two folders, matched by name."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np

from slimdiffsr.datasets.images import Rgb8, read_rgb8
from slimdiffsr.datasets.layouts import IMAGE_SUFFIXES
from slimdiffsr.errors import DataError

__all__ = ["PairedFolder", "Pairs", "files_by_stem", "pixels_sha256"]


class Pairs(Protocol):
    """Named low-resolution images, each with its high-resolution partner where there is a truth."""

    @property
    def scale(self) -> int:
        """How many times larger the high-resolution images are."""

    @property
    def names(self) -> tuple[str, ...]:
        """One name a pair, in order."""

    @property
    def has_truth(self) -> bool:
        """False for real inputs without a truth: only measures that need none can be taken."""

    def read(self, name: str) -> tuple[Rgb8, Rgb8 | None]:
        """(lr, hr) of one pair: (h, w, 3), and (scale*h, scale*w, 3) or None; raises DataError."""

    def describe(self) -> dict[str, str]:
        """What a protocol says of the data: name, n, scale, sha256, how it was checked."""


@dataclass(frozen=True, slots=True)
class PairedFolder:
    """Images that belong together by file stem, never by order.

    ``pixels`` holds what the decoded images must hash to (``pixels_sha256``), where a manifest
    tells; an image that differs is an error when it is read. ``hr_files`` is empty without a truth.
    """

    lr_files: Mapping[str, Path]
    hr_files: Mapping[str, Path]
    scale: int
    pixels: Mapping[Path, str] = field(default_factory=dict)
    about: Mapping[str, str] = field(default_factory=dict)
    _told: dict[str, str] = field(default_factory=dict, init=False, repr=False, compare=False)

    @classmethod
    def open(cls, lr_dir: Path, hr_dir: Path, scale: int | None = None) -> PairedFolder:
        """List both folders and match them; without ``scale``, the first readable pair tells it.

        Raises:
            DataError: a folder is missing or empty, a stem is doubled, a partner is missing, or
                no whole scale can be told.
        """
        lr_files, hr_files = files_by_stem(lr_dir), files_by_stem(hr_dir)
        alone = [
            f"{path} has no partner in {other}"
            for files, others, other in ((lr_files, hr_files, hr_dir), (hr_files, lr_files, lr_dir))
            for stem, path in files.items()
            if stem not in others
        ]
        if alone:
            more = f" (and {len(alone) - 3} more)" if len(alone) > 3 else ""
            raise DataError(f"pairs match by file stem: {'; '.join(alone[:3])}{more}")
        if scale is None:
            scale = _whole_scale([(lr_files[stem], hr_files[stem]) for stem in lr_files])
        return cls(lr_files, hr_files, scale, about={"name": lr_dir.absolute().parent.name})

    @property
    def names(self) -> tuple[str, ...]:
        """File stems in alphabetical order."""
        return tuple(self.lr_files)

    @property
    def has_truth(self) -> bool:
        """Whether there are high-resolution images."""
        return bool(self.hr_files)

    def read(self, name: str) -> tuple[Rgb8, Rgb8 | None]:
        """(lr, hr) of one pair: (h, w, 3) and (scale*h, scale*w, 3) uint8, or None for no truth.

        Raises:
            DataError: unreadable, not plain 8-bit RGB or grey, changed since the manifest was
                written, or sizes that do not fit.
        """
        lr = self._read_checked(self.lr_files[name])
        if not self.has_truth:
            return lr, None
        hr = self._read_checked(self.hr_files[name])
        h, w = (self.scale * side for side in lr.shape[:2])
        if hr.shape[:2] != (h, w):
            raise DataError(
                f"{self.hr_files[name]} is {hr.shape[1]} x {hr.shape[0]} px, but {self.scale} "
                f"times {self.lr_files[name]} is {w} x {h}: crop or remake the pair"
            )
        return lr, hr

    def describe(self) -> dict[str, str]:
        """Name, n, scale, and one hash over names and decoded pixels of all images.

        Without a manifest all images are decoded for it, once.
        """
        if not self._told:
            self._told.update(self._describe())
        return dict(self._told)

    def _describe(self) -> dict[str, str]:
        total = hashlib.sha256()
        for name in self.names:
            files = (self.lr_files[name], *([self.hr_files[name]] if self.has_truth else []))
            total.update(" ".join((name, *map(self._digest, files), "\n")).encode())
        return {
            "name": "pairs",
            "checked": "no, there is no manifest",
            **self.about,
            "n": str(len(self.names)),
            "scale": str(self.scale),
            "truth": "yes" if self.has_truth else "none",
            "sha256": total.hexdigest(),
        }

    def _read_checked(self, path: Path) -> Rgb8:
        rgb = read_rgb8(path)
        expected = self.pixels.get(path)
        if expected is not None and pixels_sha256(rgb) != expected:
            raise DataError(
                f"{path} has changed since the manifest beside it was written: run make-testset again"
            )
        return rgb

    def _digest(self, path: Path) -> str:
        if path in self.pixels:
            return self.pixels[path]
        try:
            return pixels_sha256(read_rgb8(path))
        except DataError:
            return "unreadable"


def pixels_sha256(rgb: Rgb8) -> str:
    """SHA-256 of (h, w, 3) uint8 values, row by row: the same however the file was packed."""
    return hashlib.sha256(np.ascontiguousarray(rgb).tobytes()).hexdigest()


def files_by_stem(folder: Path) -> dict[str, Path]:
    """The images right in a folder by file stem, sorted. Raises DataError."""
    if not folder.is_dir():
        raise DataError(f"no such folder: {folder}")
    files: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() not in IMAGE_SUFFIXES or path.name.startswith("."):
            continue
        if path.stem in files:
            raise DataError(f"two images of one name: {files[path.stem]} and {path}: remove one")
        files[path.stem] = path
    if not files:
        raise DataError(f"no images in {folder}: expected {', '.join(IMAGE_SUFFIXES)}")
    return files


def _whole_scale(pairs: list[tuple[Path, Path]]) -> int:
    # Of the first pair that can be read; the others are reported when their turn comes.
    reasons = []
    for lr, hr in pairs:
        try:
            lr_width, hr_width = read_rgb8(lr).shape[1], read_rgb8(hr).shape[1]
        except DataError as error:
            reasons.append(str(error))
            continue
        if hr_width % lr_width:
            raise DataError(
                f"{hr} is {hr_width} px wide and {lr} is {lr_width}: no whole scale, so give one"
            )
        return int(hr_width // lr_width)
    raise DataError(f"no pair can be read: {reasons[0]}")

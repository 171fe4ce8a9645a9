"""Test sets: low-resolution partners made once, kept with a manifest, checked whenever used.

OUT/hr/NAME.png, OUT/lr_x4/NAME.png, ... and OUT/manifest.json. While it is being made, finished
images are noted in OUT/manifest.partial.jsonl, so the same call again goes on from there.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch

from slimdiffsr.datasets.images import Rgb8, encode_png, read_rgb8
from slimdiffsr.datasets.layouts import TestImages, sample_test_images
from slimdiffsr.degrade import degrade, image_generator
from slimdiffsr.errors import ConfigError, DataError
from slimdiffsr.evaluate.manifest import (
    FORMAT,
    MANIFEST,
    Journal,
    Record,
    read_manifest,
)
from slimdiffsr.evaluate.pairs import PairedFolder, files_by_stem, pixels_sha256
from slimdiffsr.files.tensors import file_sha256, write_atomically
from slimdiffsr.settings.config import Recipe, to_dict

__all__ = ["MadeTestset", "TestsetOptions", "make_testset", "open_testset"]


# Real-RefRSSRD's own script leaves its 48 px inputs enlarged to 480 by repetition (MS 13).
REPEATED = 10


@dataclass(frozen=True, slots=True)
class TestsetOptions:
    """How a test set is drawn and made."""

    scales: tuple[int, ...] = (4,)
    seed: int = 20260
    images: int | None = None  # None: the paper's number for a known tree, else all
    layout: str | None = None  # a name of ``layouts.LAYOUTS``; None recognises the tree
    max_side_hr_px: int | None = None  # larger images are cropped around their centre

    __test__ = False  # not a class of tests

    def __post_init__(self) -> None:
        wrong = [scale for scale in self.scales if scale not in (2, 4, 8)]
        if wrong or not self.scales or len(set(self.scales)) < len(self.scales):
            raise ConfigError(f"scales must be different ones of 2, 4 and 8, got {self.scales}")
        if self.seed < 0 or (self.images is not None and self.images < 1):
            raise ConfigError(
                f"the seed must be at least 0 and the number of images at least 1, got {self.seed} "
                f"and {self.images}"
            )
        if self.max_side_hr_px is not None and self.max_side_hr_px < max(self.scales):
            raise ConfigError(
                f"the largest side must hold one input pixel, got {self.max_side_hr_px}"
            )


@dataclass(slots=True)
class MadeTestset:
    """What ``make_testset`` did. ``left_out``: source files that could not be used, and why."""

    folder: Path
    made: int = 0
    kept: int = 0
    left_out: dict[str, str] = field(default_factory=dict)


def make_testset(
    source: Path,
    out: Path,
    options: TestsetOptions | None = None,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> MadeTestset:
    """Make low-resolution partners by the paper's degradation, one seed an image (MS 12, 13).

    Images keep their size, but for the crop at the right and lower edge to a multiple of the
    scales (and ``max_side_hr_px``). Image ``i`` of the sorted sample is degraded with
    ``image_generator(seed, i)`` in float64, so that CPUs agree on every pixel. Trees without a
    truth (Real-RefRSSRD) are copied as inputs alone. An image that cannot be used is left out and
    told; all others are made.

    Args:
        source: a published tree, or any folder of sharp images.
        out: the folder to make; the same call again keeps what is finished and whole.
        options: what to make.
        progress: called with (images done, images in all).

    Raises:
        DataError: see ``layouts.sample_test_images``; ``out`` holds another test set; no image
            could be used.
        OutputError: ``out`` cannot be written.
    """
    options = options or TestsetOptions()
    chosen = sample_test_images(source, options.layout, seed=options.seed, count=options.images)
    names = _names(chosen)
    done = MadeTestset(out)
    records: list[Record] = []
    with Journal.open(out, _plan(chosen, options)) as journal:
        for index, (name, path) in enumerate(zip(names, chosen.files, strict=True)):
            if progress is not None:
                progress(index, len(names))
            record = journal.whole(name)
            if record is not None:
                done.kept += 1
            else:
                try:
                    images = _images(path, index, options, truth=chosen.layout.truth)
                except DataError as error:
                    relative = chosen.relative(path)
                    done.left_out[relative] = str(error).replace(str(path), relative)
                    continue
                record = _write_images(out, name, images)
                record |= {"source": chosen.relative(path), "source_sha256": file_sha256(path)}
                record |= {"index": index}
                journal.note(record)
                done.made += 1
            records.append(record)
        if not records:
            reasons = "; ".join(list(done.left_out.values())[:3])
            raise DataError(f"no image of {source} could be used: {reasons}")
        journal.finish(records, done.left_out)
    if progress is not None:
        progress(len(names), len(names))
    return done


def open_testset(folder: Path, scale: int) -> PairedFolder:
    """A test set for evaluation, at one scale.

    With a manifest of ``make_testset``, every image is checked against it when it is read. A
    folder with hr/ and lr_x4/ (or lr_x8/, ...) without one is taken as it is, and
    ``describe()["checked"]`` says so; a manifest that lists names alone must list these files. A
    folder without hr/ holds real inputs that have no truth.

    Raises:
        DataError: no such folder, not a test set, not made for this scale, a file is missing, or
            the manifest cannot be read.
    """
    lr_dir, hr_dir = folder / f"lr_x{scale}", folder / "hr"
    if not lr_dir.is_dir():
        raise DataError(_no_such_scale(folder, scale))
    manifest = read_manifest(folder)
    if isinstance(manifest, dict):
        return _open_checked(folder, scale, manifest)
    if hr_dir.is_dir():
        pairs = PairedFolder.open(lr_dir, hr_dir, scale)
    else:
        pairs = PairedFolder(files_by_stem(lr_dir), {}, scale)
    about = {"name": folder.absolute().name}
    if manifest is not None:
        _check_listed(folder, manifest, set(pairs.names))
        about["checked"] = "names, against a manifest without hashes"
        seeds = [str(entry[f"seed_x{scale}"]) for entry in manifest if f"seed_x{scale}" in entry]
        about |= {"seed": f"{seeds[0]} to {seeds[-1]}, one an image"} if seeds else {}
    return PairedFolder(pairs.lr_files, pairs.hr_files, scale, about=about)


def _open_checked(folder: Path, scale: int, manifest: dict[str, Any]) -> PairedFolder:
    lr_files: dict[str, Path] = {}
    hr_files: dict[str, Path] = {}
    pixels: dict[Path, str] = {}
    try:
        for record in manifest["images"]:
            for kind, file in record["files"].items():
                path = folder / file["path"]
                if kind not in ("hr", f"lr_x{scale}"):
                    continue
                (hr_files if kind == "hr" else lr_files)[record["name"]] = path
                pixels[path] = file["pixels_sha256"]
        about = {
            "name": folder.absolute().name,
            "from": manifest["layout"],
            "checked": "pixels, against the manifest",
            "seed": str(manifest["seed"]),
            "made with": ", ".join(f"{k} {v}" for k, v in manifest["versions"].items()),
        }
    except (KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{folder / MANIFEST} is damaged ({error!r}): make the set again") from None
    missing = [path for path in pixels if not path.is_file()]
    if missing:
        raise DataError(
            f"{missing[0]} is missing ({len(missing)} files in all): run make-testset again"
        )
    return PairedFolder(lr_files, hr_files, scale, pixels, about)


def _check_listed(folder: Path, manifest: list[Any], names: set[str]) -> None:
    try:
        listed = {str(entry["name"]) for entry in manifest}
    except (KeyError, TypeError):
        raise DataError(f"{folder / MANIFEST} is not a manifest of names: remove it") from None
    differing = sorted(listed ^ names)
    if differing:
        raise DataError(
            f"{folder / MANIFEST} and the images beside it differ in {', '.join(differing[:3])} "
            f"({len(differing)} in all): complete the folder or remove the manifest"
        )


def _no_such_scale(folder: Path, scale: int) -> str:
    if not folder.is_dir():
        return f"no such folder: {folder}"
    there = sorted(path.name for path in folder.glob("lr_x*") if path.is_dir())
    if there:
        return f"{folder} holds {', '.join(there)} and nothing for {scale}x: make-testset --scale {scale}"
    return (
        f"{folder} is no test set: expected hr/ and lr_x{scale}/ in it, as make-testset makes them"
    )


def _plan(chosen: TestImages, options: TestsetOptions) -> dict[str, Any]:
    # All that decides what the files hold.
    scales = sorted(options.scales)
    recipes = {f"lr_x{scale}": to_dict(Recipe(scale=cast(Any, scale))) for scale in scales}
    packages = ("slimdiffsr", "torch", "numpy", "pillow")
    plan = {
        "format": FORMAT,
        "layout": chosen.layout.title,
        "seed": options.seed,
        "scales": scales,
        "max_side_hr_px": options.max_side_hr_px,
        "recipe": recipes if chosen.layout.truth else None,
        "versions": {package: version(package) for package in packages},
        "sources": [chosen.relative(path) for path in chosen.files],
    }
    return cast(dict[str, Any], json.loads(json.dumps(plan)))  # lists for tuples, as read back


def _names(chosen: TestImages) -> list[str]:
    # Stems; where two agree (on any file system), the whole path with dashes.
    names = [path.stem for path in chosen.files]
    if _doubled(names):
        names = [
            "-".join(path.relative_to(chosen.root).with_suffix("").parts) for path in chosen.files
        ]
    doubled = _doubled(names)
    if doubled:
        raise DataError(f"two images of {chosen.root} are called {doubled[0]}: rename one")
    return names


def _doubled(names: list[str]) -> list[str]:
    counts = Counter(name.lower() for name in names)
    return [name for name, count in counts.items() if count > 1]


def _images(path: Path, index: int, options: TestsetOptions, *, truth: bool) -> dict[str, Rgb8]:
    # By folder: hr, lr_x4, ...
    rgb = read_rgb8(path)
    if truth:
        return _degraded(rgb, index, options)
    lr = _undo_repetition(rgb)
    return {f"lr_x{scale}": lr for scale in options.scales}


def _write_images(out: Path, name: str, images: dict[str, Rgb8]) -> Record:
    files = {}
    for kind, pixels in images.items():
        packed = encode_png(pixels)
        write_atomically(out / kind / f"{name}.png", packed)
        files[kind] = {
            "path": f"{kind}/{name}.png",
            "width": pixels.shape[1],
            "height": pixels.shape[0],
            "sha256": hashlib.sha256(packed).hexdigest(),
            "pixels_sha256": pixels_sha256(pixels),
        }
    return {"name": name, "files": files}


def _degraded(rgb: Rgb8, index: int, options: TestsetOptions) -> dict[str, Rgb8]:
    unit = math.lcm(*options.scales)
    h, w = rgb.shape[:2]
    if options.max_side_hr_px is not None:
        side = options.max_side_hr_px
        top, left = max(0, (h - side) // 2), max(0, (w - side) // 2)
        rgb = rgb[top : top + side, left : left + side]
        h, w = rgb.shape[:2]
    rgb = rgb[: h - h % unit, : w - w % unit]
    if rgb.size == 0:
        raise DataError(f"an image of {w} x {h} px is too small for {max(options.scales)}x")
    hr = torch.from_numpy(rgb.copy()).permute(2, 0, 1)[None].double() / 255
    images = {"hr": rgb}
    for scale in sorted(options.scales):
        rng = image_generator(options.seed, index)
        lr = degrade(hr, Recipe(scale=cast(Any, scale)), [rng])[0]
        images[f"lr_x{scale}"] = (lr * 255).round().byte().permute(1, 2, 0).numpy()
    return images


def _undo_repetition(rgb: Rgb8) -> Rgb8:
    # (10h, 10w, 3) whose pixels are all repeated 10 x 10 times -> (h, w, 3); others as they are.
    h, w = rgb.shape[:2]
    if min(h, w) <= REPEATED or h % REPEATED or w % REPEATED:
        return rgb
    small = rgb[::REPEATED, ::REPEATED]
    same = np.array_equal(small.repeat(REPEATED, axis=0).repeat(REPEATED, axis=1), rgb)
    return small if same else rgb

"""Where the images lie in the published trees of AID, NWPU-RESISC45, DOTA, DIOR, Real-RefRSSRD.

A known tree is recognised by its folders and file names, wherever below the given folder it lies;
any other folder counts with all images in it. Training takes the training part of a known tree;
NWPU-RESISC45 has none, and all its images are both. Test samples are drawn by hashing seed and path, so they are the same on
every machine, whatever other files are there (MS 13).
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from slimdiffsr.errors import DataError

__all__ = [
    "IMAGE_SUFFIXES",
    "LAYOUTS",
    "Layout",
    "LayoutName",
    "TestImages",
    "choose_layout",
    "images_below",
    "recognise",
    "sample_test_images",
    "split_prefix",
    "training_images",
]

LayoutName = Literal["aid", "nwpu", "dota", "dior", "real-refrssrd", "pairs", "folder"]

IMAGE_SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")

_AID_CLASSES = """Airport BareLand BaseballField Beach Bridge Center Church Commercial
DenseResidential Desert Farmland Forest Industrial Meadow MediumResidential Mountain Park Parking
Playground Pond Port RailwayStation Resort River School SparseResidential Square Stadium
StorageTanks Viaduct"""

_NWPU_CLASSES = """airplane airport baseball_diamond basketball_court beach bridge chaparral church
circular_farmland cloud commercial_area dense_residential desert forest freeway golf_course
ground_track_field harbor industrial_area intersection island lake meadow medium_residential
mobile_home_park mountain overpass palace parking_lot railway railway_station
rectangular_farmland river roundabout runway sea_ice ship snowberg sparse_residential stadium
storage_tank tennis_court terrace thermal_power_station wetland"""

# Folders of sharp images, and of what was made of them or shows the same places less sharply.
_TRUTHS = re.compile(r"(.*[_-])?(hr|gt|hq)", re.IGNORECASE)
_INPUTS = re.compile(r"(.*[_-])?(lr|lq)([_-].*)?", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Layout:
    """One published tree. Folders are relative to its root; of each tuple, those there count."""

    name: LayoutName
    title: str
    tree: str  # a drawing of what is expected
    training: tuple[str, ...] = (".",)  # folders with images to train on
    testing: tuple[str, ...] = (".",)  # to test on; later ones fill up what the first lacks
    classes: frozenset[str] = frozenset()  # names of folders in the root; a sample is even in them
    file_name: str = ""  # a pattern that some image's name must match for the tree to be recognised
    test_images: int | None = None  # in the paper's test set; None takes all
    truth: bool = True  # False: the images are low-resolution inputs without a truth


@dataclass(frozen=True, slots=True)
class TestImages:
    """A test set's source images."""

    layout: Layout
    root: Path
    files: tuple[Path, ...]  # sorted by their path below root

    __test__ = False  # not a class of tests

    def relative(self, file: Path) -> str:
        """A file's path below the root, with forward slashes."""
        return file.relative_to(self.root).as_posix()


LAYOUTS: dict[LayoutName, Layout] = {
    "aid": Layout(
        "aid",
        "AID",
        """
AID/
├── Airport/
│   ├── airport_1.jpg
│   └── ...
├── BareLand/
└── ... (30 classes, 10,000 images of 600 x 600)
""",
        classes=frozenset(_AID_CLASSES.split()),
    ),
    "nwpu": Layout(
        "nwpu",
        "NWPU-RESISC45",
        """
NWPU-RESISC45/
├── airplane/
│   ├── airplane_001.jpg
│   └── ...
├── airport/
└── ... (45 classes, 31,500 images of 256 x 256)
""",
        classes=frozenset(_NWPU_CLASSES.split()),
        test_images=630,
    ),
    "dota": Layout(
        "dota",
        "DOTA",
        """
DOTA/
├── train/
│   └── images/    P0000.png ...
├── val/
│   └── images/    P0003.png ...    (458 in v1.0)
└── test/
    └── images/    P0006.png ...    (fills the test set up to 500)
""",
        training=("train/images",),
        testing=("val/images", "test/images"),
        file_name=r"P\d{4,5}\.\w+",
        test_images=500,
    ),
    "dior": Layout(
        "dior",
        "DIOR",
        """
DIOR/
├── JPEGImages-trainval/    00001.jpg ...
└── JPEGImages-test/        11726.jpg ...
""",
        training=("JPEGImages-trainval",),
        testing=("JPEGImages-test",),
        file_name=r"\d{5}\.\w+",
        test_images=500,
    ),
    "real-refrssrd": Layout(
        "real-refrssrd",
        "Real-RefRSSRD",
        """
Real-RefRSSRD/
├── train/
│   ├── HR/     480 x 480
│   ├── LR/     48 x 48
│   └── Ref/
└── test/
    ├── HR/
    ├── LR/
    └── Ref/
""",
        training=("train/HR",),
        testing=("test/LR",),
        test_images=1456,
        truth=False,
    ),
    "pairs": Layout(
        "pairs",
        "a test set",
        """
TESTSET/
├── hr/        one.png ...
├── lr_x4/     one.png ...
└── lr_x8/     ...
""",
        training=("hr",),
        testing=("hr",),
    ),
    "folder": Layout(
        "folder",
        "a folder of images",
        f"""
FOLDER/
├── one.png
└── any/folders/below/two.jpg    ({", ".join(IMAGE_SUFFIXES)})
""",
    ),
}


def split_prefix(source: Path) -> tuple[LayoutName | None, Path]:
    """``dota:/data/DOTA`` as its layout and folder; a path without such a prefix has none."""
    prefix, colon, rest = str(source).partition(":")
    if colon and rest and prefix in LAYOUTS:
        return choose_layout(prefix).name, Path(rest)
    return None, source


def choose_layout(name: str) -> Layout:
    """A layout by its name. Raises DataError."""
    for known in get_args(LayoutName):
        if name == known:
            return LAYOUTS[known]
    raise DataError(f"no layout {name!r}: choose one of {', '.join(LAYOUTS)}")


def images_below(folder: Path) -> list[Path]:
    """All image files below a folder, sorted; hidden files and folders are left out."""
    return sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in IMAGE_SUFFIXES
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    )


def recognise(folder: Path) -> Layout:
    """The published tree whose root this folder is; else the layout ``folder``."""
    inside = set(_subfolders(folder))
    known = (layout for name, layout in LAYOUTS.items() if name != "folder")
    found = (layout for layout in known if _looks_like(folder, inside, layout))
    return next(found, LAYOUTS["folder"])


def training_images(source: Path) -> list[Path]:
    """Images to train on, sorted: the training part of each known tree, and all other images.

    Args:
        source: a folder, or NAME:FOLDER to insist on a layout.

    Raises:
        DataError: no such folder, or not the tree that NAME stands for.
    """
    name, folder = split_prefix(source)
    _check_folder(folder)
    if name is not None:
        layout = choose_layout(name)
        root = _find_root(folder, layout, layout.training)
        return _part_images(root, layout, layout.training)
    return sorted(_training_below(folder, set()))


def sample_test_images(
    folder: Path, layout: str | None = None, *, seed: int, count: int | None = None
) -> TestImages:
    """The images of a test set: the paper's number of the tree's test part (MS 13).

    Of trees with classes, each class gives the same number (one more of the first ones, where the
    division leaves a rest). DOTA's validation part comes first; where it holds too few (458 in
    version 1.0, and the paper took 500), its test part fills up.

    Args:
        folder: the tree's root, or the folder that holds it.
        layout: a name of ``LAYOUTS``; None recognises the tree.
        seed: of the draw.
        count: how many; None is the paper's number, and all images of other folders.

    Raises:
        DataError: no such folder, not that tree, or fewer images than wanted.
    """
    _check_folder(folder)
    chosen = _recognise_around(folder) if layout is None else choose_layout(layout)
    root = _find_root(folder, chosen, chosen.testing)
    wanted = chosen.test_images if count is None else count
    if chosen.classes:
        names = sorted(chosen.classes & set(_subfolders(root)))
        groups = [images_below(root / name) for name in names]
        shares = _even_shares(wanted, [len(group) for group in groups])
    else:
        groups = [images_below(root / part) for part in chosen.testing]
        shares = _shares_in_order(wanted, [len(group) for group in groups])
    there, wanted = sum(map(len, groups)), sum(shares) if wanted is None else wanted
    if there == 0:
        raise DataError(
            f"no test images in {folder}, which is read as {chosen.title}: complete the tree\n"
            f"{_drawing(root, chosen)}"
        )
    if sum(shares) < wanted:
        raise DataError(
            f"{folder} holds {there} test images of {chosen.title}, and {wanted} are "
            f"wanted{' evenly of all classes' if chosen.classes else ''}: ask for fewer, or complete "
            f"the tree\n{_drawing(root, chosen)}"
        )
    picked = [
        path
        for group, share in zip(groups, shares, strict=True)
        for path in _shuffled(group, root, seed)[:share]
    ]
    return TestImages(chosen, root, tuple(sorted(picked)))


def _training_below(folder: Path, seen: set[Path]) -> Iterable[Path]:
    real = folder.resolve()
    if real in seen:  # links may lead to a folder again, and in circles
        return
    seen.add(real)
    layout = recognise(folder)
    if layout.name != "folder":
        yield from _part_images(folder, layout, layout.training)
        return
    for entry in _entries(folder):
        if entry.is_dir():
            yield from _training_below(Path(entry), seen)
        elif Path(entry).suffix.lower() in IMAGE_SUFFIXES:
            yield Path(entry)


def _recognise_around(folder: Path) -> Layout:
    # An archive unpacked into a folder of its own leaves the tree one level down.
    children = [folder / name for name in _subfolders(folder)]
    found = recognise(folder)
    return recognise(children[0]) if found.name == "folder" and len(children) == 1 else found


def _find_root(folder: Path, layout: Layout, parts: Sequence[str]) -> Path:
    # The folder itself, or a folder in it. Raises DataError with a drawing.
    if layout.name == "folder":
        return folder
    for root in (folder, *(folder / name for name in _subfolders(folder))):
        if layout.classes and layout.classes & set(_subfolders(root)):
            return root
        if not layout.classes and (root / parts[0]).is_dir():
            return root
    raise DataError(f"{folder} is not laid out as {layout.title}\n{_drawing(folder, layout)}")


def _truths(inside: Iterable[str]) -> list[str]:
    return sorted(name for name in inside if _TRUTHS.fullmatch(name))


def _part_images(root: Path, layout: Layout, parts: Sequence[str]) -> list[Path]:
    if layout.name == "pairs":  # whatever its folders are called
        parts = _truths(_subfolders(root)) or parts
    images = [path for part in parts for path in images_below(root / part)]
    if not images:
        raise DataError(
            f"{root} holds no images in {', '.join(parts)} of {layout.title}"
            f"\n{_drawing(root, layout)}"
        )
    return images


def _looks_like(folder: Path, inside: set[str], layout: Layout) -> bool:
    if layout.classes:
        return len(inside) > 1 and inside <= layout.classes
    if layout.name == "real-refrssrd":
        return any(
            all((folder / part / kind).is_dir() for kind in ("HR", "LR", "Ref"))
            for part in ("train", "test")
        )
    if layout.name == "pairs":
        return bool(_truths(inside)) and any(_INPUTS.fullmatch(name) for name in inside)
    parts = (folder / part for part in (*layout.training, *layout.testing))
    return any(_holds_name(part, layout.file_name) for part in parts)


def _holds_name(folder: Path, pattern: str) -> bool:
    return folder.is_dir() and any(re.fullmatch(pattern, path.name) for path in folder.iterdir())


def _shuffled(files: Iterable[Path], root: Path, seed: int) -> list[Path]:
    # By hash and not by a generator: library versions and missing files do not change the order.
    def key(path: Path) -> bytes:
        return hashlib.sha256(f"{seed}:{path.relative_to(root).as_posix()}".encode()).digest()

    return sorted(files, key=key)


def _even_shares(wanted: int | None, sizes: list[int]) -> list[int]:
    if wanted is None or not sizes:
        return sizes
    share, rest = divmod(wanted, len(sizes))
    return [min(size, share + (i < rest)) for i, size in enumerate(sizes)]


def _shares_in_order(wanted: int | None, sizes: list[int]) -> list[int]:
    shares, left = [], sum(sizes) if wanted is None else wanted
    for size in sizes:
        shares.append(min(size, left))
        left -= shares[-1]
    return shares


def _drawing(folder: Path, layout: Layout) -> str:
    found = sorted(f"{e.name}/" if e.is_dir() else e.name for e in _entries(folder))
    more = f" and {len(found) - 8} more" if len(found) > 8 else ""
    return f"expected:{layout.tree}found: {', '.join(found[:8]) or 'nothing'}{more}"


def _subfolders(folder: Path) -> list[str]:
    return sorted(entry.name for entry in _entries(folder) if entry.is_dir())


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    # Without a call to the file system for each: folders hold 100,000 images, some over a network.
    with os.scandir(folder) as entries:
        return [entry for entry in entries if not entry.name.startswith(".")]


def _check_folder(folder: Path) -> None:
    if not folder.is_dir():
        raise DataError(f"no folder {folder}: give a folder of images")

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
import trees

from slimdiffsr.datasets.layouts import (
    LAYOUTS,
    choose_layout,
    recognise,
    sample_test_images,
    split_prefix,
    training_images,
)
from slimdiffsr.errors import DataError
from slimdiffsr.training.images import find_images

TREES: dict[str, Callable[[Path], None]] = {
    "aid": trees.aid,
    "nwpu": trees.nwpu,
    "dota": trees.dota,
    "dior": trees.dior,
    "real-refrssrd": trees.real_refrssrd,
}


def names(root: Path, files: list[Path]) -> list[str]:
    return [path.relative_to(root).as_posix() for path in files]


@pytest.mark.parametrize("name", TREES)
def test_a_published_tree_is_recognised_and_no_other(tmp_path: Path, name: str) -> None:
    TREES[name](tmp_path)
    assert recognise(tmp_path).name == name


def test_the_published_numbers_of_classes_are_listed() -> None:
    assert len(choose_layout("aid").classes) == 30
    assert len(choose_layout("nwpu").classes) == 45
    assert {name: layout.test_images for name, layout in LAYOUTS.items() if layout.test_images} == {
        "nwpu": 630, "dota": 500, "dior": 500, "real-refrssrd": 1456,
    }  # fmt: skip


def test_other_folders_are_plain_even_where_one_class_name_agrees(tmp_path: Path) -> None:
    trees.draw_images([tmp_path / "Airport" / "a.png", tmp_path / "mine" / "b.png"])
    assert recognise(tmp_path).name == "folder"
    assert len(training_images(tmp_path)) == 2


def test_training_takes_the_training_part_of_each_tree_and_all_other_images(
    tmp_path: Path,
) -> None:
    trees.dota(tmp_path / "sets" / "DOTA")
    trees.dior(tmp_path / "sets" / "DIOR")
    trees.real_refrssrd(tmp_path / "real")
    trees.draw_images([tmp_path / "mine" / "x.png", tmp_path / "top.jpg"])
    (tmp_path / "mine" / "._x.png").write_bytes(b"a Mac's")
    assert names(tmp_path, training_images(tmp_path)) == [
        "mine/x.png",
        "real/train/HR/tile_1.png",
        "real/train/HR/tile_2.png",
        "sets/DIOR/JPEGImages-trainval/00001.jpg",
        "sets/DIOR/JPEGImages-trainval/00002.jpg",
        "sets/DOTA/train/images/P0000.png",
        "sets/DOTA/train/images/P0001.png",
        "top.jpg",
    ]


def test_linked_folders_are_followed_once_and_never_in_circles(tmp_path: Path) -> None:
    trees.draw_images([tmp_path / "far" / "x.png"])
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "near").symlink_to(tmp_path / "far")
    (tmp_path / "data" / "again").symlink_to(tmp_path / "far")
    (tmp_path / "far" / "back").symlink_to(tmp_path / "data")
    (found,) = training_images(tmp_path / "data")
    assert found.name == "x.png"


def test_find_images_takes_a_layout_by_its_prefix(tmp_path: Path) -> None:
    trees.aid(tmp_path / "AID")
    assert len(find_images([Path(f"aid:{tmp_path}")], 16).files) == 6
    assert split_prefix(Path("dota:/data/x")) == ("dota", Path("/data/x"))
    assert split_prefix(Path("C:/data/x")) == (None, Path("C:/data/x"))
    with pytest.raises(DataError, match="is not laid out as DOTA"):
        find_images([Path(f"dota:{tmp_path}")], 16)


def test_only_the_true_images_of_a_test_set_are_trained_on(tmp_path: Path) -> None:
    trees.draw_images([tmp_path / "hr" / "a.png"], 40)
    trees.draw_images([tmp_path / "lr_x4" / "a.png"], 10)
    assert names(tmp_path, training_images(tmp_path)) == ["hr/a.png"]


@pytest.mark.parametrize("name", TREES)
def test_a_wrong_tree_is_an_error_with_a_drawing_and_what_was_found(
    tmp_path: Path, name: str
) -> None:
    trees.draw_images([tmp_path / "stuff" / "a.png"])
    with pytest.raises(DataError) as caught:
        sample_test_images(tmp_path, name, seed=1)
    message = str(caught.value)
    assert LAYOUTS[choose_layout(name).name].tree in message
    assert "found: stuff/" in message


def test_a_tree_without_its_training_part_is_an_error(tmp_path: Path) -> None:
    trees.dota(tmp_path)
    shutil.rmtree(tmp_path / "train" / "images")
    with pytest.raises(DataError, match="no images in train/images of DOTA"):
        training_images(tmp_path)


def test_an_unknown_layout_and_a_missing_folder_are_errors(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no layout 'dotta'.*nwpu, dota"):
        choose_layout("dotta")
    with pytest.raises(DataError, match="no folder"):
        training_images(tmp_path / "nowhere")


# Samples


def test_each_class_gives_the_same_number_to_a_sample(tmp_path: Path) -> None:
    trees.nwpu(tmp_path, each=6)
    chosen = sample_test_images(tmp_path, seed=3, count=9)
    assert Counter(path.parent.name for path in chosen.files) == dict.fromkeys(
        trees.NWPU_CLASSES, 3
    )
    uneven = sample_test_images(tmp_path, seed=3, count=7)
    assert sorted(Counter(path.parent.name for path in uneven.files).values()) == [2, 2, 3]


def test_a_sample_depends_on_seed_and_paths_alone(tmp_path: Path) -> None:
    trees.nwpu(tmp_path / "here", each=8)
    trees.nwpu(tmp_path / "there" / "NWPU-RESISC45", each=8)  # one folder deeper, as unpacked
    here, there, other = (
        sample_test_images(tmp_path / where, seed=seed, count=6)
        for where, seed in (("here", 5), ("there", 5), ("here", 6))
    )
    assert [here.relative(f) for f in here.files] == [there.relative(f) for f in there.files]
    assert here.files != other.files
    unwanted = next(
        f for f in sorted((tmp_path / "here" / "beach").iterdir()) if f not in here.files
    )
    unwanted.unlink()
    assert sample_test_images(tmp_path / "here", seed=5, count=6).files == here.files


def test_the_sample_is_what_the_hash_of_seed_and_path_says(tmp_path: Path) -> None:
    trees.dior(tmp_path)
    chosen = sample_test_images(tmp_path, seed=20260, count=2)
    # sha256("20260:JPEGImages-test/11726.jpg") and so on, smallest first.
    assert names(tmp_path, list(chosen.files)) == [
        "JPEGImages-test/11726.jpg",
        "JPEGImages-test/11729.jpg",
    ]


def test_dota_takes_its_validation_part_first_and_fills_up_from_the_test_part(
    tmp_path: Path,
) -> None:
    trees.dota(tmp_path)
    parts = [path.parts[-3] for path in sample_test_images(tmp_path, seed=0, count=4).files]
    assert parts == ["test", "val", "val", "val"]
    shutil.rmtree(tmp_path / "test")
    with pytest.raises(DataError, match="holds 3 test images of DOTA, and 500 are wanted"):
        sample_test_images(tmp_path, seed=0)


def test_real_refrssrd_gives_its_low_resolution_test_images(tmp_path: Path) -> None:
    trees.real_refrssrd(tmp_path)
    chosen = sample_test_images(tmp_path, seed=0, count=2)
    assert names(tmp_path, list(chosen.files)) == ["test/LR/tile_1.png", "test/LR/tile_2.png"]
    assert not chosen.layout.truth


def test_other_folders_give_all_their_images_or_as_many_as_wanted(tmp_path: Path) -> None:
    paths = trees.draw_images(tmp_path / "deep" / f"{i}.png" for i in range(4))
    assert sample_test_images(tmp_path, seed=0).files == tuple(paths)
    assert len(sample_test_images(tmp_path, seed=0, count=3).files) == 3
    with pytest.raises(DataError, match="holds 4 test images of a folder of images, and 5"):
        sample_test_images(tmp_path, seed=0, count=5)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="found: nothing"):
        sample_test_images(tmp_path / "empty", seed=0)

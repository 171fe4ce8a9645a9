"""The fixed images that a run is judged on."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from students import micro_training, write_images

from slimdiffsr.errors import DataError
from slimdiffsr.stages import RunPaths
from slimdiffsr.stages.validation import validation_set
from slimdiffsr.training.pixels import read_rgb


@pytest.fixture
def paths(tmp_path: Path) -> RunPaths:
    write_images(tmp_path / "data", [(96, 64)] * 3)
    return RunPaths(data=(tmp_path / "data",), out=tmp_path / "out")


def write_pairs(folder: Path, shrink: int = 4) -> Path:
    """Pairs whose LR is every fourth pixel of HR."""
    for path in write_images(folder / "hr", [(104, 72), (64, 300)], seed=2):
        (folder / "lr").mkdir(exist_ok=True)
        with Image.open(path) as image:
            Image.fromarray(np.asarray(image)[::shrink, ::shrink]).save(folder / "lr" / path.name)
    return folder


def test_images_are_degraded_alike_each_time_and_cut_in_the_middle(paths: RunPaths) -> None:
    config = micro_training(validation_images=2)
    first, second = (validation_set(config, paths, 64) for _ in range(2))
    assert len(first) == 2
    for (lr, hr), (lr_again, hr_again) in zip(first, second, strict=True):
        assert torch.equal(lr, lr_again)
        assert torch.equal(hr, hr_again)
        assert (lr.shape, hr.shape) == ((3, 16, 16), (3, 64, 64))
    assert torch.equal(first[0][1], read_rgb(paths.data[0] / "image0.png")[:, :, 16:80])
    other = validation_set(dataclasses.replace(config, seed=1), paths, 64)
    assert not torch.equal(other[0][0], first[0][0])


def test_pairs_keep_their_own_lr_which_shows_the_same_ground(
    paths: RunPaths, tmp_path: Path
) -> None:
    paired = dataclasses.replace(paths, validation=write_pairs(tmp_path / "pairs"))
    pairs = validation_set(micro_training(), paired, 32)
    assert [tuple(hr.shape[1:]) for _, hr in pairs] == [(64, 96), (256, 64)]
    for lr, hr in pairs:
        assert torch.equal(lr, hr[:, ::4, ::4])


def test_pairs_that_do_not_fit_are_named(paths: RunPaths, tmp_path: Path) -> None:
    paired = dataclasses.replace(paths, validation=write_pairs(tmp_path / "pairs", shrink=2))
    with pytest.raises(
        DataError, match=r"image0.png has 52 x 36 pixels, .*104 x 72 are not 4 times"
    ):
        validation_set(micro_training(), paired, 32)
    (tmp_path / "pairs" / "lr" / "image0.png").unlink()
    with pytest.raises(DataError, match=r"cannot read the image .*lr/image0.png"):
        validation_set(micro_training(), paired, 32)


def test_an_unreadable_image_is_passed_over_but_not_all(paths: RunPaths) -> None:
    config = micro_training(validation_images=3)
    files = sorted(paths.data[0].iterdir())
    whole = validation_set(config, paths, 64)
    files[0].write_bytes(files[0].read_bytes()[:500])
    rest = validation_set(config, paths, 64)
    assert len(rest) == 2
    assert all(
        torch.equal(lr, before) for (lr, _), (before, _) in zip(rest, whole[1:], strict=True)
    )
    for file in files[1:]:
        file.write_bytes(file.read_bytes()[:500])
    with pytest.raises(DataError, match="none of the 3 validation images"):
        validation_set(config, paths, 64)

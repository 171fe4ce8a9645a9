from __future__ import annotations

import errno
import multiprocessing
import os
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import torch
from PIL import Image
from rasterio.errors import NotGeoreferencedWarning
from students import micro_training, seeded, write_images
from torch import Tensor

from slimdiffsr.errors import DataError
from slimdiffsr.training.data import (
    SampleNumbers,
    TrainingPairs,
    draw_weighted,
    training_batches,
)
from slimdiffsr.training.images import ImageFolder, find_images
from slimdiffsr.training.notices import Notice, say_nothing
from slimdiffsr.training.pixels import read_rgb
from slimdiffsr.training.pool import PairPool
from slimdiffsr.training.workers import load_batches

pytestmark = pytest.mark.usefixtures("one_thread")


def shrink_with_noise(hr: Tensor, rngs: list[torch.Generator]) -> Tensor:
    """Every fourth pixel, and a draw from each image's generator."""
    noise = torch.stack([torch.rand(3, 1, 1, generator=rng) for rng in rngs])
    return (hr[..., ::4, ::4] + noise) / 2


def make_pairs(images: ImageFolder, *, seed: int = 1, flip_all: bool = False) -> TrainingPairs:
    return TrainingPairs(images, 32, seed, shrink_with_noise, flip_all=flip_all)


@pytest.fixture
def images(tmp_path: Path) -> ImageFolder:
    write_images(tmp_path / "data", [(48, 40), (64, 64), (40, 33)])
    return find_images([tmp_path / "data"], 32)


# Folders


def test_images_count_by_their_area(tmp_path: Path) -> None:
    paths = write_images(tmp_path, [(40, 40), (80, 40), (120, 80)])
    found = find_images([tmp_path], 40)
    assert found.files == tuple(paths)
    assert found.weights == (1600.0, 3200.0, 9600.0)


def test_larger_images_are_drawn_more_often(tmp_path: Path) -> None:
    write_images(tmp_path, [(40, 40), (80, 40), (120, 80)])
    pairs = make_pairs(find_images([tmp_path], 32))
    rng = seeded(0)
    counts = (
        np.bincount([draw_weighted(pairs.cumulative, rng) for _ in range(4000)], minlength=3) / 4000
    )
    # One, two and six shares of nine; a standard deviation is at most 0.008.
    np.testing.assert_allclose(counts, np.array([1, 2, 6]) / 9, atol=0.03)


def test_folders_are_searched_deeply_in_sorted_order_for_images_only(tmp_path: Path) -> None:
    write_images(tmp_path / "b" / "deep", [(32, 32)])
    write_images(tmp_path / "a", [(32, 32)])
    (tmp_path / "a" / "image0.png").rename(tmp_path / "a" / "IMAGE.PNG")
    (tmp_path / "a" / "notes.txt").write_text("not an image")
    found = find_images([tmp_path], 32)
    assert [str(p.relative_to(tmp_path)) for p in found.files] == [
        "a/IMAGE.PNG",
        "b/deep/image0.png",
    ]
    assert not found.unreadable


def test_unreadable_and_small_images_are_passed_over_each_with_its_reason(tmp_path: Path) -> None:
    good, small = write_images(tmp_path, [(40, 40), (100, 39)])
    bad = tmp_path / "bad.jpg"
    bad.write_bytes(b"not an image")
    found = find_images([tmp_path], 40)
    assert found.files == (good,)
    assert found.too_small == {small: f"{small} has 100 x 39 pixels, less than the 40 px crop"}
    assert list(found.unreadable) == [bad]
    assert f"cannot read the image {bad}: " in found.unreadable[bad]


def write_deep(
    path: Path, values: np.ndarray[Any, np.dtype[np.generic]], descriptions: tuple[str, ...] = ()
) -> Path:
    """A raster of the values' own type, (bands, h, w)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        dst = rasterio.open(
            path, "w", driver="PNG" if path.suffix == ".png" else "GTiff", count=len(values),
            height=values.shape[1], width=values.shape[2], dtype=values.dtype,
        )  # fmt: skip
    with dst:
        dst.write(values)
        for band, name in enumerate(descriptions, 1):
            dst.set_band_description(band, name)
    return path


@pytest.mark.parametrize(
    ("top", "dtype", "name"),
    [(2047, "uint16", "a.tif"), (4095, "uint16", "a.png"), (9000, "int16", "a.tif"),
     (0.4, "float32", "a.tif")],
)  # fmt: skip
def test_values_of_more_than_8_bits_are_stretched_and_the_range_is_told(
    tmp_path: Path, top: float, dtype: str, name: str
) -> None:
    ramp = np.linspace(top / 10, top, 64 * 64, dtype=np.float64).reshape(64, 64)
    write_deep(tmp_path / name, np.stack([ramp, ramp.T, ramp[::-1]]).astype(dtype))
    write_images(tmp_path / "eight", [(40, 40)])
    told: list[Notice] = []
    found = find_images([tmp_path], 32, tell=told.append)
    (deep,) = (path for path in found.files if path.name == name)
    image = found.read(deep)
    # As an 8-bit image of the same scene would look: neither black nor blown out.
    assert (image.shape, image.dtype) == ((3, 64, 64), torch.float32)
    assert (float(image.min()), float(image.max())) == (0, 1)
    assert image.mean() == pytest.approx(0.5, abs=0.02)
    (sentence,) = (notice.text for notice in told if "more than 8 bits" in notice.text)
    assert "1 images hold more than 8 bits" in sentence
    assert found.values is not None
    assert f"{found.values.high:g} as white" in sentence
    assert found.values.high == pytest.approx(0.995 * top, rel=0.01)
    (eight,) = (path for path in found.files if path != deep)
    assert torch.equal(found.read(eight), read_rgb(eight))


def test_a_range_that_is_given_holds_and_is_not_told(tmp_path: Path) -> None:
    deep = write_deep(tmp_path / "a.tif", np.full((3, 40, 40), 1000, np.uint16))
    told: list[Notice] = []
    found = find_images([tmp_path], 32, (0.0, 4000.0), told.append)
    assert (found.read(deep) == 0.25).all()
    assert not any("bits" in notice.text for notice in told)


def test_rasters_of_more_bands_are_read_by_their_colours(tmp_path: Path) -> None:
    path = tmp_path / "five.tif"
    values = np.arange(10, 60, 10, dtype=np.uint8)[:, None, None].repeat(40, 1).repeat(40, 2)
    write_deep(path, values, descriptions=("nir", "blue", "green", "red", "swir"))
    image = find_images([tmp_path], 32).read(path)
    assert (image[:, 0, 0] * 255).round().tolist() == [40, 30, 20]


def test_a_crop_of_a_raster_is_read_alone_and_is_the_same(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    write_deep(tmp_path / "a.tif", rng.integers(0, 4096, (3, 50, 70), dtype=np.uint16))
    images = find_images([tmp_path], 32)
    whole = images.read(images.files[0])
    _, hr, passed = make_pairs(images)[3]
    assert passed == ()
    assert any(
        torch.equal(side, hr)
        for image in (whole, whole.flip(-1))
        for side in image.unfold(1, 32, 1).unfold(2, 32, 1).flatten(1, 2).unbind(1)
    )


@pytest.mark.parametrize(
    ("sharp", "small"), [("hr", "lr"), ("HR", "LR"), ("gt", "lq"), ("X_HR", "X_LR_bicubic")]
)
def test_low_resolution_partners_are_not_taken_as_truths(
    tmp_path: Path, sharp: str, small: str
) -> None:
    wanted = write_images(tmp_path / "set" / sharp, [(64, 64), (48, 48)])
    write_images(tmp_path / "set" / small, [(40, 40), (40, 40)])
    for folder in (tmp_path, tmp_path / "set"):
        assert find_images([folder], 32).files == tuple(wanted)


def test_an_image_too_large_to_be_safe_is_counted_as_unreadable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    good, bomb = write_images(tmp_path, [(32, 32), (100, 100)])
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 2000)  # twice as many are an error
    found = find_images([tmp_path], 32)
    assert (found.files, list(found.unreadable)) == ((good,), [bomb])
    with pytest.raises(DataError, match=r"image1\.png"):
        read_rgb(bomb)


def test_a_folder_without_images_says_what_is_wrong(tmp_path: Path) -> None:
    write_images(tmp_path, [(20, 20)])
    (tmp_path / "bad.png").write_bytes(b"")
    with pytest.raises(
        DataError, match=r"1 unreadable \(cannot read the image .*bad.png.*\), 1 small"
    ):
        find_images([tmp_path], 32)
    with pytest.raises(DataError, match=r"give a folder of larger images, .* --set crop_hr_px="):
        find_images([tmp_path], 32)
    with pytest.raises(DataError, match="no folder"):
        find_images([tmp_path / "none"], 32)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"no image file in .*empty: give a folder .*\.png"):
        find_images([tmp_path / "empty"], 32)


def test_an_image_is_read_as_rgb_between_0_and_1(tmp_path: Path) -> None:
    rgb = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    Image.fromarray(rgb).save(tmp_path / "rgb.png")
    np.testing.assert_allclose(
        read_rgb(tmp_path / "rgb.png").permute(1, 2, 0).numpy(), rgb / 255, atol=1e-7
    )
    Image.fromarray(rgb[..., 0]).save(tmp_path / "grey.png")
    grey = read_rgb(tmp_path / "grey.png")
    assert grey.shape == (3, 5, 7)
    assert torch.equal(grey[0], grey[2])


@pytest.mark.parametrize("kind", [np.uint16, np.float32])
def test_an_image_deeper_than_8_bits_is_not_clipped_but_refused(
    tmp_path: Path, kind: type[np.generic]
) -> None:
    Image.fromarray(np.full((8, 8), 4000, kind)).save(tmp_path / "deep.tif")
    with pytest.raises(DataError, match="8-bit images are needed"):
        read_rgb(tmp_path / "deep.tif")


def test_a_truncated_image_is_one_clear_error(tmp_path: Path) -> None:
    for suffix in ("png", "jpg"):
        path = tmp_path / f"cut.{suffix}"
        rng = np.random.default_rng(0)
        Image.fromarray(rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(path)
        path.write_bytes(path.read_bytes()[:500])
        with pytest.raises(DataError, match=rf"cut\.{suffix}"):
            read_rgb(path)


# Samples


def collect(pairs: TrainingPairs, workers: int) -> list[Tensor]:
    numbers = SampleNumbers(first_step=3, last_step=6, batch=4)
    batches = list(load_batches(pairs, numbers, workers, say_nothing))
    return [torch.cat([lr for lr, _, _ in batches]), torch.cat([hr for _, hr, _ in batches])]


def test_samples_depend_on_seed_and_number_alone_whatever_the_workers(images: ImageFolder) -> None:
    pairs = make_pairs(images, flip_all=True)
    one_by_one = [pairs[n] for n in reversed(range(12, 24))][::-1]
    lr = torch.stack([sample[0] for sample in one_by_one])
    hr = torch.stack([sample[1] for sample in one_by_one])
    for workers in (0, 1, 2):
        torch.rand(workers)  # the global generator must not matter
        found_lr, found_hr = collect(pairs, workers)
        assert torch.equal(found_lr, lr), workers
        assert torch.equal(found_hr, hr), workers
    assert len({sample.numpy().tobytes() for sample in hr}) == 12
    assert not torch.equal(make_pairs(images, seed=2)[12][1], hr[0])


def test_a_sample_is_a_crop_of_an_image_perhaps_mirrored(images: ImageFolder) -> None:
    pairs = make_pairs(images)
    crops: set[bytes] = set()
    for path in images.files:
        rgb = read_rgb(path)
        for view in (rgb, rgb.flip(-1)):
            windows = view.unfold(1, 32, 1).unfold(2, 32, 1)
            for y in range(windows.shape[1]):
                for x in range(windows.shape[2]):
                    crops.add(windows[:, y, x].contiguous().numpy().tobytes())
    for number in range(20):
        lr, hr, skipped = pairs[number]
        assert (lr.shape, hr.shape, skipped) == ((3, 8, 8), (3, 32, 32), ())
        assert hr.numpy().tobytes() in crops


def test_overhead_images_may_also_be_turned(tmp_path: Path) -> None:
    rgb = np.zeros((32, 32, 3), np.uint8)
    rgb[0, 5] = 255  # one white pixel tells the eight orientations apart
    Image.fromarray(rgb).save(tmp_path / "a.png")
    images = find_images([tmp_path], 32)

    def places(flip_all: bool) -> set[tuple[int, ...]]:
        pairs = make_pairs(images, flip_all=flip_all)
        return {tuple(torch.nonzero(pairs[n][1][0])[0].tolist()) for n in range(60)}

    assert places(False) == {(0, 5), (0, 26)}
    turned = {(0, 5), (0, 26), (31, 5), (31, 26)}
    assert places(True) == turned | {(x, y) for y, x in turned}


def test_an_image_that_breaks_later_is_passed_over_and_counted(images: ImageFolder) -> None:
    before = [make_pairs(images)[n][1] for n in range(20)]
    images.files[1].write_bytes(b"broken since")
    pairs = make_pairs(images)
    skipped = 0
    for number in range(20):
        _, hr, passed_over = pairs[number]
        skipped += len(passed_over)
        assert torch.equal(hr, before[number]) == (not passed_over)
        assert all(path == str(images.files[1]) and path in why for path, why in passed_over)
    assert skipped > 5
    for path in images.files:
        path.write_bytes(b"")
    with pytest.raises(
        DataError, match="20 images in a row could not be read, the last because: cannot read"
    ):
        make_pairs(images)[0]


# Workers


def test_without_room_in_shared_memory_batches_come_through_pipes(
    images: ImageFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    pairs, numbers = make_pairs(images), [[0, 1], [2, 3], [4, 5]]
    usual = list(load_batches(pairs, numbers, 2, say_nothing))
    monkeypatch.setattr("slimdiffsr.training.workers._room", lambda: 1000)
    # Through pipes no tensor is shared, and none needs the memory that is missing.
    monkeypatch.setattr("torch.Tensor.share_memory_", None)
    told: list[Notice] = []
    narrow = list(load_batches(pairs, numbers, 2, told.append))
    for ours, theirs in zip(narrow, usual, strict=True):
        assert torch.equal(ours[0], theirs[0])
        assert torch.equal(ours[1], theirs[1])
    (notice,) = told
    assert "/dev/shm has room for 0 MiB, and 2 workers need" in notice.text
    told.clear()
    list(load_batches(pairs, numbers, 0, told.append))
    assert not told  # nobody shares anything


def test_where_no_worker_can_start_this_process_makes_the_samples(
    images: ImageFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    pairs, numbers = make_pairs(images), [[0, 1], [2, 3]]
    monkeypatch.setattr("torch.utils.data.dataloader._MultiProcessingDataLoaderIter", none)
    told: list[Notice] = []
    made = list(load_batches(pairs, numbers, 2, told.append))
    assert torch.equal(made[1][1][0], pairs[2][1])
    assert told[0].text.endswith("(No space left on device): workers=0 is taken")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.parametrize("processes", [1, 2])
def test_one_of_several_processes_goes_on_where_its_worker_is_killed(
    images: ImageFolder, processes: int
) -> None:
    config = micro_training(steps=30, workers=1, batch=2, crop_hr_px=64)
    pairs = make_pairs(images)
    told: list[Notice] = []
    batches = training_batches(
        config, pairs, 0, device=torch.device("cpu"), processes=processes, tell=told.append
    )
    made = [next(batches)]
    (worker,) = multiprocessing.active_children()
    worker.kill()
    worker.join()
    if processes == 1:
        with pytest.raises(RuntimeError, match=r"DataLoader worker \(pid"):
            list(batches)
        return
    made.extend(batches)
    assert len(made) == 30
    assert len(told) == 1
    share = 2 // processes
    for step, (_, hr) in enumerate(made):
        torch.testing.assert_close(hr[0] / 2 + 0.5, pairs[step * 2][1], rtol=0, atol=1e-6)
        assert len(hr) == share


# Sample numbers


def test_two_processes_take_the_numbers_that_one_would() -> None:
    alone = list(SampleNumbers(2, 5, batch=6))
    assert alone == [list(range(12, 18)), list(range(18, 24)), list(range(24, 30))]
    halves = [list(SampleNumbers(2, 5, batch=6, process=p, processes=2)) for p in (0, 1)]
    assert [a + b for a, b in zip(*halves, strict=True)] == alone


def test_a_resumed_run_takes_the_numbers_that_are_left() -> None:
    assert list(SampleNumbers(0, 9, 4))[5:] == list(SampleNumbers(5, 9, 4))
    assert len(SampleNumbers(5, 9, 4)) == 4
    assert (len(SampleNumbers(9, 5, 4)), list(SampleNumbers(9, 5, 4))) == (0, [])


def test_a_batch_that_does_not_divide_is_named() -> None:
    with pytest.raises(DataError, match="batch of 5 does not divide among 2"):
        SampleNumbers(0, 1, batch=5, processes=2)


# The pool


def test_a_pool_holds_the_first_samples_in_8_bits(images: ImageFolder) -> None:
    pairs = make_pairs(images)
    pool = PairPool.prepare(pairs, 70, workers=0)  # more than one batch of 64
    assert (pool.lr.shape, pool.hr.shape) == ((70, 3, 8, 8), (70, 3, 32, 32))
    assert (pool.lr.dtype, pool.hr.dtype) == (torch.uint8, torch.uint8)
    for number in (0, 63, 64, 69):
        lr, hr, _ = pairs[number]
        assert torch.equal(pool.hr[number].float() / 255, hr)
        assert (pool.lr[number].float() / 255 - lr).abs().max() <= 0.5 / 255 + 1e-6


def test_a_draw_turns_both_of_a_pair_alike() -> None:
    hr = torch.randint(0, 256, (5, 3, 16, 16), generator=seeded(), dtype=torch.uint8)
    pool = PairPool(hr[..., ::4, ::4], hr)
    # Mirroring moves which of four pixels is kept, so compare with LR made of flat blocks.
    blocks = hr[..., ::4, ::4].repeat_interleave(4, -1).repeat_interleave(4, -2)
    pool = PairPool(pool.lr, blocks)
    seen = set()
    for seed in range(40):
        lr, drawn = pool.draw(6, seeded(seed), turn=True, share=slice(0, 6))
        assert torch.equal(drawn[..., ::4, ::4], lr)
        assert drawn.min() >= 0
        assert drawn.max() <= 1
        seen.add(lr[0].numpy().tobytes())
    assert len(seen) > 20  # five images in eight orientations


def test_the_shares_of_two_processes_make_up_the_whole_draw() -> None:
    hr = torch.randint(0, 256, (9, 3, 8, 8), generator=seeded(), dtype=torch.uint8)
    pool = PairPool(hr[..., ::4, ::4], hr)
    whole = pool.draw(4, seeded(3), turn=True, share=slice(0, 4))
    halves = [pool.draw(4, seeded(3), turn=True, share=slice(i, i + 2)) for i in (0, 2)]
    for i in (0, 1):
        assert torch.equal(torch.cat((halves[0][i], halves[1][i])), whole[i])

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from students import seeded, write_images
from torch import Tensor
from torch.utils.data import DataLoader

from slimdiffsr.degrade import image_generator
from slimdiffsr.errors import DataError
from slimdiffsr.training.batches import PairPool
from slimdiffsr.training.data import (
    ImageFolder,
    SampleNumbers,
    TrainingPairs,
    find_images,
    read_rgb,
)

pytestmark = pytest.mark.usefixtures("one_thread")


def shrink_with_noise(hr: Tensor, rngs: list[torch.Generator]) -> Tensor:
    """Every fourth pixel, and a draw from each image's generator."""
    noise = torch.stack([torch.rand(3, 1, 1, generator=rng) for rng in rngs])
    return (hr[..., ::4, ::4] + noise) / 2


def make_pairs(images: ImageFolder, *, seed: int = 1, flip_all: bool = False) -> TrainingPairs:
    return TrainingPairs(images, 32, seed, shrink_with_noise, image_generator, flip_all=flip_all)


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
    counts = np.bincount([pairs._draw(rng) for _ in range(4000)], minlength=3) / 4000
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
    assert found.unreadable == ()


def test_unreadable_and_small_images_are_counted_and_passed_over(tmp_path: Path) -> None:
    good, small = write_images(tmp_path, [(40, 40), (100, 39)])
    bad = tmp_path / "bad.jpg"
    bad.write_bytes(b"not an image")
    deep = tmp_path / "deep.tif"
    Image.fromarray(np.full((50, 50), 4000, np.uint16)).save(deep)
    found = find_images([tmp_path], 40)
    assert found.files == (good,)
    assert found.too_small == (small,)
    assert found.unreadable == (bad, deep)


def test_an_image_too_large_to_be_safe_is_counted_as_unreadable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    good, bomb = write_images(tmp_path, [(32, 32), (100, 100)])
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 2000)  # twice as many are an error
    found = find_images([tmp_path], 32)
    assert (found.files, found.unreadable) == ((good,), (bomb,))
    with pytest.raises(DataError, match=r"image1\.png"):
        read_rgb(bomb)


def test_a_folder_without_images_says_what_is_wrong(tmp_path: Path) -> None:
    write_images(tmp_path, [(20, 20)])
    (tmp_path / "bad.png").write_bytes(b"")
    with pytest.raises(DataError, match="1 unreadable, 1 smaller than the 32 px crop"):
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
    batches = list(DataLoader(pairs, batch_sampler=numbers, num_workers=workers))
    return [torch.cat([batch[i] for batch in batches]) for i in (0, 1)]


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
        assert (lr.shape, hr.shape, skipped) == ((3, 8, 8), (3, 32, 32), 0)
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
        skipped += passed_over
        assert torch.equal(hr, before[number]) == (passed_over == 0)
    assert skipped > 5
    for path in images.files:
        path.write_bytes(b"")
    with pytest.raises(DataError, match="20 images in a row"):
        make_pairs(images)[0]


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

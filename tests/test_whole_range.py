"""Training on the whole range: light degradation, plain surfaces, shrunken images, balanced folders."""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from slimdiffsr.degrade import degrade, image_generator, plain_pair
from slimdiffsr.settings.config import Light, LoopConfig, Recipe
from slimdiffsr.training.data import TrainingPairs, average_to, draw_side, training_batches
from slimdiffsr.training.images import find_images

pytestmark = pytest.mark.usefixtures("one_thread")


def picture(side: int = 64, seed: int = 0) -> Tensor:
    rough = torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.interpolate(rough, (side, side), mode="bicubic").clamp(0, 1)


def test_untouched_inputs_are_the_truth_averaged_down_or_bicubic() -> None:
    recipe = Recipe(light=Light(share=1, untouched=1))
    hr = picture()
    means = torch.nn.functional.avg_pool2d(hr, 4)
    made = [degrade(hr, recipe, [image_generator(1, n)]) for n in range(12)]
    assert all((lr - means).abs().max() < 0.05 for lr in made)
    assert len({tuple(lr.flatten().tolist()) for lr in made}) == 2


def test_light_noise_is_as_strong_as_asked_for() -> None:
    grey = torch.full((1, 3, 256, 256), 0.5)
    light = Light(share=1, untouched=0, noise=(3, 3), jpeg_prob=0)
    lr = degrade(grey, Recipe(light=light), [image_generator(1, 0)])
    assert float(lr.std()) * 255 == pytest.approx(3, rel=0.1)


def test_a_share_of_none_leaves_the_papers_draws_as_they_were() -> None:
    hr = picture()
    plain, lit = Recipe(), Recipe(light=Light(share=0, untouched=1))
    a, b = (degrade(hr, r, [image_generator(3, 5)]) for r in (plain, lit))
    assert torch.equal(a, b)


def test_plain_pairs_have_noise_in_the_input_alone() -> None:
    hr = picture()[0]
    spreads = []
    for n in range(40):
        lr, truth = plain_pair(hr, 4, image_generator(2, n))
        assert lr.shape == (3, 16, 16)
        assert truth.shape == hr.shape
        assert float(truth.diff(dim=2).abs().max()) * 255 < 0.25
        assert float((lr.mean((1, 2)) - hr.mean((1, 2))).abs().max()) < 0.05
        residual = lr - torch.nn.functional.avg_pool2d(truth[None], 4)[0]
        spreads.append(float(residual.std()) * 255)
    assert min(spreads) < 0.5
    assert 2 < max(spreads) < 5.5


def test_images_shrink_as_far_as_the_crop_allows() -> None:
    sides = {draw_side(200, 300, 64, (1, 4), image_generator(1, n)) for n in range(60)}
    assert 64 <= min(sides) < 72
    assert 180 < max(sides) <= 200
    assert draw_side(200, 200, 64, (1, 1), image_generator(1, 0)) == 64
    assert draw_side(200, 200, 200, (1, 4), image_generator(1, 0)) == 200


def test_what_is_shrunk_keeps_its_mean_and_its_place() -> None:
    image = picture(192)[0]
    small = average_to(image, 64)
    blocks = torch.nn.functional.avg_pool2d(image[None], 3)[0]
    torch.testing.assert_close(small, blocks, atol=0.02, rtol=0)
    assert average_to(image, 192) is image


def write_images(folder: Path, count: int) -> None:
    folder.mkdir()
    for n in range(count):
        rgb = np.full((32, 32, 3), 10 * n, np.uint8)
        Image.fromarray(rgb).save(folder / f"{n}.png")


def test_balance_draws_small_folders_more_often(tmp_path: Path) -> None:
    write_images(tmp_path / "large", 9)
    write_images(tmp_path / "small", 1)
    for balance, share in ((0.0, 0.1), (0.5, 0.25), (1.0, 0.5)):
        images = find_images([tmp_path], 32, balance=balance)
        small = sum(w for p, w in zip(images.files, images.weights, strict=True)
                    if p.parent.name == "small")  # fmt: skip
        assert small / sum(images.weights) == pytest.approx(share)


def numbered(hr: Tensor, rngs: list[torch.Generator]) -> Tensor:
    """LR of one value, drawn anew for each sample."""
    return torch.rand(len(hr), 1, 1, 1, generator=rngs[0]).expand(-1, 3, 8, 8).contiguous()


def test_a_refreshed_pool_goes_on_bringing_new_pairs(tmp_path: Path) -> None:
    write_images(tmp_path / "images", 4)
    images = find_images([tmp_path], 32)
    pairs = TrainingPairs(images, 32, 1, numbered)
    config = LoopConfig(pool=64, refresh=True, batch=8, crop_hr_px=32, steps=2000, workers=1)
    batches = training_batches(config, pairs, 0, device=torch.device("cpu"))
    seen: set[float] = set()
    for lr, _ in batches:
        seen |= set(lr[:, 0, 0, 0].tolist())
        if len(seen) > config.pool:
            break
        time.sleep(0.005)  # as if something were learned
    batches.close()  # type: ignore[attr-defined]  # a generator, which lets its workers go
    assert len(seen) > config.pool


def test_plain_crops_come_as_often_as_asked_for(tmp_path: Path) -> None:
    write_images(tmp_path / "images", 2)
    plain = partial(lambda hr, rng: (torch.zeros(3, 8, 8), torch.zeros_like(hr)))
    images = find_images([tmp_path], 32)
    pairs = TrainingPairs(images, 32, 1, numbered, flat=0.3, plain=plain)
    count = sum(int(pairs[n][0].max() == 0) for n in range(200))
    assert 40 < count < 80

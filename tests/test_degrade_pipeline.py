from __future__ import annotations

import dataclasses
import json
import math
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import scipy.stats
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import gaussian_filter  # type: ignore[attr-defined]
from torch import Tensor

from slimdiffsr.degrade import degrade, image_generator, pipeline
from slimdiffsr.errors import DataError
from slimdiffsr.settings.config import Blur, Noise, Recipe, Resize, Stage

stats: Any = scipy.stats  # has no types

VAL = Path(__file__).parents[2] / "shared" / "data" / "val"
RARE = 1e-4  # generators are seeded, so a p-value below this means wrong odds, not bad luck

CLEAN = Stage(
    blur=Blur(prob=0.0),
    resize=Resize(probs=(0.0, 0.0, 1.0)),
    noise=Noise(gaussian_prob=1.0, sigma=(0.0, 0.0)),
    jpeg_quality=(100.0, 100.0),
)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """As in a data loader's worker; also, small images only lose time to a second thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def scenery(height: int, width: int, seed: int = 0) -> Tensor:
    """Colour noise with a falling spectrum, (1, 3, h, w) in [0, 1]."""
    rng = np.random.default_rng(seed)
    image = np.full((3, height, width), 0.5)
    for sigma in (0.5, 1, 2, 4, 8):
        image += 0.15 * sigma * gaussian_filter(rng.normal(size=image.shape), (0.5, sigma, sigma))
    return torch.from_numpy(np.clip(image, 0, 1).astype(np.float32))[None]


def sceneries(count: int, side: int = 64) -> Tensor:
    return torch.cat([scenery(side, side, seed) for seed in range(count)])


# What every caller relies on


@pytest.mark.parametrize("scale", [2, 4, 8])
@pytest.mark.parametrize("size", [(64, 64), (72, 40), (8, 8), (16, 8)])
def test_lr_has_the_size_range_and_levels_of_an_8_bit_image(
    scale: Literal[2, 4, 8], size: tuple[int, int]
) -> None:
    hr = torch.cat([scenery(size[0], size[1], seed) for seed in range(3)])
    rngs = [image_generator(1, i) for i in range(3)]
    lr = degrade(hr, Recipe(scale=scale), rngs)
    assert lr.shape == (3, 3, size[0] // scale, size[1] // scale)
    assert lr.dtype == torch.float32
    assert lr.min() >= 0
    assert lr.max() <= 1
    torch.testing.assert_close(lr * 255, (lr * 255).round(), rtol=0, atol=1e-4)


def test_an_image_has_the_same_lr_alone_in_a_batch_and_in_any_order() -> None:
    hr = sceneries(4)
    alone = [degrade(hr[i : i + 1], Recipe(), [image_generator(9, i)])[0] for i in range(4)]
    together = degrade(hr, Recipe(), [image_generator(9, i) for i in range(4)])
    order = [2, 0, 3, 1]
    shuffled = degrade(hr[order], Recipe(), [image_generator(9, i) for i in order])
    for i in range(4):
        assert torch.equal(together[i], alone[i])
        assert torch.equal(shuffled[order.index(i)], alone[i])


def test_an_lr_does_not_depend_on_the_memory_layout_or_on_the_global_seed() -> None:
    hr = sceneries(2)
    expected = degrade(hr, Recipe(), [image_generator(4, i) for i in range(2)])
    torch.rand(7)  # moves the global generator
    strided = hr.contiguous(memory_format=torch.channels_last)
    assert torch.equal(
        degrade(strided, Recipe(), [image_generator(4, i) for i in range(2)]), expected
    )


def test_different_seeds_and_indices_give_different_lrs() -> None:
    hr = scenery(64, 64)
    pairs = [(1, 0), (1, 1), (2, 0), (2, 1), (0, 1)]
    lrs = [degrade(hr, Recipe(), [image_generator(*pair)]) for pair in pairs]
    for i, first in enumerate(lrs):
        assert all(not torch.equal(first, second) for second in lrs[:i])


def test_the_input_is_left_as_it_was() -> None:
    hr = sceneries(2)
    before = hr.clone()
    degrade(hr, Recipe(), [image_generator(1, i) for i in range(2)])
    assert torch.equal(hr, before)


def test_neighbouring_generators_are_independent() -> None:
    first_draws = [
        torch.rand((), dtype=torch.float64, generator=image_generator(seed, index)).item()
        for seed in range(40)
        for index in range(50)
    ]
    assert len(set(first_draws)) == 2000
    assert stats.kstest(first_draws, "uniform").pvalue > RARE
    lag_one = np.corrcoef(first_draws[:-1], first_draws[1:])[0, 1]
    assert abs(lag_one) < 4 / math.sqrt(2000)


def test_a_generator_takes_any_whole_seed_and_index() -> None:
    states = {
        image_generator(seed, index).initial_seed()
        for seed, index in [(0, 0), (-1, 0), (0, -1), (2**63, 5), (2**64 - 1, 2**40)]
    }
    assert len(states) == 5


# What does not fit


@pytest.mark.parametrize(
    ("hr", "complaint"),
    [
        (torch.zeros(3, 8, 8), r"\(b, 3, h, w\).*got \(3, 8, 8\)"),
        (torch.zeros(1, 1, 8, 8), r"got \(1, 1, 8, 8\)"),
        (torch.zeros(0, 3, 8, 8), r"got \(0, 3, 8, 8\)"),
        (torch.zeros(1, 3, 8, 10), r"multiples of scale 4, got 8 x 10: crop it"),
        (torch.zeros(1, 3, 8, 8, dtype=torch.uint8), r"got torch.uint8: divide 8-bit values"),
        (torch.full((1, 3, 8, 8), 255.0), r"in \[0, 1\], got 255 to 255: divide"),
        (torch.full((1, 3, 8, 8), math.nan), r"in \[0, 1\], got nan"),
    ],
)
def test_an_hr_that_does_not_fit_is_a_data_error_that_says_why(hr: Tensor, complaint: str) -> None:
    with pytest.raises(DataError, match=complaint):
        degrade(hr, Recipe(), [image_generator(0, i) for i in range(hr.shape[0])])


@pytest.mark.parametrize("count", [0, 1, 3])
def test_too_few_or_too_many_generators_are_a_data_error(count: int) -> None:
    with pytest.raises(DataError, match=f"got {count} for 2 images"):
        degrade(sceneries(2, 16), Recipe(), [image_generator(0, i) for i in range(count)])


# The order of MS 12 and its odds


class Trace:
    """Writes down each operation of the pipeline with the sides it gives out, and its settings."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, skip: bool) -> None:
        self.steps: list[tuple[str, tuple[int, int], tuple[Any, ...]]] = []
        names = ("blur", "resize", "resize_by", "add_gaussian_noise", "add_poisson_noise", "jpeg")
        for name in (*names, "draw_kernel", "draw_sinc_kernel"):
            real = getattr(pipeline, name)
            cheap = skip and not name.startswith(("resize", "draw"))
            monkeypatch.setattr(pipeline, name, self.recorder(name, real, cheap))

    def recorder(self, name: str, real: Any, cheap: bool) -> Any:
        def record(first: Any, *rest: Any) -> Any:
            result = first.clone() if cheap else real(first, *rest)
            self.steps.append((name, (result.shape[-2], result.shape[-1]), rest))
            return result

        return record

    def names(self) -> list[str]:
        return [name for name, _, _ in self.steps if not name.startswith("draw")]


def certain(**changes: Any) -> Recipe:
    """Everything happens: the second blur and the last sinc too, always Gaussian noise."""
    noise = Noise(gaussian_prob=1.0)
    first = Stage(noise=noise)
    second = dataclasses.replace(Recipe().second, blur=Blur(prob=1.0), noise=noise)
    values: dict[str, Any] = {"first": first, "second": second, "final_sinc_prob": 1.0}
    return Recipe(**(values | changes))


def test_operations_come_in_the_papers_order(monkeypatch: pytest.MonkeyPatch) -> None:
    stages = ["blur", "resize_by", "add_gaussian_noise", "jpeg", "blur", "resize"]
    stages.append("add_gaussian_noise")
    endings = {"jpeg last": ["resize", "blur", "jpeg"], "jpeg first": ["jpeg", "resize", "blur"]}
    seen = set()
    hr = scenery(32, 32)
    for index in range(20):
        with monkeypatch.context() as patch:
            trace = Trace(patch, skip=False)
            degrade(hr, certain(), [image_generator(0, index)])
        ending = trace.names()[len(stages) :]
        assert trace.names()[: len(stages)] == stages
        seen |= {name for name, order in endings.items() if order == ending}
        assert ending in endings.values()
    assert seen == set(endings)


def traces(monkeypatch: pytest.MonkeyPatch, recipe: Recipe, hr: Tensor, count: int) -> list[Trace]:
    found = []
    for index in range(count):
        with monkeypatch.context() as patch:
            found.append(Trace(patch, skip=True))
            degrade(hr, recipe, [image_generator(5, index)])
    return found


def test_second_resize_is_relative_to_the_lr_size_and_the_last_gives_that_size(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    recipe = certain(
        second=dataclasses.replace(
            Recipe().second, resize=Resize(probs=(0.0, 1.0, 0.0), factor=(0.5, 0.5))
        )
    )
    for trace in traces(monkeypatch, recipe, scenery(160, 96), 30):
        sizes = [size for name, size, _ in trace.steps if name == "resize"]
        assert 20 <= sizes[0][0] < 40  # U(0.5, 1) of 40 x 24
        assert sizes[0][1] in (int(sizes[0][0] * 0.6), int(sizes[0][0] * 0.6) + 1)
        assert sizes[1] == (40, 24)


def test_odds_and_ranges_are_those_of_the_recipe(monkeypatch: pytest.MonkeyPatch) -> None:
    count = 1200
    found = traces(monkeypatch, Recipe(), scenery(16, 16), count)
    steps = [step for trace in found for step in trace.steps]

    def often(hits: int, trials: int, probability: float) -> bool:
        return bool(stats.binomtest(hits, trials, probability).pvalue > RARE)

    names = Counter(name for name, _, _ in steps)
    assert often(names["draw_kernel"] - count, count, 0.5)
    assert often(names["draw_sinc_kernel"], count, 0.8)
    assert often(names["add_gaussian_noise"], 2 * count, 0.5)
    assert often(sum(trace.names()[-1] == "jpeg" for trace in found), count, 0.5)
    grey = [rest[1].item() for name, _, rest in steps if name.startswith("add_")]
    assert often(sum(grey), len(grey), 0.4)

    modes = Counter(rest[1] for name, _, rest in steps if name.startswith("resize"))
    assert set(modes) == {"area", "bilinear", "bicubic"}
    assert stats.chisquare(list(modes.values())).pvalue > RARE

    factors = [rest[0] for name, _, rest in steps if name == "resize_by"]
    assert often(sum(factor > 1 for factor in factors), count, 0.2)
    assert often(sum(factor == 1 for factor in factors), count, 0.1)
    enlarged = [factor for factor in factors if factor > 1]
    shrunk = [factor for factor in factors if factor < 1]
    assert stats.kstest(enlarged, stats.uniform(1, 0.5).cdf).pvalue > RARE
    assert stats.kstest(shrunk, stats.uniform(0.3, 0.7).cdf).pvalue > RARE

    for order, high in ((0, 95), (1, 100)):
        quality = [
            [rest[0].item() for name, _, rest in trace.steps if name == "jpeg"][order]
            for trace in found
        ]
        assert stats.kstest(quality, stats.uniform(60, high - 60).cdf).pvalue > RARE


def test_noise_is_drawn_from_its_own_stage(monkeypatch: pytest.MonkeyPatch) -> None:
    found = traces(monkeypatch, Recipe(), scenery(16, 16), 600)
    for order, sigma, scale in ((0, (1, 15), (0.05, 2)), (1, (1, 12), (0.05, 1))):
        noises = [
            [(name, rest[0].item()) for name, _, rest in trace.steps if name.startswith("add_")][
                order
            ]
            for trace in found
        ]
        for kind, (low, high) in (("add_gaussian_noise", sigma), ("add_poisson_noise", scale)):
            drawn = [strength for name, strength in noises if name == kind]
            assert stats.kstest(drawn, stats.uniform(low, high - low).cdf).pvalue > RARE


def test_with_everything_switched_off_lr_is_the_resized_hr() -> None:
    hr = scenery(64, 48)[:, :1].expand(1, 3, 64, 48).contiguous()  # grey: 4:2:0 loses nothing
    recipe = Recipe(first=CLEAN, second=CLEAN, final_sinc_prob=0.0)
    candidates = [
        F.interpolate(hr, size=(16, 12), mode=mode) for mode in ("area", "bilinear", "bicubic")
    ]
    chosen = set()
    for index in range(12):
        lr = degrade(hr, recipe, [image_generator(2, index)])
        errors = [(lr - c.clamp(0, 1)).abs().max().item() * 255 for c in candidates]
        assert min(errors) < 0.51
        chosen.add(errors.index(min(errors)))
    assert chosen == {0, 1, 2}


# The authors' own pairs


def read(path: Path) -> Tensor:
    pixels = np.asarray(Image.open(path).convert("RGB")).astype(np.float32) / 255
    return torch.from_numpy(pixels).permute(2, 0, 1)[None]


def detail(image: Tensor) -> Tensor:
    """What a 3 x 3 mean takes away, in grey levels."""
    return (image - F.avg_pool2d(F.pad(image, (1,) * 4, mode="replicate"), 3, 1)) * 255


FEATURES = ("log residual", "log detail", "log colour detail", "contrast", "mean shift")


def features(lr: Tensor, hr: Tensor) -> list[float]:
    """How an LR differs from the box-averaged HR: see FEATURES."""
    clean = F.avg_pool2d(hr, hr.shape[-1] // lr.shape[-1])
    grey, clean_grey = lr.mean(1, keepdim=True), clean.mean(1, keepdim=True)
    return [
        math.log((lr - clean).std().item() * 255),
        math.log(detail(grey).std().item() / detail(clean_grey).std().item()),
        math.log(detail(lr - grey).std().item() + 0.1),
        lr.std().item() / clean.std().item(),
        (lr - clean).mean().item() * 255,
    ]


@pytest.mark.skipif(not VAL.exists(), reason="the shared validation pairs are not here")
@pytest.mark.parametrize("scale", [4, 8])
def test_lrs_are_distributed_like_those_of_the_authors_pipeline(scale: Literal[2, 4, 8]) -> None:
    names = [entry["name"] for entry in json.loads((VAL / "manifest.json").read_text())]
    hrs = [read(VAL / "hr" / f"{name}.png") for name in names]
    theirs = np.array(
        [features(read(VAL / f"lr_x{scale}/{n}.png"), hr) for n, hr in zip(names, hrs, strict=True)]
    )
    draws = 3
    ours: NDArray[np.float64] = np.array(
        [
            [
                features(degrade(hr, Recipe(scale=scale), [image_generator(100 + k, i)]), hr)
                for i, hr in enumerate(hrs)
            ]
            for k in range(draws)
        ]
    )
    paired = theirs - ours.mean(axis=0)  # pairing takes out how images differ from each other
    error = paired.std(axis=0, ddof=1) / math.sqrt(len(names))
    for name, shift, sigma in zip(FEATURES, paired.mean(axis=0), error, strict=True):
        assert abs(shift) < 4 * sigma, f"{name}: mean differs by {shift:.3f}, sigma {sigma:.3f}"
    for index, name in enumerate(FEATURES):
        same = stats.ks_2samp(theirs[:, index], ours[:, :, index].ravel())
        assert same.pvalue > 1e-3, f"{name}: spread differs, p = {same.pvalue:.1e}"

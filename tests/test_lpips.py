from __future__ import annotations

from pathlib import Path

import pytest
import torch
from students import SHARED, seeded, write_lpips
from torch import Tensor
from torch.nn import functional as F

from slimdiffsr.models.lpips import LPIPS
from slimdiffsr.stages import load_lpips

WEIGHTS = SHARED / "weights" / "lpips_squeeze.safetensors"

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def random_lpips(tmp_path: Path) -> LPIPS:
    model = load_lpips(write_lpips(tmp_path / "lpips.safetensors"))
    assert isinstance(model, LPIPS)
    return model


def pictures(seed: int, count: int = 2, side: int = 48) -> Tensor:
    return torch.rand(count, 3, side, side, generator=seeded(seed)) * 2 - 1


def plain_lpips(w: dict[str, Tensor], a: Tensor, b: Tensor) -> Tensor:
    """LPIPS v0.1 over SqueezeNet 1.1, layer by layer as published."""

    def conv(x: Tensor, name: str, stride: int = 1, padding: int = 0) -> Tensor:
        out = F.conv2d(x, w[f"{name}.weight"], w[f"{name}.bias"], stride, padding)
        return torch.clamp(out, min=0)

    def fire(x: Tensor, index: int) -> Tensor:
        name = f"features.{index}"
        s = conv(x, f"{name}.squeeze")
        wide = conv(s, f"{name}.expand3x3", padding=1)
        return torch.cat([conv(s, f"{name}.expand1x1"), wide], 1)

    def stages(rgb: Tensor) -> list[Tensor]:
        mean, std = torch.tensor([-0.030, -0.088, -0.188]), torch.tensor([0.458, 0.448, 0.450])
        x = (rgb - mean[None, :, None, None]) / std[None, :, None, None]
        out = [conv(x, "features.0", stride=2)]
        for group in ((3, 4), (6, 7), (9,), (10,), (11,), (12,)):
            x = out[-1]
            if group[0] in (3, 6, 9):
                x = F.max_pool2d(x, 3, 2, ceil_mode=True)
            for index in group:
                x = fire(x, index)
            out.append(x)
        return out

    distances = torch.zeros(len(a))
    for level, (fa, fb) in enumerate(zip(stages(a), stages(b), strict=True)):
        weight = w[f"lin{level}.model.1.weight"].flatten()
        for n in range(len(a)):
            ua = fa[n] / (fa[n].pow(2).sum(0) ** 0.5 + 1e-10)
            ub = fb[n] / (fb[n].pow(2).sum(0) ** 0.5 + 1e-10)
            distances[n] += torch.einsum("c,chw->hw", weight, (ua - ub) ** 2).mean()
    return distances


def test_lpips_is_the_published_formula(random_lpips: LPIPS) -> None:
    a, b = pictures(0, side=50), pictures(1, side=50)
    expected = plain_lpips(random_lpips.state_dict(), a, b)
    assert expected.abs().min() > 1e-3
    torch.testing.assert_close(random_lpips(a, b), expected, rtol=1e-4, atol=1e-6)


def test_equal_images_are_at_distance_zero(random_lpips: LPIPS) -> None:
    a = pictures(0)
    assert random_lpips(a, a).tolist() == [0.0, 0.0]


def test_each_image_is_judged_alone(random_lpips: LPIPS) -> None:
    a, b = pictures(0), pictures(1)
    alone = torch.cat([random_lpips(a[i : i + 1], b[i : i + 1]) for i in range(2)])
    torch.testing.assert_close(random_lpips(a, b), alone)


def test_a_gradient_reaches_the_image(random_lpips: LPIPS) -> None:
    a = pictures(0).requires_grad_()
    random_lpips(a, pictures(1)).sum().backward()
    assert a.grad is not None
    assert torch.isfinite(a.grad).all()
    assert a.grad.abs().max() > 0


def test_the_gradient_is_finite_where_a_layer_is_silent(random_lpips: LPIPS) -> None:
    with torch.no_grad():
        random_lpips.get_parameter("features.12.squeeze.bias").fill_(-1e4)
        for part in ("expand1x1", "expand3x3"):
            random_lpips.get_parameter(f"features.12.{part}.bias").fill_(-1)
    a = pictures(0).requires_grad_()
    random_lpips(a, pictures(1)).sum().backward()
    assert a.grad is not None
    assert torch.isfinite(a.grad).all()


def test_the_smallest_image_is_32_pixels_wide(random_lpips: LPIPS) -> None:
    assert torch.isfinite(random_lpips(pictures(0, side=32), pictures(1, side=32))).all()


@pytest.mark.skipif(not WEIGHTS.is_file(), reason="no ../shared/weights with LPIPS")
def test_the_published_weights_give_the_published_value() -> None:
    model = load_lpips(WEIGHTS)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(123)
        a = torch.rand(10, 3, 100, 100) * 2 - 1
        b = torch.rand(10, 3, 100, 100) * 2 - 1
    assert float(model(a, b).mean()) == pytest.approx(0.1008, abs=5e-5)

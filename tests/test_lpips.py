from __future__ import annotations

import sys
import types
import warnings
from pathlib import Path
from typing import Any, cast
from urllib.error import URLError

import pytest
import torch
from safetensors.torch import load_file, save_file
from students import SHARED, seeded, write_lpips
from students import random_lpips as random_weights
from torch import Tensor, nn
from torch.nn import functional as F
from typer.testing import CliRunner

from slimdiffsr.cli import app
from slimdiffsr.errors import DataError, WeightsError
from slimdiffsr.files.pretrained import load_lpips
from slimdiffsr.models.lpips import LPIPS, LPIPS_NETS, from_package
from slimdiffsr.settings.config import LpipsNet

WEIGHTS = SHARED / "weights" / "lpips_squeeze.safetensors"

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def random_lpips(tmp_path: Path) -> LPIPS:
    return load_lpips(write_lpips(tmp_path / "lpips.safetensors"))


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


# After which convolutions features are compared, and where they are pooled before: VGG16's and
# AlexNet's published layers, counted with their ReLUs and poolings.
CONVOLUTIONS: dict[LpipsNet, dict[int, tuple[int, int]]] = {  # index: (stride, padding)
    "vgg": dict.fromkeys((0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28), (1, 1)),
    "alex": {0: (4, 2), 3: (1, 2), 6: (1, 1), 8: (1, 1), 10: (1, 1)},
}
POOLED_BEFORE: dict[LpipsNet, tuple[int, ...]] = {"vgg": (5, 10, 17, 24), "alex": (3, 6)}
COMPARED: dict[LpipsNet, tuple[int, ...]] = {"vgg": (2, 7, 14, 21, 28), "alex": (0, 3, 6, 8, 10)}


def plain_chain(net: LpipsNet, w: dict[str, Tensor], a: Tensor, b: Tensor) -> Tensor:
    """LPIPS v0.1 over a network that is one chain of convolutions, written out."""
    mean, std = torch.tensor([-0.030, -0.088, -0.188]), torch.tensor([0.458, 0.448, 0.450])
    x, y = ((rgb - mean[None, :, None, None]) / std[None, :, None, None] for rgb in (a, b))
    distance, level = torch.zeros(len(a)), 0
    for index, (stride, padding) in CONVOLUTIONS[net].items():
        if index in POOLED_BEFORE[net]:
            size = 2 if net == "vgg" else 3
            x, y = F.max_pool2d(x, size, 2), F.max_pool2d(y, size, 2)
        kernel, bias = w[f"features.{index}.weight"], w[f"features.{index}.bias"]
        x, y = (F.relu(F.conv2d(z, kernel, bias, stride, padding)) for z in (x, y))
        if index in COMPARED[net]:
            difference = (F.normalize(x, eps=1e-12) - F.normalize(y, eps=1e-12)) ** 2
            weight = w[f"lin{level}.model.1.weight"].flatten()
            distance += torch.einsum("c,nchw->nhw", weight, difference).mean((1, 2))
            level += 1
    assert f"lin{level}.model.1.weight" not in w
    return distance


@pytest.mark.parametrize("net", ["vgg", "alex"])
def test_lpips_over_a_chain_is_the_published_formula(net: LpipsNet) -> None:
    model = random_weights(net)
    a, b = pictures(0, side=50), pictures(1, side=50)
    expected = plain_chain(net, model.state_dict(), a, b)
    assert expected.abs().min() > 1e-4
    torch.testing.assert_close(model(a, b), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("net", LPIPS_NETS)
def test_lpips_equals_the_lpips_package(net: LpipsNet, tmp_path: Path) -> None:
    lpips = pytest.importorskip("lpips", reason="the lpips package needs torchvision")
    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
        warnings.simplefilter("ignore")
        torch.default_generator.manual_seed(3)
        theirs = lpips.LPIPS(net=net, pnet_rand=True, verbose=False)
    save_file(from_package(theirs.state_dict()), tmp_path / "lpips.safetensors")
    ours = load_lpips(tmp_path / "lpips.safetensors")
    assert ours.net == net
    for side in (64, 83):
        a, b = pictures(0, side=side), pictures(1, side=side)
        with torch.no_grad():
            expected = theirs(a, b).flatten()
        assert expected.min() > 1e-3
        torch.testing.assert_close(ours(a, b), expected, rtol=1e-5, atol=1e-7)


def test_a_file_says_by_its_names_which_network_it_is_for(tmp_path: Path) -> None:
    for net in LPIPS_NETS:
        path = write_lpips(tmp_path / f"{net}.safetensors", net)
        assert load_lpips(path).net == load_lpips(path, net).net == net
    with pytest.raises(
        WeightsError, match=r"over alex, but over vgg is asked for: .*lpips_net=alex"
    ):
        load_lpips(tmp_path / "alex.safetensors", "vgg")
    tensors = load_file(tmp_path / "vgg.safetensors")
    del tensors["lin4.model.1.weight"]
    save_file(tensors, tmp_path / "cut.safetensors")
    with pytest.raises(WeightsError, match=r"1 missing \(lin4.model.1.weight\)"):
        load_lpips(tmp_path / "cut.safetensors", "vgg")


def packaged(monkeypatch: pytest.MonkeyPatch, made: dict[str, LPIPS]) -> None:
    """A package ``lpips`` with its own names for the layers, and weights to remember."""

    class Packaged(nn.Module):
        def __init__(self, net: LpipsNet, verbose: bool) -> None:
            super().__init__()
            model = made.setdefault(net, random_weights(net))
            self.net = nn.Module()
            self.net.slice1 = nn.Module()  # which layers are in which slice does not matter
            for name, layer in model.features.named_children():
                self.net.slice1.add_module(name, layer)
            self.lins = nn.ModuleList()
            for name, layer in model.named_children():
                if name.startswith("lin"):
                    self.add_module(name, layer)
                    self.lins.append(layer)
            self.scaling_layer = nn.Module()
            self.scaling_layer.register_buffer("shift", torch.zeros(3))

    module = types.ModuleType("lpips")
    module.LPIPS = Packaged  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "lpips", module)


def test_the_lpips_package_serves_where_no_file_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    made: dict[str, LPIPS] = {}
    packaged(monkeypatch, made)
    a, b = pictures(0), pictures(1)
    for net, model in ((None, "squeeze"), ("alex", "alex")):
        torch.testing.assert_close(load_lpips(None, cast(Any, net))(a, b), made[model](a, b))


def test_the_packages_weights_are_written_for_machines_without_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    made: dict[str, LPIPS] = {}
    packaged(monkeypatch, made)
    target = tmp_path / "lpips_alex.safetensors"
    done = CliRunner().invoke(app, ["import-lpips", str(target), "--net", "alex"])
    assert done.exit_code == 0, done.output
    monkeypatch.setitem(sys.modules, "lpips", None)
    a, b = pictures(0), pictures(1)
    torch.testing.assert_close(load_lpips(target)(a, b), made["alex"](a, b))
    again = CliRunner().invoke(app, ["import-lpips", str(target)])
    assert again.exit_code == 2
    wrong = CliRunner().invoke(app, ["import-lpips", str(tmp_path / "x"), "--net", "resnet"])
    assert wrong.exit_code == 2
    assert "net must be one of squeeze, vgg, alex, got 'resnet'" in wrong.output
    absent = CliRunner().invoke(app, ["import-lpips", str(tmp_path / "x")])
    assert absent.exit_code == 2
    assert "slimdiffsr[lpips]" in absent.output


def test_a_backbone_that_cannot_be_downloaded_is_one_clear_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(net: str, verbose: bool) -> None:
        raise URLError("no route")

    module = types.ModuleType("lpips")
    module.LPIPS = fail  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "lpips", module)
    with pytest.raises(DataError, match=r"cannot download its vgg backbone .*--lpips FILE"):
        load_lpips(None, "vgg")


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


def test_without_lpips_weights_the_error_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "lpips", None)
    with pytest.raises(DataError, match="--lpips FILE"):
        load_lpips(None)
    with pytest.raises(WeightsError, match=r"none\.safetensors"):
        load_lpips(tmp_path / "none.safetensors")

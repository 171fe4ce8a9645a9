"""Every runtime against float32 PyTorch; what is chosen, kept, said and refused."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rasters import byte_picture, write_raster
from torch import Tensor, nn
from torch.nn import functional as F

from slimdiffsr import Upscaler
from slimdiffsr.errors import ConfigError
from slimdiffsr.geo import NetworkSpec, SceneOptions
from slimdiffsr.models.student import build_student
from slimdiffsr.runtime import choose
from slimdiffsr.runtime.cache import VARIABLE, Cache, network_key
from slimdiffsr.runtime.choose import (
    COMPILING_PAYS_FROM_TILES,
    CONVERTING_PAYS_FROM_TILES,
    Runtimes,
    pick_runtime,
)
from slimdiffsr.runtime.guarded import GuardedRuntime
from slimdiffsr.runtime.protocol import Runtime
from slimdiffsr.settings.config import ModelConfig, UNetConfig

CPU = torch.device("cpu")
# All the parts of the shipped models: both norms are tested where they are built.
SMALL = ModelConfig(
    name="small",
    scale=4,
    kind="tiny",
    unet=UNetConfig(
        widths=(8, 16), mid_width=16, layers=1, groups=4, ff_mult=1, queries=4, squeeze=4,
        window_px=4, norm="pixel",
    ),
    stem_width=8,
    decoder_widths=(8, 8, 8),
    tile_hr_px=128,
    overlap_hr_px=32,
)  # fmt: skip
# Largest difference to float32 PyTorch in [-1, 1]: other orders of summation, or 8 bits of mantissa.
BOUNDS = {"openvino": 2e-5, "onnx": 2e-5, "compiled": 2e-5}


def small_model() -> nn.Module:
    model = build_student(SMALL)
    rng = torch.Generator().manual_seed(7)
    for value in model.parameters():
        value.data.copy_(torch.randn(value.shape, generator=rng) * 0.1)
    return model.eval().requires_grad_(False)


class Plain(nn.Module):
    """Two convolutions around an enlargement: what is quickly converted."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.last = nn.Conv2d(8, 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        y = F.interpolate(F.silu(self.first(x)), scale_factor=4.0, mode="bilinear")
        out: Tensor = self.last(y)
        return out


def plain_model() -> nn.Module:
    model = Plain()
    rng = torch.Generator().manual_seed(7)
    for value in model.parameters():
        value.data.copy_(torch.randn(value.shape, generator=rng) * 0.2)
    return model.eval().requires_grad_(False)


# The parts of our networks take exporters half a minute.
NETWORKS = {"plain": plain_model, "ours": small_model}
EACH = ["plain", pytest.param("ours", marks=pytest.mark.slow)]


def batch(count: int = 1, side: int = 32) -> Tensor:
    rng = torch.Generator().manual_seed(0)
    return torch.rand(count, 3, side, side, generator=rng) * 2 - 1


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Cache:
    return Cache(tmp_path_factory.mktemp("cache"))


def runtime(name: str, cache: Cache, network: str = "plain") -> Runtime:
    return Runtimes(NETWORKS[network](), CPU, "fp32", name, cache).for_tiles()


def package(name: str) -> None:
    pytest.importorskip({"openvino": "openvino", "onnx": "onnxscript"}.get(name, name))


@pytest.mark.parametrize("network", EACH)
@pytest.mark.parametrize("name", ["openvino", "onnx"])
def test_a_runtime_gives_what_pytorch_gives(name: str, network: str, cache: Cache) -> None:
    package(name)
    made, wanted = runtime(name, cache, network), NETWORKS[network]()
    for given in (batch(), batch(2, 40)):
        torch.testing.assert_close(made(given), wanted(given), atol=BOUNDS[name], rtol=0)
    assert made.fingerprint().runtime == name
    assert made.fingerprint().version.startswith(name)


@pytest.mark.slow
def test_a_compiled_network_gives_what_pytorch_gives(cache: Cache) -> None:
    made = runtime("compiled", cache, "ours")
    bound = BOUNDS["compiled"]
    torch.testing.assert_close(made(batch()), small_model()(batch()), atol=bound, rtol=0)
    assert list((cache.folder / "compiled").iterdir())
    assert made.fingerprint().runtime == "compiled"


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["torch", "recorded", "compiled"])
def test_on_a_card_each_runtime_gives_what_pytorch_gives(name: str, cache: Cache) -> None:
    made = Runtimes(small_model(), torch.device("cuda"), "fp32", name, cache).for_tiles()
    for given in (batch(2), batch(4), batch(2)):  # recorded twice, then replayed
        out = made(given.cuda()).cpu()
        torch.testing.assert_close(out, small_model()(given), atol=2e-3, rtol=0)  # TF32


@pytest.mark.parametrize("name", ["openvino", "onnx"])
def test_what_was_converted_is_read_again(name: str, cache: Cache, tmp_path: Path) -> None:
    package(name)
    first = runtime(name, cache)(batch()).clone()
    kept = {path: path.stat().st_mtime_ns for path in cache.folder.iterdir()}
    again = runtime(name, Cache(cache.folder))(batch())
    torch.testing.assert_close(again, first, atol=0, rtol=0)
    assert {path: path.stat().st_mtime_ns for path in cache.folder.iterdir()} == kept


def test_another_weight_is_another_key() -> None:
    model = small_model()
    before = network_key(model, "1")
    assert before == network_key(small_model(), "1")
    assert before != network_key(model, "2")
    next(iter(model.parameters())).data[0] += 1e-3
    assert before != network_key(model, "1")


@pytest.mark.parametrize("broken", ["a file", "no parent"])
def test_a_cache_that_cannot_be_written_costs_no_run(tmp_path: Path, broken: str) -> None:
    package("openvino")
    blocked = tmp_path / "blocked"
    blocked.write_text("not a folder")
    folder = blocked if broken == "a file" else blocked / "cache"
    runtimes = Runtimes(plain_model(), CPU, "fp32", "openvino", Cache(folder))
    out = runtimes.for_tiles()(batch())
    torch.testing.assert_close(out, plain_model()(batch()), atol=2e-5, rtol=0)
    (note,) = runtimes.notes()
    assert re.search(f"{re.escape(str(folder))} cannot be written .*{VARIABLE}", note)


# ---------------------------------------------------------------------------------------------
# The choice


@pytest.mark.parametrize(
    ("device", "tiles", "installed", "chosen"),
    [
        ("cpu", CONVERTING_PAYS_FROM_TILES, True, "openvino"),
        ("cpu", CONVERTING_PAYS_FROM_TILES - 1, True, "torch"),
        ("cpu", CONVERTING_PAYS_FROM_TILES, False, "torch"),
        ("cuda", COMPILING_PAYS_FROM_TILES - 1, True, "recorded"),
        ("cuda:1", COMPILING_PAYS_FROM_TILES, True, "compiled"),
        ("mps", 10**9, True, "torch"),
    ],
)
def test_auto_is_what_pays(
    monkeypatch: pytest.MonkeyPatch, device: str, tiles: int, installed: bool, chosen: str
) -> None:
    monkeypatch.setattr(choose, "find_spec", lambda name: object() if installed else None)
    assert pick_runtime("auto", torch.device(device), tiles) == chosen
    assert pick_runtime("onnx", torch.device(device), tiles) == "onnx"


def test_a_large_scene_runs_another_runtime_than_a_small_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cache: Cache
) -> None:
    package("openvino")
    monkeypatch.setenv(VARIABLE, str(cache.folder))
    monkeypatch.setattr(choose, "CONVERTING_PAYS_FROM_TILES", 2)
    spec = NetworkSpec(scale=4, tile_hr_px=128, overlap_hr_px=32, model_id="plain")
    scene = write_raster(tmp_path / "in.tif", byte_picture(3, 40, 50))
    upscaler = Upscaler(plain_model(), spec, device="cpu")
    upscaler.upscale_scene(scene, tmp_path / "out.tif", SceneOptions(chunk_hr_px=512))
    assert set(upscaler.runtimes._made) == {"openvino"}
    upscaler.upscale(np.zeros((8, 8, 3), np.uint8))
    assert set(upscaler.runtimes._made) == {"openvino", "torch"}


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ({"runtime": "tensorrt"}, "runtime must be auto or one of torch, recorded, compiled"),
        ({"runtime": "recorded"}, "recorded needs a CUDA device, got cpu: give --runtime torch"),
        ({"precision": "int8"}, "int8 needs a calibrated file: make one with 'slimdiffsr export"),
        ({"runtime": "onnx", "precision": "bf16"}, "onnx has no precision bf16: give fp32 or fp16"),
        ({"runtime": "openvino", "precision": "fp16"}, "no fp16 in OpenVINO: give --precision"),
    ],
)
def test_what_cannot_run_here_is_said_in_a_sentence(how: dict[str, str], words: str) -> None:
    package(how.get("runtime", "torch") if how.get("runtime") in ("onnx", "openvino") else "torch")
    with pytest.raises(ConfigError, match=re.escape(words)):
        Upscaler.from_pretrained("bicubic", device="cpu", **how).network()  # type: ignore[arg-type]


def test_a_runtime_that_is_not_installed_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import importlib

    def missing(name: str) -> Any:
        raise ModuleNotFoundError(name=name)

    monkeypatch.setattr(importlib, "import_module", missing)
    for name in ("openvino", "onnx"):
        with pytest.raises(ConfigError, match=rf"pip install 'slimdiffsr\[{name}\]'"):
            Upscaler.from_pretrained("bicubic", device="cpu", runtime=name).network()


# ---------------------------------------------------------------------------------------------
# Precisions that overflow, and runs that go on


class Overflows(nn.Module):
    """Infinite for bright images in half precision, and never in single."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(60_000.0))

    def forward(self, x: Tensor) -> Tensor:
        large = (x + 1) * self.gain
        return (large / self.gain - 1).repeat_interleave(4, 2).repeat_interleave(4, 3)


def test_a_tile_that_overflows_is_run_again_in_float32() -> None:
    runtimes = Runtimes(Overflows(), CPU, "fp16", "torch")
    made = runtimes.for_tiles()
    assert isinstance(made, GuardedRuntime)
    dark, bright = torch.full((1, 3, 4, 4), -0.5), torch.full((1, 3, 4, 4), 0.75)
    bright[..., 0, 0] = -1
    assert made(dark).dtype == torch.float16
    assert runtimes.notes() == ()
    out = made(torch.cat([dark, bright, dark]))
    torch.testing.assert_close(out[1], Overflows()(bright)[0], atol=1e-6, rtol=0)
    torch.testing.assert_close(out[[0, 2]], Overflows()(torch.cat([dark, dark])), atol=1e-3, rtol=0)
    made(bright)
    (note,) = runtimes.notes()
    assert note.startswith("The precision fp16 gave values that are not finite")


def test_a_run_says_that_it_fell_back(tmp_path: Path) -> None:
    spec = NetworkSpec(scale=4, tile_hr_px=128, overlap_hr_px=32, model_id="overflows")
    upscaler = Upscaler(Overflows(), spec, device="cpu", precision="fp16", runtime="torch")
    scene = write_raster(tmp_path / "in.tif", byte_picture(3, 40, 50))
    report = upscaler.upscale_scene(scene, tmp_path / "out.tif")
    assert sum("not finite" in words for words in report.warnings) == 1


class Stops(nn.Module):
    """A network that is interrupted after some tiles."""

    def __init__(self, after: int, runtime_name: str) -> None:
        super().__init__()
        self.left = after

    def forward(self, x: Tensor) -> Tensor:
        self.left -= 1
        if self.left < 0:
            raise KeyboardInterrupt
        return x.repeat_interleave(4, 2).repeat_interleave(4, 3)


def test_a_resumed_run_never_mixes_two_arithmetics_and_says_why(tmp_path: Path) -> None:
    from slimdiffsr.errors import InterruptedRunError

    spec = NetworkSpec(scale=4, tile_hr_px=128, overlap_hr_px=32, model_id="stops")
    scene = write_raster(tmp_path / "in.tif", byte_picture(3, 300, 290))
    options = SceneOptions(chunk_hr_px=512)
    first = Upscaler(Stops(120, "torch"), spec, device="cpu", runtime="torch")
    with pytest.raises(InterruptedRunError, match="same command resumes"):
        first.upscale_scene(scene, tmp_path / "out.tif", options)
    second = Upscaler(Stops(10**6, "torch"), spec, device="cpu", precision="bf16", runtime="torch")
    report = second.upscale_scene(scene, tmp_path / "out.tif", options)
    assert report.chunks_resumed == 0
    assert "precision (fp32 before, bf16 now)" in report.warnings[0]

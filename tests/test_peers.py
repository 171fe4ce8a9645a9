from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper
from PIL import Image
from torch import Tensor, nn

from slimdiffsr.errors import ConfigError, DataError, WeightsError
from slimdiffsr.evaluate import from_network
from slimdiffsr.evaluate.peers import PeerFile, load_peer, ready_outputs

Rgb8 = NDArray[np.uint8]


class Nearest(nn.Module):
    """Repeats pixels; brightens by a tenth of white, and insists on whole multiples of ``unit``."""

    def __init__(self, white: float = 1.0, unit: int = 1) -> None:
        super().__init__()
        self.white = white
        self.unit = unit

    def forward(self, x: Tensor) -> Tensor:
        assert x.shape[2] % self.unit == 0
        assert x.shape[3] % self.unit == 0
        return torch.nn.functional.interpolate(x, scale_factor=4.0) + self.white / 10


def write_torchscript(path: Path, module: nn.Module) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.script(module).save(path)  # type: ignore[no-untyped-call]
    return path


def write_onnx(path: Path, side: int | str = "side", channels: int = 3) -> Path:
    """A depth-to-space of the input repeated 16 times: nearest enlargement by 4."""
    height, width = (side, side) if isinstance(side, int) else ("h", "w")
    repeat = helper.make_node("Concat", ["x"] * 16, ["many"], axis=1)
    spread = helper.make_node("DepthToSpace", ["many"], ["y"], blocksize=4, mode="DCR")
    graph = helper.make_graph(
        [repeat, spread],
        "nearest",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, channels, height, width])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.save(model, path)
    return path


def picture(height: int, width: int) -> Rgb8:
    return np.random.default_rng(0).integers(0, 200, (height, width, 3), dtype=np.uint8)


def repeated(rgb: Rgb8) -> Rgb8:
    return np.repeat(np.repeat(rgb, 4, axis=0), 4, axis=1)


@pytest.mark.parametrize(("text", "expected"), [
    ("a/esrgan.pth", PeerFile(Path("a/esrgan.pth"), "esrgan")),
    ("ESRGAN=a/x.pth", PeerFile(Path("a/x.pth"), "ESRGAN")),
    ("n=x.onnx,range=-1:1,multiple=8,tile=64", PeerFile(Path("x.onnx"), "n", "-1:1", 8, 64)),
])  # fmt: skip
def test_a_peer_is_told_by_its_file_and_what_no_file_says(text: str, expected: PeerFile) -> None:
    assert PeerFile.parse(text) == expected


@pytest.mark.parametrize("text", ["x.pth,range=0:2", "x.pth,multiple=0", "x.pth,multiple", "x,y=1"])
def test_settings_of_a_peer_that_do_not_exist_are_errors(text: str) -> None:
    with pytest.raises(ConfigError, match=r"range=0:1\|-1:1\|0:255, multiple=N and tile=N"):
        PeerFile.parse(text)


@pytest.mark.parametrize(("values", "white"), [("0:1", 1.0), ("-1:1", 2.0), ("0:255", 255.0)])
def test_torchscript_sees_and_gives_the_range_that_was_told(
    tmp_path: Path, values: Any, white: float
) -> None:
    path = write_torchscript(tmp_path / "net.pt", Nearest(white))
    method = load_peer(PeerFile(path, "net", values), "cpu")
    lr = picture(12, 9)
    expected = repeated(lr).astype(float) + 25.5
    np.testing.assert_allclose(method.restore(lr, "image"), expected, atol=0.51)
    assert method.scale == 4
    for word in ("net.pt", "TorchScript", "sha256", f"range {values}", "4x", "whole images"):
        assert word in method.about


def test_a_peer_that_needs_multiples_is_padded_and_cropped(tmp_path: Path) -> None:
    path = write_torchscript(tmp_path / "net.pt", Nearest(0.0, unit=8))
    lr = picture(13, 17)
    method = load_peer(PeerFile(path, "net", multiple_lr_px=8), "cpu")
    np.testing.assert_array_equal(method.restore(lr, "image"), repeated(lr))
    plain = load_peer(PeerFile(path, "net"), "cpu")  # the trial image's sides are multiples of 8
    with pytest.raises(Exception, match="AssertionError"):
        plain.restore(lr, "image")


def test_tiles_give_what_the_whole_image_gives(tmp_path: Path) -> None:
    path = write_torchscript(tmp_path / "net.pt", Nearest(0.0))
    method = load_peer(PeerFile(path, "net", tile_lr_px=32), "cpu")
    lr = picture(50, 70)
    np.testing.assert_array_equal(method.restore(lr, "image"), repeated(lr))
    assert "tiles of 32 px" in method.about


def test_onnx_files_run(tmp_path: Path) -> None:
    method = load_peer(PeerFile(write_onnx(tmp_path / "net.onnx"), "net"), "cpu")
    lr = picture(12, 9)
    np.testing.assert_array_equal(method.restore(lr, "image"), repeated(lr))
    assert method.scale == 4
    assert "ONNX by onnxruntime" in method.about


def test_an_onnx_network_of_one_size_runs_in_tiles(tmp_path: Path) -> None:
    method = load_peer(PeerFile(write_onnx(tmp_path / "net.onnx", 32), "net"), "cpu")
    lr = picture(40, 64)
    np.testing.assert_array_equal(method.restore(lr, "image"), repeated(lr))
    assert "tiles of 32 px" in method.about


def test_identities_differ_with_weights_and_settings(tmp_path: Path) -> None:
    one = write_torchscript(tmp_path / "one.pt", Nearest(0.0))
    two = write_torchscript(tmp_path / "two.pt", Nearest(0.5))
    methods = [
        load_peer(PeerFile(one, "x"), "cpu"),
        load_peer(PeerFile(two, "x"), "cpu"),
        load_peer(PeerFile(one, "x", "-1:1"), "cpu"),
        load_peer(PeerFile(one, "x", multiple_lr_px=4), "cpu"),
    ]
    assert len({method.identity for method in methods}) == 4
    assert load_peer(PeerFile(one, "y"), "cpu").identity == methods[0].identity


class Shrinks(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x[:, :, ::2, ::2]


def test_files_that_are_no_such_networks_are_errors_that_name_them(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"no such file: .*none\.pth"):
        load_peer(PeerFile(tmp_path / "none.pth", "x"), "cpu")
    shrinks = write_torchscript(tmp_path / "shrinks.pt", Shrinks())
    with pytest.raises(WeightsError, match=r"shrinks\.pt makes \(1, 3, 32, 32\) of"):
        load_peer(PeerFile(shrinks, "x"), "cpu")
    (tmp_path / "bad.onnx").write_bytes(b"not a network")
    with pytest.raises(WeightsError, match=r"bad\.onnx is not readable ONNX"):
        load_peer(PeerFile(tmp_path / "bad.onnx", "x"), "cpu")
    four = write_onnx(tmp_path / "four.onnx", channels=4)
    with pytest.raises(WeightsError, match=r"four\.onnx does not run on RGB"):
        load_peer(PeerFile(four, "x"), "cpu")


def test_a_network_that_returns_nan_is_an_error(tmp_path: Path) -> None:
    path = write_torchscript(tmp_path / "net.pt", Nearest(float("nan")))
    with pytest.raises(DataError, match="not finite"):
        load_peer(PeerFile(path, "net"), "cpu").restore(picture(8, 8), "image")


def test_ready_outputs_are_found_by_stem(tmp_path: Path) -> None:
    sr = picture(32, 32)
    Image.fromarray(sr).save(tmp_path / "b.png")
    Image.fromarray(sr).save(tmp_path / "a.tif")
    method = ready_outputs("theirs", tmp_path)
    np.testing.assert_array_equal(method.restore(picture(8, 8), "a"), sr)
    with pytest.raises(DataError, match="holds no image called c"):
        method.restore(picture(8, 8), "c")
    assert "2 images" in method.about
    with pytest.raises(DataError, match="no such folder"):
        ready_outputs("theirs", tmp_path / "nowhere")


def test_weights_of_known_architectures_need_spandrel_and_say_so(tmp_path: Path) -> None:
    if _spandrel_there():
        pytest.skip("spandrel is installed")
    (tmp_path / "esrgan.pth").write_bytes(b"weights")
    with pytest.raises(ConfigError, match=r"esrgan\.pth .*slimdiffsr\[peers\].*torchvision"):
        load_peer(PeerFile(tmp_path / "esrgan.pth", "x"), "cpu")


def _spandrel_there() -> bool:
    try:
        import spandrel
    except (ImportError, RuntimeError):
        return False
    return bool(spandrel.MAIN_REGISTRY)


@pytest.mark.skipif(not _spandrel_there(), reason="spandrel, which needs torchvision, is not here")
@pytest.mark.parametrize("kind", ["esrgan", "swinir"])
@pytest.mark.filterwarnings("ignore:torch.meshgrid:UserWarning")  # spandrel's SwinIR
def test_weights_of_known_architectures_run_as_spandrel_runs_them(
    tmp_path: Path, kind: str
) -> None:
    from spandrel.architectures import ESRGAN, SwinIR

    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        module = (
            ESRGAN.ESRGAN(scale=4, num_filters=8, num_blocks=1)
            if kind == "esrgan"
            else SwinIR.SwinIR(
                upscale=4, img_size=32, window_size=8, depths=[2], embed_dim=12, num_heads=[2],
                mlp_ratio=2, upsampler="nearest+conv", resi_connection="1conv",
            )
        )  # fmt: skip
    torch.save(module.state_dict(), tmp_path / "peer.pth")
    method = load_peer(PeerFile(tmp_path / "peer.pth", "peer"), "cpu")
    assert method.scale == 4
    assert kind in method.about.lower()
    assert "padded to what the architecture needs" in method.about
    lr = picture(16, 24)
    module.eval()
    direct = from_network(lambda x: module(x / 2 + 0.5).clamp(0, 1) * 2 - 1)(lr)
    np.testing.assert_array_equal(method.restore(lr, "image"), direct)
    assert method.restore(picture(13, 17), "odd").shape == (52, 68, 3)

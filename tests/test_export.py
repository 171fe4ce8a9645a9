"""Exported networks: the same pictures at any size, labels that other tools read, int8's gate."""

import contextlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rasters import byte_picture, write_raster
from students import write_images, write_lpips
from test_runtimes import EACH, NETWORKS, batch, plain_model
from torch import Tensor
from typer.testing import CliRunner

from slimdiffsr import Upscaler
from slimdiffsr.cli import app
from slimdiffsr.errors import ConfigError, DataError, WeightsError
from slimdiffsr.geo import NetworkSpec
from slimdiffsr.runtime.cache import Cache
from slimdiffsr.runtime.choose import Runtimes
from slimdiffsr.runtime.exported import About, read_about
from slimdiffsr.runtime.int8 import (
    MOST_LPIPS,
    MOST_RMS,
    Gate,
    Int8RefusedError,
    quantise,
    read_examples,
)
from slimdiffsr.runtime.writing import (
    ExportOptions,
    difference_to_torch,
    make_file_model,
    save_file_model,
)

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxscript")
pytest.importorskip("openvino")

ABOUT = About("small", "0" * 64, 4, 128, 32, 8, "fp32")
FREE = ExportOptions(dynamic=True)
SIZES = [(1, 3, 32, 32), (2, 3, 40, 24), (3, 3, 8, 64)]


def write(folder: Path, network: str) -> dict[str, Path]:
    """A network, free in batch and sides, in both formats."""
    made = {}
    for suffix in (".onnx", ".xml"):
        made[suffix] = folder / f"{network}{suffix}"
        model = make_file_model(NETWORKS[network](), ABOUT, suffix, FREE)
        save_file_model(model, ABOUT, made[suffix], FREE)
    return made


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return write(tmp_path_factory.mktemp("exports"), "plain")


def run(path: Path, runtime: str, given: Tensor, folder: Path) -> Tensor:
    made = Runtimes(path, torch.device("cpu"), "fp32", runtime, Cache(folder)).for_tiles()
    return made(given)


@pytest.mark.slow
@pytest.mark.parametrize("network", EACH)
def test_a_free_export_is_the_network_at_every_size(network: str, tmp_path: Path) -> None:
    made = write(tmp_path, network)
    for suffix, runtime in ((".onnx", "onnx"), (".onnx", "openvino"), (".xml", "openvino")):
        for shape in SIZES:
            given = torch.rand(shape, generator=torch.Generator().manual_seed(1)) * 2 - 1
            out = run(made[suffix], runtime, given, tmp_path)
            torch.testing.assert_close(out, NETWORKS[network]()(given), atol=2e-5, rtol=0)


def test_an_export_takes_and_gives_images_from_0_to_1(files: dict[str, Path]) -> None:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(files[".onnx"]), providers=["CPUExecutionProvider"])
    (out,) = session.run(None, {"rgb_lr": (batch() / 2 + 0.5).numpy()})
    wanted = plain_model()(batch()) / 2 + 0.5
    np.testing.assert_allclose(out, wanted.numpy(), atol=1e-5)


def test_an_onnx_file_says_what_qgis_deepness_reads(files: dict[str, Path]) -> None:
    model = onnx.load(files[".onnx"])
    assert model.ir_version <= 9
    assert b"slimdiffsr/" not in files[".onnx"].read_bytes()  # no paths of the machine it came from
    assert next(o.version for o in model.opset_import if o.domain == "") == 20
    said = {entry.key: entry.value for entry in model.metadata_props}
    deepness = {key: json.loads(said[key]) for key in ABOUT.deepness(2.4)}
    assert deepness["model_type"] == "Superresolution"
    assert deepness["resolution"] == 240
    assert deepness["tile_size"] == 32
    assert deepness["tiles_overlap"] == 0
    assert deepness["standardization_mean"] == [0, 0, 0]
    assert deepness["class_names"] == {"0": "red", "1": "green", "2": "blue"}
    assert {key: said[key] for key in ABOUT.texts()} == ABOUT.texts()


@pytest.mark.parametrize("suffix", [".onnx", ".xml"])
def test_an_export_knows_itself(files: dict[str, Path], suffix: str) -> None:
    assert read_about(files[suffix]) == ABOUT


@pytest.mark.parametrize("suffix", [".onnx", ".xml"])
def test_an_export_is_a_model(files: dict[str, Path], suffix: str, tmp_path: Path) -> None:
    spec = NetworkSpec(scale=4, tile_hr_px=128, overlap_hr_px=32, model_id="plain")
    image = np.moveaxis(byte_picture(3, 40, 50), 0, -1).copy()
    out = Upscaler.from_pretrained(files[suffix]).upscale(image)
    wanted = Upscaler(plain_model(), spec, device="cpu").upscale(image)
    assert np.abs(out.astype(int) - wanted).max() <= 1
    report = Upscaler.from_pretrained(files[suffix]).upscale_scene(
        write_raster(tmp_path / "in.tif", byte_picture(3, 40, 50)), tmp_path / "out.tif"
    )
    assert report.plan.scale == 4


# ---------------------------------------------------------------------------------------------
# What is no export


def later(path: Path, source: Path) -> None:
    model = onnx.load(source)
    model.ir_version = 99
    path.write_bytes(model.SerializeToString())


def foreign(path: Path, source: Path) -> None:
    model = onnx.load(source)
    del model.metadata_props[:]
    path.write_bytes(model.SerializeToString())


def broken(path: Path, source: Path) -> None:
    path.write_bytes(b"nothing of the kind")


def absent(path: Path, source: Path) -> None:
    path.unlink(missing_ok=True)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (later, "cannot read .* install a later onnxruntime"),
        (foreign, "does not say how to tile it: only files of 'slimdiffsr export'"),
        (broken, "cannot read"),
        (absent, "no such file"),
    ],
)
def test_another_file_is_refused_in_a_sentence(
    files: dict[str, Path], tmp_path: Path, make: Callable[[Path, Path], None], words: str
) -> None:
    path = tmp_path / "model.onnx"
    make(path, files[".onnx"])
    with pytest.raises(WeightsError, match=words):
        Upscaler.from_pretrained(path)


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ({"runtime": "torch"}, "runtime torch cannot run .*: leave --runtime out, or give onnx"),
        ({"precision": "bf16"}, "holds a network in fp32: leave --precision out, got bf16"),
    ],
)
def test_an_export_is_run_as_it_was_made(
    files: dict[str, Path], how: dict[str, Any], words: str
) -> None:
    with pytest.raises(ConfigError, match=words):
        Upscaler.from_pretrained(files[".onnx"], **how)


def test_an_export_that_is_not_the_network_is_found_out(files: dict[str, Path]) -> None:
    other = plain_model()
    next(iter(other.parameters())).data += 0.5
    with pytest.raises(WeightsError, match=r"differs from the network by .*: do not use it"):
        difference_to_torch(other, ABOUT, files[".onnx"])


# ---------------------------------------------------------------------------------------------
# int8


def gate(**changes: float) -> Gate:
    facts = {"rms": 0.5, "lpips": 0.3, "change": 0.001, "images": 4, "kept": "nothing"} | changes
    return Gate(**facts)  # type: ignore[arg-type]


def test_int8_is_offered_only_where_the_pictures_stay_the_same() -> None:
    assert gate().passed
    assert not gate(rms=MOST_RMS).passed
    assert not gate(change=MOST_LPIPS).passed
    assert not gate(change=-MOST_LPIPS).passed
    assert "0.50 grey levels RMS" in gate().sentence()


def test_examples_come_from_sharp_images_and_from_pairs(tmp_path: Path) -> None:
    write_images(tmp_path / "sharp", [(200, 96), (64, 64), (128, 128), (40, 300)])
    examples = read_examples(tmp_path / "sharp", 4, 32)
    assert {e.lr.shape for e in examples} == {(1, 3, 32, 32)}
    assert {e.hr.shape for e in examples} == {(1, 3, 128, 128)}
    blocks = examples[2].hr.reshape(1, 3, 32, 4, 32, 4).mean((3, 5))
    np.testing.assert_allclose(blocks, examples[2].lr, atol=1e-6)
    write_images(tmp_path / "pairs" / "hr", [(64, 64)] * 4)
    write_images(tmp_path / "pairs" / "lr_x4", [(16, 16)] * 4, seed=1)
    pairs = read_examples(tmp_path / "pairs", 4, 16)
    assert not np.allclose(pairs[0].hr.reshape(1, 3, 16, 4, 16, 4).mean((3, 5)), pairs[0].lr)
    write_images(tmp_path / "few", [(64, 64)])
    with pytest.raises(DataError, match="has 1 images: --calibrate wants at least 4"):
        read_examples(tmp_path / "few", 4, 16)
    with pytest.raises(DataError, match=r"no folder .*: --calibrate wants sharp images"):
        read_examples(tmp_path / "nowhere", 4, 16)


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".xml", ".onnx"])
def test_int8_is_close_or_refused(tmp_path: Path, suffix: str) -> None:
    pytest.importorskip("nncf")
    write_images(tmp_path / "sharp", [(128, 128)] * 8)
    lpips = write_lpips(tmp_path / "lpips.safetensors")
    about = About("small", "0" * 64, 4, 128, 32, 8, "int8")
    options = ExportOptions()
    made = make_file_model(plain_model(), about, suffix, options)
    said: list[str] = []
    with contextlib.suppress(Int8RefusedError):
        made, result = quantise(made, about, tmp_path / "sharp", lpips, said.append)
    if len(said) == 2:  # refused twice, and said so
        assert all("not close enough: int8 with" in words for words in said)
        return
    assert result.passed
    save_file_model(made, about, tmp_path / f"small{suffix}", options)
    assert 0 < difference_to_torch(plain_model(), about, tmp_path / f"small{suffix}") < 32
    assert read_about(tmp_path / f"small{suffix}").precision == "int8"


# ---------------------------------------------------------------------------------------------
# The command


def command(*words: Any) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["export", *map(str, words)])
    return result.exit_code, result.output


def test_the_command_writes_a_file_that_upscale_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLIMDIFFSR_CACHE", str(tmp_path / "cache"))
    target = tmp_path / "bicubic.onnx"
    status, said = command("bicubic", target, "--resolution", "10")
    assert status == 0, said
    assert "grey levels from the network itself" in said
    texts = {e.key: e.value for e in onnx.load(target).metadata_props}
    assert texts["resolution"] == "1000.0"
    image = np.moveaxis(byte_picture(3, 40, 50), 0, -1).copy()
    out = Upscaler.from_pretrained(target).upscale(image)
    wanted = Upscaler.from_pretrained("bicubic").upscale(image)
    assert np.abs(out.astype(int) - wanted).max() <= 1
    status, said = command("bicubic", target)
    assert status == 2
    assert "exists" in said


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["bicubic", "out.pt"], "an export ends in .onnx or .xml, got .pt"),
        (["bicubic", "out.onnx", "--opset", "7"], "opset must be at least 18, got 7"),
        (["bicubic", "out.onnx", "--int8"], "--int8 and --calibrate FOLDER go together"),
        (["bicubic", "out.onnx", "--resolution", "0"], "resolution must be positive, got 0 m"),
        (["nothing", "out.onnx"], "no model 'nothing'"),
    ],
)
def test_the_command_refuses_in_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    status, output = command(*words)
    assert status == 2
    assert said in output
    assert not list(tmp_path.iterdir())

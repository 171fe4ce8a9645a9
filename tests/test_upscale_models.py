"""Models by name, devices and precision."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_upscale import SMALL, rgb, small_model

from slimdiffsr import Upscaler
from slimdiffsr.errors import (
    ChecksumError,
    ConfigError,
    ModelNotFoundError,
    ScaleError,
    SlimDiffSRError,
)
from slimdiffsr.files import students
from slimdiffsr.files.students import save_model
from slimdiffsr.runtime.devices import pick_device, pick_precision
from slimdiffsr.upscale import model_names

# ---------------------------------------------------------------------------------------------
# Models by name


@pytest.mark.parametrize(
    ("source", "scale", "model_id"),
    [
        ("tiny-x4", None, "tiny-x4"),
        ("tiny-x4-faithful", None, "tiny-x4-faithful"),
        ("tiny-x8", 8, "tiny-x8"),
        ("tiny", None, "tiny-x4"),
        ("tiny", 8, "tiny-x8"),
        ("bicubic", None, "bicubic"),
        ("lanczos", 2, "lanczos"),
    ],
)
def test_models_are_found_by_name(source: str, scale: int | None, model_id: str) -> None:
    upscaler = Upscaler.from_pretrained(source, scale=scale, device="cpu")
    assert upscaler.spec.model_id == model_id
    assert upscaler.scale == (scale or 4)
    assert not upscaler.module.training
    assert upscaler.precision == "fp32"
    out = upscaler.network().predict(np.full((1, 3, 16, 16), 0.5, np.float32))
    assert out.shape == (1, 3, 16 * upscaler.scale, 16 * upscaler.scale)
    assert abs(float(out.mean()) - 0.5) < 0.1


def test_all_names_listed_can_be_loaded() -> None:
    assert {"bicubic", "lanczos", "tiny-x4", "tiny-x8"} <= set(model_names())
    for name in model_names():
        assert Upscaler.from_pretrained(name).spec.model_id == name


def test_a_file_and_a_folder_are_models_too(tmp_path: Path) -> None:
    digest = save_model(tmp_path / "model.safetensors", small_model(), SMALL)
    for source in (tmp_path / "model.safetensors", str(tmp_path / "model.safetensors"), tmp_path):
        upscaler = Upscaler.from_pretrained(source)
        assert upscaler.spec.tile_hr_px == 128
        assert upscaler.spec.overlap_hr_px == 32
        assert upscaler.spec.weights_sha256 == digest


def refuse(*_: Any, **__: Any) -> None:
    raise OSError("no network")


@pytest.mark.parametrize(
    ("source", "scale", "error", "words"),
    [
        ("huge", None, ModelNotFoundError, "no model 'huge': give a bundled name .*tiny-x4"),
        ("gone.safetensors", None, ModelNotFoundError, "no model 'gone.safetensors'"),
        ("nobody/nothing", None, ModelNotFoundError, "cannot get .* of 'nobody/nothing'"),
        ("tiny", 2, ScaleError, "tiny has scales 4, 8, not 2"),
        ("tiny-x4", 8, ScaleError, "tiny-x4 enlarges 4 times, not 8"),
        ("bicubic", 3, ScaleError, "bicubic enlarges 2, 4 or 8 times, got 3"),
    ],
)
def test_a_model_that_is_not_there_is_named(
    source: str,
    scale: int | None,
    error: type[SlimDiffSRError],
    words: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("huggingface_hub.hf_hub_download", refuse)
    with pytest.raises(error, match=words) as caught:
        Upscaler.from_pretrained(source, scale=scale)
    assert "\n" not in str(caught.value)


def test_a_bundled_file_that_changed_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(students.BUNDLED, "tiny-x4", "0" * 64)
    with pytest.raises(ChecksumError, match=r"not the published tiny-x4.*reinstall"):
        Upscaler.from_pretrained("tiny-x4")


# ---------------------------------------------------------------------------------------------
# Device and precision


def pretend(monkeypatch: pytest.MonkeyPatch, cuda: int = 0, mps: bool = False) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)


@pytest.mark.parametrize(
    ("cuda", "mps", "asked", "chosen"),
    [
        (0, False, "auto", "cpu"),
        (0, True, "auto", "mps"),
        (1, True, "auto", "cuda"),
        (1, False, "cpu", "cpu"),
        (2, False, "cuda:1", "cuda:1"),
    ],
)
def test_the_best_device_or_the_one_asked_for(
    monkeypatch: pytest.MonkeyPatch, cuda: int, mps: bool, asked: str, chosen: str
) -> None:
    pretend(monkeypatch, cuda, mps)
    assert str(pick_device(asked)) == chosen


@pytest.mark.parametrize(
    ("cuda", "asked"), [(0, "cuda"), (0, "mps"), (1, "cuda:1"), (1, "cuda:x"), (0, "gpu")]
)
def test_a_device_that_is_not_there_is_an_error(
    monkeypatch: pytest.MonkeyPatch, cuda: int, asked: str
) -> None:
    pretend(monkeypatch, cuda)
    with pytest.raises(ConfigError, match=f"no device '{asked}'.*cpu"):
        pick_device(asked)


@pytest.mark.parametrize(
    ("precision", "device", "bf16", "expected"),
    [
        ("auto", "cpu", True, "fp32"),
        ("auto", "mps", True, "fp32"),
        ("auto", "cuda", True, "bf16"),
        ("auto", "cuda", False, "fp16"),
        ("fp32", "cuda", True, "fp32"),
        ("bf16", "cpu", False, "bf16"),
    ],
)
def test_precision_follows_the_device(
    monkeypatch: pytest.MonkeyPatch,
    precision: str,
    device: str,
    bf16: bool,
    expected: str,
) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda emulated=True: bf16)
    assert pick_precision(precision, torch.device(device)) == expected


def test_an_unknown_precision_is_an_error() -> None:
    with pytest.raises(ConfigError, match="fp32, bf16, fp16, int8, got 'half'"):
        Upscaler.from_pretrained("bicubic", precision="half")


def test_bfloat16_on_the_cpu_is_close_to_float32() -> None:
    image = rgb(24, 24)
    low = Upscaler.from_pretrained("tiny-x4", precision="bf16").upscale(image)
    full = Upscaler.from_pretrained("tiny-x4").upscale(image)
    difference = np.abs(low.astype(int) - full)
    assert 0 < difference.mean() < 3

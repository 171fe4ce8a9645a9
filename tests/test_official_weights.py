"""The authors' weight files, imported."""

from __future__ import annotations

import json
import os
import pickle
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from students import SHARED
from torch import Tensor

from slimdiffsr.errors import (
    ConfigError,
    ModelNotFoundError,
    WeightsError,
)
from slimdiffsr.files.official import import_official, official_to_ours
from slimdiffsr.files.students import load_model
from slimdiffsr.files.tensors import file_sha256
from slimdiffsr.models.student import BaseStudent, build_student
from slimdiffsr.settings.config import ModelConfig

pytestmark = pytest.mark.usefixtures("one_thread")


PARITY = SHARED / "parity"


needs_parity = pytest.mark.skipif(not PARITY.is_dir(), reason="no ../shared/parity")


def released_shapes() -> dict[str, list[int]]:
    shapes: dict[str, list[int]] = json.loads((PARITY / "official_student_keys.json").read_text())
    return shapes


def parity_value(key: str, shape: list[int]) -> Tensor:
    """As the parity files' description says."""
    r = np.random.RandomState(zlib.crc32(key.encode())).standard_normal(shape)
    r = r.astype(np.float32)
    if key.endswith(".query"):
        value = r
    elif len(shape) >= 2:
        value = r / np.float32(np.sqrt(np.prod(shape[1:])))
    elif key.endswith("weight"):
        value = 1 + np.float32(0.1) * r
    else:
        value = np.float32(0.05) * r
    return torch.from_numpy(value)


def hollow() -> dict[str, Tensor]:
    """All tensors of the released student, in a file of a few kilobytes."""
    return {f"module.{k}": torch.zeros(()).expand(s) for k, s in released_shapes().items()}


@needs_parity
def test_an_imported_student_reproduces_the_released_networks_output(tmp_path: Path) -> None:
    values = {k: parity_value(k, s) for k, s in released_shapes().items()}
    assert len(values) == 596
    assert sum(v.numel() for v in values.values()) == 58_053_402
    source, target = tmp_path / "net_params_4x.pkl", tmp_path / "base-x4.safetensors"
    torch.save({f"module.{k}": v for k, v in values.items()}, source)
    digest = import_official(source, target, scale=4)
    source.unlink()
    loaded = load_model(str(target), scale=4)
    assert loaded.sha256 == digest == file_sha256(target)
    assert loaded.config == ModelConfig(name="base-x4", scale=4)
    assert isinstance(loaded.model, BaseStudent)
    expected = np.load(PARITY / "official_student_io.npz")
    x = torch.from_numpy(expected["x"])
    with torch.inference_mode():
        features = loaded.model.features(x).numpy()
        y = loaded.model.restore(x).numpy()
    np.testing.assert_allclose(features, expected["features"], atol=2e-4)
    np.testing.assert_allclose(y, expected["y"], atol=2e-4)


@needs_parity
def test_names_are_read_with_and_without_the_prefix() -> None:
    with_prefix = hollow()
    without = {k.removeprefix("module."): v for k, v in with_prefix.items()}
    ours, same = official_to_ours(with_prefix), official_to_ours(without)
    with torch.device("meta"):
        expected = build_student(ModelConfig(name="b", scale=4)).state_dict()
    assert {k: v.shape for k, v in ours.items()} == {k: v.shape for k, v in expected.items()}
    assert ours.keys() == same.keys()
    assert len(with_prefix) - len(ours) == 12  # dead: six layers, each a weight and a bias


@needs_parity
def test_an_import_names_missing_unexpected_and_misshapen_tensors(tmp_path: Path) -> None:
    tensors = hollow()
    del tensors["module.merge_conv1.bias"]
    tensors["module.unet.extra.weight"] = torch.zeros(1)
    tensors["module.merge_conv2.bias"] = torch.zeros(65)
    source, target = tmp_path / "net.pkl", tmp_path / "out.safetensors"
    torch.save(tensors, source)
    with pytest.raises(WeightsError) as caught:
        import_official(source, target, scale=4)
    message = str(caught.value)
    assert "net.pkl" in message
    assert "1 missing (merge_in.bias)" in message
    assert "1 unexpected (unet.extra.weight)" in message
    assert "1 misshapen (merge_out.bias (65,) instead of (64,))" in message
    assert not target.exists()


class Malicious:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.mkdir, (str(self.marker),))


@pytest.mark.parametrize("container", ["pickle", "torch"])
def test_a_pickle_with_code_in_it_is_refused_and_the_code_not_run(
    tmp_path: Path, container: str
) -> None:
    source, marker = tmp_path / "evil.pkl", tmp_path / "was-here"
    content = {"module.merge_conv1.bias": Malicious(marker)}
    if container == "torch":
        torch.save(content, source)
    else:
        source.write_bytes(pickle.dumps(content, protocol=2))
    with pytest.raises(WeightsError, match="not a PyTorch weight file of plain tensors"):
        import_official(source, tmp_path / "out.safetensors", scale=4)
    assert not marker.exists()
    pickle.loads(pickle.dumps(Malicious(marker)))
    assert marker.exists()  # the trap itself works


@pytest.mark.parametrize("content", [b"", b"not a pickle at all", b"\x80\x04K\x01."])
def test_a_file_that_is_no_weight_file_is_one_clear_error(tmp_path: Path, content: bytes) -> None:
    source = tmp_path / "net.pkl"
    source.write_bytes(content)
    with pytest.raises(WeightsError, match=r"net\.pkl"):
        import_official(source, tmp_path / "out.safetensors", scale=4)


@pytest.mark.parametrize("content", [[1, 2], {"a": 1}, {3: torch.zeros(1)}, torch.zeros(2)])
def test_only_a_dict_of_named_tensors_is_imported(tmp_path: Path, content: Any) -> None:
    source = tmp_path / "net.pkl"
    torch.save(content, source)
    with pytest.raises(WeightsError, match="not a dict of"):
        import_official(source, tmp_path / "out.safetensors", scale=4)


def test_an_import_needs_a_file_and_a_scale_that_exists(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError, match=r"none\.pkl"):
        import_official(tmp_path / "none.pkl", tmp_path / "out", scale=4)
    torch.save({}, tmp_path / "net.pkl")
    with pytest.raises(ConfigError, match=r"scale.*got 3"):
        import_official(tmp_path / "net.pkl", tmp_path / "out", scale=3)

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from students import seeded
from test_files_students import saved

from slimdiffsr.errors import (
    WeightsError,
)
from slimdiffsr.training.state import load_state, save_state

pytestmark = pytest.mark.usefixtures("one_thread")


def test_a_real_optimisers_state_survives(tmp_path: Path) -> None:
    def make() -> tuple[torch.nn.Linear, torch.optim.Adam]:
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(0)
            layer = torch.nn.Linear(3, 2)
        return layer, torch.optim.Adam(layer.parameters(), 0.1)

    def step(layer: torch.nn.Linear, optimizer: torch.optim.Adam, seed: int) -> None:
        layer(torch.rand(4, 3, generator=seeded(seed))).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()

    layer, optimizer = make()
    for seed in range(3):
        step(layer, optimizer, seed)
    path = tmp_path / "state.safetensors"
    save_state(path, {"net": layer.state_dict(), "optimizer": optimizer.state_dict(), "step": 3})
    state = load_state(path)
    assert state["step"] == 3
    assert list(state["optimizer"]["state"]) == [0, 1]  # integers, as Adam wrote them
    again, resumed = make()
    again.load_state_dict(state["net"])
    resumed.load_state_dict(state["optimizer"])
    step(layer, optimizer, 9)
    step(again, resumed, 9)
    assert torch.equal(again.weight, layer.weight)
    assert torch.equal(again.bias, layer.bias)


def test_a_state_keeps_types_names_and_plain_values(tmp_path: Path) -> None:
    state: dict[Any, Any] = {
        "a/b": torch.tensor([1.0]),
        "a": {"b": torch.tensor([2], dtype=torch.int64)},
        0: torch.tensor(3.0, dtype=torch.float16),
        "0": torch.zeros(0, 2),
        "list": [torch.tensor(True), "text", None, 1.5, [True]],
        "__tensor__": "a/b",
        "empty": {},
    }
    path = tmp_path / "state.safetensors"
    save_state(path, state)
    back: dict[Any, Any] = load_state(path)
    assert list(back) == list(state)
    assert torch.equal(back["a/b"], torch.tensor([1.0]))
    assert back["a"]["b"].tolist() == [2]
    assert (back[0].dtype, back[0].item()) == (torch.float16, 3.0)
    assert back["0"].shape == (0, 2)
    assert back["list"][0].item() is True
    assert back["list"][1:] == ["text", None, 1.5, [True]]
    assert (back["__tensor__"], back["empty"]) == ("a/b", {})


def test_shared_tensors_and_views_are_saved_whole(tmp_path: Path) -> None:
    tensor = torch.arange(6.0).reshape(2, 3)
    path = tmp_path / "state.safetensors"
    save_state(path, {"one": tensor, "same": tensor, "turned": tensor.T})
    back = load_state(path)
    assert torch.equal(back["one"], tensor)
    assert torch.equal(back["same"], tensor)
    assert torch.equal(back["turned"], tensor.T)


def test_a_file_that_is_no_state_is_one_clear_error(tmp_path: Path) -> None:
    path = saved(tmp_path / "m.safetensors")
    with pytest.raises(WeightsError, match="not a training state"):
        load_state(path)
    path.write_bytes(b"rubbish")
    with pytest.raises(WeightsError, match="not a readable safetensors file"):
        load_state(path)
    with pytest.raises(WeightsError, match="no weight file"):
        load_state(tmp_path / "none")

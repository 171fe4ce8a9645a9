"""Recorded passes; what a CPU can show of them. The others need a CUDA device."""

from __future__ import annotations

import copy
import warnings
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from accelerate.accelerator import Accelerator
from torch import Tensor, nn
from torch.optim import Adam

from slimdiffsr.errors import ConfigError
from slimdiffsr.stages.graphs import Recorded, prepare


def small() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.SiLU(), nn.Conv2d(8, 3, 3, padding=1))


def test_a_recording_refuses_what_it_was_not_made_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Recorded, "_record", lambda self, inputs: self.network)
    there: Any = SimpleNamespace(device=torch.device("cuda"))
    recorded = Recorded(small(), there)
    x = torch.rand(2, 3, 8, 8)
    torch.testing.assert_close(recorded(x), recorded.network(x))
    # One image would be repeated, a number of another type converted, and nothing said.
    for other in (x[:1], x.double(), x[..., :4]):
        with pytest.raises(AssertionError, match="called with"):
            recorded(other)


def test_recording_keeps_a_warning_of_torchs_to_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    def record(network: nn.Module, *_: object, **__: object) -> nn.Module:
        warnings.warn("The AccumulateGrad node's stream does not match", stacklevel=1)
        return network

    monkeypatch.setattr(torch.cuda, "make_graphed_callables", record)
    there: Any = SimpleNamespace(device=torch.device("cuda"), mixed_precision="no")
    recorded, x = Recorded(small(), there), torch.rand(2, 3, 8, 8)
    torch.testing.assert_close(recorded(x), recorded.network(x))
    with pytest.raises(UserWarning, match="stream does not match"):  # no longer than that
        record(recorded)


def test_several_processes_are_not_recorded() -> None:
    two: Any = SimpleNamespace(device=torch.device("cpu"), num_processes=2)
    with pytest.raises(ConfigError, match="needs one process, this run has 2: set graphs=false"):
        prepare(small(), two, graphs=True)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_replayed_steps_are_the_networks_own() -> None:
    network = small().cuda()
    twin = copy.deepcopy(network)
    recorded = prepare(network, Accelerator(), graphs=True)
    assert isinstance(recorded, Recorded)
    rng = torch.Generator().manual_seed(0)

    def step(model: nn.Module, optimizer: Adam, x: Tensor) -> Tensor:
        out: Tensor = model(x)
        out.square().mean().backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(model.parameters(), 0.1)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return out.detach().clone()

    optimizers = [Adam(network.parameters(), 1e-2), Adam(twin.parameters(), 1e-2)]
    for _ in range(4):
        x = torch.rand(2, 3, 16, 16, generator=rng).cuda()
        ours, theirs = step(recorded, optimizers[0], x), step(twin, optimizers[1], x)
        torch.testing.assert_close(ours, theirs, rtol=1e-2, atol=1e-3)
    for one, other in zip(network.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-2, atol=1e-3)

"""Which runtime runs a network: the one asked for, or the fastest that pays on this scene."""

from __future__ import annotations

import copy
from importlib.util import find_spec
from pathlib import Path
from typing import get_args

import torch
from torch import nn

from slimdiffsr.errors import ConfigError
from slimdiffsr.runtime.cache import Cache
from slimdiffsr.runtime.compiled import CompiledRuntime
from slimdiffsr.runtime.devices import pick_precision
from slimdiffsr.runtime.eager import TorchRuntime
from slimdiffsr.runtime.guarded import GuardedRuntime
from slimdiffsr.runtime.onnx import OnnxRuntime
from slimdiffsr.runtime.openvino import OpenVinoRuntime, best_precision
from slimdiffsr.runtime.protocol import Precision, Runtime, RuntimeName
from slimdiffsr.runtime.recorded import RecordedRuntime

__all__ = ["COMPILING_PAYS_FROM_TILES", "CONVERTING_PAYS_FROM_TILES", "Runtimes", "pick_runtime"]

# Compiling for a card takes about a minute the first time and saves 0.4 ms (tiny) to 2.3 ms (base)
# a tile over recording alone; converting for OpenVINO takes some ten seconds the first time and
# saves 20 to 50 ms a tile over PyTorch on two cores. Of the whole scene, not of what is left of it:
# a run that goes on must choose as it did.
COMPILING_PAYS_FROM_TILES = 40_000
CONVERTING_PAYS_FROM_TILES = 300


def pick_runtime(name: str, device: torch.device, tiles: int = 1) -> RuntimeName:
    """The runtime asked for; 'auto' is the fastest for a scene of so many tiles on this device.

    On CUDA recorded, from COMPILING_PAYS_FROM_TILES on compiled; on a CPU openvino where it is
    installed and there are CONVERTING_PAYS_FROM_TILES, else torch. Raises ConfigError for a name
    that is none.
    """
    for known in get_args(RuntimeName):
        if name == known:
            return name  # type: ignore[return-value]  # one of the Literal's values
    if name != "auto":
        names = ", ".join(get_args(RuntimeName))
        raise ConfigError(f"runtime must be auto or one of {names}, got {name!r}")
    if device.type == "cuda":
        return "compiled" if tiles >= COMPILING_PAYS_FROM_TILES else "recorded"
    if device.type == "cpu" and tiles >= CONVERTING_PAYS_FROM_TILES and find_spec("openvino"):
        return "openvino"
    return "torch"


class Runtimes:
    """The runtimes of one network on one device, each made when it is first needed."""

    def __init__(
        self,
        model: nn.Module | Path,
        device: torch.device,
        precision: str = "auto",
        name: str = "auto",
        cache: Cache | None = None,
    ) -> None:
        """model: a network in [-1, 1], or a file that ``export`` wrote.

        precision: 'auto' is what the device computes fastest without a difference that shows: on
        CUDA bf16, on a CPU fp32, but bf16 with OpenVINO where the CPU has it. Raises ConfigError for a runtime that is none, or that cannot run this model here.
        """
        pick_runtime(name, device)
        chosen = pick_precision(precision, device)
        if chosen == "int8" and isinstance(model, nn.Module):
            raise ConfigError(
                "int8 needs a calibrated file: make one with 'slimdiffsr export --int8' and give "
                "it as the model"
            )
        if isinstance(model, nn.Module):
            model.eval().requires_grad_(False)
        self.model, self.device, self.precision = model, device, chosen
        self._free = precision == "auto"
        self.name = name if isinstance(model, nn.Module) else _of_file(model, name)
        self.cache = cache or Cache()
        self._made: dict[str, Runtime] = {}
        self._torch: TorchRuntime | None = None
        # Float32 for what a lower precision cannot hold, and for other packages to convert.
        lower = isinstance(model, nn.Module) and chosen != "fp32"
        self._exact = copy.deepcopy(model) if lower else model

    @property
    def depends_on_size(self) -> bool:
        """Whether the choice hangs on the scene's number of tiles."""
        return len({self.pick(tiles) for tiles in (1, 1 << 62)}) > 1

    def pick(self, tiles: int) -> RuntimeName:
        """The runtime for a scene of so many tiles."""
        return pick_runtime(self.name, self.device, tiles)

    def precision_of(self, name: RuntimeName) -> Precision:
        """What a runtime would compute in."""
        free = self._free and isinstance(self.model, nn.Module) and self.device.type == "cpu"
        return best_precision() if free and name == "openvino" else self.precision

    def advice(self, tiles: int) -> str:
        """Why 'auto' chooses as it does, or what would be faster; nothing for one asked for."""
        if self.name != "auto":
            return ""
        name = self.pick(tiles)
        if self.device.type == "cuda":
            least = COMPILING_PAYS_FROM_TILES
            return f" (auto: compiled from {least} tiles on, here {tiles})"
        if self.device.type != "cpu":
            return ""
        if name == "torch" and find_spec("openvino") is None:
            return " (auto: pip install 'slimdiffsr[openvino]' is faster)"
        least = CONVERTING_PAYS_FROM_TILES
        return f" (auto: openvino from {least} tiles on, here {tiles})"

    def for_tiles(self, tiles: int = 1) -> Runtime:
        """The runtime for a scene of so many tiles. Raises ConfigError, WeightsError."""
        name = self.pick(tiles)
        if name not in self._made:
            self._made[name] = self._make(name)
        return self._made[name]

    def eager(self) -> Runtime:
        """The runtime for single images of any size: PyTorch, or the file's own."""
        if isinstance(self.model, Path):
            return self.for_tiles()
        if self._torch is None:
            self._torch = TorchRuntime(self.model, self.device, self.precision)
        return self._torch

    def notes(self) -> tuple[str, ...]:
        """What the user should hear of, whole sentences."""
        said = [n for made in self._made.values() for n in getattr(made, "notes", ())]
        return tuple(dict.fromkeys([*said, *([self.cache.trouble] if self.cache.trouble else [])]))

    def close(self) -> None:
        """Give back what all of them hold."""
        for made in self._made.values():
            made.close()
        self._made.clear()

    def _make(self, name: RuntimeName) -> Runtime:
        precision = self.precision_of(name)
        made = self._plain(name, precision)
        exact = self._exact
        if precision == "fp32" or not isinstance(exact, nn.Module):
            return made
        return GuardedRuntime(made, lambda: TorchRuntime(exact, self.device, "fp32"))

    def _plain(self, name: RuntimeName, precision: Precision) -> Runtime:
        if name == "openvino":
            return OpenVinoRuntime(self._exact, self.device, precision, self.cache)
        if name == "onnx":
            model = copy.deepcopy(self._exact)  # it is moved to the CPU, the others' is not
            return OnnxRuntime(model, self.device, precision, self.cache)
        inner = self.eager()
        if not isinstance(inner, TorchRuntime) or name == "torch":
            return inner
        if name == "compiled":
            compiled = CompiledRuntime(inner, self.cache)
            return RecordedRuntime(compiled) if self.device.type == "cuda" else compiled
        return RecordedRuntime(inner)


def _of_file(path: Path, name: str) -> RuntimeName:
    own: RuntimeName = "openvino" if path.suffix == ".xml" else "onnx"
    if name in ("auto", own) or (name == "openvino" and path.suffix == ".onnx"):
        return own if name == "auto" else name  # type: ignore[return-value]
    raise ConfigError(f"the runtime {name} cannot run {path}: leave --runtime out, or give {own}")

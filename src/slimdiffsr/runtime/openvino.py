"""The runtime ``openvino``: Intel's engine for CPUs, two to three times PyTorch's speed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from slimdiffsr.errors import ConfigError, WeightsError
from slimdiffsr.runtime.cache import Cache, network_key
from slimdiffsr.runtime.devices import describe_device
from slimdiffsr.runtime.export import capture, into_openvino, needs
from slimdiffsr.runtime.protocol import Arithmetic, Precision

__all__ = ["OpenVinoRuntime", "best_precision", "read_openvino"]

HINTS = {"fp32": "f32", "bf16": "bf16", "int8": "f32"}  # int8: of the file's own making
CAPABILITIES = {"fp32": "FP32", "bf16": "BF16", "int8": "INT8"}


class OpenVinoRuntime:
    """A network on the CPU by OpenVINO, converted once for each shape and kept in the cache."""

    def __init__(
        self,
        model: nn.Module | Path,
        device: torch.device,
        precision: Precision,
        cache: Cache,
        threads: int | None = None,
    ) -> None:
        """model: a network in [-1, 1], or an exported file in [0, 1].

        Raises ConfigError where OpenVINO is not installed, the device is no CPU, or the CPU lacks
        the precision; WeightsError for a file that it cannot read.
        """
        openvino = needs("openvino", "openvino")
        if device.type != "cpu":
            raise ConfigError(f"the runtime openvino runs on a CPU, got --device {device}")
        self.core = openvino.Core()
        _check_precision(self.core, precision)
        self.device, self.precision, self.batch = device, precision, 1
        self.version = f"openvino {openvino.__version__.split('-')[0]}"
        self.cache = cache
        self.network = model if isinstance(model, nn.Module) else None
        self.unit = self.network is None
        self._read: Any = None if isinstance(model, nn.Module) else read_openvino(model, self.core)
        self._key = network_key(self.network, self.version) if self.network is not None else ""
        self._hints = {
            "INFERENCE_PRECISION_HINT": HINTS[precision],
            "INFERENCE_NUM_THREADS": threads or torch.get_num_threads(),
            "PERFORMANCE_HINT": "LATENCY",
        }
        self._requests: dict[tuple[int, ...], Any] = {}

    def __call__(self, rgb_lr: Tensor) -> Tensor:
        """See ``Runtime``."""
        shape = tuple(rgb_lr.shape)
        request = self._requests.get(shape)
        if request is None:
            request = self._requests[shape] = self._compile(shape)
        given = np.ascontiguousarray(rgb_lr.float().numpy())
        if self.unit:
            given = given / 2 + np.float32(0.5)
        request.infer([given], share_inputs=True)
        made = torch.from_numpy(request.get_output_tensor(0).data)
        return made * 2 - 1 if self.unit else made

    def warm_up(self, batch: int, height_lr_px: int, width_lr_px: int) -> None:
        """Convert and compile for a shape, or read what was converted."""
        self(torch.zeros(batch, 3, height_lr_px, width_lr_px))

    def fingerprint(self) -> Arithmetic:
        """Which arithmetic makes the pixels."""
        return Arithmetic("openvino", self.precision, describe_device(self.device), self.version)

    def close(self) -> None:
        """Give the compiled networks' memory back."""
        self._requests.clear()

    def _compile(self, shape: tuple[int, ...]) -> Any:  # noqa: ANN401  a request of openvino's
        model = self._fixed(shape) if self.network is None else self._converted(self.network, shape)
        try:
            compiled = self.core.compile_model(model, "CPU", self._hints)
        except RuntimeError as error:
            words = str(error).strip().splitlines()[-1][:200]
            raise ConfigError(
                f"OpenVINO cannot run this network ({words}): use --runtime torch"
            ) from None
        return compiled.create_infer_request()

    def _fixed(self, shape: tuple[int, ...]) -> Any:  # noqa: ANN401  an openvino.Model
        # A fixed shape runs faster than a free one.
        model = self._read.clone()
        wanted = model.inputs[0].partial_shape
        if not wanted.compatible(type(wanted)(list(shape))):
            raise ConfigError(
                f"this file takes inputs of shape {wanted}, not {list(shape)}: "
                "export it again with --dynamic"
            )
        model.reshape(list(shape))
        return model

    def _converted(self, network: nn.Module, shape: tuple[int, ...]) -> Any:  # noqa: ANN401  an openvino.Model
        batch, _, height, width = shape
        name = f"{self._key}-{batch}x{height}x{width}.xml"
        made: list[Any] = []

        def make(path: Path) -> None:
            made.append(into_openvino(capture(network, (batch, height, width))))
            needs("openvino", "openvino").save_model(made[0], path, compress_to_fp16=False)

        path = self.cache.find_or_make(name, make)
        if path is not None and not made:
            return self.core.read_model(path)
        return made[0] if made else into_openvino(capture(network, (batch, height, width)))


def best_precision() -> Precision:
    """bf16 where this CPU computes in it, as OpenVINO says, else fp32."""
    able = needs("openvino", "openvino").Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    return "bf16" if "BF16" in able else "fp32"


def read_openvino(path: Path, core: Any) -> Any:  # noqa: ANN401  openvino types little
    """An exported .xml. Raises WeightsError for what OpenVINO cannot read."""
    try:
        return core.read_model(path)
    except RuntimeError as error:
        words = str(error).strip().splitlines()[-1][:200]
        raise WeightsError(f"OpenVINO cannot read {path}: {words}") from None


def _check_precision(core: Any, precision: Precision) -> None:  # noqa: ANN401
    able = core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    if precision not in HINTS or CAPABILITIES[precision] not in able:
        found = [name for name, word in CAPABILITIES.items() if word in able and name != "int8"]
        raise ConfigError(
            f"this CPU has no {precision} in OpenVINO: give --precision {' or '.join(found)}"
        )

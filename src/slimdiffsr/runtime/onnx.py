"""The runtime ``onnx``: ONNX Runtime, on TensorRT, CUDA or the CPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from slimdiffsr.errors import ConfigError, WeightsError
from slimdiffsr.runtime.cache import Cache, network_key
from slimdiffsr.runtime.devices import DTYPES, describe_device
from slimdiffsr.runtime.export import capture, into_onnx, needs
from slimdiffsr.runtime.protocol import Arithmetic, Precision

__all__ = ["OnnxRuntime"]

ARRAYS = {torch.float32: np.float32, torch.float16: np.float16}


class OnnxRuntime:
    """A network by ONNX Runtime, exported once for each shape and kept in the cache."""

    def __init__(
        self,
        model: nn.Module | Path,
        device: torch.device,
        precision: Precision,
        cache: Cache,
    ) -> None:
        """model: a network in [-1, 1], or an exported file in [0, 1].

        Raises ConfigError where onnxruntime is not installed or lacks the device or the precision,
        WeightsError for a file that it cannot read.
        """
        self.ort = needs("onnxruntime", "onnx")
        self.device, self.precision, self.cache = device, precision, cache
        self.batch = 1 if device.type == "cpu" else 8
        self.providers = _providers(self.ort, device, precision, cache)
        self.unit = not isinstance(model, nn.Module)
        wanted = torch.float32 if self.unit or precision == "int8" else DTYPES[precision]
        if wanted not in ARRAYS:
            raise ConfigError(f"the runtime onnx has no precision {precision}: give fp32 or fp16")
        self.dtype = wanted
        self.model = model.to("cpu", wanted) if isinstance(model, nn.Module) else model
        name = self.providers[0][0].removesuffix("ExecutionProvider")
        self.version = f"onnxruntime {self.ort.__version__} {name}"
        self._key = network_key(self.model, precision) if isinstance(self.model, nn.Module) else ""
        self._sessions: dict[tuple[int, ...], Any] = {}

    def __call__(self, rgb_lr: Tensor) -> Tensor:
        """See ``Runtime``."""
        shape = tuple(rgb_lr.shape)
        session = self._session(shape)
        given = (rgb_lr / 2 + 0.5 if self.unit else rgb_lr).to(self.dtype).contiguous()
        if self.device.type == "cuda":
            made = self._on_the_card(session, given)
        else:
            (array,) = session.run(None, {session.get_inputs()[0].name: given.numpy()})
            made = torch.from_numpy(array)
        return made * 2 - 1 if self.unit else made

    def warm_up(self, batch: int, height_lr_px: int, width_lr_px: int) -> None:
        """Export and load for a shape, or read what was exported."""
        self(torch.zeros(batch, 3, height_lr_px, width_lr_px, device=self.device))

    def fingerprint(self) -> Arithmetic:
        """Which arithmetic makes the pixels."""
        return Arithmetic("onnx", self.precision, describe_device(self.device), self.version)

    def close(self) -> None:
        """Give the sessions' memory back."""
        self._sessions.clear()

    def _on_the_card(self, session: Any, given: Tensor) -> Tensor:  # noqa: ANN401
        # Input and output stay where they are: only their addresses are handed over.
        scale = self._scale(session, given)
        b, _, h, w = given.shape
        made = torch.empty(b, 3, scale * h, scale * w, dtype=self.dtype, device=self.device)
        binding = session.io_binding()
        where = ("cuda", self.device.index or 0, ARRAYS[self.dtype])
        (source,), (target,) = session.get_inputs(), session.get_outputs()
        binding.bind_input(source.name, *where, tuple(given.shape), given.data_ptr())
        binding.bind_output(target.name, *where, tuple(made.shape), made.data_ptr())
        torch.cuda.current_stream(self.device).synchronize()  # ONNX Runtime has a stream of its own
        session.run_with_iobinding(binding)
        binding.synchronize_outputs()
        return made

    def _scale(self, session: Any, given: Tensor) -> int:  # noqa: ANN401
        side = session.get_outputs()[0].shape[-1]
        if isinstance(side, int):
            return side // given.shape[-1]
        about: dict[str, str] = session.get_modelmeta().custom_metadata_map
        return int(about["scale"])

    def _session(self, shape: tuple[int, ...]) -> Any:  # noqa: ANN401  an InferenceSession
        key = shape if isinstance(self.model, nn.Module) else ()
        if key not in self._sessions:
            self._sessions[key] = self._load(shape)
        return self._sessions[key]

    def _load(self, shape: tuple[int, ...]) -> Any:  # noqa: ANN401  an InferenceSession
        options = self.ort.SessionOptions()
        options.log_severity_level = 3  # errors; they are raised as well
        if self.device.type == "cpu":
            options.intra_op_num_threads = torch.get_num_threads()
        given = self.model if isinstance(self.model, Path) else self._exported(self.model, shape)
        source = str(given) if isinstance(given, Path) else given
        try:
            return self.ort.InferenceSession(source, options, providers=self.providers)
        except Exception as error:  # onnxruntime's errors share no base
            words = str(error).strip().splitlines()[0][:300]
            raise WeightsError(
                f"onnxruntime {self.ort.__version__} cannot read {self.model if self.unit else 'this network'}"
                f" ({words}): install a later onnxruntime, or export again with a lower --opset"
            ) from None

    def _exported(self, network: nn.Module, shape: tuple[int, ...]) -> Path | bytes:
        batch, _, height, width = shape
        made: list[bytes] = []

        def make(path: Path) -> None:
            made.append(into_onnx(capture(network, (batch, height, width))).SerializeToString())
            path.write_bytes(made[0])

        found = self.cache.find_or_make(f"{self._key}-{batch}x{height}x{width}.onnx", make)
        if found is not None:
            return found
        if not made:
            made.append(into_onnx(capture(network, (batch, height, width))).SerializeToString())
        return made[0]


def _providers(
    ort: Any,  # noqa: ANN401  a module
    device: torch.device,
    precision: Precision,
    cache: Cache,
) -> list[tuple[str, dict[str, Any]]]:
    there = ort.get_available_providers()
    if device.type == "cpu":
        return [("CPUExecutionProvider", {})]
    if device.type != "cuda" or "CUDAExecutionProvider" not in there:
        raise ConfigError(
            f"this onnxruntime has no provider for {device}, only {', '.join(there)}: "
            "install onnxruntime-gpu, or give --device cpu"
        )
    card = {"device_id": device.index or 0}
    providers: list[tuple[str, dict[str, Any]]] = [("CUDAExecutionProvider", card)]
    if "TensorrtExecutionProvider" in there:
        engines = cache.subfolder("tensorrt")
        kept = {"trt_engine_cache_enable": True, "trt_engine_cache_path": str(engines)}
        tensorrt = card | {"trt_fp16_enable": precision == "fp16"} | (kept if engines else {})
        providers.insert(0, ("TensorrtExecutionProvider", tensorrt))
    return providers

"""The runtime ``torch``: the network as PyTorch runs it, layer by layer."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from slimdiffsr.errors import ConfigError
from slimdiffsr.runtime.devices import DTYPES, describe_device
from slimdiffsr.runtime.protocol import Arithmetic, Precision

__all__ = ["TorchRuntime", "place"]


class TorchRuntime:
    """Eager PyTorch, channels last: runs everywhere, at once, and is what the others are held to."""

    def __init__(self, model: nn.Module, device: torch.device, precision: Precision) -> None:
        """model: RGB (b, 3, h, w) in [-1, 1] -> (b, 3, scale*h, scale*w); it is moved, not copied.

        Raises ConfigError for a precision that PyTorch does not run.
        """
        self.device, self.precision = device, precision
        self.dtype = torch_dtype(precision, "torch")
        self.batch = 32 if device.type == "cuda" else 1  # where an H200 was fastest, in 4 GiB
        self.model = place(model, device, self.dtype)

    @torch.inference_mode()
    def __call__(self, rgb_lr: Tensor) -> Tensor:
        """See ``Runtime``."""
        out: Tensor = self.model(channels_last(rgb_lr, self.device, self.dtype))
        return out

    def warm_up(self, batch: int, height_lr_px: int, width_lr_px: int) -> None:
        """Load kernels and take memory for batches of a shape."""
        self(torch.zeros(batch, 3, height_lr_px, width_lr_px, device=self.device))

    def fingerprint(self) -> Arithmetic:
        """Which arithmetic makes the pixels."""
        version = f"torch {torch.__version__}"
        return Arithmetic("torch", self.precision, describe_device(self.device), version)

    def close(self) -> None:
        """Nothing is held but the model, which is the caller's."""


def torch_dtype(precision: Precision, runtime: str) -> torch.dtype:
    """The float type of a precision. Raises ConfigError for int8, which PyTorch's runtimes lack."""
    if precision not in DTYPES:
        raise ConfigError(
            f"the runtime {runtime} has no precision {precision}: give --runtime openvino or onnx, "
            f"or one of {', '.join(DTYPES)}"
        )
    return DTYPES[precision]


def place(model: nn.Module, device: torch.device, dtype: torch.dtype) -> nn.Module:
    """A network as it is run: evaluation, no gradients, channels last."""
    model = model.to(device, dtype).eval().requires_grad_(False)
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return model


def channels_last(rgb_lr: Tensor, device: torch.device, dtype: torch.dtype) -> Tensor:
    """A batch as a placed network wants it."""
    return rgb_lr.to(device, dtype, memory_format=torch.channels_last)

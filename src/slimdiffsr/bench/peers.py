"""The peers of Table 2 that spandrel has (extra ``peers``): their networks, with fresh weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from slimdiffsr.errors import ConfigError, WeightsError
from slimdiffsr.runtime.choose import Runtimes
from slimdiffsr.runtime.protocol import Runtime

__all__ = ["FilePeer", "build_esrgan", "build_swinir"]


class FilePeer(nn.Module):
    """A network in a file, ONNX or OpenVINO's, run by its own package; ours or anybody's."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        if not path.is_file():
            raise WeightsError(f"no such file: {path}")
        self.path = path
        self._runtime: Runtime | None = None

    def forward(self, rgb: Tensor) -> Tensor:
        """rgb: (b, 3, h, w). Returns what the file makes of it."""
        if self._runtime is None:
            self._runtime = Runtimes(self.path, rgb.device, "fp32").for_tiles()
        return self._runtime(rgb)


def build_esrgan(scale: int) -> nn.Module:
    """RRDBNet with 64 channels and 23 blocks (Wang et al. 2018): 16.70 M parameters at 4x."""
    architectures = _spandrel()
    # On the CPU always: spandrel's builders read values, which the meta device does not have.
    with torch.device("cpu"):
        model: nn.Module = architectures.ESRGAN.ESRGAN(scale=scale, num_filters=64, num_blocks=23)
    return model


def build_swinir(scale: int) -> nn.Module:
    """SwinIR-M for real images (Liang et al. 2021): windows of 8, nearest + conv; 11.72 M at 4x."""
    architectures = _spandrel()
    with torch.device("cpu"):
        model: nn.Module = architectures.SwinIR.SwinIR(
            upscale=scale,
            img_size=64,
            window_size=8,
            depths=[6] * 6,
            embed_dim=180,
            num_heads=[6] * 6,
            mlp_ratio=2,
            upsampler="nearest+conv",
            resi_connection="1conv",
        )
    return model


def _spandrel() -> Any:  # noqa: ANN401  a module of modules
    try:
        from spandrel import architectures
        from spandrel.architectures import ESRGAN, SwinIR  # noqa: F401  as attributes of the above
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"this row needs the package {error.name}: pip install 'slimdiffsr[peers]'"
        ) from None
    except (ImportError, RuntimeError) as error:
        # A torchvision made for another torch fails in many ways while it is imported.
        raise ConfigError(
            f"spandrel is installed but cannot be imported ({error}): "
            "install a torchvision that was made for this torch"
        ) from None
    return architectures

"""Exported files: a network, and what it says of itself, written whole or not at all."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from slimdiffsr.errors import ConfigError, OutputError, WeightsError
from slimdiffsr.files.tensors import write_atomically
from slimdiffsr.runtime.cache import Cache
from slimdiffsr.runtime.choose import Runtimes
from slimdiffsr.runtime.export import OPSET, UnitRange, capture, into_onnx, into_openvino, needs
from slimdiffsr.runtime.exported import OURS, SUFFIXES, About

__all__ = ["ExportOptions", "difference_to_torch", "make_file_model", "save_file_model"]

OLDEST_OPSET = 18  # the oldest that PyTorch's exporter writes
TOLERANCE = 1e-3  # in [-1, 1]: an eighth of a grey level; float32 ones differ by less


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportOptions:
    """How a network is written; checks itself. resolution_m: of the input, for QGIS Deepness."""

    opset: int = OPSET
    dynamic: bool = False
    resolution_m: float = 2.4

    def __post_init__(self) -> None:
        if self.opset < OLDEST_OPSET:
            raise ConfigError(f"opset must be at least {OLDEST_OPSET}, got {self.opset}")
        if not self.resolution_m > 0:
            raise ConfigError(f"resolution must be positive, got {self.resolution_m:g} m")


def make_file_model(model: nn.Module, about: About, suffix: str, options: ExportOptions) -> Any:  # noqa: ANN401
    """An onnx.ModelProto or an openvino.Model that takes and gives images in [0, 1].

    Fixed to one tile of the network's own size, or free in batch, height and width. Raises
    ConfigError for another suffix, a missing package, or a network that cannot be followed.
    """
    if suffix not in SUFFIXES:
        raise ConfigError(f"an export ends in {' or '.join(SUFFIXES)}, got {suffix or 'no suffix'}")
    side = about.tile_hr_px // about.scale
    program = capture(
        UnitRange(model),
        (1, side, side),
        multiple_lr_px=about.multiple_lr_px,
        dynamic=options.dynamic,
    )
    return into_openvino(program) if suffix == ".xml" else into_onnx(program, options.opset)


def save_file_model(made: Any, about: About, target: Path, options: ExportOptions) -> None:  # noqa: ANN401
    """Write what ``make_file_model`` made, with what it says of itself. Raises OutputError."""
    try:
        if target.suffix == ".xml":
            _save_openvino(made, about, target)
        else:
            _label_onnx(made, about, options.resolution_m)
            write_atomically(target, made.SerializeToString())
    except (OSError, RuntimeError) as error:
        raise OutputError(f"cannot write {target}: {error}") from None


def difference_to_torch(model: nn.Module, about: About, target: Path) -> float:
    """The largest difference of a written file to the network itself on noise, in grey levels.

    Raises WeightsError for one that is not the network.
    """
    side = about.tile_hr_px // about.scale
    rgb_lr = torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(0)) * 2 - 1
    cpu = torch.device("cpu")
    made = Runtimes(target, cpu, about.precision, cache=Cache()).for_tiles()(rgb_lr)
    with torch.inference_mode():
        wanted = model(rgb_lr)
    difference = float((made - wanted).abs().max())
    if about.precision == "fp32" and not difference < TOLERANCE:
        raise WeightsError(f"{target} differs from the network by {difference:g}: do not use it")
    return difference * 127.5


def _label_onnx(model: Any, about: About, resolution_m: float) -> None:  # noqa: ANN401
    del model.metadata_props[:]
    for key, value in (about.texts() | about.deepness(resolution_m)).items():
        entry = model.metadata_props.add()
        entry.key, entry.value = key, value


def _save_openvino(model: Any, about: About, target: Path) -> None:  # noqa: ANN401
    openvino = needs("openvino", "openvino")
    for key, value in about.texts().items():
        model.set_rt_info(value, [OURS, key])
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".export-") as folder:
        written = Path(folder) / target.name
        openvino.save_model(model, written, compress_to_fp16=False)
        written.with_suffix(".bin").replace(target.with_suffix(".bin"))
        written.replace(target)

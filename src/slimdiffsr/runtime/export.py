"""A network as ONNX or OpenVINO's format, by torch.export."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from slimdiffsr.errors import ConfigError

__all__ = ["UnitRange", "capture", "into_onnx", "into_openvino", "needs"]

MOST_CELLS = 4096  # along a side, of the multiple that the network wants
OPSET = 20  # the last one of IR version 9, which is the latest that QGIS Deepness's runtime reads
LATEST_IR = 9


class UnitRange(nn.Module):
    """A network with images in [0, 1], which other tools hand over and expect."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, rgb: Tensor) -> Tensor:
        """rgb: (b, 3, h, w) in [0, 1]. Returns (b, 3, scale*h, scale*w), about [0, 1]."""
        out: Tensor = self.model(rgb * 2 - 1) / 2 + 0.5
        return out


def capture(
    model: nn.Module,
    shape: tuple[int, int, int],
    *,
    multiple_lr_px: int = 1,
    dynamic: bool = False,
) -> ExportedProgram:
    """A network's graph. Raises ConfigError for one that cannot be followed.

    shape: batch, height and width of the input. dynamic: any batch and sides instead, the sides
    being multiples of ``multiple_lr_px``.
    """
    batch, height, width = shape
    dims = None
    if dynamic:
        # Two of each and no two alike: one would be taken for a constant.
        batch, height, width = 2, 4 * multiple_lr_px, 3 * multiple_lr_px
        rows, cols = Dim("rows", max=MOST_CELLS), Dim("columns", max=MOST_CELLS)
        sides = (
            (multiple_lr_px * rows, multiple_lr_px * cols) if multiple_lr_px > 1 else (rows, cols)
        )
        dims = ({0: Dim("batch", max=MOST_CELLS), 2: sides[0], 3: sides[1]},)
    example = next(model.parameters(), torch.zeros(())).new_zeros(batch, 3, height, width)
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # deprecations inside torch itself
            return torch.export.export(model.eval(), (example,), dynamic_shapes=dims)
    except Exception as error:  # torch.export's errors share no base
        words = str(error).strip().splitlines() or [type(error).__name__]
        raise ConfigError(
            f"this network cannot be exported ({words[0][:200]}): use the runtime torch"
        ) from None


def into_onnx(program: ExportedProgram, opset: int = OPSET) -> Any:  # noqa: ANN401  an onnx.ModelProto
    """An ONNX model with the input 'rgb_lr' and the output 'rgb_sr'.

    Raises ConfigError for an opset that cannot be written or where a package is missing.
    """
    needs("onnxscript", "onnx")
    onnx = needs("onnx", "onnx")
    with warnings.catch_warnings(), _quiet("torch.onnx"):
        warnings.simplefilter("ignore")  # deprecations inside the exporter
        exported = torch.onnx.export(
            program,
            dynamo=True,
            opset_version=opset,
            input_names=["rgb_lr"],
            output_names=["rgb_sr"],
            verbose=False,
        )
    model = exported.model_proto  # type: ignore[union-attr]  # dynamo=True returns a program
    found = next(o.version for o in model.opset_import if o.domain in ("", "ai.onnx"))
    if found != opset:
        raise ConfigError(f"this network cannot be written for opset {opset}, only for {found}")
    model.ir_version = min(model.ir_version, LATEST_IR) if opset <= OPSET else model.ir_version
    for part in (model.graph, *model.graph.node, *model.graph.value_info):
        # Where in our code a node came from, with paths of this machine: half of a small file.
        del part.metadata_props[:]
    onnx.checker.check_model(model)
    return model


def into_openvino(program: ExportedProgram) -> Any:  # noqa: ANN401  an openvino.Model
    """OpenVINO's model of a network. Raises ConfigError where the package is missing."""
    openvino = needs("openvino", "openvino")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecations inside the converter
        return openvino.convert_model(program)


@contextmanager
def _quiet(name: str) -> Iterator[None]:
    # The exporter warns of each optional package that it does not find.
    logger = logging.getLogger(name)
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def needs(package: str, extra: str) -> Any:  # noqa: ANN401  a module
    """Import an optional package. Raises ConfigError, which says how to install it."""
    import importlib

    try:
        return importlib.import_module(package)
    except ModuleNotFoundError:
        raise ConfigError(
            f"this needs the package {package}: pip install 'slimdiffsr[{extra}]'"
        ) from None

"""Eight-bit integers: calibrated on real tiles, offered only where the pictures stay the same."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from slimdiffsr.datasets.images import read_rgb8
from slimdiffsr.errors import ConfigError, DataError
from slimdiffsr.files.pretrained import load_lpips
from slimdiffsr.runtime.export import needs
from slimdiffsr.runtime.exported import About

__all__ = [
    "MOST_LPIPS",
    "MOST_RMS",
    "Example",
    "Gate",
    "Int8RefusedError",
    "quantise",
    "read_examples",
]

MOST_RMS = 1.0  # grey levels, of the whole held-out half
MOST_LPIPS = 0.003  # change of the mean
LEAST_IMAGES = 4
SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff")


class Int8RefusedError(ConfigError):
    """The network in int8 is not close enough to itself in float32."""


@dataclass(frozen=True, slots=True)
class Example:
    """An input of the network's tile and the truth: (1, 3, h, w) and (1, 3, scale*h, scale*w)."""

    lr: NDArray[np.float32]  # in [0, 1]
    hr: NDArray[np.float32]  # in [0, 1]


@dataclass(frozen=True, slots=True)
class Gate:
    """How far int8 is from float32 on examples that were not calibrated on."""

    rms: float  # grey levels
    lpips: float  # of float32 to the truth
    change: float  # of LPIPS, by int8
    images: int
    kept: str  # what stayed in float32

    @property
    def passed(self) -> bool:
        """Whether int8 may be offered."""
        return self.rms < MOST_RMS and abs(self.change) < MOST_LPIPS

    def sentence(self) -> str:
        """For the user."""
        return (
            f"int8 with {self.kept} in float32: {self.rms:.2f} grey levels RMS from float32, LPIPS "
            f"{self.lpips:.4f} {self.change:+.4f}, on {self.images} images not calibrated on"
        )


def read_examples(folder: Path, scale: int, side_lr_px: int) -> list[Example]:
    """Tiles of a folder of sharp images, or of pairs in hr/ and lr_x4/ (of the scale), by name.

    A sharp image's partner is its mean over blocks of scale x scale. Images are cut to the middle,
    smaller ones mirrored up to the tile. Raises DataError where there are fewer than LEAST_IMAGES.
    """
    truths = folder / "hr" if (folder / "hr").is_dir() else folder
    inputs = folder / f"lr_x{scale}"
    if not truths.is_dir():
        raise DataError(
            f"no folder {folder}: --calibrate wants sharp images, or hr/ and lr_x{scale}/"
        )
    found = []
    for path in sorted(p for p in truths.iterdir() if p.suffix.lower() in SUFFIXES):
        hr = _unit(read_rgb8(path))
        partner = inputs / path.name
        if partner.is_file():
            lr = _unit(read_rgb8(partner))
        else:
            height, width = (n // scale for n in hr.shape[1:])
            hr = hr[:, : height * scale, : width * scale]
            lr = hr.reshape(3, height, scale, width, scale).mean((2, 4))
        found.append(Example(_fit(lr, side_lr_px)[None], _fit(hr, side_lr_px * scale)[None]))
    if len(found) < LEAST_IMAGES:
        raise DataError(
            f"{folder} has {len(found)} images: --calibrate wants at least {LEAST_IMAGES}, of the "
            "kind that will be enlarged"
        )
    return found


def quantise(
    model: Any,  # noqa: ANN401  an openvino.Model or an onnx.ModelProto
    about: About,
    folder: Path,
    lpips: Path | None,
    tell: Callable[[str], None],
) -> tuple[Any, Gate]:
    """The model in int8, calibrated on every other image of a folder and judged on the rest.

    model: of images in [0, 1], fixed to a tile or free. First the convolutions to and from RGB stay
    in float32, then all of 3 x 3, where the details are made. Raises Int8RefusedError where neither passes the
    gate, ConfigError without NNCF, DataError for the images.
    """
    examples = read_examples(folder, about.scale, about.tile_hr_px // about.scale)
    nncf = needs("nncf", "int8")
    nncf.set_log_level(logging.ERROR)
    distance = load_lpips(lpips)
    exact = [_run(model, example.lr) for example in examples[1::2]]
    said = ""
    for kept, scope in _scopes(nncf, model):
        data = nncf.Dataset([_feed(model, example.lr) for example in examples[::2]])
        made = nncf.quantize(
            model, data, subset_size=len(examples[::2]), ignored_scope=scope,
            preset=nncf.QuantizationPreset.MIXED,
        )  # fmt: skip
        gate = _judge(made, examples[1::2], exact, distance, kept)
        if gate.passed:
            return made, gate
        said = gate.sentence()
        tell(f"not close enough: {said}")
    raise Int8RefusedError(
        f"int8 is not offered for {about.model_id}, whose pictures it would change ({said}; allowed "
        f"are {MOST_RMS:g} and {MOST_LPIPS:g}): leave --int8 out"
    )


def _judge(
    made: Any,  # noqa: ANN401
    examples: list[Example],
    exact: list[NDArray[np.float32]],
    distance: Callable[[Tensor, Tensor], Tensor],
    kept: str,
) -> Gate:
    squares, before, after = 0.0, 0.0, 0.0
    for example, wanted in zip(examples, exact, strict=True):
        got, wanted_levels = _levels(_run(made, example.lr)), _levels(wanted)
        squares += float(((got - wanted_levels) ** 2).mean())
        truth = torch.from_numpy(example.hr * 2 - 1)
        with torch.inference_mode():
            before += float(distance(torch.from_numpy(wanted_levels / 127.5 - 1), truth))
            after += float(distance(torch.from_numpy(got / 127.5 - 1), truth))
    count = len(examples)
    return Gate((squares / count) ** 0.5, before / count, (after - before) / count, count, kept)


def _scopes(nncf: Any, model: Any) -> Iterator[tuple[str, Any]]:  # noqa: ANN401
    names, large = _convolutions(model)
    for kept, ignored in (
        ("the first and the last convolution", [names[0], names[-1]]),
        ("convolutions of 3 x 3", large),
    ):
        yield kept, nncf.IgnoredScope(names=ignored, validate=False)


def _convolutions(model: Any) -> tuple[list[str], list[str]]:  # noqa: ANN401
    """Names of all convolutions in order, and of those that look around."""
    if hasattr(model, "graph"):
        sizes = {w.name: tuple(w.dims) for w in model.graph.initializer}
        found = [
            (node.name, sizes.get(node.input[1], (1,))[-1] > 1)
            for node in model.graph.node
            if node.op_type == "Conv"
        ]
    else:
        found = [
            (op.get_friendly_name(), op.input(1).get_partial_shape()[-1].get_length() > 1)
            for op in model.get_ordered_ops()
            if op.get_type_name() == "Convolution"
        ]
    if not found:
        raise Int8RefusedError("int8 is for networks with convolutions: leave --int8 out")
    return [name for name, _ in found], [name for name, large in found if large]


def _feed(model: Any, lr: NDArray[np.float32]) -> Any:  # noqa: ANN401
    return {model.graph.input[0].name: lr} if hasattr(model, "graph") else lr


def _run(model: Any, lr: NDArray[np.float32]) -> NDArray[np.float32]:  # noqa: ANN401
    if hasattr(model, "graph"):
        ort = needs("onnxruntime", "onnx")
        session = ort.InferenceSession(
            model.SerializeToString(), providers=["CPUExecutionProvider"]
        )
        onnx_made: NDArray[np.float32] = session.run(None, _feed(model, lr))[0]
        return onnx_made
    compiled = needs("openvino", "openvino").compile_model(
        model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"}
    )
    made: NDArray[np.float32] = compiled(lr)[0].copy()
    return made


def _levels(rgb: NDArray[np.float32]) -> NDArray[np.float32]:
    """What is written: whole grey levels."""
    return np.rint(np.clip(rgb, 0, 1) * 255).astype(np.float32)


def _unit(rgb: NDArray[np.uint8]) -> NDArray[np.float32]:
    return (np.moveaxis(rgb, -1, 0) / 255).astype(np.float32)


def _fit(image: NDArray[np.float32], side_px: int) -> NDArray[np.float32]:
    top, left = (max(0, (n - side_px) // 2) for n in image.shape[1:])
    image = image[:, top : top + side_px, left : left + side_px]
    height, width = image.shape[1:]
    margins = ((0, 0), (0, side_px - height), (0, side_px - width))
    return np.ascontiguousarray(np.pad(image, margins, mode="symmetric"))

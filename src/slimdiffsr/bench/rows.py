"""What can be measured without downloads: our students, the ablations, peers and diffusion."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from slimdiffsr.bench.diffusion import StableDiffusion
from slimdiffsr.bench.peers import FilePeer, build_esrgan, build_swinir
from slimdiffsr.errors import ConfigError
from slimdiffsr.models.ablations import count
from slimdiffsr.models.classical import Bicubic
from slimdiffsr.models.student import BaseStudent, LatentStudent, build_student
from slimdiffsr.runtime.exported import SUFFIXES
from slimdiffsr.settings.config import Ablation, ModelConfig
from slimdiffsr.settings.presets import load_preset, tiny_model
from slimdiffsr.upscale import Upscaler

__all__ = ["ROWS", "Row", "choose_rows", "model_row"]

SD = "Stable Diffusion"


@dataclass(frozen=True, slots=True)
class Row:
    """A network that enlarges (b, 3, h, w) ``scale`` times, and how to build it.

    ``build`` takes the scale. Rows of one ``network`` share its weights and differ in ``steps``.
    ``gib_per_mpx``: memory for activations, float32, an output megapixel; rounded up from
    measurements, to refuse what would not fit. ``ablation``: of which the paper counts differently.
    ``source``: the weight file or name of a row that has one.
    """

    name: str
    title: str
    build: Callable[[int], nn.Module]
    network: str
    steps: int = 1
    gib_per_mpx: float = 3.0
    ablation: Ablation | None = None
    source: str | None = None

    def paper_count(self, module: nn.Module) -> int | None:
        """Parameters as the paper counts them (MS 9), where it has this row."""
        if self.ablation is None or not isinstance(module, BaseStudent | LatentStudent):
            return None
        return count(module).paper


def _base(scale: int) -> ModelConfig:
    return ModelConfig(name=f"base-x{scale}", scale=_known(scale, (2, 4, 8)))


def _known(scale: int, scales: tuple[int, ...]) -> Any:  # noqa: ANN401  one of a Literal
    if scale not in scales:
        raise ConfigError(f"this row enlarges {' or '.join(map(str, scales))} times, got {scale}")
    return scale


def _build_tiny(scale: int) -> nn.Module:
    return build_student(tiny_model(_known(scale, (4, 8))))


def _build_compact(scale: int) -> nn.Module:
    return build_student(load_preset(f"compact-x{_known(scale, (4, 8))}").model)


def _ablation(name: str, title: str, ablation: Ablation) -> Row:
    def build(scale: int) -> nn.Module:
        return build_student(dataclasses.replace(_base(scale), ablation=ablation))

    gib = 6.0 if ablation == "kl" else 3.0
    return Row(name, title, build, name, gib_per_mpx=gib, ablation=ablation)


_ALL = (
    _ablation("base", "SlimDiffSR, the paper's student", "ours"),
    Row("compact", "SlimDiffSR compact", _build_compact, "compact"),
    Row("tiny", "SlimDiffSR tiny", _build_tiny, "tiny"),
    _ablation("kl", "student with Stable Diffusion's VAE", "kl"),
    _ablation("taesd", "student with all of TAESD", "taesd"),
    _ablation("no-sap", "student without SAP", "no_sap"),
    _ablation("no-dsc", "student without DSC", "no_dsc"),
    _ablation("no-fsc", "student without FSC", "no_fsc"),
    _ablation("no-qgam", "student without QGAM", "no_qgam"),
    Row("esrgan", "ESRGAN (RRDBNet)", build_esrgan, "esrgan"),
    Row("swinir", "SwinIR-M, real", build_swinir, "swinir"),
    Row("sd-1step", f"{SD} 2.1, 1 step", StableDiffusion, "sd", gib_per_mpx=6.0),
    Row("sd-50steps", f"{SD} 2.1, 50 steps", StableDiffusion, "sd", steps=50, gib_per_mpx=6.0),
    Row("bicubic", "bicubic", Bicubic, "bicubic"),
)
ROWS: dict[str, Row] = {row.name: row for row in _ALL}


def model_row(source: str) -> Row:
    """The row of a model with weights: whatever ``Upscaler`` loads, or any ONNX network of RGB."""

    def build(scale: int) -> nn.Module:
        if source.endswith(SUFFIXES):
            return FilePeer(Path(source).expanduser())
        with torch.device("cpu"):  # what is read from a file is no good on the meta device
            return Upscaler.from_pretrained(source, scale=scale, device="cpu").module

    name = Path(source).name.removesuffix(".safetensors")
    return Row(name, name, build, name, source=source)


def choose_rows(names: list[str], models: list[str], scale: int) -> list[Row]:
    """Rows by name, then models, which are read once to find out; with neither, all rows.

    Raises ConfigError, and what ``Upscaler`` raises for a model that is not there or does not fit.
    """
    unknown = [name for name in names if name not in ROWS]
    if unknown:
        raise ConfigError(f"no row {unknown[0]!r}: there are {', '.join(ROWS)}")
    wanted = list(dict.fromkeys(names)) if names or models else list(ROWS)
    rows = [ROWS[name] for name in wanted] + [model_row(source) for source in models]
    for source in models:
        model_row(source).build(scale)
    seen: set[str] = set()
    for row in rows:
        if row.name in seen:
            raise ConfigError(f"two rows are called {row.name}: rename the model's file")
        seen.add(row.name)
    return rows

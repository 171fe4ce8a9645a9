"""Learned distances to the truth as metrics: LPIPS and DISTS, from weight files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from slimdiffsr.datasets.images import to_signed
from slimdiffsr.errors import WeightsError
from slimdiffsr.evaluate.report import Metric, Sample
from slimdiffsr.files.pretrained import load_lpips
from slimdiffsr.files.tensors import (
    file_sha256,
    load_pickled,
    load_strict,
    load_tensors,
    write_tensors,
)
from slimdiffsr.models.dists import DISTS
from slimdiffsr.models.lpips import LPIPS, recognise

__all__ = ["Distance", "dists_metric", "import_dists", "lpips_metric", "lpips_name"]

Distance = Callable[[Tensor, Tensor], Tensor]  # two (1, 3, h, w) in [-1, 1] -> one value

ABOUT = "RGB in [-1, 1], data range 2, no border crop, float32"


def lpips_name(path: Path) -> str:
    """``lpips_squeeze``, ``lpips_vgg`` or ``lpips_alex``: what the file holds. Raises WeightsError."""
    net = recognise(load_tensors(path)[0])
    if net is None:
        raise WeightsError(
            f"{path} holds no LPIPS: expected features.* of SqueezeNet, VGG16 or AlexNet and "
            "lin*.model.1.weight, as slimdiffsr import-lpips writes them"
        )
    return f"lpips_{net}"


def lpips_metric(path: Path, device: torch.device | str = "cpu") -> Metric:
    """LPIPS v0.1 (Zhang et al. 2018) from a file. Lower is better; identical images give 0.

    RGB in [-1, 1] (data range 2), whole images, symmetric. Published figures use AlexNet unless
    they say otherwise; values over different networks do not compare. Raises WeightsError.
    """
    model = load_lpips(path)
    return _metric(f"lpips_{model.net}", f"LPIPS v0.1 over {model.net}", model, path, device)


def dists_metric(path: Path, device: torch.device | str = "cpu") -> Metric:
    """DISTS (Ding et al. 2020) from a file of ``import_dists``. Lower is better; identical gives 0.

    RGB in [-1, 1], mapped to [0, 1] inside, whole images at their own size as in pyiqa, symmetric.
    Raises WeightsError.
    """
    model = DISTS()
    tensors, _ = load_tensors(path)
    load_strict(model, {key: value.float() for key, value in tensors.items()}, str(path))
    return _metric("dists", "DISTS over VGG16, images not resized", model, path, device)


def import_dists(weights: Path, vgg: Path, target: Path) -> str:
    """Join DISTS's own weights and VGG16's to a file for ``dists_metric``. Returns its sha256.

    Args:
        weights: ``weights.pt`` of the authors (github.com/dingkeyan93/DISTS), alpha and beta.
        vgg: LPIPS over VGG16 as a safetensors file, for the network's features.
        target: the safetensors file to write.

    Raises:
        ModelNotFoundError: no such file.
        WeightsError: a file holds something else.
        OutputError: ``target`` cannot be written.
    """
    features = {k: v for k, v in load_tensors(vgg)[0].items() if k.startswith("features.")}
    model = DISTS()
    load_strict(model, {**load_pickled(weights), **features}, f"{weights} with {vgg}")
    write_tensors(target, model.state_dict(), {"metric": "dists"})
    return file_sha256(target)


def _metric(
    name: str, about: str, model: LPIPS | DISTS, path: Path, device: torch.device | str
) -> Metric:
    distance = model.eval().requires_grad_(False).to(device)

    def compute(sample: Sample) -> float:
        with torch.inference_mode():
            value = distance(to_signed(sample.sr, device), to_signed(sample.truth, device))
        return float(value)

    return Metric(name, "lower", f"{about}, {ABOUT}", compute, digits=4, weights=file_sha256(path))

"""The networks of stages 0 and 1 on disk: one safetensors file each, with its spec inside.

A loaded network is on the CPU, in float32, in evaluation mode and frozen.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar

import torch
from pydantic import ConfigDict
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from slimdiffsr.errors import ChecksumError, ConfigError, WeightsError
from slimdiffsr.files.pretrained import (
    load_kl,
    load_sd_unet,
    load_taesd,
    prediction_type,
    stable_diffusion,
)
from slimdiffsr.files.tensors import (
    file_sha256,
    load_strict,
    load_tensors,
    tensors_sha256,
    write_tensors,
)
from slimdiffsr.method.diffusion import PredictionType
from slimdiffsr.models.sd_vae import KLCodec, Taesd
from slimdiffsr.models.spec import SD21, UNetSpec
from slimdiffsr.models.uncertainty import UncertaintyEstimator
from slimdiffsr.models.unet import UNet
from slimdiffsr.settings.config import parse

__all__ = [
    "ADAPTED",
    "ESTIMATOR_FILE",
    "UNET_FILE",
    "CodecKind",
    "EstimatorSpec",
    "build_estimator",
    "describe_codec",
    "load_codec",
    "load_estimator",
    "load_unet",
    "read_network",
    "save_network",
    "written_by_run",
]

ESTIMATOR_FILE = "estimator.safetensors"
UNET_FILE = "unet.safetensors"
ADAPTED = "teacher-adapted"  # of train teacher: kind of a file that merge-teacher reads

CodecKind = Literal["taesd", "kl"]
M = TypeVar("M", bound=nn.Module)
S = TypeVar("S")


@dataclass(frozen=True, slots=True, config=ConfigDict(extra="forbid"))
class EstimatorSpec:
    """The uncertainty estimator (MS 2): its width; four variances a latent position, or one."""

    width: int = 64
    var_channels: Literal[1, 4] = 4


def build_estimator(spec: EstimatorSpec) -> UncertaintyEstimator:
    """The estimator of a spec, with fresh weights."""
    return UncertaintyEstimator(width=spec.width, var_channels=spec.var_channels)


def save_network(
    path: Path,
    module: nn.Module,
    spec: Any,  # noqa: ANN401  any dataclass of plain values
    kind: str,
    metadata: Mapping[str, str] | None = None,
    dtype: torch.dtype = torch.float32,
) -> str:
    """Write a network and its spec as one safetensors file, atomically. Returns the file's sha256.

    ``kind`` says what it is: "unet", "estimator", ... A UNet's ``metadata`` must have
    ``prediction``: epsilon or v_prediction.
    """
    about = dict(metadata or {})
    if kind == "unet":
        _prediction(path, about, ConfigError)
    tensors = {k: v.detach().cpu().to(dtype).contiguous() for k, v in module.state_dict().items()}
    about |= {
        "format": "pt",
        "network": kind,
        "spec": json.dumps(dataclasses.asdict(spec), sort_keys=True),
        "tensors_sha256": tensors_sha256(tensors),
    }
    write_tensors(path, tensors, about)
    return file_sha256(path)


def read_network(path: Path, kind: str) -> tuple[dict[str, Tensor], dict[str, Any], dict[str, str]]:
    """Tensors, spec as plain values, and metadata of a file of ``save_network``.

    Raises WeightsError, which says what came in place of that kind, and ChecksumError.
    """
    tensors, about = load_tensors(path)
    if about.get("network") != kind:
        what = about.get("network") or ("student" if "config" in about else "no network of ours")
        hint = "; run 'slimdiffsr merge-teacher' on it first" if what == ADAPTED else ""
        raise WeightsError(
            f"{path} should hold a network of kind {kind}, but it holds: {what}{hint}"
        )
    if tensors_sha256(tensors) != about.get("tensors_sha256"):
        raise ChecksumError(
            f"{path} is damaged: its tensors do not match the checksum stored with them; make or "
            "fetch the file again"
        )
    try:
        spec = json.loads(about["spec"])
    except (KeyError, ValueError):
        spec = None
    if not isinstance(spec, dict):
        raise WeightsError(f"{path} holds a {kind} without a readable spec")
    return tensors, spec, about


def written_by_run(path: Path, file: str) -> Path:
    """The file itself, or ``file`` in its run's folder: commands take either."""
    return path / file if path.is_dir() else path


def load_unet(path: Path) -> tuple[UNet, UNetSpec, PredictionType]:
    """A UNet, its spec, and what it predicts.

    path: a file of ours, the folder of a run that wrote ``unet.safetensors``, or a copy of Stable
    Diffusion 2 in diffusers' layout. Raises WeightsError, ChecksumError, ModelNotFoundError.
    """
    if path.is_dir() and not (path / UNET_FILE).is_file():
        unet = UNet(SD21)
        load_strict(unet, load_sd_unet(path), str(path))
        return _frozen(unet), SD21, prediction_type(path)
    path = written_by_run(path, UNET_FILE)
    tensors, values, about = read_network(path, "unet")
    spec = _spec(path, UNetSpec, values)
    unet = UNet(spec)
    load_strict(unet, tensors, str(path))
    return _frozen(unet), spec, _prediction(path, about, WeightsError)


def load_estimator(path: Path) -> UncertaintyEstimator:
    """An uncertainty estimator from its file, or from its run's folder.

    Raises WeightsError and ChecksumError.
    """
    path = written_by_run(path, ESTIMATOR_FILE)
    tensors, values, _ = read_network(path, "estimator")
    estimator = build_estimator(_spec(path, EstimatorSpec, values))
    load_strict(estimator, tensors, str(path))
    return _frozen(estimator)


def load_codec(kind: CodecKind, folder: Path | None = None) -> Taesd | KLCodec:
    """TAESD or Stable Diffusion's own autoencoder, from a folder or else from the hub.

    Raises WeightsError, ModelNotFoundError, and ConfigError where diffusers is needed and missing.
    """
    if kind == "kl":
        return _frozen(KLCodec(load_kl(stable_diffusion(folder))))
    if kind != "taesd":
        raise ConfigError(f"codec must be 'taesd' or 'kl', got {kind!r}")
    codec = Taesd()
    load_strict(codec, load_taesd(folder), "TAESD from " + str(folder or "the hub"))
    return _frozen(codec)


def describe_codec(codec: Taesd | KLCodec) -> dict[str, str]:
    """Metadata for what is trained on a codec's latents: its kind, and one hash of its weights."""
    kind: CodecKind = "taesd" if isinstance(codec, Taesd) else "kl"
    tensors = {key: value.cpu() for key, value in codec.state_dict().items()}
    return {"codec": kind, "codec_sha256": tensors_sha256(tensors)}


def _frozen(module: M) -> M:
    return module.eval().requires_grad_(False)


def _spec(path: Path, kind: type[S], values: dict[str, Any]) -> S:
    try:
        return parse(kind, values)
    except ConfigError as error:
        raise WeightsError(f"{path} holds a spec this version cannot read: {error}") from None


def _prediction(
    path: Path, about: Mapping[str, str], error: type[ConfigError | WeightsError]
) -> PredictionType:
    kind = about.get("prediction")
    if kind == "epsilon" or kind == "v_prediction":
        return "epsilon" if kind == "epsilon" else "v_prediction"
    raise error(f"{path}: a UNet's prediction must be epsilon or v_prediction, got {kind}")

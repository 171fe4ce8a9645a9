"""A teacher on disk: what it is built from, what stage 1 trained of it, and the merged whole."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import ConfigDict
from pydantic.dataclasses import dataclass as checked
from torch import Tensor

from slimdiffsr.errors import ConfigError, WeightsError
from slimdiffsr.files.pretrained import (
    embed_prompt,
    load_sd_unet,
    prediction_type,
    stable_diffusion,
)
from slimdiffsr.files.stages import (
    ADAPTED,
    ESTIMATOR_FILE,
    UNET_FILE,
    CodecKind,
    EstimatorSpec,
    build_estimator,
    load_codec,
    load_estimator,
    load_unet,
    read_network,
    written_by_run,
)
from slimdiffsr.files.tensors import (
    file_sha256,
    load_metadata,
    load_strict,
    tensors_sha256,
    write_tensors,
)
from slimdiffsr.method.diffusion import PredictionType, noise_schedule
from slimdiffsr.method.teacher import Teacher, adapt
from slimdiffsr.models.lora import load_trainable, merge_lora, trainable_tensors
from slimdiffsr.models.sd_vae import KLCodec, Taesd
from slimdiffsr.models.spec import SD21, PredictorSpec, UNetSpec
from slimdiffsr.models.uncertainty import NoiseLevelPredictor, UncertaintyEstimator
from slimdiffsr.models.unet import UNet
from slimdiffsr.settings.config import parse, to_dict

__all__ = [
    "Adaptation",
    "TeacherBase",
    "build_teacher",
    "hash_base",
    "load_teacher",
    "merge_teacher",
    "save_adapted",
]

MERGED = "teacher"


@dataclass(frozen=True, slots=True)
class TeacherBase:
    """Where the frozen parts of a teacher come from.

    Without ``unet``, a file of ``train prior``, it is Stable Diffusion's: from the copy in
    ``sd_folder``, or from the hub.
    """

    estimator: Path
    unet: Path | None = None
    sd_folder: Path | None = None
    codec: CodecKind = "taesd"
    codec_folder: Path | None = None

    def __post_init__(self) -> None:
        if self.unet is not None and self.sd_folder is not None:
            raise ConfigError("give --unet FILE or --sd-folder DIR, not both")
        if self.unet is not None and self.unet.is_dir() and not (self.unet / UNET_FILE).is_file():
            raise ConfigError(
                f"{self.unet} has no {UNET_FILE} of train prior; a copy of Stable Diffusion is "
                "given by --sd-folder"
            )


@checked(frozen=True, slots=True, config=ConfigDict(extra="forbid"))
class Adaptation:
    """What stage 1 adds to a base: the predictor, and which updates train (MS 6)."""

    predictor: PredictorSpec = PredictorSpec()
    unet_rank: int = 32
    decoder_rank: int = 16
    train_conv_in: bool = True

    def apply(self, teacher: Teacher, rng: torch.Generator | None = None) -> None:
        """Freeze the base, add what trains; in place."""
        adapt(
            teacher,
            unet_rank=self.unet_rank,
            decoder_rank=self.decoder_rank,
            train_conv_in=self.train_conv_in,
            rng=rng,
        )


def build_teacher(
    base: TeacherBase,
    predictor: PredictorSpec,
    *,
    prompt: Tensor | None = None,
    prompt_cache: Path | None = None,
    detach_embedding: bool = False,
) -> Teacher:
    """A teacher from its parts, with a fresh predictor; nothing is adapted yet.

    prompt: the fixed sentence's embedding; without one, a UNet that reads text gets it from the
    text encoder, which runs once and is remembered in ``prompt_cache``.
    """
    estimator = load_estimator(base.estimator)  # first: it is never fetched from afar
    unet, kind = load_base_unet(base.unet, base.sd_folder)
    if unet.spec.attention == "text" and prompt is None:
        prompt = embed_prompt(home=base.sd_folder, cache=prompt_cache)
    folder = base.codec_folder
    if base.codec == "kl" and folder is None:
        folder = base.sd_folder  # a copy of Stable Diffusion has its own
    codec = load_codec(base.codec, folder)
    _check_codec(base, tensors_sha256(codec.state_dict()))
    schedule = noise_schedule()
    return Teacher(
        unet,
        codec,
        estimator,
        NoiseLevelPredictor(predictor, schedule),
        schedule,
        prompt=prompt,
        prediction=kind,
        detach_embedding=detach_embedding,
    )


def load_base_unet(unet: Path | None, sd_folder: Path | None) -> tuple[UNet, PredictionType]:
    """The UNet that stages start from, and what it predicts: a prior's, or Stable Diffusion's.

    Stable Diffusion's comes from ``sd_folder``, or else from the hub. Raises WeightsError.
    """
    source = unet or sd_folder
    if source is not None:
        loaded, _, kind = load_unet(source)
        return loaded, kind
    home = stable_diffusion()
    plain = UNet(SD21)
    load_strict(plain, load_sd_unet(home), "Stable Diffusion's UNet")
    return plain, prediction_type(home)


def _check_codec(base: TeacherBase, digest: str) -> None:
    """Raise WeightsError where estimator or prior learned on the latents of another codec."""
    for path, file in ((base.estimator, ESTIMATOR_FILE), (base.unet, UNET_FILE)):
        if path is None:
            continue
        about = load_metadata(written_by_run(path, file))
        if about.get("codec_sha256", digest) != digest:
            raise WeightsError(
                f"{path} was trained on the latents of another autoencoder: it knows "
                f"{about.get('codec', 'one')} {about['codec_sha256'][:12]}..., given is "
                f"{base.codec} {digest[:12]}...; set --codec and --codec-folder as in its run"
            )


def hash_base(teacher: Teacher) -> dict[str, str]:
    """One hash over the weights of each frozen part; before ``adapt``."""
    parts = {"unet": teacher.unet, "codec": teacher.codec, "estimator": teacher.estimator}
    return {name: tensors_sha256(part.state_dict()) for name, part in parts.items()}


def save_adapted(
    path: Path,
    teacher: Teacher,
    adaptation: Adaptation,
    base: Mapping[str, str],
    about: Mapping[str, str],
) -> str:
    """Write what trains and what it stands on. base: of ``hash_base``. Returns the sha256."""
    tensors = {f"trained.{name}": value for name, value in trainable_tensors(teacher).items()}
    facts = {"adaptation": to_dict(adaptation), "base": dict(base)}
    return _write(path, teacher, tensors, ADAPTED, facts, about)


def merge_teacher(adapted: Path, base: TeacherBase, target: Path) -> str:
    """Write a plain teacher, one file with all its parts and no adapters. Returns its sha256.

    base: where the parts come from that stage 1 stood on. Raises WeightsError when one of them is
    another, or ``adapted`` is no file of ``train teacher``.
    """
    tensors, facts, about = _read(adapted, ADAPTED)
    adaptation = parse(Adaptation, facts["adaptation"])
    teacher = build_teacher(base, adaptation.predictor, prompt=tensors.get("prompt"))
    for part, digest in hash_base(teacher).items():
        if digest != facts["base"].get(part):
            raise WeightsError(
                f"{adapted} was trained on another {part}: its weights hash to "
                f"{str(facts['base'].get(part))[:12]}..., those given to {digest[:12]}...; give "
                "the files that training was given"
            )
    adaptation.apply(teacher)
    load_trainable(teacher, _below("trained", tensors), str(adapted))
    merge_lora(teacher)
    predictor = {"predictor": to_dict(adaptation.predictor)}
    return _write(target, teacher, teacher.state_dict(), MERGED, predictor, about)


def load_teacher(path: Path) -> Teacher:
    """A merged teacher, frozen, on the CPU, in evaluation mode.

    Raises WeightsError and ChecksumError.
    """
    tensors, facts, _ = _read(path, MERGED)
    schedule = noise_schedule()
    teacher = Teacher(
        UNet(parse(UNetSpec, facts["unet"])),
        _empty_codec(facts["codec"]),
        build_estimator(parse(EstimatorSpec, facts["estimator"])),
        NoiseLevelPredictor(parse(PredictorSpec, facts["predictor"]), schedule),
        schedule,
        prompt=tensors.pop("prompt", None),
        prediction=facts["prediction"],
    )
    load_strict(teacher, tensors, str(path))
    return teacher.eval().requires_grad_(False)


def _write(
    path: Path,
    teacher: Teacher,
    tensors: Mapping[str, Tensor],
    kind: str,
    facts: Mapping[str, Any],
    about: Mapping[str, str],
) -> str:
    if teacher.prompt is not None:
        tensors = {**tensors, "prompt": teacher.prompt}
    tensors = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    parts = {
        "unet": to_dict(teacher.unet.spec),
        "codec": _describe_codec(teacher.codec),
        "estimator": _describe_estimator(teacher.estimator),
        "prediction": teacher.prediction,
    }
    metadata = {
        **about,
        "format": "pt",
        "network": kind,
        "spec": json.dumps({**parts, **facts}, sort_keys=True, default=str),
        "tensors_sha256": tensors_sha256(tensors),
    }
    write_tensors(path, tensors, metadata)
    return file_sha256(path)


def _read(path: Path, kind: str) -> tuple[dict[str, Tensor], dict[str, Any], dict[str, str]]:
    """Tensors, what they belong to, and what else was noted."""
    tensors, facts, metadata = read_network(path, kind)
    own = ("format", "network", "spec", "tensors_sha256")
    return tensors, facts, {key: value for key, value in metadata.items() if key not in own}


def _below(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    start = f"{prefix}."
    return {k.removeprefix(start): v for k, v in tensors.items() if k.startswith(start)}


def _describe_codec(codec: KLCodec | Taesd) -> dict[str, Any]:
    if isinstance(codec, Taesd):
        return {"kind": "taesd", "affine": codec.affine}
    return {"kind": "kl", "config": dict(codec.vae.config)}


def _empty_codec(facts: Mapping[str, Any]) -> KLCodec | Taesd:
    if facts["kind"] == "taesd":
        return Taesd(affine=facts["affine"])
    try:
        from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
    except ImportError:
        raise ConfigError(
            "this teacher's autoencoder needs diffusers: pip install 'slimdiffsr[teacher]'"
        ) from None
    return KLCodec(AutoencoderKL.from_config(facts["config"]))


def _describe_estimator(estimator: UncertaintyEstimator) -> dict[str, int]:
    width = next(estimator.blocks[-1].parameters()).shape[1]  # of its first convolution
    return {"width": width, "var_channels": estimator.split[1]}

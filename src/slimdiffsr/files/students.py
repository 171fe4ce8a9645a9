"""Students on disk: where they are found, how they are loaded, saved and mixed."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import torch
from torch import Tensor, nn

from slimdiffsr.errors import (
    ChecksumError,
    ConfigError,
    ModelNotFoundError,
    ScaleError,
    WeightsError,
)
from slimdiffsr.files.tensors import (
    file_sha256,
    load_strict,
    load_tensors,
    tensors_sha256,
    write_tensors,
)
from slimdiffsr.models.student import Student, build_student
from slimdiffsr.settings.config import ModelConfig, parse, to_dict

__all__ = [
    "BUNDLED",
    "BundledModel",
    "LoadedModel",
    "interpolate_models",
    "list_bundled",
    "load_model",
    "resolve",
    "save_model",
]

# Models that ship inside the package, with the sha256 of their files.
BUNDLED: dict[str, str] = {
    "compact-x4": "1d6573b82223450e05fbaba53e31305f9b6195df5f46efdc7974f1070bcd7382",
    "compact-x8": "58d5ae7d90bc7e37910715c1ebea695a791d5deb7f8ca857c0918a7f3fac6f15",
    "tiny-x4": "75a53e62bfa6180cfc7c6f4a8e893e544c8e16e6f7c1d5667aa00155696de737",
    "tiny-x4-faithful": "eb62db229285a02a10b0d67cb5a24647dc246544adefe040ca5c044c2e89ec01",
    "tiny-x8": "f6d2050d48c1acea78728f1127f8f1457a67e68df10a1cc956eaa48195965c39",
}

# What each of them is for.
PURPOSES: dict[str, str] = {
    "compact-x4": "the most natural pictures; invents the most",
    "compact-x8": "pictures at 8x; nearly all detail is made up",
    "tiny-x4": "sharp pictures, fast; the default",
    "tiny-x4-faithful": "closest to the truth, soft",
    "tiny-x8": "8x, experimental",
}

HUB_FILE = "model.safetensors"


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A student ready to run, where it came from, and its file's sha256."""

    model: Student
    config: ModelConfig
    model_id: str
    sha256: str
    metadata: Mapping[str, str]


def resolve(source: str, *, revision: str | None = None) -> Path:
    """The weight file of a bundled name, a local path, or ``org/repo`` on the Hugging Face hub.

    Raises ModelNotFoundError, which lists what there is.
    """
    if source in BUNDLED:
        bundled = Path(str(resources.files("slimdiffsr") / "weights" / f"{source}.safetensors"))
        if not bundled.is_file():
            raise ModelNotFoundError(f"{bundled} is missing; reinstall slimdiffsr")
        return bundled
    path = Path(source).expanduser()
    if path.is_dir():
        path = path / HUB_FILE
    if path.is_file():
        return path
    if re.fullmatch(r"[\w.-]+/[\w.-]+", source) and not source.endswith((".safetensors", ".pkl")):
        return _download(source, revision)
    raise ModelNotFoundError(
        f"no model {source!r}: give a bundled name ({', '.join(sorted(BUNDLED))}), "
        "a .safetensors file, or a repository 'org/name' on the Hugging Face hub"
    )


@dataclass(frozen=True, slots=True)
class BundledModel:
    """A model that ships, as a list shows it."""

    name: str
    scale: int
    parameters: int
    bytes: int
    purpose: str


def list_bundled() -> list[BundledModel]:
    """The models that ship, without building them. Raises ModelNotFoundError, WeightsError."""
    found = []
    for name in sorted(BUNDLED):
        path = resolve(name)
        tensors, metadata = load_tensors(path)
        count = sum(tensor.numel() for tensor in tensors.values())
        scale = _read_config(path, metadata["config"]).scale
        found.append(BundledModel(name, scale, count, path.stat().st_size, PURPOSES[name]))
    return found


def _download(repo: str, revision: str | None) -> Path:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(hf_hub_download(repo, HUB_FILE, revision=revision))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise ModelNotFoundError(
            f"cannot get {HUB_FILE} of {repo!r} from the hub ({type(error).__name__}); "
            "check the name and the connection, or download the file and give its path"
        ) from None


def load_model(
    source: str, *, scale: int | None = None, revision: str | None = None
) -> LoadedModel:
    """Load a student strictly, on the CPU, in float32, in evaluation mode.

    Raises ModelNotFoundError, WeightsError, ChecksumError, and ScaleError when ``scale`` is given
    and is not the model's.
    """
    path = resolve(source, revision=revision)
    try:
        digest = file_sha256(path)
    except OSError as error:
        raise WeightsError(f"cannot read {path}: {error.strerror}") from None
    if source in BUNDLED and digest != BUNDLED[source]:
        raise ChecksumError(
            f"{path} is not the published {source}: sha256 {digest[:12]}..., "
            f"expected {BUNDLED[source][:12]}...; reinstall slimdiffsr"
        )
    tensors, metadata = load_tensors(path)
    if "config" not in metadata:
        raise WeightsError(
            f"{path} holds no model config; for the authors' .pkl files run "
            "'slimdiffsr import-weights' first"
        )
    _check_tensors(path, tensors, metadata)
    config = _read_config(path, metadata["config"])
    if scale is not None and scale != config.scale:
        fitting = [name for name in sorted(BUNDLED) if f"-x{scale}" in name]
        hint = f"; these do: {', '.join(fitting)}"
        raise ScaleError(
            f"{source} enlarges {config.scale} times, not {scale} times" + (hint if fitting else "")
        )
    model = build_student(config)
    load_strict(model, tensors, str(path))
    model.eval().requires_grad_(False)
    suffix = "" if config.ablation == "ours" else f" ({config.ablation})"
    return LoadedModel(model, config, config.name + suffix, digest, metadata)


def _read_config(path: Path, text: str) -> ModelConfig:
    try:
        return parse(ModelConfig, json.loads(text))
    except (ConfigError, json.JSONDecodeError) as error:
        raise WeightsError(f"{path} holds a config this version cannot read: {error}") from None


def _check_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    expected = metadata.get("tensors_sha256")
    if expected is not None and tensors_sha256(tensors) != expected:
        raise ChecksumError(
            f"{path} is damaged: its tensors do not match the checksum stored with them; "
            "fetch the file again"
        )


def save_model(
    path: Path,
    model: nn.Module,
    config: ModelConfig,
    metadata: Mapping[str, str] | None = None,
    dtype: torch.dtype = torch.float32,
) -> str:
    """Write weights and config as one safetensors file, atomically. Returns the file's sha256."""
    tensors = {k: v.detach().cpu().to(dtype).contiguous() for k, v in model.state_dict().items()}
    about = {
        **(metadata or {}),
        "format": "pt",
        "config": json.dumps(to_dict(config), sort_keys=True),
        "tensors_sha256": tensors_sha256(tensors),
    }
    write_tensors(path, tensors, about)
    return file_sha256(path)


def interpolate_models(
    start: Path, end: Path, amount: float, target: Path, *, name: str, about: Mapping[str, str]
) -> str:
    """Network interpolation (Wang et al. 2018, ESRGAN, Eq. 12): (1 - amount) start + amount end.

    Between a faithful model and a perceptual one trained from it lie the models between. Written in
    half precision. Raises WeightsError when the two are of different architecture, ConfigError when
    ``amount`` is outside [0, 1]. Returns the file's sha256.
    """
    if not 0 <= amount <= 1:
        raise ConfigError(f"amount must be in [0, 1], got {amount}")
    first, second = load_model(str(start)), load_model(str(end))
    config = dataclasses.replace(second.config, name=name)
    mixed = build_student(config)
    load_strict(mixed, first.model.state_dict(), f"{start}, beside {end},")
    ends = second.model.state_dict()
    mixed.load_state_dict(
        {key: torch.lerp(value, ends[key], amount) for key, value in mixed.state_dict().items()}
    )
    about = {
        **about,
        "interpolated": f"{amount:g} of the way from {first.sha256} to {second.sha256}",
    }
    return save_model(target, mixed, config, about, torch.float16)

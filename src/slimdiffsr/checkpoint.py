"""Weights on disk: safetensors with the config inside, strict loading, hashes, the importer.

The only module that may unpickle, and only tensors (``import_official``).
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from slimdiffsr.config import ModelConfig, parse, to_dict
from slimdiffsr.errors import (
    ChecksumError,
    ConfigError,
    DiskFullError,
    ModelNotFoundError,
    OutputError,
    ScaleError,
    WeightsError,
)
from slimdiffsr.models.student import Student, build_student

__all__ = [
    "BUNDLED",
    "LoadedModel",
    "encode",
    "file_sha256",
    "import_official",
    "interpolate_models",
    "load_metadata",
    "load_model",
    "load_pickled",
    "load_strict",
    "load_tensors",
    "resolve",
    "save_model",
    "tensors_sha256",
    "write_atomically",
]

# Models that ship inside the package, with the sha256 of their files.
BUNDLED: dict[str, str] = {
    "compact-x4": "d20db8f2107c48b4e2c9777a24ae331ab00b6cb3462c490360c411d10bcd539e",
    "compact-x8": "58d5ae7d90bc7e37910715c1ebea695a791d5deb7f8ca857c0918a7f3fac6f15",
    "tiny-x4": "6e1d1309da0610ef5d4a3a7a9871920c6569ca6e5d1cff77810b5b12f83aeaf5",
    "tiny-x4-faithful": "7cf3d8892295102c66c87f5b2180a5a662e81c5f4de319cbf6c8cba03414cb5c",
    "tiny-x8": "a730cf43939a4830e452dbe98c6d549bb153e8de252216a9efe31445df75ea2a",
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


# ---------------------------------------------------------------------------------------------
# Finding


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


# ---------------------------------------------------------------------------------------------
# Reading and writing


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
        raise ScaleError(f"{source} enlarges {config.scale} times, not {scale} times")
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


def load_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata of a safetensors file, on the CPU. Raises WeightsError."""
    with _opened(path) as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118  no iter
        return tensors, dict(file.metadata() or {})


def load_metadata(path: Path) -> dict[str, str]:
    """Metadata of a safetensors file; no tensor is read. Raises WeightsError."""
    with _opened(path) as file:
        return dict(file.metadata() or {})


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Any]:  # safetensors types nothing
    if not path.is_file():
        raise WeightsError(f"no weight file {path}")
    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{path} is not a readable safetensors file: {error}") from None


def load_pickled(path: Path) -> dict[str, Tensor]:
    """Tensors of a file that torch saved, on the CPU; anything but plain tensors is refused.

    Raises ModelNotFoundError and WeightsError.
    """
    if not path.is_file():
        raise ModelNotFoundError(f"no weight file {path}")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds for a file that is not its own
        raise WeightsError(
            f"{path} is not a PyTorch weight file of plain tensors: {type(error).__name__}"
        ) from None
    if not isinstance(content, Mapping) or not all(
        isinstance(key, str) and isinstance(value, Tensor) for key, value in content.items()
    ):
        raise WeightsError(f"{path} holds {type(content).__name__}, not a dict of tensors")
    return dict(content)


def load_strict(model: nn.Module, tensors: Mapping[str, Tensor], source: str) -> None:
    """Load all tensors, no more and no fewer, in the model's own type. Raises WeightsError."""
    expected = model.state_dict()
    missing = sorted(expected.keys() - tensors.keys())
    unexpected = sorted(tensors.keys() - expected.keys())
    misshapen = [
        f"{key} {tuple(tensors[key].shape)} instead of {tuple(expected[key].shape)}"
        for key in sorted(expected.keys() & tensors.keys())
        if tensors[key].shape != expected[key].shape
    ]
    if missing or unexpected or misshapen:
        raise WeightsError(
            f"{source} does not fit the model: "
            f"{_some('missing', missing)}; {_some('unexpected', unexpected)}; "
            f"{_some('misshapen', misshapen)}"
        )
    model.load_state_dict(dict(tensors))


def _some(what: str, names: list[str], most: int = 5) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return f"{len(names)} {what}" + (f" ({', '.join(names[:most])}{more})" if names else "")


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
    write_atomically(path, encode(tensors, about))
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


def encode(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> bytes:
    """A safetensors file, the same bytes for the same content."""
    data = save(dict(tensors), dict(metadata))
    size = int.from_bytes(data[:8], "little")
    # The library writes the header's entries in random order.
    header = json.dumps(json.loads(data[8 : 8 + size]), sort_keys=True, separators=(",", ":"))
    padded = header.encode() + b" " * (-len(header.encode()) % 8)
    return len(padded).to_bytes(8, "little") + padded + data[8 + size :]


def tensors_sha256(tensors: Mapping[str, Tensor]) -> str:
    """One hash over names, types, shapes and values."""
    digest = hashlib.sha256()
    for key in sorted(tensors):
        value = tensors[key].contiguous()
        digest.update(f"{key} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.view(-1).view(torch.uint8).numpy().tobytes() if value.numel() else b"")
    return digest.hexdigest()


def file_sha256(path: Path) -> str:
    """sha256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_atomically(path: Path, data: bytes) -> None:
    """Write beside ``path`` and rename: the old file stays whole until the new one is complete."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        kind = DiskFullError if error.errno == errno.ENOSPC else OutputError
        raise kind(f"cannot write {path}: {error.strerror}; the previous file is kept") from None
    finally:
        with contextlib.suppress(OSError):  # renamed, never made, or its folder is none
            temporary.unlink()


# ---------------------------------------------------------------------------------------------
# The released student (MS 8.5): names of its state dict -> ours

_DEAD = re.compile(
    r"unet\.(time_embedding|conv_in|conv_out)\.|vae\.encoder\.layers\.14\.|vae\.decoder\.layers\.0\."
)
_RENAMES = [
    (r"^merge_conv1\.", "merge_in."),
    (r"^merge_conv2\.", "merge_out."),
    (r"^vae\.encoder\.layers\.", "encoder."),
    (r"^unet\.conv_norm_out\.", "unet.norm_out."),
    (r"^unet\.mid_block\.mid_block\.", "unet.mid_block."),
    (r"\.(down|up)samplers\.0\.", r".\1sampler."),
    (r"\.conv1\.(low|high)_branch\.0\.", r".conv1.\1."),
    (r"\.conv1\.bottleneck\.0\.", ".conv1.reduce."),
    (r"\.conv1\.bottleneck\.2\.", ".conv1.expand."),
    # The released h_conv holds the 3x1 kernel and v_conv the 1x3 one; ours are named by direction.
    (r"\.conv2\.h_conv\.0\.", ".conv2.vertical."),
    (r"\.conv2\.v_conv\.0\.", ".conv2.horizontal."),
    (r"\.conv2\.conv_(reduce|expand)\.", r".conv2.\1."),
    (r"\.mlp\.0\.", ".gate.hidden."),
    (r"\.mlp\.2\.", ".gate.out."),
    (r"\.transformer_blocks\.0\.attn1\.([qkv])_proj\.", r".attention.to_\1."),
    (r"\.transformer_blocks\.0\.attn1\.([qkv])_proj_c\.", r".attention.back_\1."),
    (r"\.transformer_blocks\.0\.attn1\.out_proj\.", ".attention.out."),
    (r"\.transformer_blocks\.0\.attn1\.query$", ".attention.query"),
    (r"\.transformer_blocks\.0\.ff\.net\.0\.proj\.", ".ff.proj."),
    (r"\.transformer_blocks\.0\.ff\.net\.2\.", ".ff.out."),
    (r"\.transformer_blocks\.0\.norm", ".norm"),
]


def official_to_ours(official: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename a released state dict, with or without ``module.``; dead tensors are dropped."""
    return dict(_official_items(official))


def _official_items(official: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    for key, value in official.items():
        name = key.removeprefix("module.")
        if _DEAD.match(name):
            continue
        for pattern, replacement in _RENAMES:
            name = re.sub(pattern, replacement, name)
        # The decoder's first convolution is dead; its ReLU opens our tail under index 0.
        name = re.sub(
            r"^vae\.decoder\.layers\.(\d+)\.", lambda m: f"decoder.{int(m[1]) - 1}.", name
        )
        yield name, value


def import_official(source: Path, target: Path, scale: int) -> str:
    """Read a released ``net_params_{4,8}x.pkl`` and write our safetensors. Returns its sha256.

    Unpickles tensors only. Raises ModelNotFoundError, WeightsError (naming missing and unexpected
    keys) and ConfigError.
    """
    config = parse(ModelConfig, {"name": f"base-x{scale}", "scale": scale})
    official = load_pickled(source)
    model = build_student(config)
    load_strict(model, official_to_ours(official), str(source))
    return save_model(
        target, model, config, {"source": source.name, "imported": "released student"}
    )

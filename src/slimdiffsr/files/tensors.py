"""Tensors on disk: safetensors read and written whole, strict loading, hashes.

The only module that may unpickle, and only tensors (``load_pickled``).
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from slimdiffsr.errors import DiskFullError, ModelNotFoundError, OutputError, WeightsError

__all__ = [
    "encode",
    "file_sha256",
    "load_metadata",
    "load_pickled",
    "load_strict",
    "load_tensors",
    "tensors_sha256",
    "write_atomically",
]


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

"""Tensors on disk: safetensors read and written whole, strict loading, hashes.

The only module that may unpickle, and only tensors (``load_pickled``).
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
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
    "write_tensors",
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


# safetensors' names of types, in the order in which its library writes them, largest first.
_TYPES = {
    torch.int64: "I64", torch.float64: "F64", torch.float32: "F32", torch.int32: "I32",
    torch.bfloat16: "BF16", torch.float16: "F16", torch.int16: "I16", torch.int8: "I8",
    torch.uint8: "U8", torch.bool: "BOOL",
}  # fmt: skip


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write a safetensors file atomically, one tensor after the other: none is held twice.

    The same bytes for the same content. Raises OutputError.
    """
    write_atomically(path, _pieces(tensors, metadata))


def encode(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> bytes:
    """The bytes of ``write_tensors``, for small files."""
    return b"".join(_pieces(tensors, metadata))


def _pieces(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> Iterator[bytes]:
    order = list(_TYPES)
    names = sorted(tensors, key=lambda name: (order.index(tensors[name].dtype), name))
    header: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    end = 0
    for name in names:
        value = tensors[name]
        start, end = end, end + value.numel() * value.element_size()
        header[name] = {
            "dtype": _TYPES[value.dtype], "shape": list(value.shape), "data_offsets": [start, end],
        }  # fmt: skip
    text = json.dumps(header, sort_keys=True, separators=(",", ":")).encode()
    padded = text + b" " * (-len(text) % 8)
    yield len(padded).to_bytes(8, "little") + padded
    for name in names:
        yield _bytes_of(tensors[name])


def _bytes_of(value: Tensor) -> bytes:
    flat = value.detach().cpu().contiguous().view(-1)
    return flat.view(torch.uint8).numpy().tobytes() if flat.numel() else b""


def tensors_sha256(tensors: Mapping[str, Tensor]) -> str:
    """One hash over names, types, shapes and values."""
    digest = hashlib.sha256()
    for key in sorted(tensors):
        value = tensors[key]
        digest.update(f"{key} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(_bytes_of(value))
    return digest.hexdigest()


def file_sha256(path: Path) -> str:
    """sha256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_atomically(path: Path, data: bytes | Iterable[bytes]) -> None:
    """Write beside ``path`` and rename: the old file stays whole until the new one is complete.

    data: all of it, or piece by piece. Raises OutputError.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            for piece in (data,) if isinstance(data, bytes) else data:
                file.write(piece)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        kind = DiskFullError if error.errno == errno.ENOSPC else OutputError
        raise kind(f"cannot write {path}: {error.strerror}; the previous file is kept") from None
    finally:
        with contextlib.suppress(OSError):  # renamed, never made, or its folder is none
            temporary.unlink()

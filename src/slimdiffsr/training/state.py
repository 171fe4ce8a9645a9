"""Training state on disk: nested dicts and lists of tensors and plain values, as safetensors."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from slimdiffsr.errors import WeightsError
from slimdiffsr.files.tensors import load_tensors, write_tensors

__all__ = ["load_state", "save_state"]


def save_state(path: Path, state: Mapping[str, Any]) -> None:
    """Write a training state atomically: tensors as safetensors, the rest as JSON beside them."""
    tensors: dict[str, Tensor] = {}
    plain = _strip(state, tensors)
    write_tensors(path, tensors, {"state": json.dumps(plain)})


def load_state(path: Path) -> dict[str, Any]:
    """The inverse of ``save_state``."""
    tensors, metadata = load_tensors(path)
    if "state" not in metadata:
        raise WeightsError(f"{path} is not a training state")
    restored: dict[str, Any] = _fill(json.loads(metadata["state"]), tensors)
    return restored


def _strip(node: Any, tensors: dict[str, Tensor]) -> Any:  # noqa: ANN401  any JSON
    if isinstance(node, Tensor):
        name = str(len(tensors))  # paths of keys would collide: {0: a, "0": b}
        tensors[name] = node.detach()
        return {"__tensor__": name}
    if isinstance(node, Mapping):
        # Pairs keep the integer keys of an optimiser's state, which JSON objects would not.
        return {"__items__": [[k, _strip(v, tensors)] for k, v in node.items()]}
    if isinstance(node, list | tuple):
        return [_strip(v, tensors) for v in node]
    return node


def _fill(node: Any, tensors: Mapping[str, Tensor]) -> Any:  # noqa: ANN401  any JSON
    if isinstance(node, dict):
        if "__tensor__" in node:
            return tensors[node["__tensor__"]]
        return {key: _fill(value, tensors) for key, value in node["__items__"]}
    if isinstance(node, list):
        return [_fill(value, tensors) for value in node]
    return node

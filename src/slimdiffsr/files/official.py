"""The released student: names of its state dict -> ours (MS 8.5), and its import."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from torch import Tensor

from slimdiffsr.files.students import save_model
from slimdiffsr.files.tensors import load_pickled, load_strict
from slimdiffsr.models.student import build_student
from slimdiffsr.settings.config import ModelConfig, parse

__all__ = ["import_official", "official_to_ours"]

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

"""Low-rank adaptation (Hu et al. 2022) by peft: which layers, what trains, and merging (MS 6)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from slimdiffsr.errors import ConfigError, WeightsError

__all__ = [
    "UNET_TARGETS",
    "VAE_DECODER_TARGETS",
    "add_lora",
    "load_trainable",
    "merge_lora",
    "trainable_tensors",
]

# Every linear and convolution but conv_in, which trains whole, and what belongs to the timestep.
UNET_TARGETS = re.compile(
    r"(.*\.)?("
    r"(attention|cross)\.(to_q|to_k|to_v|out)|ff\.(proj|out)|proj_in|proj_out|"
    r"conv1|conv2|conv_shortcut|(down|up)sampler\.conv|conv_out)"
)
# diffusers' AutoencoderKL; the encoder and the 1x1 convolutions around the latent stay as they are.
VAE_DECODER_TARGETS = re.compile(
    r"decoder\.(.*\.)?(conv1|conv2|conv_in|conv_shortcut|conv|conv_out|to_q|to_k|to_v|to_out\.0)"
)


def add_lora(
    model: nn.Module,
    targets: re.Pattern[str],
    rank: int,
    *,
    alpha: int = 8,
    rng: torch.Generator | None = None,
) -> list[str]:
    """Give every matching linear and convolution a low-rank update; all else is frozen.

    The update is alpha / rank * B A, with A normal of spread 1/rank, drawn from ``rng`` and B = 0: nothing
    changes at first. Works in place. Returns the names of the layers that were given one.
    """
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError:
        raise ConfigError("LoRA needs peft: pip install 'slimdiffsr[teacher]'") from None
    names = [
        name
        for name, module in model.named_modules()
        if targets.fullmatch(name) and isinstance(module, nn.Linear | nn.Conv2d)
    ]
    if not names:
        raise ConfigError(f"no layer of {type(model).__name__} matches {targets.pattern}")
    config = LoraConfig(
        r=rank, lora_alpha=alpha, init_lora_weights="gaussian", target_modules=names
    )
    inject_adapter_in_model(config, model)
    for layer in _lora_layers(model).values():
        down = layer.lora_A["default"].weight
        nn.init.normal_(down, std=1 / rank, generator=rng)
    return names


def merge_lora(model: nn.Module) -> None:
    """Add every update to its layer and take the adapters out: a plain model again, in place."""
    for name, layer in _lora_layers(model).items():
        layer.merge(safe_merge=True)
        parent, _, child = name.rpartition(".")
        setattr(model.get_submodule(parent), child, layer.get_base_layer())


def _lora_layers(model: nn.Module) -> dict[str, Any]:
    from peft.tuners.lora import LoraLayer

    return {n: m for n, m in model.named_modules() if isinstance(m, LoraLayer)}


def trainable_tensors(model: nn.Module) -> dict[str, Tensor]:
    """The parameters that train, by name: all that a run of the teacher needs to save."""
    return {n: p.detach() for n, p in model.named_parameters() if p.requires_grad}


def load_trainable(model: nn.Module, tensors: Mapping[str, Tensor], source: str) -> None:
    """Load what ``trainable_tensors`` gave: no more, no fewer, of the same shapes."""
    own = {n: p for n, p in model.named_parameters() if p.requires_grad}
    wrong = sorted(own.keys() ^ tensors.keys()) + [
        name for name in own.keys() & tensors.keys() if own[name].shape != tensors[name].shape
    ]
    if wrong:
        raise WeightsError(
            f"{source} does not fit what trains: {len(wrong)} missing, unexpected or misshapen "
            f"({', '.join(wrong[:5])}); was it trained with other ranks or targets?"
        )
    with torch.no_grad():
        for name, parameter in own.items():
            parameter.copy_(tensors[name])

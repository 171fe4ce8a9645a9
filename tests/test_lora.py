"""LoRA: the paper's counts, nothing changed at first, a plain model after merging."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from slimdiffsr.errors import ConfigError, WeightsError
from slimdiffsr.models.lora import (
    UNET_TARGETS,
    VAE_DECODER_TARGETS,
    add_lora,
    load_trainable,
    merge_lora,
    trainable_tensors,
)
from slimdiffsr.models.spec import SD21, UNetSpec
from slimdiffsr.models.unet import UNet

pytest.importorskip("peft")

TINY = UNetSpec(
    widths=(32, 64), layers=1, plain_levels=0, mid_width=64, head_width=16, text_width=24,
    time_width=48, groups=8,
)  # fmt: skip


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def run(unet: UNet) -> Tensor:
    x, text = torch.randn(1, 4, 8, 8, generator=seeded()), torch.randn(1, 5, 24, generator=seeded())
    out: Tensor = unet(x, torch.tensor([200.0]), text)
    return out


def stir(model: nn.Module) -> None:
    """What training would do: updates that are no longer zero."""
    rng = seeded(7)
    with torch.no_grad():
        for parameter in trainable_tensors(model).values():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=rng))


def kl_autoencoder(**changes: Any) -> nn.Module:
    diffusers = pytest.importorskip("diffusers")
    config = {
        "block_out_channels": (128, 256, 512, 512),
        "down_block_types": ["DownEncoderBlock2D"] * 4,
        "up_block_types": ["UpDecoderBlock2D"] * 4,
        "layers_per_block": 2,
        "latent_channels": 4,
    }
    model: nn.Module = diffusers.AutoencoderKL(**{**config, **changes})
    return model


def test_the_unet_gets_257_updates_of_rank_32() -> None:
    with torch.device("meta"):
        unet = UNet(SD21)
        names = add_lora(unet, UNET_TARGETS, rank=32)
    assert len(names) == 257
    assert sum(p.numel() for p in trainable_tensors(unet).values()) == 32_434_304


def test_the_vae_decoder_gets_39_updates_of_rank_16() -> None:
    with torch.device("meta"):
        vae = kl_autoencoder()
        names = add_lora(vae, VAE_DECODER_TARGETS, rank=16)
    assert len(names) == 39
    assert all(name.startswith("decoder.") for name in names)
    assert sum(p.numel() for p in trainable_tensors(vae).values()) == 2_050_672


def test_what_stays_as_it_is() -> None:
    unet = UNet(TINY)
    names = add_lora(unet, UNET_TARGETS, rank=4)
    assert not [n for n in names if "time" in n or "norm" in n or "conv_in" in n]
    assert all("lora_" in name for name in trainable_tensors(unet))


def test_nothing_changes_at_first() -> None:
    unet = UNet(TINY).eval()
    before = run(unet)
    add_lora(unet, UNET_TARGETS, rank=4, rng=seeded())
    torch.testing.assert_close(run(unet), before)


def test_the_update_is_scaled_by_alpha_over_rank() -> None:
    layer = nn.Sequential()
    layer.add_module("conv_out", nn.Linear(6, 5))
    add_lora(layer, UNET_TARGETS, rank=4, rng=seeded())
    stir(layer)
    x = torch.randn(3, 6, generator=seeded())
    down, up = (layer.get_parameter(f"conv_out.lora_{ab}.default.weight") for ab in "AB")
    base = layer.get_submodule("conv_out.base_layer")
    torch.testing.assert_close(layer(x), base(x) + 8 / 4 * x @ down.T @ up.T)


def test_draws_come_from_the_generator_alone() -> None:
    first, second = UNet(TINY), UNet(TINY)
    for unet in (first, second):
        add_lora(unet, UNET_TARGETS, rank=4, rng=seeded(3))
    for name, value in trainable_tensors(first).items():
        assert torch.equal(value, second.get_parameter(name))


def test_merging_gives_a_plain_unet_that_does_the_same() -> None:
    unet = UNet(TINY).eval()
    names = set(unet.state_dict())
    add_lora(unet, UNET_TARGETS, rank=4, rng=seeded())
    stir(unet)
    with torch.no_grad():
        adapted = run(unet)
        merge_lora(unet)
        torch.testing.assert_close(run(unet), adapted, rtol=1e-4, atol=1e-4)
    assert set(unet.state_dict()) == names
    assert not any("lora" in type(m).__module__ for m in unet.modules())


def test_only_what_trains_is_saved_and_it_restores_the_network() -> None:
    unet = UNet(TINY)
    base = {k: v.clone() for k, v in unet.state_dict().items()}
    add_lora(unet, UNET_TARGETS, rank=4, rng=seeded())
    assert unet.conv_in is not None
    unet.conv_in.requires_grad_(True)
    stir(unet)
    saved = {k: v.clone() for k, v in trainable_tensors(unet).items()}
    assert {k for k in saved if "lora_" not in k} == {"conv_in.weight", "conv_in.bias"}
    other = UNet(TINY)
    other.load_state_dict(base)
    add_lora(other, UNET_TARGETS, rank=4, rng=seeded(9))
    assert other.conv_in is not None
    other.conv_in.requires_grad_(True)
    load_trainable(other, saved, "saved")
    assert torch.equal(run(other), run(unet))


def test_another_rank_is_refused() -> None:
    unet, other = UNet(TINY), UNet(TINY)
    add_lora(unet, UNET_TARGETS, rank=4)
    add_lora(other, UNET_TARGETS, rank=2)
    with pytest.raises(WeightsError, match="other ranks"):
        load_trainable(other, trainable_tensors(unet), "saved")


def test_a_model_without_such_layers_is_refused() -> None:
    with pytest.raises(ConfigError, match="no layer"):
        add_lora(nn.Sequential(nn.ReLU()), UNET_TARGETS, rank=4)


def test_a_vae_with_updates_still_decodes_the_same() -> None:
    vae = kl_autoencoder(block_out_channels=(8, 8, 8, 8), norm_num_groups=4).eval()
    z = torch.randn(1, 4, 4, 4, generator=seeded())
    with torch.no_grad():
        before = vae.decode(z).sample  # type: ignore[operator]  # a method of diffusers' class
        add_lora(vae, VAE_DECODER_TARGETS, rank=2, rng=seeded())
        torch.testing.assert_close(vae.decode(z).sample, before)  # type: ignore[operator]

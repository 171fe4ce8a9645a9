"""Pruning: what is inherited from where, and the parameter counts of Tables 5 and 6."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from students import micro_model as tiny_model
from torch import Tensor, nn

from slimdiffsr.errors import ConfigError, WeightsError
from slimdiffsr.files.pretrained import load_taesd
from slimdiffsr.files.tensors import load_strict
from slimdiffsr.models.ablations import count
from slimdiffsr.models.pruning import Pruned, prune
from slimdiffsr.models.sd_vae import SCALING, KLCodec, Taesd
from slimdiffsr.models.spec import COMPACT, UNetSpec
from slimdiffsr.models.student import (
    BaseStudent,
    LatentStudent,
    build_student,
    enlarge_bicubic,
)
from slimdiffsr.models.unet import UNet
from slimdiffsr.settings.config import (
    Ablation,
    ModelConfig,
    TrainConfig,
    UNetConfig,
    parse,
    to_dict,
)

SHARED = Path(__file__).parents[2] / "shared" / "weights"
SMALL_UNET = UNetConfig(widths=(32, 64), mid_width=128, groups=8, queries=4, squeeze=8)
SMALL = ModelConfig(name="small", scale=4, unet=SMALL_UNET)
TEACHER = UNetSpec(
    widths=(32, 64, 128, 128), mid_width=128, groups=8, head_width=32, text_width=24, time_width=48
)


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def kl_codec(**config: Any) -> KLCodec:
    diffusers = pytest.importorskip("diffusers")
    return KLCodec(
        diffusers.AutoencoderKL(
            **{
                "down_block_types": ["DownEncoderBlock2D"] * 4,
                "up_block_types": ["UpDecoderBlock2D"] * 4,
                "block_out_channels": (128, 256, 512, 512),
                "layers_per_block": 2,
                **config,
            }
        ),
        unscale=False,
    )


# Counts


@pytest.mark.parametrize(
    ("name", "used", "registered", "paper"),
    [
        ("ours", 55_974_802, 58_053_402, 58_053_402),
        ("taesd", 55_633_818, 57_684_378, 57_684_378),
        ("kl", 136_842_618, 138_893_178, 138_893_178),
        ("no_dsc", 91_103_689, 93_182_289, 93_182_289),
        ("no_fsc", 97_381_644, 99_460_244, 99_460_244),
        ("no_qgam", 64_443_282, 66_521_882, 81_117_658),
        ("no_sap", None, 168_326_814, 168_326_814),
    ],
)
def test_the_rows_of_tables_5_and_6_have_the_papers_parameters(
    name: Ablation, used: int | None, registered: int, paper: int
) -> None:
    config = ModelConfig(name="base", scale=4, ablation=name)
    with torch.device("meta"):
        student = build_row(config)
    counts = count(student)
    assert (counts.registered, counts.paper) == (registered, paper)
    assert used is None or counts.used == used


@pytest.mark.parametrize("name", get_args(Ablation))
def test_every_row_runs_at_a_small_size(name: Ablation) -> None:
    student = build_row(dataclasses.replace(SMALL, ablation=name, kl_widths=(32,) * 4))
    with torch.no_grad():
        sr = student(draw(1, 3, 16, 16))
        again, blocks = student.restore_with_blocks(enlarge_bicubic(draw(1, 3, 16, 16), 4))
    assert sr.shape == (1, 3, 64, 64)
    assert torch.equal(sr, again)
    assert len(blocks.matched) == 4


def build_row(config: ModelConfig) -> BaseStudent | LatentStudent:
    student = build_student(config)
    assert isinstance(student, BaseStudent | LatentStudent)
    return student


def test_what_an_ablation_cannot_be_is_refused() -> None:
    with pytest.raises(ConfigError, match="ablations are of the base student"):
        parse(ModelConfig, to_dict(tiny_model()) | {"ablation": "no_fsc"})
    with pytest.raises(ConfigError, match=r"4 kl_widths, got \(32, 64\)"):
        parse(ModelConfig, to_dict(SMALL) | {"ablation": "kl", "kl_widths": (32, 64)})
    # All four levels need more of a side than two.
    whole = dataclasses.replace(SMALL, ablation="no_sap")
    assert (SMALL.multiple_lr_px, whole.multiple_lr_px) == (4, 16)
    with pytest.raises(ConfigError, match="crop_hr_px 80 is no multiple of 64"):
        parse(TrainConfig, {"model": to_dict(whole), "crop_hr_px": 80})


# Pruning


@pytest.fixture(scope="module")
def teacher() -> dict[str, Tensor]:
    return distinct(UNet(TEACHER))


@pytest.fixture(scope="module")
def taesd() -> dict[str, Tensor]:
    return distinct(Taesd())


def distinct(model: nn.Module) -> dict[str, Tensor]:
    """Weights in which no two tensors are alike."""
    return {
        name: draw(*value.shape, seed=index)
        for index, (name, value) in enumerate(model.state_dict().items())
    }


def pruned(
    student: BaseStudent | LatentStudent,
    teacher: dict[str, Tensor],
    taesd: dict[str, Tensor] | None,
) -> Pruned:
    return prune(student.state_dict(), student.unet.spec, teacher, taesd)


def test_each_kept_weight_comes_from_its_place(
    teacher: dict[str, Tensor], taesd: dict[str, Tensor]
) -> None:
    weights = pruned(BaseStudent(SMALL), teacher, taesd).weights
    for ours, theirs in {
        "unet.down_blocks.0.resnets.1.norm2.weight": "down_blocks.0.resnets.1.norm2.weight",
        "unet.down_blocks.0.downsampler.conv.bias": "down_blocks.0.downsampler.conv.bias",
        "unet.down_blocks.1.attentions.0.ff.proj.weight": (
            "down_blocks.1.attentions.0.ff.proj.weight"
        ),
        "unet.mid_block.norm1.weight": "down_blocks.2.resnets.0.norm1.weight",
        "unet.mid_block.norm2.bias": "down_blocks.2.resnets.0.norm2.bias",
        "unet.mid_block.conv_shortcut.weight": "down_blocks.2.resnets.0.conv_shortcut.weight",
        "unet.up_blocks.0.resnets.0.conv_shortcut.weight": (
            "up_blocks.2.resnets.0.conv_shortcut.weight"
        ),
        "unet.up_blocks.0.upsampler.conv.weight": "up_blocks.2.upsampler.conv.weight",
        "unet.up_blocks.1.attentions.2.norm3.weight": "up_blocks.3.attentions.2.norm3.weight",
        "unet.norm_out.weight": "norm_out.weight",
    }.items():
        assert torch.equal(weights[ours], teacher[theirs]), ours
    assert torch.equal(weights["encoder.13.conv.4.weight"], taesd["encoder.13.conv.4.weight"])
    assert torch.equal(weights["decoder.17.weight"], taesd["decoder.18.weight"])


def test_new_parts_start_fresh_and_nothing_else(
    teacher: dict[str, Tensor], taesd: dict[str, Tensor]
) -> None:
    student = BaseStudent(SMALL)
    weights, inherited = pruned(student, teacher, taesd)
    fresh = set(weights) - inherited
    assert {part_of(name) for name in fresh} == {
        "conv1", "conv2", "attention", "merge_in", "merge_out",
    }  # fmt: skip
    kept = {name for name in weights if part_of(name) == "other"}
    assert kept == inherited
    load_strict(student, weights, "pruned")


def part_of(name: str) -> str:
    if name.startswith("unet."):
        parts = [p for p in ("conv1", "conv2", "attention") if f".{p}." in name]
        return parts[0] if parts else "other"
    return name.split(".")[0] if name.startswith("merge") else "other"


def test_pruning_changes_no_input_and_shares_no_memory(
    teacher: dict[str, Tensor], taesd: dict[str, Tensor]
) -> None:
    fresh = BaseStudent(SMALL).state_dict()
    before = {k: v.clone() for k, v in fresh.items()}
    weights, inherited = prune(fresh, BaseStudent(SMALL).unet.spec, teacher, taesd)
    for name in inherited:
        weights[name].zero_()
    assert all(torch.equal(fresh[k], before[k]) for k in fresh)
    assert teacher["norm_out.weight"].abs().sum() > 0


@pytest.mark.parametrize(
    ("name", "inherits"),
    [
        ("no_dsc", "unet.mid_block.conv2.weight"),
        ("no_fsc", "unet.down_blocks.1.resnets.0.conv1.bias"),
        ("no_qgam", "unet.up_blocks.1.attentions.0.attention.to_q.weight"),
        ("taesd", "unet.conv_in.weight"),
    ],
)
def test_a_part_that_an_ablation_keeps_is_inherited(
    name: Ablation, inherits: str, teacher: dict[str, Tensor], taesd: dict[str, Tensor]
) -> None:
    student = build_row(dataclasses.replace(SMALL, ablation=name))
    result = pruned(student, teacher, taesd)
    assert inherits in result.inherited
    load_strict(student, result.weights, "pruned")


def test_the_compact_student_inherits_from_the_compact_teacher() -> None:
    unet = UNetConfig(widths=(128, 256), mid_width=384)
    with torch.device("meta"):
        teacher, student = UNet(COMPACT), BaseStudent(ModelConfig(name="c", scale=4, unet=unet))
        codec = Taesd()
    assert 40e6 < sum(p.numel() for p in teacher.parameters()) < 120e6
    result = prune(
        student.state_dict(), student.unet.spec, teacher.state_dict(), codec.state_dict()
    )
    assert "unet.mid_block.conv_shortcut.weight" in result.inherited


def test_without_semantic_pruning_only_the_autoencoder_is_inherited(
    teacher: dict[str, Tensor], taesd: dict[str, Tensor]
) -> None:
    student = build_row(dataclasses.replace(SMALL, ablation="no_sap"))
    inherited = pruned(student, teacher, taesd).inherited
    assert {name.split(".")[0] for name in inherited} == {"encoder", "decoder"}


def test_another_autoencoder_keeps_what_it_has(teacher: dict[str, Tensor]) -> None:
    student = build_row(dataclasses.replace(SMALL, ablation="kl", kl_widths=(32,) * 4))
    weights, inherited = pruned(student, teacher, None)
    assert not any(name.startswith("codec.") for name in inherited)
    name = "codec.vae.decoder.conv_in.weight"
    assert torch.equal(weights[name], student.state_dict()[name])


def test_a_teacher_of_another_width_is_refused(taesd: dict[str, Tensor]) -> None:
    other = UNet(UNetSpec(widths=(64, 64), layers=2, plain_levels=0, mid_width=64, time_width=8))
    with pytest.raises(WeightsError, match="same widths"):
        pruned(BaseStudent(SMALL), distinct(other), taesd)


# Autoencoders


def test_taesd_equals_diffusers() -> None:
    diffusers = pytest.importorskip("diffusers")
    theirs = diffusers.AutoencoderTiny().eval()
    ours = Taesd()
    assert sum(p.numel() for p in ours.parameters()) == 2_445_063
    ours.load_state_dict(
        {k.replace("coder.layers.", "coder."): v for k, v in theirs.state_dict().items()}
    )
    rgb, z = draw(1, 3, 64, 64).clamp(-1, 1), 3 * draw(1, 4, 8, 8)
    with torch.no_grad():
        torch.testing.assert_close(ours.encode(rgb), theirs.encode(rgb).latents)
        torch.testing.assert_close(ours.decode(z), theirs.decode(z).sample)


def test_the_kl_codec_scales_latents_and_back() -> None:
    codec = kl_codec(block_out_channels=(8, 8, 8, 8), norm_num_groups=4)
    codec.eval()
    rgb = draw(1, 3, 32, 32).clamp(-1, 1)
    with torch.no_grad():
        z = codec.encode(rgb)
        assert torch.equal(z, SCALING * codec.vae.encode(rgb).latent_dist.mean)
        assert torch.equal(codec.decode(z), codec.vae.decode(z).sample)
        codec.unscale = True
        assert torch.equal(codec.decode(z), codec.vae.decode(z / SCALING).sample)


@pytest.mark.skipif(not SHARED.is_dir(), reason="needs ../shared/weights")
def test_published_taesd_restores_a_smooth_picture() -> None:
    taesd = Taesd()
    load_strict(taesd, load_taesd(SHARED), "taesd")
    ramp = torch.linspace(-0.8, 0.8, 64).expand(1, 3, 64, 64)
    with torch.no_grad():
        restored = taesd.decode(taesd.encode(ramp))
    assert (restored - ramp).abs().mean() < 0.05

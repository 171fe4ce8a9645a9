from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from students import SHARED, micro_model, seeded
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from slimdiffsr.models.autoencoder import taesd_decoder_tail, taesd_encoder_head
from slimdiffsr.models.student import (
    BaseStudent,
    Student,
    TinyStudent,
    build_student,
    count_parameters,
)
from slimdiffsr.settings.config import ModelConfig, UNetConfig
from slimdiffsr.settings.presets import tiny_model

NARROW = UNetConfig(widths=(32, 64), mid_width=96, groups=8, queries=4, squeeze=8, ff_mult=1)

pytestmark = pytest.mark.usefixtures("one_thread")

needs_taesd = pytest.mark.skipif(
    not (SHARED / "weights" / "taesd_encoder.safetensors").is_file(),
    reason="no ../shared/weights with TAESD",
)


def on_meta(config: ModelConfig) -> Student:
    with torch.device("meta"):
        return build_student(config).eval()


def narrow_base(**changes: Any) -> BaseStudent:
    student = build_student(ModelConfig(name="narrow", scale=4, unet=NARROW, **changes))
    assert isinstance(student, BaseStudent)
    return student.eval().requires_grad_(False)


def gigamacs(student: Student, height: int, width: int) -> float:
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        student(torch.zeros(1, 3, height, width, device="meta"))
    return counter.get_total_flops() / 2 / 1e9


# Size (MS 9)


def test_the_base_student_has_the_papers_number_of_parameters() -> None:
    student = on_meta(ModelConfig(name="base-x4", scale=4))
    assert count_parameters(student) == 55_974_802
    assert count_parameters(student, paper=True) == 58_053_402


def test_the_base_student_is_the_same_at_8x() -> None:
    assert count_parameters(on_meta(ModelConfig(name="base-x8", scale=8))) == 55_974_802


def test_the_pieces_of_the_base_student_have_the_papers_sizes() -> None:
    student = on_meta(ModelConfig(name="base-x4", scale=4))
    assert isinstance(student, BaseStudent)
    unet = student.unet
    pieces: dict[str, tuple[nn.Module, int]] = {
        "body": (unet, 53_165_391),
        "down0": (unet.down_blocks[0], 4_296_026),
        "down1": (unet.down_blocks[1], 12_995_466),
        "mid": (unet.mid_block, 2_180_341),
        "up0": (unet.up_blocks[0], 27_417_359),
        "up1": (unet.up_blocks[1], 6_275_559),
        "norm": (unet.norm_out, 640),
        "merges": (nn.ModuleList([student.merge_in, student.merge_out]), 369_024),
        # Whole TAESD less its last encoder and first decoder convolution.
        "taesd": (nn.ModuleList([student.encoder, student.decoder]), 2_445_063 - 4_676),
    }
    assert {name: count_parameters(m) for name, (m, _) in pieces.items()} == {
        name: count for name, (_, count) in pieces.items()
    }


@pytest.mark.parametrize("scale", [4, 8])
def test_the_tiny_student_stays_within_its_limits(scale: Literal[4, 8]) -> None:
    student = on_meta(tiny_model(scale))
    side = 512 // scale
    assert count_parameters(student) <= {4: 1_200_000, 8: 2_600_000}[scale]
    assert gigamacs(student, side, side) <= 4.376  # what the windowed one before it cost
    with torch.no_grad():
        assert student(torch.zeros(1, 3, side, side, device="meta")).shape == (1, 3, 512, 512)


def test_the_base_student_costs_227_gmac() -> None:
    assert gigamacs(on_meta(ModelConfig(name="base-x4", scale=4)), 128, 128) == pytest.approx(
        226.7, abs=0.1
    )


# Graph (MS 8.1)


def test_the_base_student_has_the_papers_graph() -> None:
    student = narrow_base()
    outputs: dict[str, tuple[int, ...]] = {}
    inputs: dict[str, tuple[int, ...]] = {}
    order: list[str] = []

    def watch(name: str) -> Callable[[nn.Module, tuple[Any, ...], Any], None]:
        def hook(module: nn.Module, given: tuple[Any, ...], out: Any) -> None:
            order.append(name)
            inputs[name] = tuple(given[0].shape[1:])
            outputs[name] = tuple((out[0] if isinstance(out, tuple) else out).shape[1:])

        return hook

    for name, module in student.named_modules():
        module.register_forward_hook(watch(name))
    sr = student(torch.zeros(1, 3, 128, 128))
    a, b, m = 32, 64, 96  # in place of 320, 640 and 1280
    expected = {
        "encoder": (64, 64, 64),
        "merge_in": (a, 64, 64),
        "unet.down_blocks.0.attentions.1": (a, 64, 64),
        "unet.down_blocks.0.downsampler": (a, 32, 32),
        "unet.down_blocks.1.resnets.0": (b, 32, 32),
        "unet.down_blocks.1.attentions.1": (b, 32, 32),
        "unet.mid_block": (m, 32, 32),
        "unet.up_blocks.0.attentions.2": (b, 32, 32),
        "unet.up_blocks.0.upsampler": (b, 64, 64),
        "unet.up_blocks.1.attentions.2": (a, 64, 64),
        "unet": (a, 64, 64),
        "merge_out": (64, 64, 64),
        "decoder": (3, 512, 512),
    }
    assert {name: outputs[name] for name in expected} == expected
    assert sr.shape == (1, 3, 512, 512)
    # Joined with the skips f, e, d, then c, b, a.
    joined = {
        "unet.up_blocks.0.resnets.0": m + b,
        "unet.up_blocks.0.resnets.1": b + b,
        "unet.up_blocks.0.resnets.2": b + a,
        "unet.up_blocks.1.resnets.0": b + a,
        "unet.up_blocks.1.resnets.1": a + a,
        "unet.up_blocks.1.resnets.2": a + a,
    }
    assert {name: inputs[name][0] for name in joined} == joined
    blocks = [n for n in order if n.count(".") == 4 and ("resnets" in n or "attentions" in n)]
    assert blocks == [
        f"unet.{side}_blocks.{level}.{part}.{layer}"
        for side, layers in (("down", 2), ("up", 3))
        for level in (0, 1)
        for layer in range(layers)
        for part in ("resnets", "attentions")
    ]


def test_each_skip_arrives_where_it_belongs() -> None:
    student = narrow_base()
    made: list[Tensor] = []
    joined: list[Tensor] = []
    down0, down1 = student.unet.down_blocks
    up0, up1 = student.unet.up_blocks

    def keep(module: nn.Module, given: Any, out: Tensor) -> None:
        made.append(out)

    def keep_joined(module: nn.Module, given: tuple[Tensor, ...]) -> None:
        joined.append(given[0])

    student.merge_in.register_forward_hook(keep)
    for name in ("attentions.0", "attentions.1", "downsampler"):
        down0.get_submodule(name).register_forward_hook(keep)
    for name in ("attentions.0", "attentions.1"):
        down1.get_submodule(name).register_forward_hook(keep)
    for up in (up0, up1):
        for layer in range(3):
            up.get_submodule(f"resnets.{layer}").register_forward_pre_hook(keep_joined)
    student(torch.rand(1, 3, 16, 16, generator=seeded()))
    for skip, tensor in zip(reversed(made), joined, strict=True):
        torch.testing.assert_close(tensor[:, -skip.shape[1] :], skip)


def test_the_input_is_enlarged_bicubically_before_the_base_student_sees_it() -> None:
    student = narrow_base()
    x = torch.rand(1, 3, 16, 20, generator=seeded()) * 2 - 1
    enlarged = F.interpolate(x, size=(64, 80), mode="bicubic", align_corners=False)
    torch.testing.assert_close(student(x), student.restore(enlarged))


def test_the_affine_option_gives_taesd_its_own_value_range() -> None:
    plain, affine = narrow_base(), narrow_base(taesd_affine=True)
    affine.load_state_dict(plain.state_dict())
    x = torch.rand(1, 3, 32, 32, generator=seeded()) * 2 - 1
    expected = 2 * plain.decoder(plain.features((x + 1) / 2)) - 1
    torch.testing.assert_close(affine.restore(x), expected)
    torch.testing.assert_close(plain.restore(x), plain.decoder(plain.features(x)))


def test_the_tiny_student_adds_to_a_bilinear_enlargement() -> None:
    student = build_student(micro_model())
    assert isinstance(student, TinyStudent)
    nn.init.zeros_(student.out.weight)
    assert student.out.bias is not None
    nn.init.zeros_(student.out.bias)
    x = torch.rand(1, 3, 8, 16, generator=seeded()) * 2 - 1
    expected = F.interpolate(x, size=(32, 64), mode="bilinear", align_corners=False)
    torch.testing.assert_close(student(x), expected)


@pytest.mark.parametrize("scale", [2, 4, 8])
def test_the_base_student_takes_any_shape_of_whole_cells(scale: Literal[2, 4, 8]) -> None:
    config = ModelConfig(name="b", scale=scale, unet=NARROW)
    unit = config.multiple_lr_px
    student = build_student(config).eval()
    with torch.no_grad():
        out = student(torch.zeros(2, 3, 3 * unit, 5 * unit))
    assert out.shape == (2, 3, 3 * unit * scale, 5 * unit * scale)


@pytest.mark.parametrize("window_px", [None, 4, 8])
def test_the_tiny_student_takes_any_shape_of_whole_windows(window_px: int | None) -> None:
    config = ModelConfig(
        name="t",
        scale=8,
        kind="tiny",
        unet=UNetConfig(
            widths=(8, 16), mid_width=16, layers=1, norm="pixel", queries=2, window_px=window_px
        ),
        overlap_hr_px=256,
        decoder_widths=(8, 8, 8, 8),
    )
    unit = config.multiple_lr_px
    student = build_student(config).eval()
    with torch.no_grad():
        assert student(torch.zeros(1, 3, unit, 3 * unit)).shape == (1, 3, 8 * unit, 24 * unit)


def test_a_base_student_with_windows_takes_its_smallest_input() -> None:
    config = ModelConfig(
        name="b",
        scale=4,
        unet=UNetConfig(widths=(8, 8), mid_width=8, groups=4, queries=2, window_px=4),
    )
    student = build_student(config).eval()
    side = config.multiple_lr_px
    with torch.no_grad():
        assert student(torch.zeros(1, 3, side, side)).shape == (1, 3, 4 * side, 4 * side)


def test_channels_last_changes_the_layout_and_not_the_result() -> None:
    student = build_student(micro_model()).eval().requires_grad_(False)
    x = torch.rand(1, 3, 16, 16, generator=seeded())
    expected = student(x)
    student.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    torch.testing.assert_close(student(x.to(memory_format=torch.channels_last)), expected)


# TAESD


def taesd(half: str, shift: int = 0) -> dict[str, Tensor]:
    """Published tensors in float32, their first index shifted."""
    tensors = load_file(SHARED / "weights" / f"taesd_{half}.safetensors")
    renamed = {}
    for key, value in tensors.items():
        index, rest = key.split(".", 1)
        renamed[f"{int(index) + shift}.{rest}"] = value.float()
    return renamed


def taken(tensors: dict[str, Tensor], index: int) -> dict[str, Tensor]:
    """Takes one layer out of the tensors: its weight and bias."""
    return {name: tensors.pop(f"{index}.{name}") for name in ("weight", "bias")}


@needs_taesd
def test_the_published_taesd_loads_by_index_and_reconstructs_an_image() -> None:
    head, tail = taesd_encoder_head(), taesd_decoder_tail()
    encoder, decoder = taesd("encoder"), taesd("decoder", shift=-2)  # behind Clamp and convolution
    last, first = taken(encoder, 14), taken(decoder, -1)
    head.load_state_dict(encoder)
    tail.load_state_dict(decoder)
    path = sorted((SHARED / "data" / "val" / "hr").glob("*.png"))[0]
    pixels = np.array(Image.open(path).convert("RGB"))
    rgb = torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255
    with torch.no_grad():
        latent = F.conv2d(head(rgb), last["weight"], last["bias"], padding=1)
        clamped = 3 * torch.tanh(latent / 3)
        again = tail(F.conv2d(clamped, first["weight"], first["bias"], padding=1))
    assert latent.shape == (1, 4, rgb.shape[2] // 8, rgb.shape[3] // 8)
    assert again.shape == rgb.shape
    error = (again.clamp(0, 1) - rgb).square().mean()
    assert -10 * torch.log10(error) > 20  # dB; an untrained or misplaced layer gives about 5


def test_the_halves_of_taesd_have_the_published_indices() -> None:
    kinds = {nn.Conv2d: "conv", nn.ReLU: "relu", nn.Upsample: "up"}
    head = [kinds.get(type(layer), "block") for layer in taesd_encoder_head()]
    tail = [kinds.get(type(layer), "block") for layer in taesd_decoder_tail()]
    blocks = ["block"] * 3
    assert head == ["conv", "block"] + (["conv", *blocks] * 3)
    assert tail == ["relu", *([*blocks, "up", "conv"] * 3), "block", "conv"]
    assert (len(head), len(tail)) == (14, 18)

"""One UNet: Stable Diffusion's counts and numbers, timestep maps, renames, recomputation."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from slimdiffsr.errors import ConfigError
from slimdiffsr.files.pretrained import (
    diffusers_to_ours,
)
from slimdiffsr.files.tensors import load_strict
from slimdiffsr.models.blocks import ResBlock, TimeEmbedding
from slimdiffsr.models.spec import SD21, UNetSpec, student_spec
from slimdiffsr.models.unet import BlockOutputs, DownBlock, UNet, call
from slimdiffsr.settings.config import UNetConfig

TINY = UNetSpec(
    widths=(32, 64, 64, 64),
    mid_width=64,
    head_width=16,
    text_width=24,
    time_width=48,
    groups=8,
)


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def randomise(model: nn.Module, seed: int = 0) -> None:
    """Every weight and bias drawn: PyTorch starts norms at one and zero, which hides mistakes."""
    rng = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            fan = max(1, parameter[0].numel())
            noise = torch.randn(parameter.shape, generator=rng)
            parameter.copy_(noise / fan**0.5 if parameter.dim() > 1 else 1 + 0.1 * noise)


def diffusers_unet(spec: UNetSpec) -> Any:
    diffusers = pytest.importorskip("diffusers")
    config = {
        "block_out_channels": spec.widths,
        "attention_head_dim": [w // spec.head_width for w in spec.widths],
        "cross_attention_dim": spec.text_width,
        "norm_num_groups": spec.groups,
        "use_linear_projection": True,
    }
    return diffusers.UNet2DConditionModel(**config)


@pytest.fixture(scope="module")
def tiny() -> UNet:
    model = UNet(TINY).eval()
    randomise(model)
    return model


def grads(output: Tensor, model: nn.Module) -> tuple[Tensor, ...]:
    return torch.autograd.grad(output.square().mean(), list(model.parameters()))


def test_the_teacher_has_stable_diffusions_parameters() -> None:
    with torch.device("meta"):
        assert sum(p.numel() for p in UNet(SD21).parameters()) == 865_910_724


def test_the_names_and_shapes_are_diffusers_after_renaming() -> None:
    diffusers = pytest.importorskip("diffusers")
    with torch.device("meta"):
        ours = UNet(SD21).state_dict()
        theirs = diffusers_to_ours(
            diffusers.UNet2DConditionModel(
                block_out_channels=SD21.widths,
                attention_head_dim=[5, 10, 20, 20],
                cross_attention_dim=1024,
                use_linear_projection=True,
            ).state_dict()
        )
    assert {k: v.shape for k, v in ours.items()} == {k: v.shape for k, v in theirs.items()}


def test_a_tiny_unet_equals_diffusers() -> None:
    theirs = diffusers_unet(dataclasses.replace(TINY, time_width=4 * TINY.widths[0])).eval()
    randomise(theirs)
    ours = UNet(dataclasses.replace(TINY, time_width=4 * TINY.widths[0])).eval()
    load_strict(ours, diffusers_to_ours(theirs.state_dict()), "diffusers")
    x, text, t = draw(2, 4, 16, 24), draw(2, 7, 24), torch.tensor([3.0, 812.5])
    with torch.no_grad():
        expected = theirs(x, t, text).sample
        torch.testing.assert_close(ours(x, t, text), expected, rtol=1e-5, atol=1e-5)


def test_a_full_width_block_equals_diffusers() -> None:
    blocks = pytest.importorskip("diffusers.models.unets.unet_2d_blocks")
    theirs = blocks.CrossAttnDownBlock2D(
        resnet_eps=1e-5,
        in_channels=320,
        out_channels=640,
        temb_channels=1280,
        num_attention_heads=10,
        cross_attention_dim=1024,
        num_layers=2,
        transformer_layers_per_block=1,
        use_linear_projection=True,
    )
    randomise(theirs)
    theirs.double()
    ours = DownBlock(320, 640, SD21, 1, attend=True, halve=True).double()
    load_strict(ours, diffusers_to_ours(prefixed(theirs.state_dict())), "diffusers")
    x, time, text = (draw(*s).double() for s in ((1, 320, 8, 8), (1, 1280), (1, 77, 1024)))
    with torch.no_grad():
        _, skips = theirs(x, time, text)
        made = ours(x, time[:, None, None], text, call)[1]
    for our, their in zip(made, skips, strict=True):
        torch.testing.assert_close(our, their, rtol=1e-9, atol=1e-9)


def prefixed(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """diffusers names a lone block's samplers without a leading dot, which the table expects."""
    return {k.replace("downsamplers.0.", "downsampler."): v for k, v in tensors.items()}


@pytest.mark.parametrize("t", [0.0, 200.0, 371.25, 999.0])
def test_a_constant_map_equals_one_timestep_an_image(tiny: UNet, t: float) -> None:
    x, text = draw(2, 4, 16, 16), draw(2, 7, 24)
    with torch.no_grad():
        scalar = tiny(x, torch.tensor([t, 100.0]), text)
        maps = torch.tensor([t, 100.0])[:, None, None, None].expand(2, 1, 16, 16)
        torch.testing.assert_close(tiny(x, maps, text), scalar, rtol=1e-5, atol=1e-5)


def test_a_map_is_averaged_at_each_level(tiny: UNet) -> None:
    x, text = draw(1, 4, 16, 16), draw(1, 7, 24)
    coarse = 100 + 800 * torch.rand(1, 1, 2, 2, generator=torch.Generator().manual_seed(1))
    seen = []
    assert tiny.time_embedding is not None
    hook = tiny.time_embedding.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    with torch.no_grad():
        tiny(x, coarse.repeat_interleave(8, 2).repeat_interleave(8, 3), text)
    hook.remove()
    assert [tuple(t.shape[-2:]) for t in seen] == [(16, 16), (8, 8), (4, 4), (2, 2)]
    torch.testing.assert_close(seen[-1], coarse)


def test_a_map_acts_where_it_lies() -> None:
    """With a norm that has no statistics of the image, a ResBlock spreads t by one column."""
    block = ResBlock(32, 32, dataclasses.replace(TINY, norm="pixel"), None)
    embedding = TimeEmbedding(32, TINY.time_width)
    randomise(block)
    randomise(embedding)
    t = torch.full((1, 1, 8, 8), 200.0)
    edited = t.clone()
    edited[..., :4] = 700.0
    x = draw(1, 32, 8, 8)
    with torch.no_grad():
        change = block(x, embedding(edited)) - block(x, embedding(t))
    assert bool((change[..., :5].abs().sum(1) > 1e-3).all())
    assert bool((change[..., 5:] == 0).all())


def test_gradients_reach_the_timestep_map(tiny: UNet) -> None:
    t = torch.full((1, 1, 8, 8), 200.0, requires_grad=True)
    (grad,) = torch.autograd.grad(tiny(draw(1, 4, 8, 8), t, draw(1, 7, 24)).sum(), t)
    assert bool((grad != 0).all())


def test_recomputing_changes_no_gradient(tiny: UNet) -> None:
    x, t, text = draw(1, 4, 8, 8), torch.tensor([50.0]), draw(1, 7, 24)
    plain = grads(tiny(x, t, text), tiny)
    tiny.checkpointing = True
    recomputed = grads(tiny(x, t, text), tiny)
    tiny.checkpointing = False
    for a, b in zip(plain, recomputed, strict=True):
        torch.testing.assert_close(a, b)


def test_blocks_are_those_before_the_samplers(tiny: UNet) -> None:
    x, t, text = draw(1, 4, 16, 16), torch.tensor([50.0]), draw(1, 7, 24)
    with torch.no_grad():
        blocks = tiny.blocks(x, t, text)
        assert torch.equal(tiny.head(blocks.last), tiny(x, t, text))
    shapes = [tuple(f.shape[1:]) for f in (*blocks.matched, blocks.mid)]
    assert shapes == [(32, 16, 16), (64, 8, 8), (64, 8, 8), (32, 16, 16), (64, 8, 8)]
    assert torch.equal(blocks.matched[-1], blocks.last)


def test_the_students_blocks_match_the_teachers_in_shape() -> None:
    """MS 10's table, on the meta device at the paper's size."""

    def shapes(blocks: BlockOutputs) -> list[tuple[int, ...]]:
        return [tuple(f.shape[1:]) for f in (*blocks.matched, blocks.mid)]

    with torch.device("meta"):
        teacher = UNet(SD21).blocks(
            torch.empty(1, 4, 64, 64), torch.empty(1, 1, 64, 64), torch.empty(1, 77, 1024)
        )
        student = UNet(student_spec(UNetConfig())).blocks(torch.empty(1, 320, 64, 64))
    assert shapes(teacher) == shapes(student)
    assert shapes(student) == [
        (320, 64, 64),
        (640, 32, 32),
        (640, 32, 32),
        (320, 64, 64),
        (1280, 32, 32),
    ]


@pytest.mark.parametrize(
    ("timestep", "text", "message"),
    [
        (None, draw(1, 7, 24), "needs timestep"),
        (torch.tensor([1.0]), None, "needs text"),
    ],
)
def test_missing_conditions_are_refused(
    tiny: UNet, timestep: Tensor | None, text: Tensor | None, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        tiny(draw(1, 4, 8, 8), timestep, text)


def test_a_student_takes_no_timestep() -> None:
    student = UNet(student_spec(UNetConfig(widths=(8, 16), mid_width=16, groups=4)))
    with pytest.raises(ConfigError, match="takes no timestep"):
        student(draw(1, 8, 8, 8), torch.tensor([1.0]))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"widths": (32,)}, "at least 2 levels"),
        ({"groups": 7}, "groups"),
        ({"mid_width": 32}, "mid_width"),
        ({"head_width": 24}, "head"),
    ],
)
def test_a_spec_checks_itself(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(TINY, **change)

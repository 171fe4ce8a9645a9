from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from slimdiffsr.errors import ScaleError
from slimdiffsr.models.classical import Bicubic, Lanczos, keys_cubic, lanczos_window

KINDS = [Bicubic, Lanczos]
Kind = type[Bicubic] | type[Lanczos]
PILLOW = {Bicubic: Image.Resampling.BICUBIC, Lanczos: Image.Resampling.LANCZOS}


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)) * 2 - 1


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("scale", [2, 3, 4, 8])
def test_interior_equals_pillows_resize(kind: Kind, scale: int) -> None:
    lr = noise(1, 3, 14, 17)
    sr = kind(scale)(lr)[0]
    edge = 3 * scale  # where Pillow drops the missing pixels, and we repeat the edge
    for band in range(3):
        image = Image.fromarray(lr[0, band].numpy())
        assert image.mode == "F"
        reference = np.asarray(image.resize((17 * scale, 14 * scale), PILLOW[kind]))
        difference = np.abs(sr[band].numpy() - reference)[edge:-edge, edge:-edge]
        assert difference.max() < 1e-5


@pytest.mark.parametrize("kind", KINDS)
def test_constants_are_preserved_up_to_the_corners(kind: Kind) -> None:
    constant = torch.full((2, 3, 5, 7), 0.3)
    torch.testing.assert_close(kind(4)(constant), torch.full((2, 3, 20, 28), 0.3))


@pytest.mark.parametrize(("kind", "tolerance"), [(Bicubic, 1e-5), (Lanczos, 0.02)])
def test_linear_ramps_are_preserved_with_pixel_centres_aligned(
    kind: Kind, tolerance: float
) -> None:
    ramp = torch.arange(20.0).expand(1, 3, 20, 20)
    sr = kind(4)(ramp)
    expected = (torch.arange(80.0) + 0.5) / 4 - 0.5
    inside = slice(12, -12)
    assert (sr[0, 0, inside, inside] - expected[inside]).abs().max() < tolerance
    down = kind(4)(ramp.mT)
    torch.testing.assert_close(down, sr.mT)


@pytest.mark.parametrize("kind", KINDS)
def test_a_shifted_input_gives_a_shifted_output(kind: Kind) -> None:
    lr = noise(1, 3, 24, 24, seed=1)
    whole, part = kind(4)(lr), kind(4)(lr[..., 5:, 2:])
    torch.testing.assert_close(whole[..., 20 + 12 :, 8 + 12 :], part[..., 12:, 12:])


@pytest.mark.parametrize("kind", KINDS)
def test_dtype_follows_the_input_and_there_is_nothing_to_load(kind: Kind) -> None:
    net = kind(2)
    assert net(noise(1, 1, 4, 4).double()).dtype == torch.float64
    assert net(noise(1, 3, 4, 4).bfloat16()).dtype == torch.bfloat16
    assert not net.state_dict()


@pytest.mark.parametrize("kind", KINDS)
def test_scale_one_returns_the_input(kind: Kind) -> None:
    lr = noise(1, 3, 6, 6)
    torch.testing.assert_close(kind(1)(lr), lr)


def test_edges_repeat_and_overshoot_is_kept() -> None:
    step = torch.cat([-torch.ones(1, 3, 8, 8), torch.ones(1, 3, 8, 8)], dim=-1)
    sr = Bicubic(4)(step)
    assert sr.max() > 1.01
    torch.testing.assert_close(sr[..., :8], -torch.ones(1, 3, 32, 8))


def test_kernels_have_their_closed_forms() -> None:
    assert keys_cubic(0) == 1
    assert keys_cubic(0.5) == pytest.approx(0.5625)
    assert keys_cubic(1.5) == pytest.approx(-0.0625)
    assert lanczos_window(0.5) == pytest.approx(float(np.sinc(0.5) * np.sinc(0.5 / 3)))
    assert [round(abs(k), 12) for k in map(keys_cubic, (1.0, 2.0, 3.0))] == [0, 0, 0]
    assert [round(abs(k), 12) for k in map(lanczos_window, (1.0, 2.0, 3.0))] == [0, 0, 0]


def test_an_impossible_scale_is_an_error() -> None:
    with pytest.raises(ScaleError, match="got 0"):
        Bicubic(0)

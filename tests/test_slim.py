from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from students import micro_model, seeded
from torch import Tensor, nn
from torch.nn import functional as F

from slimdiffsr.models.blocks import norm_groups
from slimdiffsr.models.slim import DSC, FSC, QGAM, Gate
from slimdiffsr.models.student import build_student

Array = NDArray[np.float64]

pytestmark = pytest.mark.usefixtures("one_thread")


def draws(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=seeded(seed))


def as_array(x: Tensor) -> Array:
    array: Array = x.detach().numpy()
    return array


# Plain formulations of MS 8.2, in numpy


def depthwise(x: Array, weight: Tensor) -> Array:
    """Every output pixel by its own sum over the taps that lie inside the image."""
    kernel = as_array(weight)[:, 0]
    kh, kw = kernel.shape[1:]
    out = np.zeros_like(x)
    h, w = x.shape[2:]
    for dy in range(kh):
        for dx in range(kw):
            oy, ox = dy - kh // 2, dx - kw // 2
            for y in range(max(0, -oy), min(h, h - oy)):
                for col in range(max(0, -ox), min(w, w - ox)):
                    out[:, :, y, col] += kernel[:, dy, dx] * x[:, :, y + oy, col + ox]
    return out


def pointwise(x: Array, weight: Tensor) -> Array:
    out: Array = np.einsum("oc,bchw->bohw", as_array(weight)[:, :, 0, 0], x)
    return out


def sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))


def gates_of(gate: Gate, pooled: Array) -> Array:
    """pooled: (..., c) -> (..., branches)."""
    hidden = np.maximum(0, pooled @ as_array(gate.hidden.weight).T)
    return sigmoid(hidden @ as_array(gate.out.weight).T + as_array(gate.out.bias))


def softmax_rows(x: Array) -> Array:
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    out: Array = e / e.sum(axis=-1, keepdims=True)
    return out


def attend_globally(module: QGAM, x: Array) -> Array:
    """Eqs. 14 and 15 for the tokens (n, c) of one image."""
    c = x.shape[1]
    m = {name: as_array(p) for name, p in module.named_parameters()}
    q = m["query"] @ m["to_q.weight"].T
    k, v = x @ m["to_k.weight"].T, x @ m["to_v.weight"].T
    g = softmax_rows(q @ k.T / np.sqrt(c)) @ v  # Eq. 14
    q2 = x @ m["back_q.weight"].T
    k2, v2 = g @ m["back_k.weight"].T, g @ m["back_v.weight"].T
    y = softmax_rows(q2 @ k2.T / np.sqrt(c)) @ v2  # Eq. 15, with the root of c as released
    return y @ m["out.weight"].T + m["out.bias"]


def test_fsc_is_the_papers_formula() -> None:
    block = FSC(8, 12).double()
    x = draws(2, 8, 7, 5)
    low = depthwise(as_array(x), block.low.weight)
    high = depthwise(as_array(x) - low, block.high.weight)
    g = gates_of(block.gate, as_array(x).mean((2, 3)))[:, :, None, None]
    mixed = g[:, :1] * low + g[:, 1:] * high
    expected = pointwise(np.maximum(0, pointwise(mixed, block.reduce.weight)), block.expand.weight)
    np.testing.assert_allclose(as_array(block(x)), expected, atol=1e-12)


def test_fsc_gates_pass_through_eight_hidden_units_whatever_the_width() -> None:
    assert FSC(64, 64).gate.hidden.out_features == 8


def test_dsc_is_the_papers_formula() -> None:
    block = DSC(16).double()
    x = draws(2, 16, 6, 9)
    vertical = depthwise(as_array(x), block.vertical.weight)
    diagonal = depthwise(vertical, block.horizontal.weight)
    horizontal = depthwise(as_array(x), block.horizontal.weight)
    g = gates_of(block.gate, as_array(x).mean((2, 3)))[:, :, None, None]
    mixed = g[:, :1] * vertical + g[:, 1:2] * diagonal + g[:, 2:] * horizontal
    expected = pointwise(pointwise(mixed, block.reduce.weight), block.expand.weight)
    np.testing.assert_allclose(as_array(block(x)), expected, atol=1e-12)


def test_dsc_looks_up_and_down_with_the_vertical_kernel() -> None:
    block = DSC(8)
    assert block.vertical.kernel_size == (3, 1)
    column = torch.zeros(1, 8, 5, 5)
    column[..., 2, 2] = 1
    rows, columns = torch.nonzero(block.vertical(column)[0, 0], as_tuple=True)
    assert set(columns.tolist()) == {2}
    assert set(rows.tolist()) == {1, 2, 3}


def test_qgam_is_equations_14_and_15() -> None:
    block = QGAM(12, queries=5, squeeze=7).double()
    x = draws(2, 4, 6, 12)
    expected = np.stack(
        [attend_globally(block, as_array(image).reshape(24, 12)).reshape(4, 6, 12) for image in x]
    )
    np.testing.assert_allclose(as_array(block(x)), expected, atol=1e-12)


def test_qgam_gives_every_order_of_tokens_the_same_answers() -> None:
    block = QGAM(8, queries=3, squeeze=4).double()
    x = draws(1, 1, 10, 8)
    order = torch.randperm(10, generator=seeded(3))
    torch.testing.assert_close(block(x)[:, :, order], block(x[:, :, order]))


def test_windowed_qgam_is_each_window_alone() -> None:
    windowed = QGAM(8, queries=3, squeeze=4, window=2).double()
    whole = QGAM(8, queries=3, squeeze=4).double()
    whole.load_state_dict(windowed.state_dict())
    x = draws(2, 4, 6, 8)
    out = windowed(x)
    for y in range(0, 4, 2):
        for col in range(0, 6, 2):
            alone = whole(x[:, y : y + 2, col : col + 2])
            torch.testing.assert_close(out[:, y : y + 2, col : col + 2], alone)


def test_qgam_over_the_whole_tile_is_not_each_window_alone() -> None:
    block = QGAM(8, queries=3, squeeze=4).double()
    x = draws(1, 4, 4, 8)
    assert (block(x)[:, :2, :2] - block(x[:, :2, :2])).abs().max() > 1e-3


@pytest.mark.parametrize(("height", "width"), [(8, 12), (10, 7)])
def test_windowed_gates_are_interpolated_between_window_centres(height: int, width: int) -> None:
    window = 4
    gate = Gate(6, 8, 2, window).double()
    x = draws(2, 6, height, width)
    ys, xs = range(0, height, window), range(0, width, window)
    means = np.stack(
        [
            np.stack([as_array(x)[:, :, y : y + window, c : c + window].mean((2, 3)) for c in xs])
            for y in ys
        ]
    )  # (rows, columns, b, c): windows cut by the edge count only what they hold
    coarse = gates_of(gate, means)
    # Linear between centres, constant beyond the outermost ones, one axis after the other.
    at_y = (np.arange(height) + 0.5) / window - 0.5
    at_x = (np.arange(width) + 0.5) / window - 0.5
    columns = np.apply_along_axis(lambda v: np.interp(at_y, np.arange(len(ys)), v), 0, coarse)
    fine = np.apply_along_axis(lambda v: np.interp(at_x, np.arange(len(xs)), v), 1, columns)
    for branch, weights in enumerate(gate(x)):
        assert weights.shape == (2, 1, height, width)
        expected = fine[..., branch].transpose(2, 0, 1)
        np.testing.assert_allclose(as_array(weights)[:, 0], expected, atol=1e-12)


def test_windowed_gates_of_an_even_image_are_the_global_ones() -> None:
    windowed, whole = Gate(4, 8, 3, 4).double(), Gate(4, 8, 3, None).double()
    windowed.load_state_dict(whole.state_dict())
    x = draws(1, 4, 1, 1).expand(1, 4, 8, 8)
    for ours, theirs in zip(windowed(x), whole(x), strict=True):
        torch.testing.assert_close(ours, theirs.expand_as(ours))


@pytest.mark.parametrize("window", [None, 2])
def test_gradients_reach_the_input_and_every_weight(window: int | None) -> None:
    blocks: list[tuple[nn.Module, tuple[int, ...]]] = [
        (FSC(8, 8, window), (1, 8, 4, 4)),
        (DSC(8, window), (1, 8, 4, 4)),
        (QGAM(8, 3, 4, window), (1, 4, 4, 8)),
    ]
    for block, shape in blocks:
        block.double()
        for p in block.parameters():  # a ReLU that is shut would stop a gradient by bad luck
            p.data = draws(*p.shape, seed=5).abs() / 20 + 0.01
        x = draws(*shape).abs().requires_grad_()
        loss: Tensor = (block(x) * draws(*shape, seed=9)).sum()
        loss.backward()  # type: ignore[no-untyped-call]
        tensors: dict[str, Tensor] = {"input": x, **dict(block.named_parameters())}
        for name, tensor in tensors.items():
            assert tensor.grad is not None, name
            assert torch.isfinite(tensor.grad).all(), name
            assert tensor.grad.abs().max() > 0, name


def test_gradients_are_those_of_finite_differences() -> None:
    for block, shape in ((FSC(4, 4, 2), (1, 4, 4, 4)), (QGAM(4, 2, 3, 2), (1, 4, 4, 4))):
        block.double()
        x = draws(*shape).requires_grad_()
        assert torch.autograd.gradcheck(block, (x,))


# Finite receptive field of a whole windowed student

WINDOW_LR_PX = 8  # 4 cells at half the low-resolution grid
# Seven ResBlocks, each with two gates that read at most the next window on either side and a few
# pixels for the convolutions; seven transformers that read their own window; stem and ends.
REACH_LR_PX = 7 * (2 * 2 * WINDOW_LR_PX + 8) + 7 * WINDOW_LR_PX + 16
LENGTH_LR_PX = 2 * REACH_LR_PX // WINDOW_LR_PX * WINDOW_LR_PX


def strip_student(local: bool) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(7)
        config = micro_model() if local else micro_model(norm="group", window_px=None)
        student = build_student(config)
        for module in student.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):  # else far pixels count next to nothing
                module.weight.data *= 2
    return student.double().eval().requires_grad_(False)


def strip(seed: int = 0) -> Tensor:
    return draws(1, 3, WINDOW_LR_PX, LENGTH_LR_PX, seed=seed).clamp(-1, 1)


def test_a_change_outside_the_receptive_field_leaves_the_output_as_it_was() -> None:
    student = strip_student(local=True)
    x = strip()
    changed = x.clone()
    changed[..., 0] = -changed[..., 0] + 0.1
    difference = (student(changed) - student(x)).abs().amax((0, 1, 2))
    touched = int(torch.nonzero(difference)[-1]) // 4
    assert touched <= REACH_LR_PX
    assert touched > 2 * WINDOW_LR_PX  # it does pool further than convolutions would


def test_pooling_over_the_whole_tile_reaches_everywhere() -> None:
    student = strip_student(local=False)
    x = strip()
    changed = x.clone()
    changed[..., 0] = -changed[..., 0] + 0.1
    difference = (student(changed) - student(x)).abs().amax((0, 1, 2))
    assert (difference[4 * REACH_LR_PX :] > 0).float().mean() > 0.99


def interior_change(student: nn.Module, shift_lr_px: int) -> float:
    """How much the output far from the edges changes when the input's first columns go."""
    x = strip()
    whole = student(x)
    length = (LENGTH_LR_PX - shift_lr_px) // WINDOW_LR_PX * WINDOW_LR_PX
    part = student(x[..., shift_lr_px : shift_lr_px + length])
    from_hr_px, to_hr_px = 4 * REACH_LR_PX, 4 * (length - REACH_LR_PX // 2)
    kept = whole[..., 4 * shift_lr_px + from_hr_px : 4 * shift_lr_px + to_hr_px]
    assert kept.shape[-1] > 100
    return float((part[..., from_hr_px:to_hr_px] - kept).abs().max())


def test_a_shift_by_a_window_shifts_the_interior_of_the_output() -> None:
    student = strip_student(local=True)
    # The right end of the strip stays where it was.
    assert interior_change(student, WINDOW_LR_PX) < 1e-12
    assert interior_change(student, 3 * WINDOW_LR_PX) < 1e-12


def test_a_shift_by_half_a_window_or_without_windows_does_not() -> None:
    assert interior_change(strip_student(local=True), WINDOW_LR_PX // 2) > 1e-6
    assert interior_change(strip_student(local=False), WINDOW_LR_PX) > 1e-9


@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 2e-5), (torch.bfloat16, 0.05)])
def test_a_norm_from_sums_is_pytorchs_and_keeps_the_layout(
    layout: torch.memory_format, dtype: torch.dtype, bound: float
) -> None:
    rng = torch.Generator().manual_seed(0)
    x = (torch.randn(2, 32, 9, 7, generator=rng) * 3 + 5).to(dtype).contiguous(memory_format=layout)
    weight, bias = (torch.randn(32, generator=rng).to(dtype) for _ in range(2))
    out = norm_groups(x, 8, weight, bias, 1e-5)
    assert out.dtype == dtype
    assert out.is_contiguous(memory_format=layout)
    wanted = F.group_norm(x.float(), 8, weight.float(), bias.float(), 1e-5)
    torch.testing.assert_close(out.float(), wanted, atol=bound, rtol=0)

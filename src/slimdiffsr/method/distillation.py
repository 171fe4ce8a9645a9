"""Feature distillation: Eqs. 16 to 19, and the adapters phi of Eq. 17 (MS 10).

Features are compared in float32. Gradients reach the student's side alone: hand over teacher
features that were made without gradients.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = [
    "Adapters",
    "DistillationTerms",
    "FeatureNorm",
    "Shares",
    "compare_features",
    "draw_positions",
    "feature_mse",
    "match_scale",
    "mmd_squared",
    "sample_vectors",
]

FeatureNorm = Literal["teacher_rms", "none"]
Kernels = Literal[1, 5]


class Adapters(nn.ModuleList):
    """One 1x1 convolution a matched block; the identity at first where the widths agree."""

    def __init__(self, student_widths: Sequence[int], teacher_widths: Sequence[int]) -> None:
        super().__init__(
            nn.Conv2d(inputs, outputs, 1)
            for inputs, outputs in zip(student_widths, teacher_widths, strict=True)
        )
        for adapter in self:
            if isinstance(adapter, nn.Conv2d) and adapter.in_channels == adapter.out_channels:
                nn.init.dirac_(adapter.weight)
                nn.init.zeros_(adapter.bias)  # type: ignore[arg-type]  # built with one

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        """features: one (b, c_i, h_i, w_i) a block. Returns the same with the teacher's widths."""
        return [adapter(f) for adapter, f in zip(self, features, strict=True)]


def alone(own: Tensor) -> Tensor:
    """The sum over a single process."""
    return own


@dataclass(frozen=True, slots=True)
class Shares:
    """How a batch is shared out among the processes of a run: equally, and in their order.

    add_up: from one tensor a process to their sum, in each of them, with gradients to all.
    """

    process: int = 0
    processes: int = 1
    add_up: Callable[[Tensor], Tensor] = alone


WHOLE = Shares()


class DistillationTerms(NamedTuple):
    """L_Dis of Eq. 19 and its terms, averaged over blocks; ``raw_mse`` is without normalisation."""

    total: Tensor
    mse: Tensor
    mmd: Tensor
    raw_mse: Tensor


def compare_features(
    adapted: Sequence[Tensor],
    teacher: Sequence[Tensor],
    rng: torch.Generator,
    *,
    mmd_weight: float = 0.1,
    norm: FeatureNorm = "teacher_rms",
    samples: int = 1024,
    kernels: Kernels = 1,
    shares: Shares = WHOLE,
) -> DistillationTerms:
    """L_Dis = L_MSE-Dis + lambda L_MMD-Dis (Eq. 19), lambda = ``mmd_weight``.

    adapted, teacher: one (b, c, h, w) a block, pairwise of one shape: this process's share of the
    batch. rng: a generator on the CPU, the same in all processes, which draws the positions in the
    whole batch whose channel vectors MMD compares, anew for each block. The MSE is the share's, so
    its gradient is to be averaged over processes; the MMD is that of the whole batch in each of
    them, and ``shares.add_up`` makes the average of its gradients the whole one too.
    """
    mses, mmds, raws = [], [], []
    for ours, theirs in zip(adapted, teacher, strict=True):
        ours, theirs = ours.float(), theirs.detach().float()
        raws.append(feature_mse(ours.detach(), theirs))
        if norm == "teacher_rms":
            ours, theirs = match_scale(ours, theirs, shares)
        mses.append(feature_mse(ours, theirs))
        positions = draw_positions(theirs, samples, rng, shares.processes)
        x, y = (sample_vectors(f, positions, shares) for f in (ours, theirs))
        mmds.append(mmd_squared(x, y, kernels))
    mse, mmd = torch.stack(mses).mean(), torch.stack(mmds).mean()
    return DistillationTerms(mse + mmd_weight * mmd, mse, mmd, torch.stack(raws).mean())


def match_scale(ours: Tensor, theirs: Tensor, shares: Shares = WHOLE) -> tuple[Tensor, Tensor]:
    """Both divided by the teacher's root mean square over the whole batch.

    Features of Stable Diffusion differ by an order of magnitude between blocks, and L_Dis stands
    beside L_Rec with no weight of its own.
    """
    mean_square = shares.add_up(theirs.detach().square().mean()) / shares.processes
    rms = mean_square.sqrt().clamp_min(1e-6)
    return ours / rms, theirs / rms


def feature_mse(ours: Tensor, theirs: Tensor) -> Tensor:
    """One block's term of Eq. 17, as a mean: a sum would grow with the picture."""
    return F.mse_loss(ours, theirs)


def draw_positions(
    features: Tensor, samples: int, rng: torch.Generator, processes: int = 1
) -> Tensor:
    """Indices into all positions of as many (b, c, h, w) as processes, uniform; on the CPU."""
    b, _, h, w = features.shape
    return torch.randint(processes * b * h * w, (samples,), generator=rng)


def sample_vectors(features: Tensor, positions: Tensor, shares: Shares = WHOLE) -> Tensor:
    """The channel vectors at ``positions`` of the whole batch: (b, c, h, w) -> (samples, c)."""
    flat = features.permute(0, 2, 3, 1).flatten(0, 2)
    positions = positions.to(features.device)
    if shares.processes == 1:
        return flat[positions]
    own = positions - shares.process * len(flat)
    here = (own >= 0) & (own < len(flat))
    # Each vector is one process's own and zero in the others, so their sum is all of them.
    return shares.add_up(flat[own.clamp(0, len(flat) - 1)] * here[:, None])


def mmd_squared(x: Tensor, y: Tensor, kernels: Kernels = 1) -> Tensor:
    """MMD^2 of Eq. 16 between two sets of vectors, (m, c) and (n, c), with a Gaussian kernel.

    The biased V-statistic, means over all pairs: at least 0, and 0 for equal sets. 2 sigma^2 is the
    mean squared distance between different members of the union, held constant; five kernels are
    scaled by 1/4, 1/2, 1, 2 and 4 and averaged.
    """
    union = torch.cat((x, y)).float()
    squares = squared_distances(union)
    count = len(union)
    width = squares.detach().sum() / (count * (count - 1))
    width = width.clamp_min(1e-12)  # all vectors equal
    factors = (1.0,) if kernels == 1 else (0.25, 0.5, 1.0, 2.0, 4.0)
    kernel = torch.stack([torch.exp(-squares / (factor * width)) for factor in factors]).mean(0)
    m = len(x)
    within = kernel[:m, :m].mean() + kernel[m:, m:].mean()
    # Rounding may leave a little below zero.
    return (within - 2 * kernel[:m, m:].mean()).clamp_min(0)


def squared_distances(vectors: Tensor) -> Tensor:
    """|v_i - v_j|^2 by the product rule: (n, c) -> (n, n), at least 0, exactly 0 for i = j."""
    centred = vectors - vectors.detach().mean(0)  # smaller numbers cancel with smaller errors
    norms = centred.square().sum(1)
    with torch.autocast(vectors.device.type, enabled=False):  # it would multiply in bfloat16
        products = centred @ centred.T
    squares = (norms[:, None] + norms[None] - 2 * products).clamp_min(0)
    return squares * (1 - torch.eye(len(vectors), device=vectors.device))

"""The paper's three lightweight blocks: FSC, DSC (Fig. 8) and QGAM (Fig. 9, Eqs. 14-15).

Each pools over its input: over the whole tile as in the paper, or, with ``window``, over square
windows anchored to the input's upper-left corner, which makes the receptive field finite.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["DSC", "FSC", "QGAM"]


class Gate(nn.Module):
    """Weights of the branches of FSC and DSC: pool, two linear layers, sigmoid."""

    def __init__(self, channels: int, hidden: int, branches: int, window: int | None) -> None:
        super().__init__()
        self.window = window
        self.hidden = nn.Linear(channels, hidden, bias=False)
        self.out = nn.Linear(hidden, branches)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """x: (b, c, h, w). Returns one weight map a branch, (b, 1, h, w) or (b, 1, 1, 1)."""
        if self.window is None:
            pooled = x.mean((2, 3), keepdim=True)
        else:
            pooled = F.avg_pool2d(x, self.window, ceil_mode=True)
        gates = self.out(F.relu(self.hidden(pooled.permute(0, 2, 3, 1)))).sigmoid()
        gates = gates.permute(0, 3, 1, 2)
        if self.window is not None:
            # Interpolated between window centres: a step at a window's edge would be a seam.
            gates = F.interpolate(
                gates, scale_factor=float(self.window), mode="bilinear", align_corners=False
            )[..., : x.shape[2], : x.shape[3]]
        return tuple(gates.chunk(gates.shape[1], dim=1))


class FSC(nn.Module):
    """Frequency-separable convolution (Fig. 8, right): low and high band, gated, then 1x1."""

    def __init__(self, inputs: int, outputs: int, window: int | None = None) -> None:
        super().__init__()
        self.low = nn.Conv2d(inputs, inputs, 3, padding=1, groups=inputs, bias=False)
        self.high = nn.Conv2d(inputs, inputs, 3, padding=1, groups=inputs, bias=False)
        self.gate = Gate(inputs, 8, 2, window)
        self.reduce = nn.Conv2d(inputs, inputs // 4, 1, bias=False)
        self.expand = nn.Conv2d(inputs // 4, outputs, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """x: (b, inputs, h, w). Returns (b, outputs, h, w)."""
        low = self.low(x)
        high = self.high(x - low)
        low_gate, high_gate = self.gate(x)
        mixed = torch.addcmul(low_gate * low, high_gate, high)
        # The ReLU is in the released code though Fig. 8 does not draw it.
        out: Tensor = self.expand(F.relu(self.reduce(mixed)))
        return out


class DSC(nn.Module):
    """Direction-separable convolution (Fig. 8, left): vertical, diagonal, horizontal, gated."""

    def __init__(self, channels: int, window: int | None = None) -> None:
        super().__init__()
        self.vertical = nn.Conv2d(
            channels, channels, (3, 1), padding=(1, 0), groups=channels, bias=False
        )
        self.horizontal = nn.Conv2d(
            channels, channels, (1, 3), padding=(0, 1), groups=channels, bias=False
        )
        self.gate = Gate(channels, channels // 8, 3, window)
        self.reduce = nn.Conv2d(channels, channels // 4, 1, bias=False)
        self.expand = nn.Conv2d(channels // 4, channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """x: (b, c, h, w). Returns the same shape."""
        vertical = self.vertical(x)
        diagonal = self.horizontal(vertical)  # the same kernel as the horizontal branch
        horizontal = self.horizontal(x)
        v_gate, d_gate, h_gate = self.gate(x)
        mixed = torch.addcmul(v_gate * vertical, d_gate, diagonal)
        mixed = torch.addcmul(mixed, h_gate, horizontal)
        out: Tensor = self.expand(self.reduce(mixed))  # no activation between, as released
        return out


class QGAM(nn.Module):
    """Query-driven global aggregation: queries read the tokens, tokens read the queries.

    Cost grows with tokens x queries instead of tokens squared.
    """

    def __init__(
        self, width: int, queries: int = 32, squeeze: int = 64, window: int | None = None
    ) -> None:
        super().__init__()
        # width, not squeeze, under the root: the released weights were trained so (MS 8.2).
        self.scale = width**-0.5
        self.window = window
        self.query = nn.Parameter(torch.empty(queries, width))
        self.to_q = nn.Linear(width, squeeze, bias=False)
        self.to_k = nn.Linear(width, squeeze, bias=False)
        self.to_v = nn.Linear(width, squeeze, bias=False)
        self.back_q = nn.Linear(width, squeeze, bias=False)
        self.back_k = nn.Linear(squeeze, squeeze, bias=False)
        self.back_v = nn.Linear(squeeze, squeeze, bias=False)
        self.out = nn.Linear(squeeze, width)
        nn.init.normal_(self.query)

    def forward(self, tokens: Tensor) -> Tensor:
        """tokens: (b, h, w, c). Returns the same shape."""
        x = _split(tokens, self.window)
        context = self.aggregate(x)
        y = F.scaled_dot_product_attention(
            self.back_q(x), self.back_k(context), self.back_v(context), scale=self.scale
        )  # Eq. 15
        return _join(self.out(y), self.window, tokens)

    def aggregate(self, x: Tensor) -> Tensor:
        """The global context tokens G (Eq. 14), of each group of tokens.

        x: (b, groups, n, c). Returns (b, groups, queries, squeeze).
        """
        queries = self.to_q(self.query).expand(x.shape[0], x.shape[1], -1, -1)
        return F.scaled_dot_product_attention(queries, self.to_k(x), self.to_v(x), scale=self.scale)

    def attention(self, tokens: Tensor) -> Tensor:
        """Where each query of Eq. 14 looks, for inspection (Fig. 16). tokens: (b, h, w, c).

        Returns (b, queries, h, w): weights that sum to 1 over the image, or over each window.
        """
        x = _split(tokens, self.window)
        scores = self.to_q(self.query) @ self.to_k(x).mT * self.scale
        weights: Tensor = scores.softmax(dim=-1).mT  # (b, groups, n, queries)
        return _join(weights, self.window, tokens).permute(0, 3, 1, 2)


def _split(tokens: Tensor, window: int | None) -> Tensor:
    """(b, h, w, c) to (b, groups, n, c): one group, or one a window."""
    b, h, w, c = tokens.shape
    if window is None:
        return tokens.reshape(b, 1, h * w, c)
    x = tokens.reshape(b, h // window, window, w // window, window, c)
    return x.transpose(2, 3).reshape(b, (h // window) * (w // window), window * window, c)


def _join(x: Tensor, window: int | None, tokens: Tensor) -> Tensor:
    """Back to (b, h, w, any number): the sides of ``tokens``."""
    b, h, w, _ = tokens.shape
    if window is None:
        return x.reshape(b, h, w, x.shape[-1])
    x = x.reshape(b, h // window, w // window, window, window, x.shape[-1])
    return x.transpose(2, 3).reshape(b, h, w, x.shape[-1])

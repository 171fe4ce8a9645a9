"""The halves of TAESD that the student keeps (MIT, Ollin Boer Bohan; layer order as published).

``nn.Sequential`` with the published indices, so that its weights and the released student's load
by name. The encoder's last and the decoder's first convolution are fused away (Eqs. 12-13).
"""

from __future__ import annotations

from torch import Tensor, nn

__all__ = [
    "WIDTH",
    "TaesdBlock",
    "taesd_decoder_tail",
    "taesd_encoder_head",
]

WIDTH = 64


class TaesdBlock(nn.Module):
    """Three convolutions and a shortcut."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Sequential(
            nn.Conv2d(WIDTH, WIDTH, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(WIDTH, WIDTH, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(WIDTH, WIDTH, 3, padding=1),
        )

    def forward(self, x: Tensor) -> Tensor:
        """x: (b, 64, h, w). Returns the same shape."""
        out: Tensor = (self.conv(x) + x).relu()
        return out


def _halve() -> nn.Conv2d:
    return nn.Conv2d(WIDTH, WIDTH, 3, stride=2, padding=1, bias=False)


def _double() -> list[nn.Module]:
    return [
        nn.Upsample(scale_factor=2.0),
        nn.Conv2d(WIDTH, WIDTH, 3, padding=1, bias=False),
    ]


def _blocks(count: int) -> list[nn.Module]:
    return [TaesdBlock() for _ in range(count)]


def taesd_encoder_head() -> nn.Sequential:
    """All of the encoder but its last layer: (b, 3, h, w) -> (b, 64, h/8, w/8)."""
    layers: list[nn.Module] = [nn.Conv2d(3, WIDTH, 3, padding=1), *_blocks(1)]
    for _ in range(3):
        layers += [_halve(), *_blocks(3)]
    return nn.Sequential(*layers)


def taesd_decoder_tail() -> nn.Sequential:
    """All of the decoder but its first convolution: (b, 64, h/8, w/8) -> (b, 3, h, w).

    Starts with the ReLU that stood behind that convolution, under its published index 1.
    """
    layers: list[nn.Module] = [nn.ReLU()]
    for _ in range(3):
        layers += [*_blocks(3), *_double()]
    layers += [*_blocks(1), nn.Conv2d(WIDTH, 3, 3, padding=1)]
    return nn.Sequential(*layers)

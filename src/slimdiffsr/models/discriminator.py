"""Adversaries of Eq. 20: the paper's, on DINO's features, and one without pretrained weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm

from slimdiffsr.errors import ConfigError, ModelNotFoundError, WeightsError
from slimdiffsr.models.augment import Rows, augment

if TYPE_CHECKING:
    from transformers import ViTModel

__all__ = ["DinoDiscriminator", "DinoFeatures", "UNetDiscriminator", "load_dino"]


def _conv(inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> nn.Module:
    return spectral_norm(nn.Conv2d(inputs, outputs, kernel, stride, padding=1, bias=False))


class UNetDiscriminator(nn.Module):
    """U-Net with spectral norm, one logit a pixel (Wang et al. 2021, Real-ESRGAN, section 3.3)."""

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        w = width
        self.first = nn.Conv2d(3, w, 3, padding=1)
        self.downs = nn.ModuleList(_conv(w * m, w * m * 2, kernel=4, stride=2) for m in (1, 2, 4))
        self.ups = nn.ModuleList(_conv(w * m, w * m // 2) for m in (8, 4, 2))
        self.last = nn.Sequential(
            _conv(w, w),
            nn.LeakyReLU(0.2),
            _conv(w, w),
            nn.LeakyReLU(0.2),
            nn.Conv2d(w, 1, 3, padding=1),
        )

    def forward(self, rgb: Tensor) -> list[Tensor]:
        """rgb: (b, 3, h, w) in [-1, 1], h and w multiples of 8. Returns [(b, 1, h, w) logits]."""
        x = F.leaky_relu(self.first(rgb), 0.2)
        skips = []
        for down in self.downs:
            skips.append(x)
            x = F.leaky_relu(down(x), 0.2)
        for up in self.ups:
            with torch.autocast(x.device.type, enabled=False):  # it would interpolate in float32
                x = F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)
            x = F.leaky_relu(up(x), 0.2) + skips.pop()
        return [self.last(x)]


class Blur(nn.Module):
    """[1, 3, 3, 1] along both axes, normalised, against aliasing (Zhang 2019)."""

    kernel: Tensor

    def __init__(self, padding: int) -> None:
        super().__init__()
        self.padding = padding
        taps = torch.tensor([1.0, 3.0, 3.0, 1.0])
        kernel = torch.outer(taps, taps) / 64
        self.register_buffer("kernel", kernel[None, None], persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """x: (b, c, h, w). Returns (b, c, h + 2 padding - 3, w + 2 padding - 3)."""
        kernel = self.kernel.to(x.dtype).expand(x.shape[1], 1, 4, 4)
        return F.conv2d(x, kernel, padding=self.padding, groups=x.shape[1])


def _map_head(width: int) -> nn.Sequential:
    return nn.Sequential(
        Blur(padding=2),
        spectral_norm(nn.Conv2d(width, 128, 3, stride=2)),
        nn.LeakyReLU(0.2),
        Blur(padding=1),
        spectral_norm(nn.Conv2d(128, 1, 1, stride=2)),
    )


def _token_head(width: int) -> nn.Sequential:
    return nn.Sequential(
        spectral_norm(nn.Linear(width, 128)),
        nn.LeakyReLU(0.2),
        spectral_norm(nn.Linear(128, 1)),
    )


class DinoDiscriminator(nn.Module):
    """Heads on three depths of a frozen vision transformer (Kumari et al. 2022; MS 7).

    ``backbone`` turns (b, 3, side, side), normalised, into three token sequences (b, 1 + n, width),
    class token first. Only the heads train and only they are in the state dict; gradients pass
    through the backbone to its input.
    """

    shift: Tensor
    spread: Tensor

    def __init__(self, backbone: nn.Module, width: int = 768, side: int = 224) -> None:
        super().__init__()
        # In a list, so that the backbone is no submodule: it is neither saved nor trained here.
        self._backbone = [backbone.requires_grad_(False).eval()]
        self.side = side
        self.maps = nn.ModuleList(_map_head(width) for _ in range(2))
        self.token = _token_head(width)
        # CLIP's mean with ImageNet's spread: so the package did that the paper's lineage used.
        mean = torch.tensor([0.48145466, 0.4578275, 0.40821073])
        self.register_buffer("shift", mean[:, None, None], persistent=False)
        spread = torch.tensor([0.229, 0.224, 0.225])
        self.register_buffer("spread", spread[:, None, None], persistent=False)

    def forward(
        self, rgb: Tensor, rng: torch.Generator | None = None, rows: Rows | None = None
    ) -> list[Tensor]:
        """rgb: (b, 3, h, w) in [-1, 1]; with ``rng`` (on the CPU) augmented first, as ``augment``.

        Returns three levels of logits: (b, 1, 3, 3) twice at 224 pixels a side, and (b, 1).
        """
        if rng is not None:
            rgb = augment(rgb, rng, rows)
        early, middle, last = self._backbone[0](self.prepare(rgb))
        logits: list[Tensor] = [
            head(_as_map(tokens)) for head, tokens in zip(self.maps, (early, middle), strict=True)
        ]
        return [*logits, self.token(last[:, 0])]

    def prepare(self, rgb: Tensor) -> Tensor:
        """[-1, 1] at any size -> the backbone's size and normalisation."""
        small = F.interpolate(rgb * 0.5 + 0.5, (self.side, self.side), mode="area")
        return (small - self.shift) / self.spread

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        # What moves or converts the heads, ``.to()`` and its like, takes the backbone along.
        self._backbone[0]._apply(fn, recurse)  # type: ignore[no-untyped-call]  # torch's own
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return self


def _as_map(tokens: Tensor) -> Tensor:
    b, n, c = tokens.shape
    side = round((n - 1) ** 0.5)
    return tokens[:, 1:].transpose(1, 2).reshape(b, c, side, side)


class DinoFeatures(nn.Module):
    """Tokens after three blocks of a transformers ViT, each through its final norm (MS 7)."""

    def __init__(self, vit: ViTModel, taps: tuple[int, int, int] = (5, 9, 12)) -> None:
        super().__init__()
        self.vit = vit
        self.taps = taps

    def forward(self, x: Tensor) -> list[Tensor]:
        """x: (b, 3, 224, 224). Returns three (b, 1 + n, width)."""
        states = self.vit(x, output_hidden_states=True).hidden_states
        return [self.vit.layernorm(states[tap]) for tap in self.taps]


def load_dino(source: str = "facebook/dino-vitb16") -> DinoFeatures:
    """DINO ViT-B/16 (Caron et al. 2021) from the hub or a local folder, through transformers."""
    try:
        from transformers import ViTModel
    except ImportError:
        raise ConfigError(
            "the DINO discriminator needs transformers: pip install 'slimdiffsr[teacher]'"
        ) from None
    try:
        vit = ViTModel.from_pretrained(source, add_pooling_layer=False)
    except (OSError, ValueError) as error:
        raise ModelNotFoundError(
            f"cannot load DINO from {source!r} ({type(error).__name__}): check the name and the "
            "connection, download facebook/dino-vitb16 and give its folder, or use the U-Net "
            "discriminator, which needs no pretrained weights"
        ) from None
    if vit.config.num_hidden_layers < 12:
        raise WeightsError(f"{source} has {vit.config.num_hidden_layers} blocks, not DINO's 12")
    return DinoFeatures(vit)

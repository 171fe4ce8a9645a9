"""The students: ``base``, exactly the one the authors released, and ``tiny``, the same blocks for laptops."""

from __future__ import annotations

from torch import Tensor, cat, nn
from torch.nn import functional as F

from slimdiffsr.models.autoencoder import WIDTH, taesd_decoder_tail, taesd_encoder_head
from slimdiffsr.models.lean import LeanStudent, double
from slimdiffsr.models.sd_vae import KLCodec, Taesd, build_kl
from slimdiffsr.models.spec import ablation_spec, student_spec
from slimdiffsr.models.unet import BlockOutputs, UNet
from slimdiffsr.settings.config import ModelConfig

__all__ = [
    "DEAD_PARAMETERS",
    "BaseStudent",
    "LatentStudent",
    "MatchedStudent",
    "Student",
    "TinyStudent",
    "build_student",
    "count_parameters",
    "enlarge_bicubic",
]

# Registered in the released student but never used in its forward pass (MS 9).
DEAD_PARAMETERS = {
    "unet.time_embedding": 320 * 1280 + 1280 + 1280 * 1280 + 1280,
    "unet.conv_in": 4 * 320 * 9 + 320,
    "unet.conv_out": 320 * 4 * 9 + 4,
    "vae.encoder.layers.14": 64 * 4 * 9 + 4,
    "vae.decoder.layers.0": 4 * 64 * 9 + 64,
}


class BaseStudent(nn.Module):
    """The paper's student: bicubic enlargement, TAESD halves, UNet, two fused convolutions."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.unet = UNet(ablation_spec(config.ablation, config.unet))
        outer = self.unet.spec.widths[0]
        self.encoder = taesd_encoder_head()
        self.merge_in = nn.Conv2d(WIDTH, outer, 3, padding=1)  # Eq. 13
        self.merge_out = nn.Conv2d(outer, WIDTH, 3, padding=1)
        self.decoder = taesd_decoder_tail()
        self.skip = _zero(nn.Conv2d(3, 3, 3, padding=1)) if config.skip else None

    def forward(self, rgb_lr: Tensor) -> Tensor:
        """rgb_lr: (b, 3, h, w) in [-1, 1]. Returns (b, 3, scale*h, scale*w), about [-1, 1].

        h and w must be multiples of ``config.multiple_lr_px``.
        """
        return self.restore(enlarge_bicubic(rgb_lr, self.config.scale))

    def restore(self, enlarged: Tensor) -> Tensor:
        """enlarged: (b, 3, H, W) in [-1, 1], already of the output's size. Same shape back."""
        out: Tensor = self.decoder(self.features(self._into_taesd(enlarged)))
        return self._finish(out, enlarged)

    def features(self, enlarged: Tensor) -> Tensor:
        """What enters the decoder: (b, 3, H, W) -> (b, 64, H/8, W/8)."""
        out: Tensor = self.merge_out(self.unet(self.merge_in(self.encoder(enlarged))))
        return out

    def forward_with_blocks(self, rgb_lr: Tensor) -> tuple[Tensor, BlockOutputs]:
        """As ``forward``, and what distillation compares with the teacher's."""
        return self.restore_with_blocks(enlarge_bicubic(rgb_lr, self.config.scale))

    def restore_with_blocks(self, enlarged: Tensor) -> tuple[Tensor, BlockOutputs]:
        """As ``restore``, and what distillation compares with the teacher's."""
        blocks = self.unet.blocks(self.merge_in(self.encoder(self._into_taesd(enlarged))))
        out: Tensor = self.decoder(self.merge_out(self.unet.head(blocks.last)))
        return self._finish(out, enlarged), blocks

    def _into_taesd(self, rgb: Tensor) -> Tensor:
        return rgb / 2 + 0.5 if self.config.taesd_affine else rgb

    def _finish(self, rgb: Tensor, enlarged: Tensor) -> Tensor:
        rgb = rgb * 2 - 1 if self.config.taesd_affine else rgb
        return rgb if self.skip is None else rgb + self.skip(enlarged)


class LatentStudent(nn.Module):
    """A student without convolution fusion: all of an autoencoder around conv_in ... conv_out."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.codec: Taesd | KLCodec = (
            # As the authors' ablation decodes (MS 9).
            build_kl(config.kl_widths, unscale=False)
            if config.ablation == "kl"
            else Taesd(affine=config.taesd_affine)
        )
        self.unet = UNet(ablation_spec(config.ablation, config.unet))

    def forward(self, rgb_lr: Tensor) -> Tensor:
        """rgb_lr: (b, 3, h, w) in [-1, 1]. Returns (b, 3, scale*h, scale*w), about [-1, 1]."""
        return self.restore(enlarge_bicubic(rgb_lr, self.config.scale))

    def forward_with_blocks(self, rgb_lr: Tensor) -> tuple[Tensor, BlockOutputs]:
        """As ``forward``, and what distillation compares with the teacher's."""
        return self.restore_with_blocks(enlarge_bicubic(rgb_lr, self.config.scale))

    def restore(self, enlarged: Tensor) -> Tensor:
        """enlarged: (b, 3, H, W) in [-1, 1], already of the output's size. Same shape back."""
        return self.restore_with_blocks(enlarged)[0]

    def restore_with_blocks(self, enlarged: Tensor) -> tuple[Tensor, BlockOutputs]:
        """As ``restore``, and what distillation compares with the teacher's."""
        blocks = self.unet.blocks(self.codec.encode(enlarged))
        return self.codec.decode(self.unet.head(blocks.last)), blocks


class TinyStudent(nn.Module):
    """The same UNet, narrower, at half the low-resolution grid; doublings at the end.

    Reads the low-resolution image itself and adds its result to a bilinear enlargement. Enlarges by
    interpolation and convolution, not by pixel shuffle, whose sub-pixel phases a perceptual loss
    turns into a painted grid.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        outer = config.unet.widths[0]
        stem = config.stem_width
        self.stem = nn.Conv2d(3, stem, 3, padding=1)
        self.merge_in = nn.Conv2d(stem, outer, 3, stride=2, padding=1)
        self.unet = UNet(student_spec(config.unet))
        inputs = (outer + stem, *config.decoder_widths[:-1])
        self.doublings = nn.ModuleList(
            nn.Conv2d(i, o, 3, padding=1)
            for i, o in zip(inputs, config.decoder_widths, strict=True)
        )
        self.out = nn.Conv2d(config.decoder_widths[-1], 3, 3, padding=1)

    def forward(self, rgb_lr: Tensor) -> Tensor:
        """rgb_lr: (b, 3, h, w) in [-1, 1]. Returns (b, 3, scale*h, scale*w), about [-1, 1].

        h and w must be multiples of ``config.multiple_lr_px``.
        """
        return self.forward_with_blocks(rgb_lr)[0]

    def forward_with_blocks(self, rgb_lr: Tensor) -> tuple[Tensor, BlockOutputs]:
        """As ``forward``, and what distillation compares with the teacher's.

        At 4x the UNet's grid is that of the teacher's latents, 8 pixels of the result a cell.
        """
        stem = F.silu(self.stem(rgb_lr))
        x = self.merge_in(stem)
        blocks = self.unet.blocks(x)
        x = x + self.unet.head(blocks.last)
        return self._enlarge(x, stem, rgb_lr), blocks

    def _enlarge(self, x: Tensor, stem: Tensor, rgb_lr: Tensor) -> Tensor:
        x = cat((double(x), stem), dim=1)
        x = F.silu(self.doublings[0](x))
        for conv in self.doublings[1:]:
            x = F.silu(conv(double(x)))
        base = F.interpolate(
            rgb_lr, scale_factor=float(self.config.scale), mode="bilinear", align_corners=False
        )
        out: Tensor = base + self.out(x)
        return out


MatchedStudent = BaseStudent | LatentStudent | TinyStudent  # whose blocks match a teacher's
Student = MatchedStudent | LeanStudent


def _zero(conv: nn.Conv2d) -> nn.Conv2d:
    nn.init.zeros_(conv.weight)
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)
    return conv


def build_student(config: ModelConfig) -> Student:
    """A student, or one of the paper's ablations of it, with fresh weights."""
    if config.kind == "tiny":
        return TinyStudent(config)
    if config.kind == "lean":
        return LeanStudent(config)
    return LatentStudent(config) if config.ablation in ("taesd", "kl") else BaseStudent(config)


def enlarge_bicubic(rgb_lr: Tensor, scale: int) -> Tensor:
    """The enlargement that the released student was trained on: a = -0.75, not clamped."""
    return F.interpolate(rgb_lr, scale_factor=float(scale), mode="bicubic", align_corners=False)


def count_parameters(model: nn.Module, *, paper: bool = False) -> int:
    """Parameters that are used; ``paper`` adds those that the released student never uses."""
    used = sum(p.numel() for p in model.parameters())
    return used + sum(DEAD_PARAMETERS.values()) if paper else used

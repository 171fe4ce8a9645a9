"""Between images and latents: all of TAESD, and an adapter for diffusers' AutoencoderKL (MS 1)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from torch import Tensor, nn

from slimdiffsr.errors import ConfigError
from slimdiffsr.models.autoencoder import WIDTH, taesd_decoder_tail, taesd_encoder_head

if TYPE_CHECKING:
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

__all__ = [
    "LATENTS",
    "KLCodec",
    "Taesd",
    "build_kl",
]

LATENTS = 4
SCALING = 0.18215  # makes Stable Diffusion's latents about unit variance


class Taesd(nn.Module):
    """TAESD (MIT, Ollin Boer Bohan): 2,445,063 parameters, latents already scaled.

    ``affine=False`` feeds [-1, 1] to the bare layers and takes [-1, 1] from them, as the released
    student does (MS 8.4); the published weights expect [0, 1] and latents within about +-3.
    """

    def __init__(self, *, affine: bool = True) -> None:
        super().__init__()
        self.affine = affine
        self.encoder = nn.Sequential(*taesd_encoder_head(), nn.Conv2d(WIDTH, LATENTS, 3, padding=1))
        self.decoder = nn.Sequential(nn.Conv2d(LATENTS, WIDTH, 3, padding=1), *taesd_decoder_tail())

    def encode(self, rgb: Tensor) -> Tensor:
        """rgb: (b, 3, 8h, 8w) in [-1, 1]. Returns (b, 4, h, w)."""
        out: Tensor = self.encoder(rgb / 2 + 0.5 if self.affine else rgb)
        return out

    def decode(self, z: Tensor) -> Tensor:
        """z: (b, 4, h, w). Returns (b, 3, 8h, 8w), about [-1, 1]."""
        if not self.affine:
            bare: Tensor = self.decoder(z)
            return bare
        out: Tensor = self.decoder(3 * (z / 3).tanh())
        return 2 * out - 1


class KLCodec(nn.Module):
    """Stable Diffusion's own autoencoder, from diffusers.

    The mode of the posterior stands for a sample. ``unscale=False`` decodes what comes without
    dividing by the scaling factor: the authors' ablation of Table 5 decodes so (MS 9).
    """

    def __init__(self, vae: AutoencoderKL, *, unscale: bool = True) -> None:
        super().__init__()
        self.vae = vae
        self.unscale = unscale

    def encode(self, rgb: Tensor) -> Tensor:
        """rgb: (b, 3, 8h, 8w) in [-1, 1]. Returns (b, 4, h, w), scaled."""
        z: Tensor = self.vae.encode(rgb).latent_dist.mode()
        return SCALING * z

    def decode(self, z: Tensor) -> Tensor:
        """z: (b, 4, h, w), scaled. Returns (b, 3, 8h, 8w), about [-1, 1]."""
        out: Tensor = self.vae.decode(z / SCALING if self.unscale else z).sample
        return out


def build_kl(widths: Sequence[int] = (128, 256, 512, 512), *, unscale: bool = True) -> KLCodec:
    """Stable Diffusion's autoencoder with fresh weights; the default is its true size.

    Raises ConfigError where diffusers is missing.
    """
    try:
        from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
    except ImportError:
        raise ConfigError(
            "Stable Diffusion's autoencoder needs diffusers: pip install 'slimdiffsr[teacher]'"
        ) from None
    vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * len(widths),
        up_block_types=("UpDecoderBlock2D",) * len(widths),
        block_out_channels=tuple(widths),
        layers_per_block=2,
    )
    return KLCodec(vae, unscale=unscale)

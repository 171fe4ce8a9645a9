"""The single-step teacher (Fig. 4): latents, uncertainty, noise level, timestep, UNet, image.

It sees the ground truth through the noise level, so its scores are not those of a blind method;
``hr=None`` puts the estimator's mean in its place and shows how much that is worth (MS 3).
"""

from __future__ import annotations

import re
from typing import NamedTuple

import torch
from torch import Tensor, nn

from slimdiffsr.method.diffusion import PredictionType, invert_timestep, predict_clean
from slimdiffsr.models.lora import UNET_TARGETS, VAE_DECODER_TARGETS, add_lora
from slimdiffsr.models.sd_vae import KLCodec, Taesd
from slimdiffsr.models.uncertainty import NoiseLevelPredictor, UncertaintyEstimator
from slimdiffsr.models.unet import BlockOutputs, UNet

__all__ = ["Guidance", "Teacher", "TeacherOutput", "adapt"]

TAESD_DECODER_TARGETS = re.compile(r"decoder\..*")


class Guidance(NamedTuple):
    """What the UNet is told: abar_target and t*, (b, 1, h, w) or (b, 1, 1, 1), float32."""

    alpha_bar: Tensor
    timestep: Tensor


class TeacherOutput(NamedTuple):
    """The restored image, about [-1, 1] and not clamped, and the guidance it was made with."""

    sr: Tensor
    guidance: Guidance


class Teacher(nn.Module):
    """Restores an enlarged image in one step from its own latent: no noise is added (MS 5).

    ``prompt``: the fixed sentence's embedding, (1, tokens, width), where the UNet reads text.
    ``detach_embedding`` trains the predictor through the closed form alone, where the way through
    the time embedding is too noisy.
    """

    schedule: Tensor
    prompt: Tensor | None

    def __init__(
        self,
        unet: UNet,
        codec: KLCodec | Taesd,
        estimator: UncertaintyEstimator,
        predictor: NoiseLevelPredictor,
        schedule: Tensor,
        *,
        prompt: Tensor | None = None,
        prediction: PredictionType = "epsilon",
        detach_embedding: bool = False,
    ) -> None:
        super().__init__()
        self.unet = unet
        self.codec = codec
        self.estimator = estimator.requires_grad_(False)
        self.predictor = predictor
        self.prediction: PredictionType = prediction
        self.detach_embedding = detach_embedding
        self.register_buffer("schedule", schedule, persistent=False)
        self.register_buffer("prompt", prompt, persistent=False)

    def forward(self, enlarged: Tensor, hr: Tensor | None) -> TeacherOutput:
        """enlarged, hr: (b, 3, H, W) in [-1, 1], sides multiples of 64 with Stable Diffusion's UNet.

        Without ``hr`` the estimator's mean stands for the ground truth's latent.
        """
        z_lr, guidance = self.guide(enlarged, hr)
        prediction = self.unet(z_lr, self._timestep(guidance), self._text(len(z_lr)))
        z0 = predict_clean(z_lr, prediction, guidance.alpha_bar, self.prediction)
        return TeacherOutput(self.codec.decode(z0), guidance)

    def blocks(self, enlarged: Tensor, hr: Tensor | None) -> BlockOutputs:
        """What the student is compared with; head and decoder are not run. Arguments as above."""
        return self.blocks_at(*self.guide(enlarged, hr))

    def blocks_at(self, z_lr: Tensor, guidance: Guidance) -> BlockOutputs:
        """``blocks`` of a latent (b, 4, h, w), with guidance from ``guide`` or from elsewhere."""
        return self.unet.blocks(z_lr, self._timestep(guidance), self._text(len(z_lr)))

    def guide(self, enlarged: Tensor, hr: Tensor | None) -> tuple[Tensor, Guidance]:
        """z_lr (b, 4, h, w) and the guidance for it: Eqs. 1, 10 and 11."""
        with torch.no_grad():  # the encoder is frozen
            z_lr = self.codec.encode(enlarged).float()
            z_gt = None if hr is None else self.codec.encode(hr).float()
        # In bfloat16 the map would move in steps of whole timesteps.
        with torch.autocast(z_lr.device.type, enabled=False):
            with torch.no_grad():  # so is the estimator
                mean, log_var = self.estimator(z_lr)
            alpha_bar = self.predictor(mean if z_gt is None else z_gt, log_var)
        return z_lr, Guidance(alpha_bar, invert_timestep(alpha_bar, self.schedule))

    def _timestep(self, guidance: Guidance) -> Tensor:
        return guidance.timestep.detach() if self.detach_embedding else guidance.timestep

    def _text(self, count: int) -> Tensor | None:
        return None if self.prompt is None else self.prompt.expand(count, -1, -1)


def adapt(
    teacher: Teacher,
    *,
    unet_rank: int = 32,
    decoder_rank: int = 16,
    train_conv_in: bool = True,
    rng: torch.Generator | None = None,
) -> None:
    """Make a teacher ready for stage 1, in place (MS 6).

    What trains: LoRA on the UNet and on the decoder, conv_in, the predictor. All else is frozen.
    """
    trained = [p for p in teacher.predictor.parameters() if p.requires_grad]
    teacher.requires_grad_(False)
    add_lora(teacher.unet, UNET_TARGETS, unet_rank, rng=rng)
    if isinstance(teacher.codec, KLCodec):
        add_lora(teacher.codec.vae, VAE_DECODER_TARGETS, decoder_rank, rng=rng)
    else:
        add_lora(teacher.codec, TAESD_DECODER_TARGETS, decoder_rank, rng=rng)
    for parameter in trained:
        parameter.requires_grad_(True)
    if train_conv_in and teacher.unet.conv_in is not None:
        teacher.unet.conv_in.requires_grad_(True)

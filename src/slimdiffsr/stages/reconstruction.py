"""L_Rec of Eq. 20, L1 + LPIPS + adversarial, with the adversary and its own step."""

from __future__ import annotations

from collections.abc import Callable

import torch
from accelerate.accelerator import Accelerator
from torch import Tensor, nn

from slimdiffsr.degrade import image_generator
from slimdiffsr.method.losses import (
    adversarial_loss,
    coarse_loss,
    discriminator_loss,
    perceptual_loss,
)
from slimdiffsr.models.discriminator import DinoDiscriminator
from slimdiffsr.models.feature_discriminator import FeatureDiscriminator
from slimdiffsr.settings.config import StudentLoss
from slimdiffsr.stages.graphs import Recorded, prepare
from slimdiffsr.stages.processes import rows_of
from slimdiffsr.training.loop import bare

__all__ = ["Distance", "Reconstruction"]

Distance = Callable[[Tensor, Tensor], Tensor]


class Reconstruction:
    """The losses of Eq. 20 with their weights and their start; images in [-1, 1].

    lpips: None where its weight is 0 and nothing is to be measured by it.
    """

    def __init__(
        self,
        weights: StudentLoss,
        lpips: Distance | None,
        adversary: nn.Module,
        accelerator: Accelerator,
        seed: int,
        *,
        graphs: bool = False,
    ) -> None:
        self.weights = weights
        self.lpips = lpips
        self.accelerator = accelerator
        self.seed = seed
        self.augments = isinstance(adversary, DinoDiscriminator)
        self.compares = isinstance(adversary, FeatureDiscriminator)
        graphs = graphs and not self.augments  # whose random views are drawn on the CPU
        self.adversary = prepare(adversary, accelerator, graphs=graphs)
        # For the network's own step: the same weights, held still, not shared by processes.
        self.judge = Recorded(adversary, accelerator) if graphs else bare(self.adversary)

    def adversarial(self, step: int) -> bool:
        """Whether the adversary takes part in this step."""
        return self.weights.gan > 0 and step > self.weights.gan_from

    def loss(
        self, sr: Tensor, hr: Tensor, lr: Tensor, step: int
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """L_Rec to descend on, and its terms by name. sr, hr: (b, 3, h, w); lr: what sr is made of."""
        weights = self.weights
        terms = {"l1": (sr.float() - hr).abs().mean()}
        total = weights.l1 * terms["l1"]
        if self.lpips is not None and weights.lpips > 0 and step > weights.perceptual_from:
            rng = image_generator(self.seed + 1, step) if weights.lpips_jitter else None
            terms["lpips"] = perceptual_loss(self.lpips, sr.float(), hr, rng)  # float32: MS 11
            total = total + weights.lpips * terms["lpips"]
        if weights.coarse > 0:
            terms["coarse"] = coarse_loss(sr.float(), hr, hr.shape[-1] // lr.shape[-1])
            total = total + weights.coarse * terms["coarse"]
        if self.adversarial(step):
            self.judge.requires_grad_(False)
            with self.accelerator.autocast():
                logits = self._judge(self.judge, sr, lr, step)
                terms["gan"] = adversarial_loss(logits, weights.gan_kind)
            total = total + weights.gan * terms["gan"]
        return total, terms

    def adversary_loss(self, sr: Tensor, hr: Tensor, lr: Tensor, step: int) -> Tensor:
        """What the adversary descends on, for a result that is already made."""
        self.adversary.requires_grad_(True)
        with self.accelerator.autocast():
            images = torch.cat((hr, sr.detach().to(hr.dtype)))
            both = self._judge(self.adversary, images, torch.cat((lr, lr)), step, parts=2)
            real, fake = zip(*(level.chunk(2) for level in both), strict=True)
            return discriminator_loss(list(real), list(fake), self.weights.gan_kind)

    def _judge(
        self, adversary: nn.Module, rgb: Tensor, lr: Tensor, step: int, parts: int = 1
    ) -> list[Tensor]:
        # Only DINO's heads want augmented images (MS 7): the U-Net looks at single pixels.
        if self.augments:
            rng = image_generator(self.seed + 3, step)
            rows = rows_of(self.accelerator, len(rgb), parts)
            levels: list[Tensor] = adversary(rgb, rng, rows)
            return levels
        logits: list[Tensor] = adversary(rgb, lr) if self.compares else adversary(rgb)
        return logits

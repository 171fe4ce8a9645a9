"""A network and its adversary, one step each in turn; large batches in pieces."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any, Literal, NamedTuple

import torch
from accelerate.accelerator import Accelerator
from torch import Tensor, nn
from torch.optim import Optimizer

from slimdiffsr.errors import ConfigError
from slimdiffsr.models.discriminator import DinoDiscriminator, UNetDiscriminator, load_dino
from slimdiffsr.models.feature_discriminator import FeatureDiscriminator
from slimdiffsr.models.lpips import LPIPS
from slimdiffsr.settings.config import LoopConfig
from slimdiffsr.stages.processes import share_gradients
from slimdiffsr.stages.reconstruction import Reconstruction

__all__ = ["Alternation", "Attempt", "build_adversary"]


class Attempt(NamedTuple):
    """A result, what to descend on, and the terms of that by name."""

    sr: Tensor
    loss: Tensor
    terms: Mapping[str, Tensor]


def build_adversary(
    kind: Literal["unet", "dino", "features"], width: int, dino: str, lpips: LPIPS | None
) -> nn.Module:
    """The U-Net discriminator of that width, the paper's heads on DINO, or heads on LPIPS's network.

    Raises ConfigError without that network.
    """
    if kind == "features":
        if lpips is None:
            raise ConfigError("adversary=features looks with LPIPS's network: give --lpips FILE")
        return FeatureDiscriminator(lpips, width)
    if kind == "unet":
        return UNetDiscriminator(width)
    backbone = load_dino(dino)
    return DinoDiscriminator(backbone, width=int(backbone.vit.config.hidden_size))


class Alternation:
    """One step of the network, then one of its adversary.

    networks, optimizers: by name, one of them ``adversary``, the other ``name``.
    """

    def __init__(
        self,
        config: LoopConfig,
        accelerator: Accelerator,
        reconstruction: Reconstruction,
        networks: Mapping[str, nn.Module],
        optimizers: Mapping[str, Optimizer],
    ) -> None:
        self.config = config
        self.accelerator = accelerator
        self.reconstruction = reconstruction
        self.networks = networks
        self.optimizers = optimizers

    def update(
        self,
        name: str,
        attempt: Callable[[Tensor, Tensor], Attempt],
        batch: tuple[Tensor, Tensor],
        step: int,
    ) -> dict[str, Tensor]:
        """Both steps on one batch, LR and HR in [-1, 1]. Returns losses by name.

        A batch in pieces has the gradient of the whole, but for what looks at all its images at
        once: the feature scale and the sampled vectors of distillation.
        """
        count = self.config.accumulate
        attempts: list[tuple[Tensor, dict[str, Tensor]]] = []
        truths, inputs = [], []
        for lr, hr in zip(*(images.chunk(count) for images in batch), strict=True):
            with self._piece(name, last=len(attempts) + 1 == count):
                sr, loss, terms = attempt(lr, hr)
                self.accelerator.backward(loss / count)
            attempts.append((sr.detach(), {k: v.detach() for k, v in terms.items()}))
            truths.append(hr)
            inputs.append(lr)
        self._descend(name)
        logged = [terms for _, terms in attempts]
        losses = {key: torch.stack([terms[key] for terms in logged]).mean() for key in logged[0]}
        if self.reconstruction.adversarial(step):
            judged: list[Tensor] = []
            for (sr, _), hr, lr in zip(attempts, truths, inputs, strict=True):
                with self._piece("adversary", last=len(judged) + 1 == count):
                    loss = self.reconstruction.adversary_loss(sr, hr, lr, step)
                    self.accelerator.backward(loss / count)
                judged.append(loss.detach())
            self._descend("adversary")
            losses["adversary"] = torch.stack(judged).mean()
        return losses

    def _piece(self, name: str, *, last: bool) -> AbstractContextManager[Any]:
        return share_gradients(self.accelerator, self.networks[name], now=last)

    def _descend(self, name: str) -> None:
        parameters = [p for p in self.networks[name].parameters() if p.requires_grad]
        self.accelerator.clip_grad_norm_(parameters, self.config.grad_clip)
        self.optimizers[name].step()
        self.optimizers[name].zero_grad(set_to_none=True)

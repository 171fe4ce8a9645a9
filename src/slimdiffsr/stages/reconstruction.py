"""L_Rec of Eq. 20, L1 + LPIPS + adversarial, with the adversary and its own step."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from accelerate.accelerator import Accelerator
from torch import Tensor, nn

from slimdiffsr.checkpoint import (
    encode,
    file_sha256,
    load_strict,
    load_tensors,
    write_atomically,
)
from slimdiffsr.config import LpipsNet, StudentLoss
from slimdiffsr.degrade import image_generator
from slimdiffsr.errors import ConfigError, DataError, WeightsError
from slimdiffsr.losses import adversarial_loss, discriminator_loss, perceptual_loss
from slimdiffsr.models.discriminator import DinoDiscriminator
from slimdiffsr.models.lpips import LPIPS, LPIPS_NETS, from_package, recognise
from slimdiffsr.stages.graphs import Recorded, prepare
from slimdiffsr.stages.processes import rows_of
from slimdiffsr.training import bare

__all__ = ["Distance", "Reconstruction", "import_lpips", "load_lpips"]

Distance = Callable[[Tensor, Tensor], Tensor]


def load_lpips(path: Path | None, net: LpipsNet | None = None) -> LPIPS:
    """LPIPS from a file, or from the ``lpips`` package, which downloads the backbone.

    net: which one it must be; None takes what the file holds, or SqueezeNet. Frozen, float32.
    Raises WeightsError when the file does not fit, DataError when there is neither.
    """
    if path is None:
        net = net or "squeeze"
        source, tensors = f"the lpips package ({net})", _packaged(net)
    else:
        source, (tensors, _) = str(path), load_tensors(path)
        found = recognise(tensors)
        if net is not None and found not in (None, net):
            raise WeightsError(
                f"{path} holds LPIPS over {found}, but over {net} is asked for: give such a file "
                f"(slimdiffsr import-lpips), or set loss.lpips_net={found}"
            )
        net = found or net or "squeeze"  # where nothing fits, loading says what is missing
    model = LPIPS(net)
    load_strict(model, {key: value.float() for key, value in tensors.items()}, source)
    return model.eval().requires_grad_(False)


def import_lpips(target: Path, net: LpipsNet) -> str:
    """Write the ``lpips`` package's weights as a file for ``load_lpips``. Returns its sha256.

    Raises ConfigError for another net, DataError without the package, OutputError.
    """
    if net not in LPIPS_NETS:
        raise ConfigError(f"net must be one of {', '.join(LPIPS_NETS)}, got {net!r}")
    write_atomically(target, encode(load_lpips(None, net).state_dict(), {"lpips_net": net}))
    return file_sha256(target)


def _packaged(net: LpipsNet) -> dict[str, Tensor]:
    try:
        import lpips
    except ImportError:
        raise DataError(
            "LPIPS needs weights: give --lpips FILE.safetensors, or pip install 'slimdiffsr[lpips]'"
        ) from None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it calls torchvision in a way that is going out of use
        try:
            packaged = lpips.LPIPS(net=net, verbose=False)
        except OSError as error:  # URLError is one
            raise DataError(
                f"the lpips package cannot download its {net} backbone ({error}): give --lpips "
                "FILE.safetensors, made by slimdiffsr import-lpips where there is a connection"
            ) from None
    return from_package(packaged.state_dict())


class Reconstruction:
    """The losses of Eq. 20 with their weights and their start; images in [-1, 1]."""

    def __init__(
        self,
        weights: StudentLoss,
        lpips: Distance,
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
        graphs = graphs and not self.augments  # whose random views are drawn on the CPU
        self.adversary = prepare(adversary, accelerator, graphs=graphs)
        # For the network's own step: the same weights, held still, not shared by processes.
        self.judge = Recorded(adversary, accelerator) if graphs else bare(self.adversary)

    def adversarial(self, step: int) -> bool:
        """Whether the adversary takes part in this step."""
        return self.weights.gan > 0 and step > self.weights.gan_from

    def loss(self, sr: Tensor, hr: Tensor, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        """L_Rec to descend on, and its terms by name. sr, hr: (b, 3, h, w)."""
        weights = self.weights
        terms = {"l1": (sr.float() - hr).abs().mean()}
        total = weights.l1 * terms["l1"]
        if weights.lpips > 0 and step > weights.perceptual_from:
            rng = image_generator(self.seed + 1, step) if weights.lpips_jitter else None
            terms["lpips"] = perceptual_loss(self.lpips, sr.float(), hr, rng)  # float32: MS 11
            total = total + weights.lpips * terms["lpips"]
        if self.adversarial(step):
            self.judge.requires_grad_(False)
            with self.accelerator.autocast():
                terms["gan"] = adversarial_loss(self._judge(self.judge, sr, step), weights.gan_kind)
            total = total + weights.gan * terms["gan"]
        return total, terms

    def adversary_loss(self, sr: Tensor, hr: Tensor, step: int) -> Tensor:
        """What the adversary descends on, for a result that is already made."""
        self.adversary.requires_grad_(True)
        with self.accelerator.autocast():
            images = torch.cat((hr, sr.detach().to(hr.dtype)))
            both = self._judge(self.adversary, images, step, parts=2)
            real, fake = zip(*(level.chunk(2) for level in both), strict=True)
            return discriminator_loss(list(real), list(fake), self.weights.gan_kind)

    def _judge(self, adversary: nn.Module, rgb: Tensor, step: int, parts: int = 1) -> list[Tensor]:
        # Only DINO's heads want augmented images (MS 7): the U-Net looks at single pixels.
        if self.augments:
            rng = image_generator(self.seed + 3, step)
            rows = rows_of(self.accelerator, len(rgb), parts)
            levels: list[Tensor] = adversary(rgb, rng, rows)
            return levels
        logits: list[Tensor] = adversary(rgb)
        return logits

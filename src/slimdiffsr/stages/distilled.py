"""Stage 2's teacher: what the student inherits from it, and how it imitates its blocks (MS 10)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from accelerate.accelerator import Accelerator
from torch import Tensor, nn

from slimdiffsr.degrade import image_generator
from slimdiffsr.method.distillation import Adapters, compare_features
from slimdiffsr.method.teacher import Teacher
from slimdiffsr.models.pruning import prune
from slimdiffsr.models.spec import UNetSpec
from slimdiffsr.models.student import BaseStudent, LatentStudent, MatchedStudent
from slimdiffsr.settings.config import DistillConfig
from slimdiffsr.stages.graphs import Recorded
from slimdiffsr.stages.processes import shares_of

__all__ = ["Distillation", "Imitator", "inherit"]


def inherit(
    student: BaseStudent | LatentStudent,
    teacher: Mapping[str, Tensor],
    taesd: Mapping[str, Tensor] | None,
) -> None:
    """Semantic-aware pruning (MS 8.3), in place: from the weights of the teacher's UNet and TAESD.

    Without ``taesd`` another autoencoder keeps what it has. Raises WeightsError where their widths
    differ.
    """
    pruned = prune(student.state_dict(), student.unet.spec, teacher, taesd)
    student.load_state_dict(pruned.weights)


class Imitator(nn.Module):
    """A student that also hands out its blocks, in its teacher's widths (phi of Eq. 17)."""

    def __init__(self, student: MatchedStudent, teacher: UNetSpec, *, mid: bool = False) -> None:
        super().__init__()
        self.student = student
        self.mid = mid
        ours, theirs = (compared_widths(spec, mid) for spec in (student.unet.spec, teacher))
        self.adapters = Adapters(ours, theirs)

    def forward(self, rgb_lr: Tensor) -> tuple[Tensor, list[Tensor]]:
        """rgb_lr: (b, 3, h, w) in [-1, 1]. Returns the student's image and the adapted blocks."""
        sr, blocks = self.student.forward_with_blocks(rgb_lr)
        return sr, self.adapters(blocks.compared(mid=self.mid))


def compared_widths(spec: UNetSpec, mid: bool) -> list[int]:
    """Channels of the blocks that are compared."""
    first, second, *deeper = spec.widths
    widths = [first, second, second, first]
    # Up level 1 is entered by what the level below made, or else by the middle.
    return [*widths, deeper[0] if deeper else spec.mid_width] if mid else widths


class Matched(nn.Module):
    """A teacher as far as its last matched block."""

    def __init__(self, teacher: Teacher, *, mid: bool) -> None:
        super().__init__()
        self.teacher = teacher
        self.mid = mid

    def forward(self, enlarged: Tensor, hr: Tensor) -> tuple[Tensor, ...]:
        """enlarged, hr: (b, 3, H, W) in [-1, 1]. Returns the blocks that are compared."""
        return self.teacher.blocks(enlarged, hr).compared(mid=self.mid)


class Distillation:
    """L_Dis against a frozen teacher, which runs up to its last matched block and no further."""

    def __init__(
        self,
        config: DistillConfig,
        teacher: Teacher,
        seed: int,
        accelerator: Accelerator,
        *,
        graphs: bool = False,
    ) -> None:
        self.config = config
        self.teacher = teacher.to(accelerator.device).eval().requires_grad_(False)
        matched = Matched(self.teacher, mid=config.mid)
        self.matched = Recorded(matched, accelerator) if graphs else matched
        self.seed = seed
        self.accelerator = accelerator

    def loss(
        self, adapted: Sequence[Tensor], enlarged: Tensor, hr: Tensor, step: int
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """L_Dis to descend on, and its terms by name. enlarged, hr: (b, 3, H, W) in [-1, 1]."""
        with torch.no_grad(), self.accelerator.autocast():
            theirs = self.matched(enlarged, hr)
        config = self.config
        terms = compare_features(
            adapted,
            theirs,
            image_generator(self.seed + 4, step),
            mmd_weight=config.mmd_weight,
            norm=config.norm,
            samples=config.samples,
            kernels=config.kernels,
            shares=shares_of(self.accelerator),
        )
        total = config.mse * terms.mse + config.mmd_weight * terms.mmd
        return total, {"mse": terms.mse, "mmd": terms.mmd, "raw_mse": terms.raw_mse}

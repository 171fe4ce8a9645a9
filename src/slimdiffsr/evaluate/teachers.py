"""The paper's teachers as methods: they look at the truth, so they are no rivals of what does not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import torch
from torch import Tensor

from slimdiffsr.datasets.images import Rgb8, to_rgb8, to_signed
from slimdiffsr.errors import ConfigError, DataError
from slimdiffsr.evaluate.methods import Method, identify
from slimdiffsr.evaluate.pairs import Pairs
from slimdiffsr.files.teachers import load_teacher
from slimdiffsr.files.tensors import file_sha256
from slimdiffsr.models.student import enlarge_bicubic
from slimdiffsr.runtime.devices import pick_device
from slimdiffsr.upscale import restore

__all__ = ["TeacherFile", "load_teacher_file"]


@dataclass(frozen=True, slots=True)
class TeacherFile:
    """A merged teacher; ``blind``: its estimator's mean stands for the truth (MS 3)."""

    path: Path
    name: str
    blind: bool = False

    @classmethod
    def parse(cls, text: str) -> TeacherFile:
        """From ``[NAME=]FILE[,mean]``. Raises ConfigError."""
        first, comma, setting = text.partition(",")
        if comma and setting != "mean":
            raise ConfigError(
                f"a teacher is [NAME=]FILE, perhaps with ,mean behind it: got {text!r}"
            )
        name, equals, rest = first.partition("=")
        path = Path(rest if equals else first)
        return cls(path, name if equals else path.stem + ("-mean" if comma else ""), bool(comma))


def load_teacher_file(file: TeacherFile, device: str = "auto") -> Callable[[Pairs], Method]:
    """A function from a set of pairs, whose truths the teacher looks at, to the teacher as a method.

    Float32; images are padded to what the UNet can halve, by reflection at the right and lower
    edge. Outputs that hang on the truth have no identity and are made each time. Raises
    WeightsError and ChecksumError.
    """
    chosen = pick_device(device)
    teacher = load_teacher(file.path).to(chosen)
    unit_hr_px = teacher.unet.spec.unit_hr_px
    digest = file_sha256(file.path)
    seen = "the estimator's mean for the truth" if file.blind else "looks at the truth"
    about = f"teacher {file.path.name}, sha256 {digest}, {seen}, float32 on {chosen.type}"

    def run(both: Tensor) -> Tensor:
        # (1, 3 or 6, H, W): the enlarged input, and the truth where it is looked at.
        image: Tensor = teacher(both[:, :3], None if file.blind else both[:, 3:]).sr
        return image

    def on(pairs: Pairs) -> Method:
        def make(rgb_lr: Rgb8, image: str) -> Rgb8:
            shown = [enlarge_bicubic(to_signed(rgb_lr, chosen), pairs.scale)]
            if not file.blind:
                truth = pairs.read(image)[1]
                if truth is None:
                    raise DataError(f"there is no truth for {file.name} to look at: add ,mean")
                shown.append(to_signed(truth, chosen))
            with torch.inference_mode():
                sr = restore(run, torch.cat(shown, dim=1), 1, unit_hr_px)[0]
            if not bool(sr.isfinite().all()):
                raise DataError("the teacher returned values that are not finite")
            return to_rgb8(sr)

        identity = identify(about, str(pairs.scale), version("torch"), version("slimdiffsr"))
        return Method(file.name, make, about, identity if file.blind else "")

    return on

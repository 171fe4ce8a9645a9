"""Every setting, as frozen dataclasses that check themselves.

Presets (``presets.py``) are Python values; a TOML file or ``--set`` only overrides them, and an
unknown key is an error. Sources: "MS n" is section n of the method notes in ``docs/method.md``.
"""

from __future__ import annotations

import dataclasses
import math
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass
from pydantic_core import ErrorDetails

from slimdiffsr.errors import ConfigError
from slimdiffsr.settings.recipe import (
    STRICT,
    Blur,
    Light,
    Noise,
    Recipe,
    Resize,
    Share,
    Stage,
    check,
)

__all__ = [
    "Ablation",
    "Blur",
    "Count",
    "DistillConfig",
    "Index",
    "LeanConfig",
    "Light",
    "LoopConfig",
    "LpipsNet",
    "ModelConfig",
    "Noise",
    "Rate",
    "Recipe",
    "Resize",
    "Stage",
    "StudentLoss",
    "TrainConfig",
    "UNetConfig",
    "Weight",
    "merge",
    "override",
    "parse",
    "read_toml",
    "to_dict",
]

T = TypeVar("T")
Count = Annotated[int, Field(ge=1)]
Index = Annotated[int, Field(ge=0)]
Width = Annotated[int, Field(ge=8, multiple_of=8)]
KlWidth = Annotated[int, Field(ge=32, multiple_of=32)]
Window = Annotated[int, Field(ge=4, multiple_of=2)]
Decay = Annotated[float, Field(ge=0, lt=1)]
Weight = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Shrink = Annotated[float, Field(ge=1, le=8)]
Rate = Annotated[float, Field(gt=0, allow_inf_nan=False)]


# ---------------------------------------------------------------------------------------------
# Models


@dataclass(frozen=True, slots=True, config=STRICT)
class UNetConfig:
    """The two-level student UNet (MS 8); defaults are the paper's."""

    widths: tuple[Width, Width] = (320, 640)
    mid_width: Width = 1280
    layers: Count = 2
    norm: Literal["group", "pixel"] = "group"  # pixel: channel norm at each position, local
    groups: Count = 32
    ff_mult: Count = 4
    queries: Count = 32
    squeeze: Count = 64
    window_px: Window | None = None  # pooling window in cells of level 0; None pools the whole tile

    def __post_init__(self) -> None:
        for width in (*self.widths, self.mid_width):
            check(
                self.norm == "pixel" or width % self.groups == 0,
                f"width {width} is not divisible into {self.groups} groups",
            )


@dataclass(frozen=True, slots=True, config=STRICT)
class LeanConfig:
    """The lean student: levels from the input's grid down to coarser ones, no norms."""

    widths: tuple[Count, ...] = (48, 96, 192)
    depths: tuple[Count, ...] = (3, 3, 2)  # blocks of each level before, and as many after
    kernel: Literal[3, 5, 7, 9] = 5
    mult: Count = 2
    decoder_widths: tuple[Count, ...] = (28, 12)  # channels at 2x, 4x, ... scale x

    def __post_init__(self) -> None:
        check(
            len(self.widths) == len(self.depths) > 0,
            f"one depth a level: got widths {self.widths} and depths {self.depths}",
        )


# The rows of Tables 5 and 6: with a whole autoencoder around the UNet, or without one of the parts.
Ablation = Literal["ours", "taesd", "kl", "no_dsc", "no_fsc", "no_qgam", "no_sap"]


@dataclass(frozen=True, slots=True, config=STRICT)
class ModelConfig:
    """A student: what stands before and behind the UNet, and how scenes are cut for it."""

    name: str
    scale: Literal[2, 4, 8]
    kind: Literal["base", "tiny", "lean"] = "base"
    ablation: Ablation = "ours"  # base only
    kl_widths: tuple[KlWidth, ...] = (128, 256, 512, 512)  # ablation="kl" only: its autoencoder's
    unet: UNetConfig = UNetConfig()
    lean: LeanConfig = LeanConfig()  # lean only
    skip: bool = False  # base only: a convolution from the enlarged input, zero at the start
    stem_width: Count = 24  # tiny only: channels at the low-resolution grid
    decoder_widths: tuple[Count, ...] = ()  # tiny only: channels at 1x, 2x, ... scale x
    taesd_affine: bool = False  # MS 8.4: False feeds [-1, 1] into the TAESD layers, as released
    tile_hr_px: Count = 512
    overlap_hr_px: Index = 64

    @property
    def multiple_lr_px(self) -> int:
        """Sides of the low-resolution input must be multiples of this."""
        if self.kind == "lean":
            return 1 << (len(self.lean.widths) - 1)
        # Cells of level 0 that make one of the deepest level: two, or eight with all four levels.
        level0_px = math.lcm(self.unet.window_px or 2, 8 if self.ablation == "no_sap" else 2)
        # TAESD divides the enlarged image by 8, the tiny student's stem the image itself by 2.
        return 8 * level0_px // self.scale if self.kind == "base" else 2 * level0_px

    def __post_init__(self) -> None:
        unit = 16 * self.scale
        check(self.tile_hr_px % unit == 0, f"tile_hr_px {self.tile_hr_px} is no multiple of {unit}")
        check(
            self.kind == "base" or self.ablation == "ours",
            f"ablations are of the base student, got kind={self.kind!r} and "
            f"ablation={self.ablation!r}",
        )
        check(
            len(self.kl_widths) == 4,
            f"an autoencoder that makes latents of an eighth has 4 kl_widths, got {self.kl_widths}",
        )
        check(
            self.overlap_hr_px <= self.tile_hr_px // 2
            and self.overlap_hr_px % (2 * self.scale) == 0,
            f"overlap_hr_px must be a multiple of {2 * self.scale} up to half a tile, "
            f"got {self.overlap_hr_px}",
        )
        tile_lr_px = self.tile_hr_px // self.scale
        step_lr_px = tile_lr_px - self.overlap_hr_px // self.scale
        multiple = self.multiple_lr_px
        check(
            self.unet.window_px is None or tile_lr_px % multiple == step_lr_px % multiple == 0,
            f"tiles of {tile_lr_px} LR pixels, {step_lr_px} apart, are not anchored to the pooling "
            f"windows, which need multiples of {multiple}",
        )
        levels = self.scale.bit_length()
        check(
            self.kind != "tiny" or len(self.decoder_widths) == levels,
            f"a tiny {self.scale}x model needs {levels} decoder_widths, got {self.decoder_widths}",
        )
        check(
            self.kind != "lean" or len(self.lean.decoder_widths) == levels - 1,
            f"a lean {self.scale}x model needs {levels - 1} lean.decoder_widths, got "
            f"{self.lean.decoder_widths}",
        )


# ---------------------------------------------------------------------------------------------
# Training


LpipsNet = Literal["squeeze", "vgg", "alex"]


@dataclass(frozen=True, slots=True, config=STRICT)
class StudentLoss:
    """Weights of Eq. 20, and two cures for grids that LPIPS alone does not see."""

    l1: Weight = 1.0
    lpips: Weight = 2.5
    lpips_net: LpipsNet = "squeeze"  # what LPIPS looks with; vgg in the paper's kin (MS 7)
    gan: Weight = 0.25
    gan_kind: Literal["hinge", "bce_s"] = "hinge"
    perceptual_from: Index = 0  # steps without LPIPS at the start
    gan_from: Index = 0  # steps without the adversarial term at the start
    coarse: Weight = 0.0  # L1 between result and truth, both averaged down to the input's grid
    lpips_jitter: bool = False  # LPIPS on randomly shifted, flipped and rescaled copies


@dataclass(frozen=True, slots=True, kw_only=True, config=STRICT)
class LoopConfig:
    """What every training run has: data, optimiser, precision, how often it saves and looks."""

    recipe: Recipe = Recipe()
    steps: Count = 100_000
    batch: Count = 16  # images a step over all processes together
    crop_hr_px: Count = 512
    # Black and white of images of more than 8 bits; None: found as upscale --range auto does.
    value_range: tuple[float, float] | None = None
    lr: Rate = 5e-5
    lr_final: Weight | None = None  # cosine decay to this; None keeps lr constant
    warmup: Index = 0
    decay_from: Index = 0  # first step of the cosine
    betas: tuple[Decay, Decay] = (0.9, 0.999)
    weight_decay: Weight = 0.0
    grad_clip: Rate = 1.0
    ema: Decay = 0.0  # 0 keeps no average
    precision: Literal["no", "bf16"] = "no"  # fp16 would need loss scaling
    compile: bool = False
    graphs: bool = False  # CUDA: record the networks' passes, replay them as one launch each
    seed: Index = 20260
    workers: Index = 2
    pool: Index = 0  # prepare this many pairs and draw from them; 0 makes new pairs for each step
    refresh: bool = False  # go on preparing pairs during training, over the pool's oldest
    shrink: tuple[Shrink, Shrink] = (1.0, 1.0)  # average images down by a factor from here, first
    flat: Share = 0.0  # share of crops in whose place comes a plain surface of their mean colour
    balance: Share = 0.0  # 1 draws all folders alike, 0 all pixels alike
    log_every: Count = 50
    save_every: Count = 1000
    validate_every: Count = 1000
    validation_images: Index = 8  # 0: no validation
    flip_all: bool = False  # flips and quarter turns, which overhead images allow; else MS 12's
    accumulate: Count = 1  # pieces a batch is worked through in, with gradients added up
    checkpointing: bool = False  # the UNet's blocks are run again on the way back: less memory

    def __post_init__(self) -> None:
        check(
            self.value_range is None or self.value_range[0] < self.value_range[1],
            f"value_range must be an ascending pair, got {self.value_range}",
        )
        check(
            self.batch % self.accumulate == 0,
            f"a batch of {self.batch} cannot be worked through in {self.accumulate} equal pieces",
        )
        check(
            not self.graphs
            or (not self.compile and not self.checkpointing and self.accumulate == 1),
            "graphs=true needs compile=false, checkpointing=false and accumulate=1",
        )


@dataclass(frozen=True, slots=True, config=STRICT)
class DistillConfig:
    """L_Dis of Eq. 19 (MS 10); ``mmd_weight=0`` is Table 7's No-MMD."""

    mse: Weight = 1.0
    mmd_weight: Weight = 0.1  # lambda
    norm: Literal["teacher_rms", "none"] = "teacher_rms"
    samples: Annotated[int, Field(ge=2)] = 1024  # channel vectors a block and step
    kernels: Literal[1, 5] = 1
    mid: bool = False  # also what the student's middle block stands in for, as a fifth block


@dataclass(frozen=True, slots=True, kw_only=True, config=STRICT)
class TrainConfig(LoopConfig):
    """One training run of a student."""

    model: ModelConfig
    loss: StudentLoss = StudentLoss()
    # features: heads on the frozen network of LPIPS, that see the enlarged input too
    adversary: Literal["unet", "dino", "features"] = "unet"
    discriminator_width: Count = 64  # unet only
    lr_adversary: Rate | None = None  # None: as lr
    distill: DistillConfig | None = None  # None: no teacher is imitated, Table 7's No-Dis
    # Where the student begins: at random, as pruned Stable Diffusion (or the prior in its place), or
    # as its pruned teacher, which is that with what stage 1 taught it (MS 6, 8.3).
    init: Literal["fresh", "sd", "teacher"] = "fresh"

    def __post_init__(self) -> None:
        LoopConfig.__post_init__(self)  # super() fails in classes with slots
        check(
            self.model.kind == "base" or self.init == "fresh",
            f"a {self.model.kind} student has none of the teacher's parts: init must be fresh",
        )
        check(
            self.model.kind == "base" or self.distill is None or self.model.scale == 4,
            f"a tiny {self.model.scale}x student works on another grid than the teacher: distill "
            "must be none",
        )
        check(
            self.model.kind != "lean" or self.distill is None,
            "a lean student has no blocks that match the teacher's: distill must be none",
        )
        scales = (self.recipe.scale, self.model.scale)
        check(scales[0] == scales[1], f"recipe.scale and model.scale differ: {scales}")
        unit = self.model.multiple_lr_px * self.model.scale
        check(self.crop_hr_px % unit == 0, f"crop_hr_px {self.crop_hr_px} is no multiple of {unit}")


# ---------------------------------------------------------------------------------------------
# Reading and writing


def parse(kind: type[T], values: dict[str, Any]) -> T:
    """Build a config from nested plain values; raises ConfigError that names each wrong key."""
    try:
        return TypeAdapter(kind).validate_python(values)
    except ValidationError as error:
        wrong = "; ".join(_describe(e, kind.__name__) for e in error.errors())
        raise ConfigError(f"wrong {kind.__name__}: {wrong}") from None


def _describe(error: ErrorDetails, kind: str) -> str:
    where = ".".join(map(str, error["loc"])) or kind
    # Our own checks say what came; pydantic's are given it.
    ours = error["type"] in ("value_error", "missing")
    got = "" if ours else f", got {error['input']!r}"
    return f"{where}: {error['msg'].removeprefix('Value error, ')}{got}"


def to_dict(config: Any) -> dict[str, Any]:  # noqa: ANN401  any of the dataclasses above
    """A config as nested plain values, as saved beside weights."""
    return dataclasses.asdict(config)


def override(
    config: T, changes: Mapping[str, Any] | None = None, assignments: tuple[str, ...] = ()
) -> T:
    """A copy of ``config`` with nested values in it, then those of ``key.path=value`` strings.

    Strings are read as TOML (and ``none``), and as plain text where they are not TOML. An unknown key
    is a ConfigError.
    """
    values = to_dict(config)
    merge(values, changes or {})
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        if not equals:
            raise ConfigError(f"expected key=value, got {assignment!r}")
        merge(values, _nest(key.strip().split("."), _toml_value(text.strip())))
    return parse(type(config), values)


def read_toml(path: Path) -> dict[str, Any]:
    """A TOML file as nested values. Raises ConfigError."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:  # not TOML, or not UTF-8
        raise ConfigError(f"cannot read the config file {path}: {error}") from None


def _toml_value(text: str) -> Any:  # noqa: ANN401  whatever TOML holds
    if text == "none":  # which TOML cannot say
        return None
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _nest(path: list[str], value: object) -> dict[str, Any]:
    for key in reversed(path):
        value = {key: value}
    return value  # type: ignore[return-value]  # path is never empty


def merge(into: dict[str, Any], changes: Mapping[str, Any]) -> None:
    """Put nested values into others, key by key."""
    for key, value in changes.items():
        if isinstance(value, dict) and isinstance(into.get(key), dict):
            merge(into[key], value)
        else:
            into[key] = value

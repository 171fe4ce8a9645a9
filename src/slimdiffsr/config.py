"""Every setting, as frozen dataclasses that check themselves.

Presets are Python values at the end of the file; a TOML file or ``--set`` only overrides them, and
an unknown key is an error. Sources: "MS n" is section n of the method notes in ``docs/method.md``.
"""

from __future__ import annotations

import dataclasses
import tomllib
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from slimdiffsr.errors import ConfigError

__all__ = [
    "Blur",
    "ModelConfig",
    "Noise",
    "Recipe",
    "Resize",
    "Stage",
    "StudentLoss",
    "TrainConfig",
    "UNetConfig",
    "override",
    "parse",
    "to_dict",
]

_STRICT = ConfigDict(extra="forbid")

T = TypeVar("T")


def _check(condition: bool, message: str) -> None:
    # pydantic turns a ValueError raised while a dataclass checks itself into a ValidationError.
    if not condition:
        raise ValueError(message)


def _check_range(name: str, bounds: tuple[float, float], low: float, high: float) -> None:
    _check(
        low <= bounds[0] <= bounds[1] <= high,
        f"{name} must be an ascending pair in [{low:g}, {high:g}], got {bounds}",
    )


def _check_distribution(name: str, probs: tuple[float, ...]) -> None:
    _check(
        min(probs) >= 0 and abs(sum(probs) - 1) < 1e-6,
        f"{name} must be at least 0 and sum to 1, got {probs}",
    )


# ---------------------------------------------------------------------------------------------
# Models


@dataclass(frozen=True, slots=True, config=_STRICT)
class UNetConfig:
    """The two-level student UNet (MS 8); defaults are the paper's."""

    widths: tuple[int, int] = (320, 640)
    mid_width: int = 1280
    layers: int = 2
    norm: Literal["group", "pixel"] = "group"  # pixel: channel norm at each position, local
    groups: int = 32
    ff_mult: int = 4
    queries: int = 32
    squeeze: int = 64
    window_px: int | None = None  # pooling window in cells of level 0; None pools the whole tile

    def __post_init__(self) -> None:
        for width in (*self.widths, self.mid_width):
            _check(width % 8 == 0, f"widths must be multiples of 8, got {width}")
            _check(
                self.norm == "pixel" or width % self.groups == 0,
                f"width {width} is not divisible into {self.groups} groups",
            )
        _check(self.layers >= 1, f"layers must be at least 1, got {self.layers}")
        window = self.window_px
        _check(window is None or (window >= 4 and window % 2 == 0), f"window_px: {window}")


@dataclass(frozen=True, slots=True, config=_STRICT)
class ModelConfig:
    """A student: what stands before and behind the UNet, and how scenes are cut for it."""

    name: str
    scale: Literal[2, 4, 8]
    kind: Literal["base", "tiny"] = "base"
    unet: UNetConfig = UNetConfig()
    stem_width: int = 24  # tiny only: channels at the low-resolution grid
    decoder_widths: tuple[int, ...] = ()  # tiny only: channels at 1x, 2x, ... scale x
    taesd_affine: bool = False  # MS 8.4: False feeds [-1, 1] into the TAESD layers, as released
    tile_hr_px: int = 512
    overlap_hr_px: int = 64

    @property
    def multiple_lr_px(self) -> int:
        """Sides of the low-resolution input must be multiples of this."""
        if self.kind == "base":
            return 16 // self.scale  # TAESD divides by 8, the UNet by 2
        return 2 * (self.unet.window_px or 2)

    def __post_init__(self) -> None:
        _check(self.tile_hr_px % (16 * self.scale) == 0, f"tile_hr_px: {self.tile_hr_px}")
        _check(
            0 <= self.overlap_hr_px <= self.tile_hr_px // 2
            and self.overlap_hr_px % (2 * self.scale) == 0,
            f"overlap_hr_px must be a multiple of {2 * self.scale} up to half a tile, "
            f"got {self.overlap_hr_px}",
        )
        step_lr_px = (self.tile_hr_px - self.overlap_hr_px) // self.scale
        _check(
            self.unet.window_px is None or step_lr_px % self.multiple_lr_px == 0,
            f"tiles {step_lr_px} LR pixels apart are not anchored to the pooling windows, which "
            f"need multiples of {self.multiple_lr_px}",
        )
        levels = self.scale.bit_length()
        _check(
            self.kind == "base" or len(self.decoder_widths) == levels,
            f"a tiny {self.scale}x model needs {levels} decoder_widths, got {self.decoder_widths}",
        )


# ---------------------------------------------------------------------------------------------
# Degradation (MS 12)

BlurKind = Literal["iso", "aniso", "gen-iso", "gen-aniso", "plateau-iso", "plateau-aniso"]


@dataclass(frozen=True, slots=True, config=_STRICT)
class Blur:
    """One blur: which kernels, how often, how wide. Widths in pixels of the image blurred."""

    prob: float = 1.0
    sizes: tuple[int, ...] = (7, 9, 11, 13, 15, 17, 19, 21)
    sigma: tuple[float, float] = (0.2, 1.5)
    kinds: tuple[BlurKind, ...] = (
        "iso", "aniso", "gen-iso", "gen-aniso", "plateau-iso", "plateau-aniso",
    )  # fmt: skip
    kind_probs: tuple[float, ...] = (0.45, 0.25, 0.12, 0.03, 0.12, 0.03)
    sinc_prob: float = 0.1
    beta_generalized: tuple[float, float] = (0.5, 2.0)
    beta_plateau: tuple[float, float] = (1.0, 1.5)

    def __post_init__(self) -> None:
        _check_range("sigma", self.sigma, 0.01, 20)
        _check(
            len(self.sizes) > 0 and all(s % 2 == 1 and 3 <= s <= 21 for s in self.sizes),
            f"sizes must be odd numbers from 3 to 21, got {self.sizes}",
        )
        _check(len(self.kinds) == len(self.kind_probs), "one kind_prob for each kind")
        _check_distribution("kind_probs", self.kind_probs)
        _check_range("beta_generalized", self.beta_generalized, 0.1, 10)
        _check_range("beta_plateau", self.beta_plateau, 0.1, 10)
        _check(0 <= self.prob <= 1, f"prob must be in [0, 1], got {self.prob}")
        _check(0 <= self.sinc_prob <= 1, f"sinc_prob must be in [0, 1], got {self.sinc_prob}")


@dataclass(frozen=True, slots=True, config=_STRICT)
class Resize:
    """A random resize: probabilities of enlarging, shrinking and keeping, and the factors."""

    probs: tuple[float, float, float] = (0.2, 0.7, 0.1)  # up, down, keep
    factor: tuple[float, float] = (0.3, 1.5)

    def __post_init__(self) -> None:
        _check_distribution("probs (up, down, keep)", self.probs)
        _check_range("factor", self.factor, 0.05, 4)


@dataclass(frozen=True, slots=True, config=_STRICT)
class Noise:
    """Gaussian noise with ``gaussian_prob``, else Poisson."""

    gaussian_prob: float = 0.5
    sigma: tuple[float, float] = (1.0, 15.0)  # in 8-bit grey levels
    poisson_scale: tuple[float, float] = (0.05, 2.0)
    grey_prob: float = 0.4  # the same noise in all three bands

    def __post_init__(self) -> None:
        _check_range("sigma", self.sigma, 0, 255)
        _check_range("poisson_scale", self.poisson_scale, 0, 100)
        _check(0 <= self.gaussian_prob <= 1, f"gaussian_prob: {self.gaussian_prob}")
        _check(0 <= self.grey_prob <= 1, f"grey_prob: {self.grey_prob}")


@dataclass(frozen=True, slots=True, config=_STRICT)
class Stage:
    """One order of the degradation: blur, resize, noise, JPEG."""

    blur: Blur = Blur()
    resize: Resize = Resize()
    noise: Noise = Noise()
    jpeg_quality: tuple[float, float] = (60.0, 95.0)

    def __post_init__(self) -> None:
        _check_range("jpeg_quality", self.jpeg_quality, 1, 100)


@dataclass(frozen=True, slots=True, config=_STRICT)
class Recipe:
    """The paper's second-order degradation: its values are the defaults."""

    scale: Literal[2, 4, 8] = 4
    first: Stage = Stage()
    second: Stage = Stage(
        blur=Blur(prob=0.5, sigma=(0.2, 1.0)),
        resize=Resize(probs=(0.3, 0.4, 0.3), factor=(0.6, 1.2)),
        noise=Noise(sigma=(1.0, 12.0), poisson_scale=(0.05, 1.0)),
        jpeg_quality=(60.0, 100.0),
    )
    final_sinc_prob: float = 0.8

    def __post_init__(self) -> None:
        _check(0 <= self.final_sinc_prob <= 1, f"final_sinc_prob: {self.final_sinc_prob}")


# ---------------------------------------------------------------------------------------------
# Training


@dataclass(frozen=True, slots=True, config=_STRICT)
class StudentLoss:
    """Weights of Eq. 20, and two cures for grids that LPIPS alone does not see."""

    l1: float = 1.0
    lpips: float = 2.5
    gan: float = 0.25
    gan_kind: Literal["hinge", "bce_s"] = "hinge"
    perceptual_from: int = 0  # first step with LPIPS
    gan_from: int = 0  # first step with the adversarial term
    lpips_jitter: bool = False  # LPIPS on randomly shifted, flipped and rescaled copies

    def __post_init__(self) -> None:
        _check(min(self.l1, self.lpips, self.gan) >= 0, "loss weights must not be negative")


@dataclass(frozen=True, slots=True, config=_STRICT)
class TrainConfig:
    """One training run of a student."""

    model: ModelConfig
    recipe: Recipe = Recipe()
    loss: StudentLoss = StudentLoss()
    discriminator_width: int = 64
    steps: int = 100_000
    batch: int = 16  # images a step over all processes together
    crop_hr_px: int = 512
    lr: float = 5e-5
    lr_adversary: float | None = None  # None: as lr
    lr_final: float | None = None  # cosine decay to this; None keeps lr constant
    warmup: int = 0
    decay_from: int = 0  # first step of the cosine
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = 0.0
    grad_clip: float = 1.0
    ema: float = 0.0  # 0 keeps no average
    precision: Literal["no", "bf16", "fp16"] = "no"
    compile: bool = False
    seed: int = 20260
    workers: int = 2
    pool: int = 0  # prepare this many pairs and draw from them; 0 makes new pairs for each step
    save_every: int = 1000
    validate_every: int = 1000
    validation_images: int = 8
    flip_all: bool = False  # flips and quarter turns, which overhead images allow; else MS 12's

    def __post_init__(self) -> None:
        _check(self.recipe.scale == self.model.scale, "recipe.scale and model.scale differ")
        _check(self.steps >= 1 and self.batch >= 1, "steps and batch must be at least 1")
        unit = self.model.multiple_lr_px * self.model.scale
        _check(self.crop_hr_px % unit == 0, f"crop_hr_px must be a multiple of {unit}")
        _check(0 <= self.ema < 1, f"ema must be in [0, 1), got {self.ema}")


# ---------------------------------------------------------------------------------------------
# Reading and writing


def parse(kind: type[T], values: dict[str, Any]) -> T:
    """Build a config from nested plain values; raises ConfigError that names each wrong key."""
    try:
        return TypeAdapter(kind).validate_python(values)
    except ValidationError as error:
        wrong = "; ".join(
            f"{'.'.join(map(str, e['loc'])) or kind.__name__}: {e['msg']}" for e in error.errors()
        )
        raise ConfigError(f"wrong {kind.__name__}: {wrong}") from None


def to_dict(config: Any) -> dict[str, Any]:  # noqa: ANN401  any of the dataclasses above
    """A config as nested plain values, as saved beside weights."""
    return dataclasses.asdict(config)


def override(config: T, toml: Path | None = None, assignments: tuple[str, ...] = ()) -> T:
    """A copy of ``config`` with the values of a TOML file, then of ``key.path=value`` strings.

    Values are read as TOML, and as plain text where they are not TOML. An unknown key is a
    ConfigError.
    """
    values = to_dict(config)
    if toml is not None:
        try:
            _merge(values, tomllib.loads(toml.read_text()))
        except (OSError, tomllib.TOMLDecodeError) as error:
            raise ConfigError(f"cannot read the config file {toml}: {error}") from None
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        if not equals:
            raise ConfigError(f"expected key=value, got {assignment!r}")
        _merge(values, _nest(key.strip().split("."), _toml_value(text.strip())))
    return parse(type(config), values)


def _toml_value(text: str) -> Any:  # noqa: ANN401  whatever TOML holds
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _nest(path: list[str], value: object) -> dict[str, Any]:
    for key in reversed(path):
        value = {key: value}
    return value  # type: ignore[return-value]  # path is never empty


def _merge(into: dict[str, Any], changes: dict[str, Any]) -> None:
    for key, value in changes.items():
        if isinstance(value, dict) and isinstance(into.get(key), dict):
            _merge(into[key], value)
        else:
            into[key] = value


# ---------------------------------------------------------------------------------------------
# Presets


def tiny_model(scale: Literal[4, 8] = 4) -> ModelConfig:
    """The student for laptops and plugins: 1.4 M parameters, 4.4 GMAC for 512x512 pixels at 4x."""
    return ModelConfig(
        name=f"tiny-x{scale}",
        scale=scale,
        kind="tiny",
        unet=UNetConfig(
            widths=(48, 96),
            mid_width=192,
            layers=3,
            norm="pixel",
            ff_mult=2,
            queries=16,
            squeeze=32,
            window_px=8,
        ),
        overlap_hr_px=16 * scale,
        decoder_widths=(40, 24, 16) if scale == 4 else (40, 32, 24, 12),
    )


def tiny_training(scale: Literal[4, 8] = 4) -> TrainConfig:
    """The recipe of the models that ship: first L1 alone, then all three losses."""
    return TrainConfig(
        model=tiny_model(scale),
        recipe=Recipe(scale=scale),
        loss=StudentLoss(
            l1=1.0,
            lpips=1.0,
            gan=0.02,
            perceptual_from=2_000,
            gan_from=4_000,
            lpips_jitter=True,
        ),
        discriminator_width=32,
        steps=16_000,
        batch=48,
        crop_hr_px=192 if scale == 4 else 256,
        lr=5e-4,
        lr_adversary=2e-4,
        lr_final=2e-5,
        warmup=200,
        ema=0.999,
        validation_images=8,
        flip_all=True,
    )


PRESETS: dict[str, TrainConfig] = {"tiny-x4": tiny_training(4), "tiny-x8": tiny_training(8)}

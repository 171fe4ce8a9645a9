"""The settings of the degradation, and how settings check themselves (MS 12)."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

__all__ = ["STRICT", "Blur", "Light", "Noise", "Recipe", "Resize", "Share", "Stage", "check"]

STRICT = ConfigDict(extra="forbid")
Share = Annotated[float, Field(ge=0, le=1)]


def check(condition: bool, message: str) -> None:
    """For a dataclass that checks itself: pydantic makes a ValidationError of the ValueError."""
    if not condition:
        raise ValueError(message)


def _check_range(name: str, bounds: tuple[float, float], low: float, high: float) -> None:
    check(
        low <= bounds[0] <= bounds[1] <= high,
        f"{name} must be an ascending pair in [{low:g}, {high:g}], got {bounds}",
    )


def _check_distribution(name: str, probs: tuple[float, ...]) -> None:
    check(
        all(p >= 0 for p in probs) and abs(sum(probs) - 1) < 1e-6,
        f"{name} must be at least 0 and sum to 1, got {probs}",
    )


BlurKind = Literal["iso", "aniso", "gen-iso", "gen-aniso", "plateau-iso", "plateau-aniso"]


@dataclass(frozen=True, slots=True, config=STRICT)
class Blur:
    """One blur: which kernels, how often, how wide. Widths in pixels of the image blurred."""

    prob: Share = 1.0
    sizes: tuple[int, ...] = (7, 9, 11, 13, 15, 17, 19, 21)
    sigma: tuple[float, float] = (0.2, 1.5)
    kinds: tuple[BlurKind, ...] = (
        "iso", "aniso", "gen-iso", "gen-aniso", "plateau-iso", "plateau-aniso",
    )  # fmt: skip
    kind_probs: tuple[float, ...] = (0.45, 0.25, 0.12, 0.03, 0.12, 0.03)
    sinc_prob: Share = 0.1
    beta_generalized: tuple[float, float] = (0.5, 2.0)
    beta_plateau: tuple[float, float] = (1.0, 1.5)

    def __post_init__(self) -> None:
        _check_range("sigma", self.sigma, 0.01, 20)
        check(
            len(self.sizes) > 0 and all(s % 2 == 1 and 3 <= s <= 21 for s in self.sizes),
            f"sizes must be odd numbers from 3 to 21, got {self.sizes}",
        )
        check(
            len(self.kinds) == len(self.kind_probs),
            f"one kind_prob for each kind: got {len(self.kind_probs)} for {len(self.kinds)} kinds",
        )
        _check_distribution("kind_probs", self.kind_probs)
        _check_range("beta_generalized", self.beta_generalized, 0.1, 10)
        _check_range("beta_plateau", self.beta_plateau, 0.1, 10)


@dataclass(frozen=True, slots=True, config=STRICT)
class Resize:
    """A random resize: probabilities of enlarging, shrinking and keeping, and the factors."""

    probs: tuple[float, float, float] = (0.2, 0.7, 0.1)  # up, down, keep
    factor: tuple[float, float] = (0.3, 1.5)

    def __post_init__(self) -> None:
        _check_distribution("probs (up, down, keep)", self.probs)
        _check_range("factor", self.factor, 0.05, 4)


@dataclass(frozen=True, slots=True, config=STRICT)
class Noise:
    """Gaussian noise with ``gaussian_prob``, else Poisson."""

    gaussian_prob: Share = 0.5
    sigma: tuple[float, float] = (1.0, 15.0)  # in 8-bit grey levels
    poisson_scale: tuple[float, float] = (0.05, 2.0)
    grey_prob: Share = 0.4  # the same noise in all three bands

    def __post_init__(self) -> None:
        _check_range("sigma", self.sigma, 0, 255)
        _check_range("poisson_scale", self.poisson_scale, 0, 100)


@dataclass(frozen=True, slots=True, config=STRICT)
class Stage:
    """One order of the degradation: blur, resize, noise, JPEG."""

    blur: Blur = Blur()
    resize: Resize = Resize()
    noise: Noise = Noise()
    jpeg_quality: tuple[float, float] = (60.0, 95.0)

    def __post_init__(self) -> None:
        _check_range("jpeg_quality", self.jpeg_quality, 1, 100)


@dataclass(frozen=True, slots=True, config=STRICT)
class Light:
    """What most inputs have: a sensor's blur, little noise, perhaps a good JPEG; not the paper's.

    Each strength is drawn as the square of a uniform number, so that little is drawn more often.
    """

    share: Share = 0.0  # of the images; the others have the paper's degradation
    untouched: Share = 0.25  # of the light ones: averaged down or bicubic, and nothing else
    blur_lr_px: tuple[float, float] = (0.0, 0.7)  # standard deviation of the sensor's blur
    noise: tuple[float, float] = (0.0, 4.0)  # in 8-bit grey levels
    grey_prob: Share = 0.3  # the same noise in all three bands
    jpeg_prob: Share = 0.25
    jpeg_quality: tuple[float, float] = (70.0, 100.0)

    def __post_init__(self) -> None:
        _check_range("blur_lr_px", self.blur_lr_px, 0, 5)
        _check_range("noise", self.noise, 0, 255)
        _check_range("jpeg_quality", self.jpeg_quality, 1, 100)


@dataclass(frozen=True, slots=True, config=STRICT)
class Recipe:
    """The paper's second-order degradation: its values are the defaults."""

    scale: Literal[2, 4, 8] = 4
    light: Light = Light()
    first: Stage = Stage()
    second: Stage = Stage(
        blur=Blur(prob=0.5, sigma=(0.2, 1.0)),
        resize=Resize(probs=(0.3, 0.4, 0.3), factor=(0.6, 1.2)),
        noise=Noise(sigma=(1.0, 12.0), poisson_scale=(0.05, 1.0)),
        jpeg_quality=(60.0, 100.0),
    )
    final_sinc_prob: Share = 0.8

"""What is compared: our models and the interpolations, as functions of 8-bit images."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from slimdiffsr.datasets.images import Rgb8, to_rgb8, to_signed
from slimdiffsr.errors import ConfigError, DataError, ScaleError
from slimdiffsr.evaluate.report import TRUTH
from slimdiffsr.runtime.devices import DTYPES
from slimdiffsr.upscale import BASELINES, Colour, Upscaler

__all__ = [
    "Method",
    "Restore",
    "check_scale",
    "from_function",
    "from_network",
    "identify",
    "our_model",
    "unique_names",
]

Restore = Callable[[Rgb8], Rgb8]  # (h, w, 3) -> (scale*h, scale*w, 3)


@dataclass(frozen=True, slots=True)
class Method:
    """A way from a small image to a large one, and all that a protocol says of it.

    ``restore`` takes (h, w, 3) uint8 and the image's name, and gives (scale*h, scale*w, 3) uint8.
    ``identity`` decides what comes out (weights, settings, versions): outputs of one identity are
    kept; without one they are made each time. ``scale`` is None where any will do.
    """

    name: str
    restore: Callable[[Rgb8, str], Rgb8]
    about: str = ""
    identity: str = ""
    scale: int | None = None

    def __post_init__(self) -> None:
        if self.name in (TRUTH, "", "..") or Path(self.name).name != self.name:
            raise DataError(f"a model cannot be named {self.name!r}: its name becomes a folder")


def from_function(name: str, restore: Restore) -> Method:
    """A function of an image as a method; its outputs are made anew each time."""
    return Method(name, lambda rgb_lr, _: restore(rgb_lr))


def from_network(net: Callable[[Tensor], Tensor], device: torch.device | str = "cpu") -> Restore:
    """A network from and to (1, 3, h, w) in [-1, 1] as a function of images; rounds to 8 bits.

    The function raises DataError when values come out that are not finite.
    """

    def restore(rgb_lr: Rgb8) -> Rgb8:
        with torch.inference_mode():
            rgb = net(to_signed(rgb_lr, device))[0].float()
        if not bool(rgb.isfinite().all()):
            raise DataError("the network returned values that are not finite")
        return to_rgb8(rgb)

    return restore


def our_model(
    name: str,
    source: str,
    *,
    scale: int | None = None,
    device: str = "auto",
    colour: Colour = "low-frequency",
    whole: bool = False,
) -> Method:
    """A model of ours or an interpolation, run as ``Upscaler.upscale`` runs it.

    scale: for the interpolations, which have any. whole: each image in one piece, as the paper does,
    with its own statistics and without the mirrored borders of the scene engine; then the network
    keeps its colours, or gets those of the released script. Raises what
    ``Upscaler.from_pretrained`` raises.
    """
    upscaler = Upscaler.from_pretrained(
        source, scale=scale if source in BASELINES else None, device=device
    )
    upscaler.network(colour)  # an unknown rule is found out now, not at each image
    spec = upscaler.spec
    how = f"{DTYPES[upscaler.precision]} on {upscaler.device.type}".removeprefix("torch.")
    tiles = f"tiles of {spec.tile_hr_px} px overlapping by {spec.overlap_hr_px}"
    own: Literal["official", "none"] = "official" if colour == "official" else "none"
    settings = f"{spec.scale}x, {'whole images' if whole else tiles}, colour {own if whole else colour}, {how}"
    weights = f"sha256 {spec.weights_sha256}, " if spec.weights_sha256 else ""
    about = f"{source}, {weights}{settings}"
    identity = identify(spec.model_id, spec.weights_sha256, settings, version("slimdiffsr"))
    return Method(
        name,
        partial(_in_one_piece, upscaler, own)
        if whole
        else lambda rgb_lr, _: upscaler.upscale(rgb_lr, colour=colour),
        about,
        identity,
        None if source in BASELINES else spec.scale,
    )


def _in_one_piece(
    upscaler: Upscaler, colour: Literal["official", "none"], rgb_lr: Rgb8, _: str
) -> Rgb8:
    with torch.inference_mode():
        return to_rgb8(upscaler.restore(to_signed(rgb_lr, upscaler.device), colour=colour)[0])


def identify(*parts: str) -> str:
    """One hash over all that decides a method's outputs."""
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def check_scale(methods: Sequence[Method], scale: int) -> None:
    """Raise ScaleError for a model that enlarges by another scale than the set has."""
    for method in methods:
        if method.scale not in (None, scale):
            raise ScaleError(
                f"{method.name} enlarges {method.scale} times, but the images are paired at "
                f"{scale}x: leave it out, or give --scale {method.scale} and data of that scale"
            )


def unique_names(sources: Sequence[str]) -> Mapping[str, str]:
    """A name for each model that can be a folder's: NAME of NAME=FILE, else a file's last part.

    Raises ConfigError for two models of one name, and for a name that no folder can have.
    """
    names: dict[str, str] = {}
    for text in sources:
        given, equals, source = text.partition("=")
        if not equals or Path(text).exists():
            given, source = Path(text).name.removesuffix(".safetensors"), text
        if not given or "/" in given or not source:
            raise ConfigError(
                f"--model must be NAME=FILE, or a file or model by name, got {text!r}"
            )
        if names.setdefault(given, source) != source:
            raise ConfigError(
                f"two models are called {given}: {names[given]} and {source}; give them names, as "
                f"{given}-b={source}"
            )
    return names

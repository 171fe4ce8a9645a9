"""Upscaler: a model ready to use. Arrays in, arrays out; rasters in, rasters out."""

from __future__ import annotations

import dataclasses
import math
import tempfile
from collections.abc import Callable
from os import PathLike
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np
import rasterio
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from slimdiffsr import geo, sensors
from slimdiffsr.errors import ConfigError, ScaleError
from slimdiffsr.files.students import BUNDLED, load_model
from slimdiffsr.geo.image import picture_of
from slimdiffsr.models.classical import Bicubic, Lanczos
from slimdiffsr.models.student import enlarge_bicubic
from slimdiffsr.runtime.devices import pick_device, pick_precision
from slimdiffsr.runtime.eager import TorchRuntime
from slimdiffsr.runtime.pipeline import TileNetwork, arrays_for
from slimdiffsr.runtime.protocol import Runtime

__all__ = [
    "BASELINES",
    "Colour",
    "Upscaler",
    "match_statistics",
    "model_names",
    "pad_to_multiple",
    "restore",
]

BASELINES = {"bicubic": Bicubic, "lanczos": Lanczos}
BASELINE_SCALES = (2, 4, 8)

Image = TypeVar("Image")
Colour = Literal["low-frequency", "official", "none"]

OFFICIAL_PAD_HR_PX = 256  # the released script pads the enlarged image to a multiple of this


def model_names() -> list[str]:
    """The models that need no download."""
    return sorted([*BUNDLED, *BASELINES])


class Upscaler:
    """A model on a device.

    >>> Upscaler.from_pretrained("tiny-x4").upscale_scene("in.tif", "out.tif")  # doctest: +SKIP
    """

    def __init__(
        self,
        model: nn.Module,
        spec: geo.NetworkSpec,
        *,
        multiple_lr_px: int = 1,
        device: str = "auto",
        precision: str = "auto",
    ) -> None:
        """model: RGB (b, 3, h, w) in [-1, 1] -> (b, 3, scale*h, scale*w); spec: how to tile it.

        ``multiple_lr_px``: what sides of the model's input must be multiples of.
        Raises ConfigError for a device or precision that is not there.
        """
        self.device = pick_device(device)
        self.precision = pick_precision(precision, self.device)
        self.multiple_lr_px = multiple_lr_px
        self.model = model
        self.runtime: Runtime = TorchRuntime(model, self.device, self.precision)
        self.spec = dataclasses.replace(
            spec, batch=self.runtime.batch, arithmetic=self.runtime.fingerprint().items()
        )
        if self.device.type == "cpu":
            _keep_freed_memory()

    @classmethod
    def from_pretrained(
        cls,
        source: str | PathLike[str] = "tiny-x4",
        *,
        scale: int | None = None,
        device: str = "auto",
        precision: str = "auto",
        revision: str | None = None,
    ) -> Upscaler:
        """A bundled model, a .safetensors file, a hub repository 'org/name', or a baseline.

        scale: which of a family ('tiny' has 4 and 8), or for a baseline (default 4); otherwise it
        must be the model's own. Raises ModelNotFoundError, ScaleError, WeightsError,
        ChecksumError, ConfigError.
        """
        name = str(source)
        if name in BASELINES:
            return cls._baseline(name, 4 if scale is None else scale, device, precision)
        family = [key for key in sorted(BUNDLED) if key.startswith(f"{name}-x")]
        if family and name not in BUNDLED:
            name = _of_scale(name, family, 4 if scale is None else scale)
        loaded = load_model(name, scale=scale, revision=revision)
        config = loaded.config
        spec = geo.NetworkSpec(
            scale=config.scale,
            tile_hr_px=config.tile_hr_px,
            overlap_hr_px=config.overlap_hr_px,
            model_id=loaded.model_id,
            weights_sha256=loaded.sha256,
        )
        return cls(
            loaded.model,
            spec,
            multiple_lr_px=config.multiple_lr_px,
            device=device,
            precision=precision,
        )

    @classmethod
    def _baseline(cls, name: str, scale: int, device: str, precision: str) -> Upscaler:
        if scale not in BASELINE_SCALES:
            raise ScaleError(f"{name} enlarges 2, 4 or 8 times, got {scale}")
        # Eight pixels of overlap on each side are more than the reach of either kernel.
        spec = geo.NetworkSpec(scale=scale, tile_hr_px=512, overlap_hr_px=16 * scale, model_id=name)
        return cls(BASELINES[name](scale), spec, device=device, precision=precision)

    @property
    def scale(self) -> int:
        """How many times the model enlarges."""
        return self.spec.scale

    def upscale_scene(
        self,
        src: str | PathLike[str] | geo.KnownRaster,
        dst: str | PathLike[str],
        options: geo.SceneOptions | None = None,
        *,
        sensor: sensors.SensorOptions | None = None,
        colour: Colour = "low-frequency",
        on_progress: Callable[[geo.Progress], None] | None = None,
    ) -> geo.SceneReport:
        """Enlarge a raster of any size into a georeferenced one; see ``geo.upscale_scene``.

        src: a raster, or a product that ``sensors`` knows. sensor: what made it, if it does not say.
        colour: 'low-frequency' gives the result the input's low frequencies, 'official' matches
        each tile's mean and spread as the released script does (for parity; makes tiles visible),
        'none' leaves the network's colours. Overrides ``options.colour``.
        """
        network = self.network(colour)
        options = dataclasses.replace(
            options or geo.SceneOptions(),
            colour="low-frequency" if colour == "low-frequency" else "none",
        )
        known = sensors.known_raster(src, sensor, all_bands=bool(options.all_bands))
        return geo.upscale_scene(known, dst, network, options, on_progress=on_progress)

    def plan_scene(
        self,
        src: str | PathLike[str] | geo.KnownRaster,
        options: geo.SceneOptions | None = None,
        *,
        sensor: sensors.SensorOptions | None = None,
    ) -> geo.ScenePlan:
        """What ``upscale_scene`` would do, without doing it."""
        options = options or geo.SceneOptions()
        known = sensors.known_raster(src, sensor, all_bands=bool(options.all_bands))
        return geo.plan_scene(known, self.spec, options)

    def upscale(
        self,
        image: Image,
        *,
        value_range: tuple[float, float] | Literal["auto"] = "auto",
        nodata: float | None = None,
        colour: Colour = "low-frequency",
    ) -> Image:
        """Enlarge one image, of any size, through the same engine as a scene.

        image: an array (h, w, 3), or (h, w) for a single band; uint8, uint16, int16, float32 and
        more; a masked array, whose masked pixels are empty; or a PIL image, which is taken upright
        and with its transparency. value_range: what the network sees as black and white, in the
        image's units; 'auto' is 0..255 for uint8 and percentiles else. nodata: the value of empty
        pixels; NaN is always empty. Returns the same kind of image with sides ``scale`` times as
        long, in the same type and units. Raises RasterError for a wrong shape, type or kind.
        """
        picture = picture_of(image)
        with tempfile.TemporaryDirectory(prefix="slimdiffsr-") as folder:
            src, dst = Path(folder) / "in.tif", Path(folder) / "out.tif"
            picture.write(src, nodata)
            options = geo.SceneOptions(
                value_range=value_range,
                alpha="band" if picture.has_alpha else "none",
                format="gtiff",
                creation_options={"COMPRESS": "NONE"},
            )
            self.upscale_scene(src, dst, options, colour=colour)
            with rasterio.open(dst) as dataset:
                result: Image = picture.like(dataset.read())
        return result

    def restore(
        self, rgb_lr: Tensor, *, colour: Literal["official", "none"] = "official"
    ) -> Tensor:
        """One image through the network whole, in the released script's way (MS 11).

        But for its mistake: colours are matched to the image, not to the padded image.

        rgb_lr: (b, 3, h, w) in [-1, 1]. Returns (b, 3, scale*h, scale*w) in [-1, 1], float32. Memory
        grows with the image; ``upscale`` tiles instead. Raises ConfigError for another colour rule.
        """
        if colour not in ("official", "none"):
            raise ConfigError(f"colour must be official or none here, got {colour!r}")
        multiple_lr_px = math.lcm(self.multiple_lr_px, OFFICIAL_PAD_HR_PX // self.scale)
        sr = restore(self._run, rgb_lr, self.scale, multiple_lr_px)
        if colour == "official":
            sr = match_statistics(sr, enlarge_bicubic(rgb_lr.to(sr), self.scale))
        return sr.clamp(-1, 1)

    def network(self, colour: Colour = "low-frequency") -> geo.Network:
        """The model as the scene engine sees it; 'official' matches colours on each tile."""
        if colour not in ("low-frequency", "official", "none"):
            raise ConfigError(f"colour must be low-frequency, official or none, got {colour!r}")
        fields = {f.name: getattr(self.spec, f.name) for f in dataclasses.fields(self.spec)}
        arrays = arrays_for(self.runtime.device)
        finish = None
        if colour == "official":
            fields["model_id"] += "+official-colour"
            finish = self._match_input
        tiles = TileNetwork(self.runtime, arrays, finish)
        return geo.Network(**fields, predict=tiles, arrays=arrays, remarks=tiles.remarks)

    def _match_input(self, sr: Tensor, rgb_lr: Tensor) -> Tensor:
        return match_statistics(sr, enlarge_bicubic(rgb_lr.to(sr), self.scale))

    def _run(self, rgb_lr: Tensor) -> Tensor:
        return self.runtime(rgb_lr.to(self.runtime.device)).float()


def restore(
    model: Callable[[Tensor], Tensor], rgb_lr: Tensor, scale: int, multiple_lr_px: int
) -> Tensor:
    """Run a network on an image of any size: padded right and below, cropped after.

    rgb_lr: (b, 3, h, w) in [-1, 1]. Returns (b, 3, scale*h, scale*w). Mirrors the border, or repeats
    its edge where the image is too small to mirror (MS 11).
    """
    height, width = rgb_lr.shape[-2:]
    sr = model(pad_to_multiple(rgb_lr, multiple_lr_px))
    return sr[..., : scale * height, : scale * width]


def pad_to_multiple(images: Tensor, multiple_px: int) -> Tensor:
    """(b, c, h, w) with sides that are multiples, padded right and below as for ``restore``."""
    height, width = images.shape[-2:]
    below, right = -height % multiple_px, -width % multiple_px
    mode = "reflect" if below < height and right < width else "replicate"
    return F.pad(images, (0, right, 0, below), mode=mode) if below or right else images


def match_statistics(sr: Tensor, reference: Tensor) -> Tensor:
    """Each image's and channel's mean and spread set to the reference's (MS 11, official colour).

    sr, reference: (b, 3, h, w). Returns sr's shape.
    """
    spread, mean = torch.std_mean(sr, dim=(2, 3), keepdim=True)
    wanted_spread, wanted_mean = torch.std_mean(reference, dim=(2, 3), keepdim=True)
    return (sr - mean) / spread.clamp_min(1e-6) * wanted_spread + wanted_mean


def _keep_freed_memory() -> None:
    # glibc hands freed memory back to the system above a limit that it raises when a larger block
    # is freed, up to 32 MiB. Until then every tile pays for its memory anew: a tenth of its time.
    np.empty(31 << 20, np.uint8)


def _of_scale(name: str, family: list[str], scale: int) -> str:
    wanted = f"{name}-x{scale}"
    if wanted not in family:
        scales = sorted({key.removeprefix(f"{name}-x").split("-")[0] for key in family})
        raise ScaleError(f"{name} has scales {', '.join(scales)}, not {scale}")
    return wanted

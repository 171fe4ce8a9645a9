"""Upscaler: a model ready to use. Arrays in, arrays out; rasters in, rasters out."""

from __future__ import annotations

import dataclasses
import math
import tempfile
import time
from collections.abc import Callable, Mapping
from os import PathLike
from pathlib import Path
from typing import Any, Literal, TypeVar, cast

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
from slimdiffsr.runtime.choose import Runtimes
from slimdiffsr.runtime.devices import describe_device, pick_device
from slimdiffsr.runtime.exported import SUFFIXES, read_about
from slimdiffsr.runtime.pipeline import TileNetwork, arrays_for

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

_MEASURED_BATCHES = 2

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
        model: nn.Module | Path,
        spec: geo.NetworkSpec,
        *,
        multiple_lr_px: int = 1,
        device: str = "auto",
        precision: str = "auto",
        runtime: str = "auto",
        batch: int | None = None,
    ) -> None:
        """model: RGB (b, 3, h, w) in [-1, 1] -> (b, 3, scale*h, scale*w); spec: how to tile it.

        ``model`` may be a file that ``export`` wrote. ``multiple_lr_px``: what sides of its input
        must be multiples of. ``runtime``: how it is run, see ``runtime.choose``. ``batch``: tiles
        at once, by default what serves the runtime best. Raises ConfigError for a device, precision
        or runtime that is not there, or no batch.
        """
        if batch is not None and batch < 1:
            raise ConfigError(f"batch must be at least 1 tile, got {batch}")
        self.device = pick_device(device)
        self.multiple_lr_px = multiple_lr_px
        self.model = model
        self.runtimes = Runtimes(model, self.device, precision, runtime)
        self.precision = self.runtimes.precision
        self.spec, self.batch = spec, batch
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
        runtime: str = "auto",
        revision: str | None = None,
        batch: int | None = None,
    ) -> Upscaler:
        """A bundled model, a .safetensors file, a hub repository 'org/name', or a baseline.

        Also a .onnx or .xml file of 'slimdiffsr export', which fixes the precision.

        scale: which of a family ('tiny' has 4 and 8), or for a baseline (default 4); otherwise it
        must be the model's own. Raises ModelNotFoundError, ScaleError, WeightsError,
        ChecksumError, ConfigError.
        """
        name = str(source)
        how: dict[str, Any] = {
            "device": device, "precision": precision, "runtime": runtime, "batch": batch,
        }  # fmt: skip
        if name.endswith(SUFFIXES):
            return cls._exported(Path(name).expanduser(), scale, how)
        if name in BASELINES:
            return cls._baseline(name, 4 if scale is None else scale, how)
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
        return cls(loaded.model, spec, multiple_lr_px=config.multiple_lr_px, **how)

    @classmethod
    def _exported(cls, path: Path, scale: int | None, how: dict[str, Any]) -> Upscaler:
        about = read_about(path)
        if scale is not None and scale != about.scale:
            raise ScaleError(f"{path} enlarges {about.scale} times, not {scale} times")
        if how["precision"] not in ("auto", about.precision):
            raise ConfigError(
                f"{path} holds a network in {about.precision}: leave --precision out, "
                f"got {how['precision']}"
            )
        spec = geo.NetworkSpec(
            scale=about.scale,
            tile_hr_px=about.tile_hr_px,
            overlap_hr_px=about.overlap_hr_px,
            model_id=f"{about.model_id} ({path.suffix[1:]}, {about.precision})",
            weights_sha256=about.sha256,
        )
        return cls(
            path,
            spec,
            multiple_lr_px=about.multiple_lr_px,
            **(how | {"precision": about.precision}),
        )

    @classmethod
    def _baseline(cls, name: str, scale: int, how: dict[str, Any]) -> Upscaler:
        if scale not in BASELINE_SCALES:
            raise ScaleError(f"{name} enlarges 2, 4 or 8 times, got {scale}")
        # Eight pixels of overlap on each side are more than the reach of either kernel.
        spec = geo.NetworkSpec(scale=scale, tile_hr_px=512, overlap_hr_px=16 * scale, model_id=name)
        return cls(BASELINES[name](scale), spec, **how)

    @property
    def scale(self) -> int:
        """How many times the model enlarges."""
        return self.spec.scale

    @property
    def module(self) -> nn.Module:
        """The network itself. Raises ConfigError for an exported file, which holds none."""
        if isinstance(self.model, Path):
            raise ConfigError(f"{self.model} is an export: give the model that it was made from")
        return self.model

    def upscale_scene(
        self,
        src: str | PathLike[str] | geo.KnownRaster,
        dst: str | PathLike[str],
        options: geo.SceneOptions | None = None,
        *,
        sensor: sensors.SensorOptions | None = None,
        colour: Colour = "low-frequency",
        on_plan: Callable[[geo.ScenePlan], None] | None = None,
        on_progress: Callable[[geo.Progress], None] | None = None,
        crew: geo.Workers | None = None,
        **choices: object,
    ) -> geo.SceneReport:
        """Enlarge a raster of any size into a georeferenced one; see ``geo.upscale_scene``.

        src: a raster, or a product that ``sensors`` knows; of a STAC item the result gets an item
        of its own. sensor: what made it, if it does not say.
        options: all choices at once; choices: single ones by their names in ``SceneOptions``, as
        ``bands=(3, 2, 1), value_range=(0, 3000)``, which win over ``options``.
        colour: 'low-frequency' gives the result the input's low frequencies, 'official' matches
        each tile's mean and spread as the released script does (for parity; makes tiles visible),
        'none' leaves the network's colours. Overrides ``options.colour``. crew: processes that do
        the work with a model of their own, as ``crews.open_crew`` makes them.
        """
        options = dataclasses.replace(
            _with_choices(options, choices),
            colour="low-frequency" if colour == "low-frequency" else "none",
        )
        known = sensors.known_raster(src, sensor, all_bands=bool(options.all_bands))
        network: geo.Network | geo.Workers
        if crew is not None:
            network = crew
        elif self.runtimes.depends_on_size:
            network = self.network(colour, self.plan_scene(known, options).tiles)
        else:
            network = self.network(colour)
        if known.derived_from:
            sensors.check_item_path(Path(dst), options.overwrite)
        report = geo.upscale_scene(
            known, dst, network, options, on_plan=on_plan, on_progress=on_progress
        )
        if known.derived_from:
            sensors.write_result_item(report, known.properties, known.derived_from)
        return report

    def describe(self, tiles: int) -> str:
        """How a scene of so many tiles would be run, in words."""
        name = self.runtimes.pick(tiles)
        where = describe_device(self.device)
        words = f"{name}, {self.runtimes.precision_of(name)} on {where}"
        return words + self.runtimes.advice(tiles)

    def plan_scene(
        self,
        src: str | PathLike[str] | geo.KnownRaster,
        options: geo.SceneOptions | None = None,
        *,
        sensor: sensors.SensorOptions | None = None,
        **choices: object,
    ) -> geo.ScenePlan:
        """What ``upscale_scene`` would do with the same options and choices, without doing it."""
        options = _with_choices(options, choices)
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

    def network(self, colour: Colour = "low-frequency", tiles: int = 1) -> geo.Network:
        """The model as the scene engine sees it; 'official' matches colours on each tile.

        tiles: of the whole scene, by which the runtime 'auto' is chosen.
        """
        if colour not in ("low-frequency", "official", "none"):
            raise ConfigError(f"colour must be low-frequency, official or none, got {colour!r}")
        runtime = self.runtimes.for_tiles(tiles)
        fields = {f.name: getattr(self.spec, f.name) for f in dataclasses.fields(self.spec)}
        fields |= {
            "batch": self.batch or runtime.batch,
            "arithmetic": runtime.fingerprint().items(),
        }
        arrays = arrays_for(runtime.device)
        finish = None
        if colour == "official":
            fields["model_id"] += "+official-colour"
            finish = self._match_input
        network = TileNetwork(runtime, arrays, finish)
        return geo.Network(
            **fields,
            predict=network,
            arrays=arrays,
            remarks=lambda: (*network.remarks(), *self.runtimes.notes()),
            repair=network.repair,
        )

    def seconds_per_tile(self, tiles: int = 1) -> float:
        """How long one of a scene's tiles takes the network, measured now on this machine."""
        runtime = self.runtimes.for_tiles(tiles)
        batch = self.batch or runtime.batch
        side_lr_px = self.spec.tile_hr_px // self.spec.scale
        given = torch.zeros(batch, 3, side_lr_px, side_lr_px, device=runtime.device)
        runtime(given)  # the first call is slower than those to come
        times = []
        for _ in range(_MEASURED_BATCHES):
            started = time.perf_counter()
            runtime(given)[..., :1, :1].cpu()  # waits for a card
            times.append(time.perf_counter() - started)
        return min(times) / batch

    def _match_input(self, sr: Tensor, rgb_lr: Tensor) -> Tensor:
        return match_statistics(sr, enlarge_bicubic(rgb_lr.to(sr), self.scale))

    def _run(self, rgb_lr: Tensor) -> Tensor:
        runtime = self.runtimes.eager()
        return runtime(rgb_lr.to(runtime.device)).float()


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


def _with_choices(
    options: geo.SceneOptions | None, choices: Mapping[str, object]
) -> geo.SceneOptions:
    names = {field.name for field in dataclasses.fields(geo.SceneOptions)} - {"colour"}
    unknown = sorted(set(choices) - names)
    if unknown:
        raise ConfigError(f"no option {', '.join(unknown)}: there are {', '.join(sorted(names))}")
    return dataclasses.replace(options or geo.SceneOptions(), **cast(Any, choices))


def _of_scale(name: str, family: list[str], scale: int) -> str:
    wanted = f"{name}-x{scale}"
    if wanted not in family:
        scales = sorted({key.removeprefix(f"{name}-x").split("-")[0] for key in family})
        raise ScaleError(f"{name} has scales {', '.join(scales)}, not {scale}")
    return wanted

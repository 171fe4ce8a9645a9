"""Methods of others: networks from files, and folders of what they made.

spandrel's architectures, TorchScript and ONNX take and give (1, 3, h, w) RGB in float32. spandrel's
always in [0, 1]; of the others the user says it, since no file does. Images go in whole, padded at
the right and lower edge by reflection to what the network divides them into, and are cropped after;
or in tiles, through the scene engine.
"""

from __future__ import annotations

import warnings
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from slimdiffsr import geo
from slimdiffsr.datasets.images import Rgb8, read_rgb8
from slimdiffsr.errors import ConfigError, DataError, WeightsError
from slimdiffsr.evaluate.methods import Method, from_network, identify
from slimdiffsr.evaluate.pairs import files_by_stem
from slimdiffsr.files.tensors import file_sha256
from slimdiffsr.runtime.devices import pick_device
from slimdiffsr.upscale import Upscaler, restore

__all__ = ["PeerFile", "load_peer", "ready_outputs"]

ValueRange = Literal["0:1", "-1:1", "0:255"]
Net = Callable[[Tensor], Tensor]

TRIAL_PX = 64  # side of the image that tells a network's scale; windows of attention fit in


@dataclass(frozen=True, slots=True)
class PeerFile:
    """A network's file and what must be known to run it.

    ``values`` is black and white as the network sees them, in and out; ``multiple_lr_px`` what the
    sides of its input must be multiples of: both are known of spandrel's architectures.
    ``tile_lr_px``: run in square tiles of this size, blended, for what does not fit into memory.
    """

    path: Path
    name: str
    values: ValueRange = "0:1"
    multiple_lr_px: int = 1
    tile_lr_px: int | None = None

    @classmethod
    def parse(cls, text: str) -> PeerFile:
        """From ``[NAME=]FILE[,range=-1:1][,multiple=8][,tile=128]``. Raises ConfigError."""
        path, *settings = text.split(",")
        name, equals, rest = path.partition("=")
        file = Path(rest if equals else path)
        found: dict[str, Any] = {"path": file, "name": name if equals else file.stem}
        for setting in settings:
            key, _, value = setting.partition("=")
            if key == "range" and value in get_args(ValueRange):
                found["values"] = value
            elif key in ("multiple", "tile") and value.isdigit() and int(value) > 0:
                found[f"{key}_lr_px"] = int(value)
            else:
                raise ConfigError(
                    f"a peer's file takes range={'|'.join(get_args(ValueRange))}, multiple=N and "
                    f"tile=N, got {setting!r} in {text!r}"
                )
        return cls(**found)


@dataclass(frozen=True, slots=True)
class _Loaded:
    net: Net
    about: str
    scale: int | None = None  # None: found by trying
    values: ValueRange | None = None  # None: as the user says
    fixed_lr_px: int | None = None  # takes squares of this side alone


def load_peer(peer: PeerFile, device: str = "auto") -> Method:
    """A network of others, ready to run.

    Raises:
        ConfigError: the package that reads this kind of file is not installed.
        WeightsError: no such file, not a network of a known kind, or not one that makes larger RGB
            images of RGB images.
    """
    if not peer.path.is_file():
        raise WeightsError(f"no such file: {peer.path}")
    chosen = pick_device(device)
    loaded = _load(peer.path, chosen)
    values = loaded.values or peer.values
    tile_lr_px = loaded.fixed_lr_px or peer.tile_lr_px

    def net(rgb: Tensor) -> Tensor:
        return _into_signed(loaded.net(_out_of_signed(rgb, values)), values)

    side = loaded.fixed_lr_px or -(-TRIAL_PX // peer.multiple_lr_px) * peer.multiple_lr_px
    scale = loaded.scale or _find_scale(peer.path, net, side, chosen)
    digest = file_sha256(peer.path)
    how = "whole images" if tile_lr_px is None else f"tiles of {tile_lr_px} px"
    padding = f"multiples of {peer.multiple_lr_px} px"
    if loaded.scale is not None and peer.multiple_lr_px == 1:
        padding = "what the architecture needs"
    settings = f"{scale}x, {how}, range {values}, padded to {padding}, float32 on {chosen.type}"
    return Method(
        peer.name,
        _whole(net, scale, peer.multiple_lr_px, chosen)
        if tile_lr_px is None
        else _tiled(net, scale, tile_lr_px, chosen),
        f"{peer.path.name}, {loaded.about}, sha256 {digest}, {settings}",
        identify(digest, loaded.about, settings, version("torch"), version("slimdiffsr")),
        scale,
    )


def ready_outputs(name: str, folder: Path) -> Method:
    """Images that a method made elsewhere, by the stem of their input's file.

    A missing or unreadable one, or one of another size than the truth, fails for its image alone.

    Raises:
        DataError: no such folder, no images in it, or two of one name.
    """
    files = files_by_stem(folder)

    def look_up(_: Rgb8, image: str) -> Rgb8:
        if image not in files:
            raise DataError(f"{folder} holds no image called {image}")
        return read_rgb8(files[image])

    return Method(name, look_up, f"ready outputs of {folder.name}, {len(files)} images")


def _load(path: Path, device: torch.device) -> _Loaded:
    if path.suffix == ".onnx":
        return _load_onnx(path, device)
    if _is_torchscript(path):
        return _load_torchscript(path, device)
    return _load_spandrel(path, device)


def _load_spandrel(path: Path, device: torch.device) -> _Loaded:
    try:
        from spandrel import ImageModelDescriptor, ModelLoader
    except (ImportError, RuntimeError) as error:  # RuntimeError: torchvision of another torch
        raise ConfigError(
            f"{path} is taken for weights of a known architecture, which spandrel reads; it cannot be "
            f"imported ({error}): pip install 'slimdiffsr[peers]', which needs torchvision"
        ) from None
    try:
        model = ModelLoader(device=device).load_from_file(path)
    except Exception as error:  # what a damaged or unknown file raises is spandrel's own affair
        raise WeightsError(
            f"spandrel does not know {path} ({type(error).__name__}: {error}); networks of other "
            "kinds can come as TorchScript or ONNX"
        ) from None
    if not isinstance(model, ImageModelDescriptor) or (
        (model.input_channels, model.output_channels) != (3, 3)
    ):
        raise WeightsError(
            f"{path} is a {model.architecture.name} that does not make RGB images of RGB images"
        )
    net = model.eval().to(device)
    about = f"{model.architecture.name} by spandrel {version('spandrel')}"
    # spandrel pads by itself to what the architecture needs, by reflection as we do.
    return _Loaded(net, about, model.scale, "0:1")


def _is_torchscript(path: Path) -> bool:
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any("/code/" in name for name in archive.namelist())


def _load_torchscript(path: Path, device: torch.device) -> _Loaded:
    try:
        with warnings.catch_warnings():
            # torch advises other formats; files of this one are what people have.
            warnings.simplefilter("ignore")
            module: nn.Module = torch.jit.load(str(path), device)  # type: ignore[no-untyped-call]
    except RuntimeError as error:
        raise WeightsError(f"{path} is not readable TorchScript: {error}") from None
    return _Loaded(module.eval(), "TorchScript")


def _load_onnx(path: Path, device: torch.device) -> _Loaded:
    try:
        import onnxruntime
    except ImportError:
        raise ConfigError(f"{path} needs onnxruntime: pip install 'slimdiffsr[onnx]'") from None
    there = onnxruntime.get_available_providers()
    wanted = ["CUDAExecutionProvider"] if device.type == "cuda" else []
    providers = [p for p in (*wanted, "CPUExecutionProvider") if p in there]
    try:
        session = onnxruntime.InferenceSession(str(path), providers=providers)
    except Exception as error:  # onnxruntime's errors share no base
        raise WeightsError(f"{path} is not readable ONNX: {error}") from None
    inputs = session.get_inputs()
    shape = inputs[0].shape if len(inputs) == 1 else None
    if shape is None or len(shape) != 4 or inputs[0].type != "tensor(float)":
        raise WeightsError(
            f"{path} must take one float (1, 3, h, w), got {[i.shape for i in inputs]}"
        )
    fixed = [side for side in shape[2:] if isinstance(side, int)]
    if fixed and len(set(shape[2:])) > 1:
        raise WeightsError(
            f"{path} takes only {shape[3]} x {shape[2]} px: export it with a free height and width"
        )

    def net(rgb: Tensor) -> Tensor:
        (out,) = session.run(None, {inputs[0].name: rgb.cpu().numpy()})[:1]
        return torch.from_numpy(out).to(rgb.device)

    about = f"ONNX by onnxruntime {onnxruntime.__version__} on {providers[0]}"
    return _Loaded(net, about, fixed_lr_px=fixed[0] if fixed else None)


def _find_scale(path: Path, net: Net, side: int, device: torch.device) -> int:
    # One run on grey.
    try:
        with torch.inference_mode():
            out = net(torch.zeros(1, 3, side, side, device=device))
    except Exception as error:  # anybody's network
        raise WeightsError(
            f"{path} does not run on RGB of {side} x {side} px ({type(error).__name__}: {error})"
        ) from None
    shape = tuple(out.shape)
    scale = shape[2] // side if len(shape) == 4 else 0
    if scale < 1 or shape != (1, 3, scale * side, scale * side):
        raise WeightsError(f"{path} makes {shape} of (1, 3, {side}, {side}): no larger RGB image")
    return scale


def _whole(
    net: Net, scale: int, multiple_lr_px: int, device: torch.device
) -> Callable[[Rgb8, str], Rgb8]:
    run = from_network(lambda rgb: restore(net, rgb, scale, multiple_lr_px), device)
    return lambda rgb_lr, _: run(rgb_lr)


class _OneByOne(nn.Module):
    # A peer as the scene engine wants it; its batch may be fixed to one.

    def __init__(self, net: Net) -> None:
        super().__init__()
        self.net = net

    def forward(self, rgb: Tensor) -> Tensor:
        """rgb: (b, 3, h, w) in [-1, 1]. Returns (b, 3, scale*h, scale*w)."""
        return torch.cat([self.net(one[None].contiguous()) for one in rgb])


def _tiled(
    net: Net, scale: int, tile_lr_px: int, device: torch.device
) -> Callable[[Rgb8, str], Rgb8]:
    spec = geo.NetworkSpec(
        scale=scale,
        tile_hr_px=tile_lr_px * scale,
        overlap_hr_px=min(16, tile_lr_px // 4) * scale,
        model_id="peer",
    )
    upscaler = Upscaler(_OneByOne(net), spec, device=str(device), precision="fp32")
    return lambda rgb_lr, _: upscaler.upscale(rgb_lr, colour="none")


def _out_of_signed(rgb: Tensor, values: ValueRange) -> Tensor:
    # [-1, 1] -> the peer's range
    if values == "-1:1":
        return rgb
    unit = rgb / 2 + 0.5
    return unit * 255 if values == "0:255" else unit


def _into_signed(rgb: Tensor, values: ValueRange) -> Tensor:
    if values == "-1:1":
        return rgb
    unit = rgb / 255 if values == "0:255" else rgb
    return unit * 2 - 1

"""The Python front door: arrays in and out, the released script's procedure."""

import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import torch
from numpy.typing import NDArray
from PIL import Image
from rasters import byte_picture, picture, read, repeat, write_raster
from torch import Tensor, nn

from slimdiffsr import Upscaler
from slimdiffsr.errors import (
    ConfigError,
    RasterError,
)
from slimdiffsr.files.students import save_model
from slimdiffsr.geo import NetworkSpec, SceneOptions
from slimdiffsr.models.student import build_student
from slimdiffsr.settings.config import ModelConfig, UNetConfig
from slimdiffsr.upscale import match_statistics, restore

# The paper's blocks and norms, pooling over the whole tile, at a size for tests.
SMALL = ModelConfig(
    name="small",
    scale=4,
    kind="tiny",
    unet=UNetConfig(
        widths=(8, 16), mid_width=16, layers=1, groups=4, ff_mult=1, queries=4, squeeze=4
    ),
    stem_width=8,
    decoder_widths=(8, 8, 8),
    tile_hr_px=128,
    overlap_hr_px=32,
)


def small_model() -> nn.Module:
    model = build_student(SMALL)
    rng = torch.Generator().manual_seed(7)
    for value in model.parameters():
        value.data.copy_(torch.randn(value.shape, generator=rng) * 0.1)
    return model


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Upscaler:
    path = tmp_path_factory.mktemp("small") / "small.safetensors"
    save_model(path, small_model(), SMALL)
    return Upscaler.from_pretrained(path)


@cache
def bicubic() -> Upscaler:
    return Upscaler.from_pretrained("bicubic")


def rgb(height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    return np.moveaxis(byte_picture(3, height, width, seed), 0, -1).copy()


# ---------------------------------------------------------------------------------------------
# Arrays


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "float32", "float64"])
@pytest.mark.parametrize("shape", [(21, 34, 3), (21, 34)])
def test_an_array_comes_back_in_its_shape_type_and_units(
    small: Upscaler, dtype: str, shape: tuple[int, ...]
) -> None:
    low, span = {"uint16": (300, 9000), "int16": (-400, 3000), "uint8": (0, 255)}.get(
        dtype, (-0.1, 0.9)
    )
    image = (np.moveaxis(picture(3, 21, 34), 0, -1) * span + low).astype(dtype)
    image = image if len(shape) == 3 else image[..., 0]
    out = small.upscale(image)
    assert out.dtype == image.dtype
    assert out.shape == (84, 136, *shape[2:])
    assert out.flags.c_contiguous
    # Low frequencies are the input's: so are the units.
    assert abs(out.mean() - image.mean()) < 0.01 * span


@pytest.mark.parametrize(
    ("height", "width"), [(1, 1), (1, 40), (5, 3), (31, 33), (32, 32), (77, 45)]
)
def test_any_size_is_fine(small: Upscaler, height: int, width: int) -> None:
    image = np.random.default_rng(0).integers(0, 255, (height, width, 3)).astype(np.uint8)
    before = image.copy()
    out = small.upscale(image)
    assert out.shape == (4 * height, 4 * width, 3)
    np.testing.assert_array_equal(image, before)


@pytest.mark.parametrize(
    ("source", "inside", "at_edges"),
    [("bicubic", 0, 0), ("lanczos", 0, 0), ("tiny-x4-faithful", 1, 6), ("tiny-x4", 1, 10)],
)
@pytest.mark.parametrize("value", [0, 255, 40])
def test_a_constant_stays_constant(source: str, inside: int, at_edges: int, value: int) -> None:
    # A convolution sees zeros beyond the edge of the scene, so a network may waver there.
    out = Upscaler.from_pretrained(source).upscale(np.full((128, 128, 3), value, np.uint8))
    error = np.abs(out.astype(int) - value)
    assert error[64:-64, 64:-64].max() <= inside
    assert error.max() <= at_edges


def test_a_nan_costs_its_block_and_nothing_else(small: Upscaler) -> None:
    image = np.moveaxis(picture(3, 30, 30), 0, -1).astype(np.float32)
    image[11, 7] = np.nan
    out = small.upscale(image, value_range=(0, 1))
    expected = np.zeros((120, 120), np.bool_)
    expected[44:48, 28:32] = True
    for band in range(3):
        np.testing.assert_array_equal(np.isnan(out[..., band]), expected)


def test_declared_nodata_costs_its_blocks(small: Upscaler) -> None:
    image = rgb(30, 30)
    image[:4, :9] = 0
    out = small.upscale(image, nodata=0)
    np.testing.assert_array_equal(out[..., 0] == 0, repeat(image[None, ..., 0] == 0, 4)[0])


def test_the_value_range_is_what_the_network_sees() -> None:
    seen: list[Tensor] = []
    upscaler = Upscaler.from_pretrained("bicubic")
    upscaler.module.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    image = np.full((8, 8), 300, np.uint16)
    image[4:] = 500
    upscaler.upscale(image, value_range=(100, 500))
    np.testing.assert_allclose(np.unique(seen[0].numpy()), [0.0, 1.0], atol=1e-6)


@pytest.mark.parametrize(
    ("image", "words"),
    [
        (np.zeros((4, 4, 4), np.uint8), r"\(h, w\) or \(h, w, 3\), got shape \(4, 4, 4\)"),
        (np.zeros((3, 8, 8), np.uint8), r"\(3, 8, 8\)"),
        (np.zeros(9, np.uint8), r"\(9,\)"),
        (np.zeros((0, 8, 3), np.uint8), "empty"),
        (np.zeros((8, 8), np.complex64), "complex"),
        (np.zeros((8, 8), np.int64), "int64"),
        (np.zeros((8, 8), object), "object"),
        (np.zeros((8, 8), np.bool_), "bool"),
    ],
)
def test_what_is_no_image_is_refused(image: NDArray[Any], words: str) -> None:
    with pytest.raises(RasterError, match=words):
        bicubic().upscale(image)


@pytest.mark.parametrize(
    ("source", "method"),
    [("bicubic", Image.Resampling.BICUBIC), ("lanczos", Image.Resampling.LANCZOS)],
)
def test_the_baselines_are_pillows_in_the_interior(source: str, method: Any) -> None:
    image = rgb(150, 170)  # more than a tile
    out = Upscaler.from_pretrained(source).upscale(image, colour="none")
    # In float: Pillow rounds and clips 8-bit images between its two passes, too.
    bands = [Image.fromarray(image[..., k].astype(np.float32)) for k in range(3)]
    reference = np.stack([np.asarray(b.resize((680, 600), method)) for b in bands], -1)
    inside = np.abs(out - np.clip(reference, 0, 255))[16:-16, 16:-16]
    # Rounding, and at a few places a tenth of a level from the ends of the tiles' blend.
    assert inside.max() <= 0.7
    assert (inside > 0.501).mean() < 1e-3


def test_array_and_scene_agree_byte_for_byte(tmp_path: Path, small: Upscaler) -> None:
    image = rgb(50, 61)
    write_raster(tmp_path / "in.tif", np.moveaxis(image, -1, 0), photometric="RGB")
    small.upscale_scene(tmp_path / "in.tif", tmp_path / "out.tif")
    np.testing.assert_array_equal(
        np.moveaxis(read(tmp_path / "out.tif"), 0, -1), small.upscale(image)
    )


def test_a_plan_and_a_scene_tell_the_same(tmp_path: Path, small: Upscaler) -> None:
    source = write_raster(tmp_path / "in.tif", byte_picture(3, 50, 61))
    plan = small.plan_scene(source)
    report = small.upscale_scene(source, tmp_path / "out.tif")
    assert report.plan == plan
    assert (plan.output_width_hr_px, plan.output_height_hr_px) == (244, 200)
    with rasterio.open(tmp_path / "out.tif") as dataset:
        assert dataset.tags()["SLIMDIFFSR_MODEL"] == "small"
        assert dataset.tags()["SLIMDIFFSR_WEIGHTS_SHA256"] == small.spec.weights_sha256


# ---------------------------------------------------------------------------------------------
# Colour


def biased(factor: float, offset: float) -> Upscaler:
    class Biased(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.repeat_interleave(4, 2).repeat_interleave(4, 3) * factor + offset

    spec = NetworkSpec(scale=4, tile_hr_px=256, overlap_hr_px=32, model_id="biased")
    return Upscaler(Biased(), spec)


def test_colour_rules_differ_as_they_say() -> None:
    image = rgb(64, 64)
    upscaler = biased(0.5, 0.2)  # half the contrast, and brighter
    wanted = repeat(np.moveaxis(image, -1, 0), 4).astype(float)
    rules: tuple[Any, ...] = ("low-frequency", "official", "none")
    found = {
        rule: np.moveaxis(upscaler.upscale(image, colour=rule), -1, 0).astype(float)
        for rule in rules
    }
    expected = ((wanted / 255 * 2 - 1) * 0.5 + 0.2 + 1) / 2 * 255
    assert np.abs(found["none"] - expected).max() <= 0.51
    for rule in ("low-frequency", "official"):
        assert np.abs(found[rule].mean((1, 2)) - wanted.mean((1, 2))).max() < 0.2
    # The official rule restores the spread as well, the other leaves fine detail to the network.
    enlarged = torch.nn.functional.interpolate(
        torch.from_numpy(image).permute(2, 0, 1)[None].float(), scale_factor=4.0, mode="bicubic"
    )
    spread = enlarged.numpy().std((0, 2, 3))
    assert np.abs(found["official"].std((1, 2)) / spread - 1).max() < 0.02
    assert (found["low-frequency"].std((1, 2)) < 0.97 * spread).all()


def test_an_unknown_colour_rule_is_an_error(small: Upscaler) -> None:
    wrong: Any = "vivid"
    with pytest.raises(ConfigError, match="low-frequency, official or none, got 'vivid'"):
        small.upscale(rgb(8, 8), colour=wrong)
    with pytest.raises(ConfigError, match="official or none here, got 'vivid'"):
        small.restore(torch.zeros(1, 3, 8, 8), colour=wrong)


def test_the_colour_rule_is_in_the_tags(tmp_path: Path) -> None:
    source = write_raster(tmp_path / "in.tif", byte_picture(3, 9, 9))
    bicubic().upscale_scene(
        source, tmp_path / "out.tif", SceneOptions(format="gtiff"), colour="official"
    )
    with rasterio.open(tmp_path / "out.tif") as dataset:
        assert dataset.tags()["SLIMDIFFSR_MODEL"] == "bicubic+official-colour"
        assert dataset.tags()["SLIMDIFFSR_COLOUR"] == "none"


# ---------------------------------------------------------------------------------------------
# The released script's procedure (MS 11)


def by_hand(
    model: Callable[[Tensor], Tensor], rgb_lr: NDArray[np.float32], colour: bool
) -> NDArray[np.float64]:
    """Pad right and below to 64 input pixels (256 of the output), run, crop, match; numpy."""
    height, width = rgb_lr.shape[-2:]
    below, right = -height % 64, -width % 64
    mode: Any = "reflect" if below < height and right < width else "edge"
    padded = np.pad(rgb_lr, ((0, 0), (0, 0), (0, below), (0, right)), mode=mode)
    with torch.no_grad():
        sr = model(torch.from_numpy(padded)).double().numpy()
    sr = sr[..., : 4 * height, : 4 * width]
    if colour:
        enlarged = torch.nn.functional.interpolate(
            torch.from_numpy(rgb_lr).double(), scale_factor=4.0, mode="bicubic"
        ).numpy()
        for band in range(3):
            wanted, got = enlarged[:, band], sr[:, band]
            sr[:, band] = (got - got.mean()) / got.std(ddof=1) * wanted.std(ddof=1) + wanted.mean()
    clipped: NDArray[np.float64] = np.clip(sr, -1, 1)
    return clipped


@pytest.mark.parametrize("size", [(64, 64), (40, 50), (70, 65), (20, 70), (25, 25)])
@pytest.mark.parametrize("colour", ["official", "none"])
def test_restore_is_the_released_procedure(
    small: Upscaler, size: tuple[int, int], colour: Any
) -> None:
    lr = (picture(3, *size)[None] * 2 - 1).astype(np.float32)
    out = small.restore(torch.from_numpy(lr), colour=colour)
    assert out.shape == (1, 3, 4 * size[0], 4 * size[1])
    assert out.dtype == torch.float32
    expected = by_hand(small_model().eval(), lr, colour == "official")
    assert np.abs(out.numpy() - expected).max() < 1e-4


def test_padding_is_a_multiple_for_the_model_too() -> None:
    sizes = []

    class Spy(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            sizes.append(tuple(x.shape[-2:]))
            return x.repeat_interleave(4, 2).repeat_interleave(4, 3)

    spec = NetworkSpec(scale=4, tile_hr_px=768, overlap_hr_px=0, model_id="spy")
    Upscaler(Spy(), spec, multiple_lr_px=48).restore(torch.zeros(1, 3, 100, 193))
    assert sizes == [(192, 384)]  # 192: the least multiple of both 48 and 64


def test_padding_mirrors_without_the_edge_or_repeats_it() -> None:
    seen = []

    def spy(x: Tensor) -> Tensor:
        seen.append(x)
        return x

    row = torch.arange(6.0).expand(1, 3, 6, 6)
    restore(spy, row, 1, 8)
    assert seen[0][0, 0, 0].tolist() == [0, 1, 2, 3, 4, 5, 4, 3]
    restore(spy, row[..., :2], 1, 8)
    assert seen[1][0, 0, 0].tolist() == [0, 1, 1, 1, 1, 1, 1, 1]
    restore(spy, row, 1, 6)
    assert seen[2] is row


def test_matching_gives_each_image_and_channel_the_references_moments() -> None:
    rng = np.random.default_rng(3)
    sr, reference = rng.normal(2, 3, (2, 3, 8, 9)), rng.normal(-1, 0.5, (2, 3, 8, 9))
    out = match_statistics(torch.from_numpy(sr), torch.from_numpy(reference)).numpy()
    np.testing.assert_allclose(out.mean((2, 3)), reference.mean((2, 3)), atol=1e-12)
    np.testing.assert_allclose(out.std((2, 3), ddof=1), reference.std((2, 3), ddof=1), rtol=1e-12)
    # Only scaled and shifted.
    flat, given = out[1, 2].ravel(), sr[1, 2].ravel()
    assert abs(np.corrcoef(flat, given)[0, 1] - 1) < 1e-12


def test_matching_a_blank_image_gives_the_references_mean() -> None:
    out = match_statistics(torch.full((1, 3, 4, 4), 0.3), torch.full((1, 3, 4, 4), -0.5))
    torch.testing.assert_close(out, torch.full((1, 3, 4, 4), -0.5))


# ---------------------------------------------------------------------------------------------
# Importing


def test_importing_the_package_waits_for_nothing_heavy() -> None:
    code = (
        "import sys, slimdiffsr; assert slimdiffsr.__version__;"
        "heavy = {'torch', 'rasterio', 'numpy', 'huggingface_hub'} & set(sys.modules);"
        "assert not heavy, heavy;"
        "from slimdiffsr import Upscaler; assert 'torch' in sys.modules and Upscaler"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_an_attribute_that_is_not_there_is_an_attribute_error() -> None:
    import slimdiffsr

    with pytest.raises(AttributeError, match="has no attribute 'Downscaler'"):
        _ = slimdiffsr.Downscaler

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from scipy.fft import dctn, idctn
from scipy.ndimage import gaussian_filter  # type: ignore[attr-defined]
from torch import Tensor

from slimdiffsr.degrade.jpeg import jpeg
from slimdiffsr.errors import ConfigError, DataError

PARITY = Path(__file__).parents[2] / "shared" / "parity" / "degradation.npz"

Array = NDArray[np.float64]


def scenery(height: int, width: int, seed: int = 0) -> Tensor:
    """Noise as smooth as photographs, colour smoother yet: (1, 3, h, w) on 8-bit levels."""
    rng = np.random.default_rng(seed)
    image = np.full((3, height, width), 128.0)
    for sigma, colourful in ((0.5, 0.0), (1, 0.1), (2, 0.2), (4, 0.4), (8, 0.4)):
        grey, colour = rng.normal(size=(1, height, width)), rng.normal(size=(3, height, width))
        image += 40 * sigma * gaussian_filter(grey + colourful * colour, (0, sigma, sigma))
    levels = np.clip(np.rint(image), 0, 255).astype(np.float32) / 255
    return torch.from_numpy(levels)[None]


def grey_scenery(height: int, width: int, seed: int = 0) -> Tensor:
    return scenery(height, width, seed)[:, :1].expand(-1, 3, -1, -1).contiguous()


def upright(image: Tensor, quality: float) -> Tensor:
    """The round trip with the standard's luma table, which ours holds on its side."""
    return jpeg(image.mT, torch.tensor([quality])).mT


def libjpeg(image: Tensor, quality: int) -> Tensor:
    pixels = (image[0] * 255).round().byte().permute(1, 2, 0).numpy()
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=quality, subsampling="4:2:0")
    decoded = np.asarray(Image.open(file)).astype(np.float32) / 255
    return torch.from_numpy(decoded).permute(2, 0, 1)[None]


def psnr(first: Tensor, second: Tensor) -> float:
    return float(-10 * torch.log10(((first - second) ** 2).mean()))


def standard_tables() -> tuple[Array, Array]:
    """Luma and chroma at quality 50, out of a file that libjpeg wrote."""
    file = io.BytesIO()
    Image.new("RGB", (16, 16)).save(file, "JPEG", quality=50)
    tables = Image.open(file).quantization  # type: ignore[attr-defined]
    luma, chroma = (np.array(tables[i], dtype=np.float64).reshape(8, 8) for i in (0, 1))
    return luma, chroma


def scipy_jpeg(image: Tensor, quality: float) -> Array:
    """The same lossy steps with scipy's DCT and Pillow's tables, (3, h, w), sides in 16s."""
    factor = 50 / quality if quality < 50 else (100 - quality) / 50
    red, green, blue = image[0].double().numpy() * 255
    luma = 0.299 * red + 0.587 * green + 0.114 * blue
    blue_chroma, red_chroma = (blue - luma) / 1.772, (red - luma) / 1.402

    def halve(plane: Array) -> Array:
        return (plane[::2, ::2] + plane[1::2, ::2] + plane[::2, 1::2] + plane[1::2, 1::2]) / 4

    def code(plane: Array, table: Array) -> Array:
        out = np.empty_like(plane)
        for y in range(0, plane.shape[0], 8):
            for x in range(0, plane.shape[1], 8):
                block = dctn(plane[y : y + 8, x : x + 8], norm="ortho")
                block = np.rint(block / (table * factor)) * (table * factor)
                out[y : y + 8, x : x + 8] = idctn(block, norm="ortho")
        return out

    luma_table, chroma_table = standard_tables()
    luma = code(luma - 128, luma_table) + 128
    blue_chroma, red_chroma = (
        code(halve(plane), chroma_table).repeat(2, axis=0).repeat(2, axis=1)
        for plane in (blue_chroma, red_chroma)
    )
    red, blue = luma + 1.402 * red_chroma, luma + 1.772 * blue_chroma
    green = (luma - 0.299 * red - 0.114 * blue) / 0.587
    return np.clip(np.stack((red, green, blue)) / 255, 0, 1)


@pytest.mark.parametrize("quality", [10.0, 47.3, 50.0, 76.5, 95.0])
def test_round_trip_is_the_same_as_with_scipys_dct_and_pillows_tables(quality: float) -> None:
    image = scenery(64, 96)
    error = np.abs(upright(image, quality)[0].numpy() - scipy_jpeg(image, quality))
    # A coefficient within float32's error of half a step may be rounded the other way; that
    # changes one block of the 96, and no more than one is allowed.
    assert np.quantile(error, 0.95) < 1e-5
    assert np.mean(error > 1e-5) <= 3 * 16 * 16 / error.size


@pytest.mark.skipif(not PARITY.exists(), reason="the shared parity arrays are not here")
@pytest.mark.parametrize("quality", [30, 75, 95])
def test_round_trip_equals_the_authors(quality: float) -> None:
    arrays = np.load(PARITY)
    result = jpeg(torch.from_numpy(arrays["image"]), torch.tensor([float(quality)]))
    np.testing.assert_allclose(result.numpy(), arrays[f"jpeg_{quality}"], rtol=0, atol=1e-5)


def test_grey_image_at_quality_50_is_libjpegs_to_one_grey_level() -> None:
    # At 50 both use the same whole-numbered table and grey has no chroma. What is left: libjpeg
    # rounds its output to 8 bits, and its fixed-point DCT errs by about a tenth, so that one
    # coefficient in about one block of ten is rounded the other way.
    image = grey_scenery(96, 128)
    error = (upright(image, 50.0) - libjpeg(image, 50)).abs()[0, 0] * 255
    worst = error.reshape(12, 8, 16, 8).amax(dim=(1, 3))
    assert (worst > 1.0).float().mean() < 0.2
    assert psnr(upright(image, 50.0), libjpeg(image, 50)) > 45


@pytest.mark.parametrize("quality", [30, 60, 80, 95])
def test_colour_image_loses_as_much_as_with_libjpeg(quality: int) -> None:
    # libjpeg rounds the tables and smooths the enlarged chroma, so pixels differ somewhat; the
    # loss must agree, and the two results must lie nearer each other than to the original.
    image = scenery(128, 160)
    ours, theirs = upright(image, float(quality)), libjpeg(image, quality)
    assert psnr(ours, image) == pytest.approx(psnr(theirs, image), abs=0.2)
    assert psnr(ours, theirs) > psnr(theirs, image) + 1


def test_loss_falls_as_quality_rises() -> None:
    image = grey_scenery(64, 64)
    losses = [psnr(jpeg(image, torch.tensor([q])), image) for q in (5.0, 20.0, 50.0, 75.0, 95.0)]
    assert losses == sorted(losses)
    assert losses[-1] - losses[0] > 10


def test_quality_100_keeps_a_grey_image() -> None:
    image = grey_scenery(32, 48)
    torch.testing.assert_close(jpeg(image, torch.tensor([100.0])), image, rtol=0, atol=1e-5)


def test_each_image_of_a_batch_has_its_own_quality() -> None:
    images = torch.cat([scenery(48, 40, seed) for seed in (1, 2, 3)])
    quality = torch.tensor([20.0, 61.3, 97.0])
    alone = [jpeg(images[i : i + 1], quality[i : i + 1]) for i in range(3)]
    torch.testing.assert_close(jpeg(images, quality), torch.cat(alone), rtol=0, atol=1e-5)


@pytest.mark.parametrize("size", [(1, 1), (5, 16), (17, 33), (31, 2)])
def test_any_size_comes_back_as_the_corner_of_the_image_padded_by_its_edge(
    size: tuple[int, int],
) -> None:
    image = scenery(*size)
    result = jpeg(image, torch.tensor([80.0]))
    assert result.shape == image.shape
    assert result.min() >= 0
    assert result.max() <= 1
    below, right = -size[0] % 16, -size[1] % 16
    padded = np.pad(image.numpy(), ((0, 0), (0, 0), (0, below), (0, right)), mode="edge")
    whole = jpeg(torch.from_numpy(padded), torch.tensor([80.0]))
    torch.testing.assert_close(result, whole[..., : size[0], : size[1]])


def test_blocks_do_not_see_each_other() -> None:
    image = scenery(48, 48)
    changed = image.clone()
    changed[..., 32:, 32:] = 0.3
    before, after = (jpeg(x, torch.tensor([70.0])) for x in (image, changed))
    torch.testing.assert_close(before[..., :32, :], after[..., :32, :], rtol=0, atol=1e-6)
    assert (before[..., 32:, 32:] - after[..., 32:, 32:]).abs().max() > 0.01


@pytest.mark.parametrize("quality", [0.0, -5.0, 101.0, float("nan")])
def test_a_quality_out_of_range_is_a_config_error_that_names_it(quality: float) -> None:
    with pytest.raises(ConfigError, match=r"\[1, 100\], got \["):
        jpeg(scenery(16, 16), torch.tensor([quality]))


@pytest.mark.parametrize(("shape", "count"), [((1, 1, 8, 8), 1), ((3, 8, 8), 3), ((2, 3, 8, 8), 1)])
def test_images_and_qualities_that_do_not_fit_are_a_data_error_with_both_shapes(
    shape: tuple[int, ...], count: int
) -> None:
    with pytest.raises(DataError, match=r"got \(.*\) and \("):
        jpeg(torch.zeros(shape), torch.full((count,), 75.0))

"""Images in memory: every kind is taken and given back as it came, or refused by its name."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import torch
from rasters import byte_picture, write_raster

from slimdiffsr import Upscaler
from slimdiffsr.errors import RasterError


@pytest.fixture(scope="module")
def bicubic() -> Upscaler:
    return Upscaler.from_pretrained("bicubic", device="cpu")


def bands_last(height: int, width: int) -> Any:
    return byte_picture(3, height, width).transpose(1, 2, 0)


@pytest.mark.parametrize("shape", [(20, 24, 3), (20, 24), (20, 24, 1)])
@pytest.mark.parametrize("dtype", ["uint8", "float32", ">u2"])
def test_masked_arrays_keep_their_mask(
    bicubic: Upscaler, shape: tuple[int, ...], dtype: str
) -> None:
    values = np.resize(bands_last(20, 24), shape).astype(dtype)
    image = np.ma.MaskedArray(values, np.zeros(shape, np.bool_))
    image[:8] = np.ma.masked
    image.data[:8] = 255
    result = bicubic.upscale(image, value_range=(0, 255))
    assert isinstance(result, np.ma.MaskedArray)
    assert result.dtype == np.dtype(dtype).newbyteorder("=")
    np.testing.assert_array_equal(
        np.ma.getmaskarray(result), np.ma.getmaskarray(image).repeat(4, 0).repeat(4, 1)
    )
    image.data[:8] = 0
    again = bicubic.upscale(image, value_range=(0, 255))
    np.testing.assert_array_equal(result[32:].data, again[32:].data)  # what is masked is not seen


def test_masks_of_single_bands_are_kept(bicubic: Upscaler) -> None:
    image = np.ma.MaskedArray(bands_last(20, 24), np.zeros((20, 24, 3), np.bool_))
    image[:5, :, 1] = np.ma.masked
    image[10:, :3, 2] = np.ma.masked
    result = bicubic.upscale(image)
    np.testing.assert_array_equal(result.mask, image.mask.repeat(4, 0).repeat(4, 1))


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "I;16", "F", "1", "P", "LA", "CMYK"])
def test_pil_images_come_back_as_such(bicubic: Upscaler, mode: str) -> None:
    image = pytest.importorskip("PIL.Image")
    picture = image.fromarray(bands_last(20, 24)).convert("L" if mode in ("I;16", "F") else mode)
    if mode in ("I;16", "F"):
        kind = "uint16" if mode == "I;16" else "float32"
        picture = image.fromarray(np.asarray(picture).astype(kind) * 3)
    result = bicubic.upscale(picture)
    assert result.size == (96, 80)
    assert result.mode == {"1": "L", "P": "RGB", "LA": "RGBA", "CMYK": "RGB"}.get(mode, mode)


def test_transparency_of_a_pil_image_is_kept(bicubic: Upscaler) -> None:
    image = pytest.importorskip("PIL.Image")
    alpha = np.linspace(0, 255, 20 * 24).reshape(20, 24, 1).astype(np.uint8)
    result = bicubic.upscale(image.fromarray(np.dstack([bands_last(20, 24), alpha])))
    np.testing.assert_array_equal(
        np.asarray(result)[..., 3], np.kron(alpha[..., 0], np.ones((4, 4), np.uint8))
    )


def test_a_pil_image_on_its_side_is_turned(bicubic: Upscaler, tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    exif = image.Exif()
    exif[0x0112] = 6
    image.fromarray(bands_last(20, 24)).save(tmp_path / "in.jpg", exif=exif)
    with image.open(tmp_path / "in.jpg") as picture:
        assert bicubic.upscale(picture).size == (80, 96)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda path: torch.zeros(3, 8, 8), r"a torch tensor: give tensor\.permute"),
        (lambda path: [[1, 2], [3, 4]], r"a list: give numpy\.asarray"),
        (lambda path: ((1, 2), (3, 4)), "a tuple"),
        (lambda path: rasterio.open(path), "an open rasterio dataset: give its path"),
        (lambda path: path, "the name of a file: upscale_scene"),
        (lambda path: str(path), "the name of a file"),
        (lambda path: None, "a NoneType"),
        (lambda path: np.zeros((8, 8), np.bool_), "array of bool: convert it to one of uint8"),
        (lambda path: np.zeros((8, 8), np.float16), "array of float16"),
        (lambda path: np.zeros((8, 8), np.complex64), "array of complex64"),
        (lambda path: np.zeros((8, 8), object), "array of object"),
        (lambda path: np.zeros((3, 8, 8), np.uint8), r"\(h, w, 3\), got shape \(3, 8, 8\)"),
        (lambda path: np.zeros((8, 8, 4), np.uint8), r"got shape \(8, 8, 4\)"),
        (lambda path: np.zeros((0, 8), np.uint8), "the image is empty"),
    ],
)
def test_what_is_no_image_is_named(
    bicubic: Upscaler, tmp_path: Path, make: Any, words: str
) -> None:
    path = write_raster(tmp_path / "in.tif", byte_picture(3, 8, 8))
    with pytest.raises(RasterError, match=words) as caught:
        bicubic.upscale(make(path))
    assert "\n" not in str(caught.value)


def test_nodata_must_fit_the_type(bicubic: Upscaler) -> None:
    with pytest.raises(RasterError, match="nodata -1 is no uint8"):
        bicubic.upscale(bands_last(8, 8), nodata=-1)
    result = bicubic.upscale(bands_last(8, 8), nodata=0)
    assert result.shape == (32, 32, 3)

from __future__ import annotations

import io
import sys
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
from PIL import Image
from rasterio.errors import NotGeoreferencedWarning

from slimdiffsr.datasets.images import encode_png, image_size, read_rgb8, to_rgb8, to_signed
from slimdiffsr.errors import ConfigError, DataError


def levels() -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """All 256 levels in each band, the bands unlike: (16, 16, 3)."""
    ramp = np.arange(256, dtype=np.uint8).reshape(16, 16)
    return np.stack([ramp, ramp.T, ramp[::-1]], axis=2)


def test_every_level_survives_the_way_to_a_network_and_back() -> None:
    signed = to_signed(levels())
    assert (signed.shape, signed.dtype) == ((1, 3, 16, 16), torch.float32)
    assert (float(signed.min()), float(signed.max())) == (-1, 1)
    np.testing.assert_array_equal(to_rgb8(signed[0]), levels())


def test_what_lies_between_levels_is_rounded_and_what_lies_outside_is_clamped() -> None:
    wanted = torch.tensor([-7.0, 0.4, 0.6, 254.4, 300.0])
    rgb = (wanted / 127.5 - 1).expand(3, 1, 5)
    np.testing.assert_array_equal(to_rgb8(rgb)[0, :, 0], [0, 0, 1, 254, 255])


def test_a_png_keeps_every_pixel_of_any_view(tmp_path: Path) -> None:
    turned = levels()[::-1, ::2]
    (tmp_path / "image.png").write_bytes(encode_png(turned))
    np.testing.assert_array_equal(read_rgb8(tmp_path / "image.png"), turned)
    assert image_size(tmp_path / "image.png") == (8, 16)
    with Image.open(io.BytesIO(encode_png(turned))) as image:
        assert image.format == "PNG"


def test_for_training_images_are_converted_that_a_measure_refuses(tmp_path: Path) -> None:
    path = tmp_path / "image.png"
    Image.new("RGBA", (8, 8), (10, 20, 30, 0)).save(path)
    assert (read_rgb8(path, convert=True) == (10, 20, 30)).all()
    Image.new("I;16", (8, 8), 4000).save(path)
    with pytest.raises(DataError, match="8-bit images are needed"):
        read_rgb8(path, convert=True)  # Pillow would clip it at 255
    with pytest.raises(DataError, match="8-bit images are needed"):
        image_size(path)


def test_without_pillow_the_error_names_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(ConfigError, match=r"needs Pillow: pip install 'slimdiffsr\[train\]'"):
        read_rgb8(tmp_path / "image.png")


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "I;16", "CMYK"])
def test_images_other_than_8_bit_rgb_or_grey_are_errors_that_name_the_file(
    tmp_path: Path, mode: str
) -> None:
    path = tmp_path / ("odd.tif" if mode == "CMYK" else "odd.png")
    Image.new(mode, (8, 8)).save(path)
    with pytest.raises(DataError, match=r"odd\.\w+ is .*8-bit RGB"):
        read_rgb8(path)


@pytest.mark.parametrize(("driver", "suffix"), [("PNG", "png"), ("GTiff", "tif")])
def test_16_bit_colour_is_an_error_although_pillow_would_read_it(
    tmp_path: Path, driver: str, suffix: str
) -> None:
    path = tmp_path / f"deep.{suffix}"
    with (
        pytest.warns(NotGeoreferencedWarning),
        rasterio.open(
            path, "w", driver=driver, width=8, height=8, count=3, dtype="uint16",
            photometric="RGB",
        ) as dst,
    ):  # fmt: skip
        dst.write(np.full((3, 8, 8), 40000, dtype=np.uint16))
    with pytest.raises(DataError, match="16-bit"):
        read_rgb8(path)


def test_grey_is_repeated_and_a_transparent_colour_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "image.png"
    Image.new("L", (8, 8), 77).save(path)
    assert (read_rgb8(path) == 77).all()
    Image.new("RGB", (8, 8)).save(path, transparency=(0, 0, 0))
    with pytest.raises(DataError, match="transparent"):
        read_rgb8(path)

"""PyTorch's work on output pixels against NumPy's, pixel by pixel."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from rasters import byte_picture, picture, read, wobbly, write_raster
from torch import Tensor

from slimdiffsr.errors import PredictionError
from slimdiffsr.geo import BandMeaning, KnownRaster, Network, SceneOptions, upscale_scene
from slimdiffsr.geo.arrays import NUMPY, Arrays
from slimdiffsr.geo.values import DTYPES
from slimdiffsr.runtime.pipeline import TileNetwork, TorchArrays
from slimdiffsr.runtime.protocol import Arithmetic

CPU = torch.device("cpu")
DEVICES = [CPU, pytest.param(torch.device("cuda"), marks=pytest.mark.gpu)]


def network_on(device: torch.device, **more: Any) -> Network:
    """The wobbly network, its results handed to PyTorch."""
    inner, arrays = wobbly(**more), TorchArrays(device)

    def predict(tiles: NDArray[np.float32]) -> Tensor:
        return torch.from_numpy(np.asarray(inner.predict(tiles))).to(device)

    return wobbly(**more, arrays=arrays, predict=predict)


def both(
    src: Path | KnownRaster, device: torch.device, batch: int = 3, **options: Any
) -> tuple[NDArray[Any], NDArray[Any]]:
    path = Path(src.path) if isinstance(src, KnownRaster) else src
    out = path.with_name("out.tif")
    results = []
    for network in (wobbly(batch=batch), network_on(device, batch=batch)):
        upscale_scene(src, out, network, SceneOptions(overwrite=True, **options))
        results.append(read(out))
    return results[0], results[1]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(
    ("dtype", "nodata"), [*((dtype, 7) for dtype in DTYPES), ("uint8", None), ("float32", 0)]
)
def test_every_type_comes_out_as_numpy_makes_it(
    tmp_path: Path, dtype: str, nodata: int | None, device: torch.device
) -> None:
    top = min(120 if dtype == "int8" else 250, 250) if dtype.endswith("8") else 30_000
    values = (picture(3, 60, 50) * top).astype(dtype)
    if nodata is not None:
        values[:, 20:31, 10:] = nodata
        values[1, 50:, :20] = nodata
    path = write_raster(tmp_path / "in.tif", values, nodata=nodata)
    ours, theirs = both(path, device, value_range=(0.1 * top, 0.8 * top))
    np.testing.assert_array_equal(theirs, ours)


@pytest.mark.parametrize("device", DEVICES)
def test_one_band_masks_alpha_and_chunks(tmp_path: Path, device: torch.device) -> None:
    values = byte_picture(4, 150, 140)
    mask = np.full((150, 140), 255, np.uint8)
    mask[30:60, 40:90] = 0
    path = write_raster(tmp_path / "in.tif", values, mask=mask)
    for options in ({"bands": (2,)}, {"all_bands": True}, {"colour": "none"}):
        ours, theirs = both(path, device, chunk_hr_px=512, **options)
        np.testing.assert_array_equal(theirs, ours)


@pytest.mark.parametrize("device", DEVICES)
def test_bands_of_different_ranges_and_their_neighbours(
    tmp_path: Path, device: torch.device
) -> None:
    values = (picture(4, 70, 60) * 9000 + 500).astype(np.uint16)
    path = write_raster(tmp_path / "in.tif", values)
    meanings = tuple(
        BandMeaning(scale=1e-4, offset=-0.01 * k, white=0.6 + 0.1 * k) for k in range(4)
    )
    known = KnownRaster(path=str(path), rgb=(1, 2, 3), meanings=meanings)
    several: list[dict[str, Any]] = [{}, {"all_bands": "network"}, {"output_scale": 3}]
    for options in several:
        ours, theirs = both(known, device, **options)
        np.testing.assert_array_equal(theirs, ours)


class Card:
    """A runtime that repeats pixels, on a card with room for some tiles."""

    def __init__(self, room: int) -> None:
        self.device, self.batch, self.room = CPU, 8, room
        self.seen: list[int] = []

    def __call__(self, rgb_lr: Tensor) -> Tensor:
        self.seen.append(len(rgb_lr))
        if len(rgb_lr) > self.room:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return rgb_lr.repeat_interleave(4, 2).repeat_interleave(4, 3)

    def warm_up(self, batch: int, height_lr_px: int, width_lr_px: int) -> None: ...

    def fingerprint(self) -> Arithmetic:
        return Arithmetic("torch", "fp32", "cpu", "0")

    def close(self) -> None: ...


@pytest.mark.parametrize(("batch", "room", "sizes"), [(8, 8, [8]), (8, 3, [8, 4, 2, 2, 2, 2]), (5, 2, [5, 2, 2, 2])])  # fmt: skip
def test_a_small_card_gets_smaller_batches_and_says_so_once(
    batch: int, room: int, sizes: list[int]
) -> None:
    card = Card(room)
    tiles = TileNetwork(card, NUMPY)
    images = np.random.default_rng(0).random((batch, 3, 16, 16), np.float32)
    wanted = images.repeat(4, 2).repeat(4, 3)
    np.testing.assert_allclose(tiles(images), wanted, atol=1e-6)
    assert card.seen == sizes
    np.testing.assert_allclose(tiles(images), wanted, atol=1e-6)
    assert max(card.seen[len(sizes) :]) <= room
    if room < batch:
        assert f"went on with {card.seen[-1]}" in tiles.remarks()[0]
    assert len(tiles.remarks()) == (room < batch)


def test_a_card_without_room_for_one_tile_is_told(tmp_path: Path) -> None:
    with pytest.raises(PredictionError, match="too small for a single tile"):
        TileNetwork(Card(0), NUMPY)(np.zeros((8, 3, 16, 16), np.float32))


def test_values_that_are_not_finite_are_noticed() -> None:
    for arrays in (NUMPY, TorchArrays(CPU)):
        _notices(arrays)


def _notices(arrays: Arrays) -> None:
    image = np.zeros((2, 3, 8, 8), np.float32)
    assert arrays.is_finite(arrays.upload(image))()
    for value in (np.nan, np.inf, -np.inf):
        image[1, 2, 3, 4] = value
        assert not arrays.is_finite(arrays.upload(image))()

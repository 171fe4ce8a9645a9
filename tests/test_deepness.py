"""An ONNX file in the QGIS plugin Deepness: where its super-resolution puts a result, and ours.

``as_deepness_lays`` states the plugin's arithmetic (0.7, map_processor_superresolution): an extent of
whole tiles that grows to the right and upwards, tiles side by side, a cut back to the raster's extent.
Deepness's own functions were run on an export of tiny-x4 in QGIS 3.22: docs/tutorials/qgis.md.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import rasterio
from affine import Affine
from numpy.typing import NDArray
from onnx import TensorProto, helper
from rasters import UTM, byte_picture, nearest, read, repeat, write_raster

from slimdiffsr.geo import upscale_scene

TILE_LR_PX, SCALE = 16, 4


def nearest_onnx(path: Path, resolution_cm: float) -> Path:
    """A network that repeats pixels, with the keys that Deepness reads."""
    scales = helper.make_tensor("scales", TensorProto.FLOAT, [4], [1, 1, SCALE, SCALE])
    node = helper.make_node("Resize", ["rgb", "", "scales"], ["sr"], mode="nearest", nearest_mode="floor",
                            coordinate_transformation_mode="asymmetric")  # fmt: skip
    sides = ([1, 3, TILE_LR_PX, TILE_LR_PX], [1, 3, TILE_LR_PX * SCALE, TILE_LR_PX * SCALE])
    rgb, sr = (
        helper.make_tensor_value_info(n, TensorProto.FLOAT, s)
        for n, s in zip(("rgb", "sr"), sides, strict=True)
    )
    graph = helper.make_graph([node], "nearest", [rgb], [sr], [scales])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    keys = {"model_type": "Superresolution", "resolution": resolution_cm, "tile_size": TILE_LR_PX,
            "tiles_overlap": 0, "sr_scale_factor": SCALE, "sr_output_scaling": 255}  # fmt: skip
    helper.set_model_props(model, {key: json.dumps(value) for key, value in keys.items()})
    onnx.save(model, path)
    return path


def as_deepness_lays(network: Path, raster: Path) -> tuple[NDArray[np.uint8], Affine]:
    """(3, rows, columns) and the transform of what Deepness would make of a whole layer."""
    session = onnxruntime.InferenceSession(str(network), providers=["CPUExecutionProvider"])
    said = {k: json.loads(v) for k, v in session.get_modelmeta().custom_metadata_map.items()}
    tile, scale, unit = said["tile_size"], said["sr_scale_factor"], said["resolution"] / 100
    with rasterio.open(raster) as dataset:
        values, left, top = dataset.read(), dataset.bounds.left, dataset.bounds.top
    _, rows, cols = values.shape
    above, beside = -rows % tile, -cols % tile  # only what is missing to whole tiles
    extended = np.pad(values, ((0, 0), (above, 0), (0, beside)))
    result = np.zeros((3, *(scale * side for side in extended.shape[1:])), np.uint8)
    for row in range(0, extended.shape[1], tile):
        for col in range(0, extended.shape[2], tile):
            part = np.float32(extended[None, :, row : row + tile, col : col + tile] / 255.0)
            (sr,) = session.run(None, {session.get_inputs()[0].name: part})[0]
            at = np.s_[:, row * scale : (row + tile) * scale, col * scale : (col + tile) * scale]
            result[at] = np.rint(sr * said["sr_output_scaling"])
    # Its box counts the last pixel in, its slice leaves it out: a row and a column of the input go.
    cut = result[:, above * scale : (above + rows - 1) * scale, : (cols - 1) * scale]
    return cut, Affine(unit / scale, 0, left, 0, -unit / scale, top)


@pytest.mark.parametrize("shape", [(32, 48), (30, 41), (9, 20)])
def test_deepness_puts_an_export_where_our_engine_puts_the_result(
    tmp_path: Path, shape: Any
) -> None:
    values = byte_picture(3, *shape)
    raster = write_raster(tmp_path / "in.tif", values, photometric="RGB")
    ours = tmp_path / "ours.tif"
    upscale_scene(raster, ours, nearest(SCALE))
    theirs, transform = as_deepness_lays(nearest_onnx(tmp_path / "n.onnx", 100 * UTM.a), raster)
    with rasterio.open(ours) as dataset:
        assert transform.almost_equals(dataset.transform)
    rows, cols = theirs.shape[1:]
    assert (rows, cols) == (SCALE * (shape[0] - 1), SCALE * (shape[1] - 1))
    np.testing.assert_array_equal(theirs, repeat(values, SCALE)[:, :rows, :cols])
    assert np.abs(read(ours)[:, :rows, :cols].astype(int) - theirs).max() <= 1

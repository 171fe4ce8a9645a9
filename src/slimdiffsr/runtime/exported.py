"""Files that ``export`` writes: what they say of themselves, for our engine and for other tools."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slimdiffsr.errors import WeightsError
from slimdiffsr.runtime.export import needs
from slimdiffsr.runtime.openvino import read_openvino
from slimdiffsr.runtime.protocol import Precision

__all__ = ["SUFFIXES", "About", "read_about"]

SUFFIXES = (".onnx", ".xml")
OURS = "slimdiffsr"  # where OpenVINO's files hold it


@dataclass(frozen=True, slots=True)
class About:
    """How an exported network is tiled, and which one it is."""

    model_id: str
    sha256: str  # of the weights it was made from
    scale: int
    tile_hr_px: int
    overlap_hr_px: int
    multiple_lr_px: int
    precision: Precision

    def texts(self) -> dict[str, str]:
        """Ours, as the text that both formats hold."""
        return {
            "model_id": self.model_id,
            "sha256": self.sha256,
            "scale": str(self.scale),
            "tile": str(self.tile_hr_px // self.scale),  # input pixels
            "overlap": str(self.overlap_hr_px // self.scale),  # input pixels
            "multiple": str(self.multiple_lr_px),
            "precision": self.precision,
            "range": "0:1",
        }

    def deepness(self, resolution_m: float) -> dict[str, str]:
        """The keys that QGIS Deepness reads, each as JSON; it counts sizes in input pixels.

        Its super-resolution lays whole tiles side by side, so it works without overlap alone. The
        factor and the scaling of the output (255) are asked for in its panel.
        """
        values: dict[str, Any] = {
            "model_type": "Superresolution",
            "class_names": {0: "red", 1: "green", 2: "blue"},
            "resolution": round(100 * resolution_m, 3),  # centimetres
            "tile_size": self.tile_hr_px // self.scale,
            "tiles_overlap": 0,
            "standardization_mean": [0.0, 0.0, 0.0],
            "standardization_std": [1.0, 1.0, 1.0],
            "sr_scale_factor": self.scale,
            "sr_output_scaling": 255,
        }
        return {key: json.dumps(value) for key, value in values.items()}


def read_about(path: Path) -> About:
    """What an exported file says of itself.

    Raises WeightsError for a file that is missing, cannot be read or was not written by ``export``,
    ConfigError where the package that reads it is not installed.
    """
    if not path.is_file():
        raise WeightsError(f"no such file: {path}")
    texts = _texts_of_openvino(path) if path.suffix == ".xml" else _texts_of_onnx(path)
    try:
        scale = int(texts["scale"])
        return About(
            model_id=texts["model_id"],
            sha256=texts["sha256"],
            scale=scale,
            tile_hr_px=int(texts["tile"]) * scale,
            overlap_hr_px=int(texts["overlap"]) * scale,
            multiple_lr_px=int(texts["multiple"]),
            precision=texts["precision"],  # type: ignore[arg-type]  # checked where it is run
        )
    except (KeyError, ValueError):
        raise WeightsError(
            f"{path} does not say how to tile it: only files of 'slimdiffsr export' are models here"
        ) from None


def _texts_of_openvino(path: Path) -> Mapping[str, str]:
    model = read_openvino(path, needs("openvino", "openvino").Core())
    if not model.has_rt_info(OURS):
        return {}
    found = model.get_rt_info(OURS)
    return {str(key): str(value.astype(str)) for key, value in found.astype(dict).items()}


def _texts_of_onnx(path: Path) -> Mapping[str, str]:
    ort = needs("onnxruntime", "onnx")
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's errors share no base
        words = str(error).strip().splitlines()[0][:300]
        raise WeightsError(
            f"onnxruntime {ort.__version__} cannot read {path} ({words}): install a later "
            "onnxruntime, or export again with a lower --opset"
        ) from None
    texts: Mapping[str, str] = session.get_modelmeta().custom_metadata_map
    return texts

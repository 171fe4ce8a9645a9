"""``evaluate --whole``: each image in one piece."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from students import micro_model

from slimdiffsr.datasets.images import to_rgb8, to_signed
from slimdiffsr.evaluate import our_model
from slimdiffsr.files.students import load_model, save_model
from slimdiffsr.models.student import build_student
from slimdiffsr.stages.run import fresh


def test_a_whole_image_has_no_tiles_and_no_mirrored_border(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    config = micro_model()
    save_model(path, fresh(lambda: build_student(config), 0), config)
    tiled, whole = (our_model("m", str(path), device="cpu", whole=w) for w in (False, True))
    rgb = np.random.default_rng(0).integers(0, 256, (16, 32, 3), dtype=np.uint8)
    made = whole.restore(rgb, "x")
    with torch.inference_mode():
        expected = to_rgb8(load_model(str(path)).model(to_signed(rgb))[0])
    # Another path through the network may round otherwise; mirrored borders make it another picture.
    assert int(np.abs(made.astype(int) - expected).max()) <= 2
    assert int(np.abs(made.astype(int) - tiled.restore(rgb, "x")).max()) > 5
    assert "whole images, colour none" in whole.about
    assert whole.identity != tiled.identity

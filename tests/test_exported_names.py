"""What other people's code imports: these names stay."""

from __future__ import annotations

import importlib

import pytest

PUBLIC = {
    "slimdiffsr": {"Upscaler", "__version__"},
    "slimdiffsr.degrade": {"degrade", "image_generator"},
    "slimdiffsr.demo": {"before_after_png", "make_demo_scene"},
    "slimdiffsr.evaluate": {"PairedFolder", "evaluate", "our_model", "write_tables"},
    "slimdiffsr.geo": {
        "Network", "NetworkSpec", "Predict", "Progress", "SceneOptions", "ScenePlan",
        "SceneReport", "plan_scene", "upscale_scene",
    },
    "slimdiffsr.metrics": {"grid_energy_db", "psnr_y", "ssim_y"},
    "slimdiffsr.stages": {
        "RunPaths", "train_prior", "train_student", "train_teacher", "train_uncertainty",
    },
}  # fmt: skip


@pytest.mark.parametrize("name", PUBLIC)
def test_public_names_stay_and_lead_somewhere(name: str) -> None:
    module = importlib.import_module(name)
    assert set(module.__all__) >= PUBLIC[name]
    for exported in module.__all__:
        assert getattr(module, exported) is not None


def test_the_readmes_import_is_the_class_itself() -> None:
    from slimdiffsr import Upscaler
    from slimdiffsr.upscale import Upscaler as Same

    assert Upscaler is Same

"""Writes metrics.json: what other packages measure on the images of tests/patterns.py.

Run by hand, where opensr-test, basicsr, pyiqa and their torchvision are installed; the tests only read the
file: python tests/golden/make_metrics.py
"""

from __future__ import annotations

import json
import platform
import sys
import types
import warnings
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent), str(HERE.parents[1] / "src")]

from patterns import pattern, reduced, results  # noqa: E402  both folders are found only now


def tensor(rgb: Any) -> torch.Tensor:
    return torch.from_numpy(rgb.astype(np.float32) / 255).permute(2, 0, 1)


def opensr(scale: int) -> dict[str, list[float]]:
    from opensr_test import Metrics

    hr = pattern(96, 128, seed=scale)
    found = {}
    for name, sr in results(hr, scale).items():
        metrics = Metrics(harm_apply_spatial=False)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            scores = metrics.compute(lr=tensor(reduced(hr, scale)), sr=tensor(sr), hr=tensor(hr))
        found[name] = [scores[key] for key in ("im_metric", "om_metric", "ha_metric")]
    return found


def basicsr(name: str) -> dict[str, float]:
    # The package asks for a module that torchvision has dropped; its metrics do not need it.
    dropped: Any = types.ModuleType("torchvision.transforms.functional_tensor")
    dropped.rgb_to_grayscale = None
    sys.modules.setdefault(dropped.__name__, dropped)
    from basicsr.metrics import psnr_ssim

    measure = getattr(psnr_ssim, f"calculate_{name}")
    hr = pattern(96, 128, seed=4)
    return {
        key: float(measure(sr[..., ::-1], hr[..., ::-1], crop_border=0, test_y_channel=True))
        for key, sr in results(hr, 4).items()
    }


def pyiqa_ssim() -> dict[str, float]:
    import pyiqa

    metric = pyiqa.create_metric("ssim", test_y_channel=True, color_space="ycbcr", device="cpu")
    hr = pattern(96, 128, seed=4)
    return {
        key: float(metric(tensor(sr)[None], tensor(hr)[None])) for key, sr in results(hr, 4).items()
    }


def pyiqa_dists() -> dict[str, float]:
    # The package's own class on random weights, for those of VGG16 are a download.
    import torchvision.models
    from learned import random_dists
    from pyiqa.archs import dists_arch

    weights = random_dists()
    vgg = torchvision.models.vgg16(weights=None)
    features = {k: v for k, v in weights.items() if k.startswith("features.")}
    vgg.load_state_dict(features, strict=False)
    dists_arch.models = types.SimpleNamespace(vgg16=lambda weights: vgg)
    metric = dists_arch.DISTS(pretrained=False).eval()
    metric.alpha.data, metric.beta.data = weights["alpha"], weights["beta"]
    hr = pattern(96, 128, seed=4)
    with torch.no_grad():
        return {
            key: float(metric(tensor(sr)[None], tensor(hr)[None]))
            for key, sr in results(hr, 4).items()
        }


content = {
    "made on": f"{platform.machine()}, Python {platform.python_version()}, torch {torch.__version__}",
    "opensr_test": {
        "version": version("opensr-test"),
        "call": "Metrics(harm_apply_spatial=False).compute(lr, sr, hr): improvement, omission, "
        "hallucination on RGB / 255",
        "tolerance": 1e-4,
        "reason": "the package computes in float32",
        "x4": opensr(4),
        "x8": opensr(8),
    },
    "basicsr": {
        "version": version("basicsr"),
        "call": "calculate_psnr, calculate_ssim with crop_border=0, test_y_channel=True",
        "tolerance": 1e-6,
        "reason": "the package computes Y in float32",
        "psnr": basicsr("psnr"),
        "ssim": basicsr("ssim"),
    },
    "dists": {
        "version": f"pyiqa {version('pyiqa')}",
        "call": "archs.dists_arch.DISTS on the weights of tests/learned.py",
        "tolerance": 1e-5,
        "reason": "both compute in float32, and sum in another order",
        "values": pyiqa_dists(),
    },
    "pyiqa": {
        "version": version("pyiqa"),
        "call": "ssim with test_y_channel=True, color_space='ycbcr', as the paper's scripts; it "
        "counts windows that anti-correlate as 0",
        "ssim": pyiqa_ssim(),
    },
}
(HERE / "metrics.json").write_text(json.dumps(content, indent=1) + "\n")

"""Image quality measures, as functions of arrays.

Conventions for every function here: images are (height, width, 3) 8-bit RGB unless the docstring
says otherwise, nothing is cropped from the border, arithmetic is float64, and one image gives one
float. ``sr`` is the image judged, ``hr`` the truth, ``lr`` the input that ``sr`` was made from.
"""

from slimdiffsr.metrics.canvas import canvas_db, contrast_drift_pct, mean_drift_pct
from slimdiffsr.metrics.consistency import (
    reflectance_consistency,
    spatial_shift_lr_px,
    subpixel_shift,
)
from slimdiffsr.metrics.correctness import Correctness, correctness, match_histogram
from slimdiffsr.metrics.fidelity import psnr_y, ssim_y
from slimdiffsr.metrics.image import grey8, luma
from slimdiffsr.metrics.spectrum import grid_energy_db, radial_spectrum_gap_db

__all__ = [
    "Correctness",
    "canvas_db",
    "contrast_drift_pct",
    "correctness",
    "grey8",
    "grid_energy_db",
    "luma",
    "match_histogram",
    "mean_drift_pct",
    "psnr_y",
    "radial_spectrum_gap_db",
    "reflectance_consistency",
    "spatial_shift_lr_px",
    "ssim_y",
    "subpixel_shift",
]

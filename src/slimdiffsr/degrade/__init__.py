"""The paper's second-order degradation: makes low-resolution images to learn from."""

from slimdiffsr.degrade.jpeg import jpeg
from slimdiffsr.degrade.kernels import (
    draw_kernel,
    draw_sinc_kernel,
    gaussian_kernel,
    generalized_gaussian_kernel,
    pad_kernel,
    plateau_kernel,
    sinc_kernel,
)
from slimdiffsr.degrade.ops import (
    add_gaussian_noise,
    add_poisson_noise,
    blur,
    quantise,
    resize,
    resize_by,
)
from slimdiffsr.degrade.pipeline import degrade, image_generator
from slimdiffsr.degrade.plain import plain_pair

__all__ = [
    "add_gaussian_noise",
    "add_poisson_noise",
    "blur",
    "degrade",
    "draw_kernel",
    "draw_sinc_kernel",
    "gaussian_kernel",
    "generalized_gaussian_kernel",
    "image_generator",
    "jpeg",
    "pad_kernel",
    "plain_pair",
    "plateau_kernel",
    "quantise",
    "resize",
    "resize_by",
    "sinc_kernel",
]

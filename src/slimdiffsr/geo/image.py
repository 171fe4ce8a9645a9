"""One image in memory as the raster of a scene, and the result as the same kind of image."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from affine import Affine
from numpy.typing import NDArray

from slimdiffsr.errors import RasterError
from slimdiffsr.geo.emptiness import stored_nodata
from slimdiffsr.geo.environment import gdal
from slimdiffsr.geo.values import DTYPES

__all__ = ["Picture", "picture_of"]

# What people give, by the package of its type, and what they should give.
_ELSE = {
    "torch": "a torch tensor: give tensor.permute(1, 2, 0).cpu().numpy() of one that is (3, h, w), "
    "or call restore with (b, 3, h, w) in [-1, 1]",
    "rasterio": "an open rasterio dataset: give its path to upscale_scene",
    "xarray": "an xarray object: give it to slimdiffsr.xarray.upscale",
    "pathlib": "the name of a file: upscale_scene takes files",
}
_ELSE_BUILT_IN: dict[type, str] = {
    str: _ELSE["pathlib"],
    list: "a list: give numpy.asarray(image, dtype)",
    tuple: "a tuple: give numpy.asarray(image, dtype)",
}


@dataclass(frozen=True, slots=True)
class Picture:
    """An image as bands, and how to give it back."""

    bands: NDArray[Any]  # (b, h, w)
    mask: NDArray[np.bool_] | None = None  # (b, h, w): true where nothing is, as in numpy.ma
    flat: bool = False  # (h, w), without an axis for bands
    has_alpha: bool = False  # the last band is transparency
    from_pil: bool = False

    def write(self, path: Path, nodata: float | None) -> None:
        """As a raster without a place. Raises RasterError for a nodata value of another type."""
        count, height, width = self.bands.shape
        if nodata is not None and stored_nodata(nodata, self.bands.dtype) is None:
            raise RasterError(f"nodata {nodata:g} is no {self.bands.dtype}")
        profile: dict[str, Any] = {
            "driver": "GTiff", "count": count, "height": height, "width": width,
            "dtype": self.bands.dtype, "nodata": nodata,
            "transform": Affine(2, 0, 0, 0, -2, 0),  # any but the identity, which rasterio warns of
        }  # fmt: skip
        if count >= 3:
            profile |= {"photometric": "RGB"}
        if self.has_alpha:
            profile |= {"alpha": "YES"}
        with gdal(), rasterio.open(path, "w", **profile) as dataset:
            dataset.write(self.bands)
            if self.mask is not None:  # a file has one mask for all bands
                dataset.write_mask(~self.mask.any(axis=0))

    def like(self, result: NDArray[Any]) -> Any:  # noqa: ANN401
        """(b, h, w), larger -> the kind of image that came, with its mask."""
        scale = result.shape[-1] // self.bands.shape[-1]
        image: NDArray[Any] = np.ascontiguousarray(np.moveaxis(result, 0, -1))
        image = image[..., 0] if self.flat else image
        if self.mask is not None:
            mask = self.mask.repeat(scale, 1).repeat(scale, 2)
            return np.ma.MaskedArray(image, mask[0] if self.flat else np.moveaxis(mask, 0, -1))
        if self.from_pil:
            from PIL import Image

            return Image.fromarray(image)
        return image


def picture_of(image: Any) -> Picture:  # noqa: ANN401
    """An array (h, w), (h, w, 1) or (h, w, 3), masked or not, or a PIL image.

    Raises RasterError for anything else, by its name.
    """
    if any(kind.__module__.split(".")[0] == "PIL" for kind in type(image).__mro__):
        return _from_pil(image)
    if not isinstance(image, np.ndarray):
        package = type(image).__module__.split(".")[0]
        what = _ELSE_BUILT_IN.get(type(image)) or _ELSE.get(package) or f"a {type(image).__name__}"
        raise RasterError(f"upscale takes a numpy array or a PIL image, got {what}")
    if image.dtype.name not in DTYPES:
        raise RasterError(
            f"cannot upscale an array of {image.dtype}: convert it to one of {', '.join(DTYPES)}"
        )
    flat = image.ndim == 2
    if not flat and not (image.ndim == 3 and image.shape[2] in (1, 3)):
        raise RasterError(f"an image must be (h, w) or (h, w, 3), got shape {image.shape}")
    if image.size == 0:
        raise RasterError(f"the image is empty: shape {image.shape}")
    mask = None
    if isinstance(image, np.ma.MaskedArray):
        mask = _bands_first(np.ma.getmaskarray(image))
        image = image.data
    native = image.astype(image.dtype.newbyteorder("="), copy=False)
    return Picture(_bands_first(native), mask, flat)


def _from_pil(image: Any) -> Picture:  # noqa: ANN401
    from PIL import ImageOps

    image = ImageOps.exif_transpose(image)
    if image.mode not in ("L", "RGB", "RGBA", "I;16", "I", "F"):
        clear = image.mode in ("LA", "PA", "La", "RGBa") or "transparency" in image.info
        image = image.convert("RGBA" if clear else "L" if image.mode == "1" else "RGB")
    array = np.asarray(image)
    if array.size == 0:
        raise RasterError(f"the image is empty: shape {array.shape}")
    return Picture(
        _bands_first(array),
        flat=array.ndim == 2,
        has_alpha=image.mode == "RGBA",
        from_pil=True,
    )


def _bands_first(image: NDArray[Any]) -> NDArray[Any]:
    return image[np.newaxis] if image.ndim == 2 else np.moveaxis(image, -1, 0)

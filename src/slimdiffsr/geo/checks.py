"""Which rasters can be read at all: their bands and types."""

from __future__ import annotations

from typing import Any

from slimdiffsr.errors import RasterError
from slimdiffsr.geo.sampling import claims_too_much
from slimdiffsr.geo.values import DTYPES

__all__ = ["check_kind"]


def check_kind(path: str, dataset: Any) -> None:  # noqa: ANN401  rasterio's DatasetReader
    """Raise RasterError for a raster without bands, of mixed types, or of a type that is not read."""
    if dataset.count == 0:
        parts = ", ".join(dataset.subdatasets[:4])
        hint = f"; it holds others, give one of them: {parts}" if parts else ""
        raise RasterError(f"{path} has no bands{hint}")
    kinds = set(dataset.dtypes)
    if len(kinds) > 1:
        raise RasterError(f"{path} has bands of different types: {', '.join(sorted(kinds))}")
    dtype = kinds.pop()
    if dtype.startswith("complex"):
        raise RasterError(f"{path} holds complex numbers: convert it, for example to amplitude")
    if dtype not in DTYPES:
        raise RasterError(f"{path} holds {dtype} values: convert it to one of {', '.join(DTYPES)}")
    if claims_too_much(dataset):
        raise RasterError(
            f"{path} claims {dataset.width} x {dataset.height} pixels of {dataset.count} bands, and "
            "its files are far too small for that: it is damaged"
        )

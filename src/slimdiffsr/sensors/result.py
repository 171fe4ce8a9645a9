"""The STAC item of a result: where and when it is, what it was derived from, by which model."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rasterio.warp import transform_geom

from slimdiffsr.errors import OutputError
from slimdiffsr.geo.raster import open_quietly
from slimdiffsr.geo.spec import SceneReport

__all__ = ["check_item_path", "item_path", "result_item", "write_result_item"]

_EXTENSIONS = (
    "https://stac-extensions.github.io/projection/v2.0.0/schema.json",
    "https://stac-extensions.github.io/raster/v1.1.0/schema.json",
    "https://stac-extensions.github.io/processing/v1.2.0/schema.json",
    "https://stac-extensions.github.io/mlm/v1.4.0/schema.json",
)
_KEPT = ("platform", "constellation", "instruments", "mission", "eo:cloud_cover", "view:off_nadir")


def item_path(dst: Path) -> Path:
    """The place of an output's item: beside it, under its name."""
    return dst.with_suffix(".json")


def check_item_path(dst: Path, overwrite: bool) -> None:
    """Raise OutputError when the item would replace a file that it may not."""
    path = item_path(dst)
    if path.exists() and not overwrite:
        raise OutputError(
            f"{path} exists already, where the item of {dst.name} goes: choose another name or "
            "allow overwriting"
        )


def write_result_item(
    report: SceneReport, properties: Mapping[str, Any], links: tuple[str, ...]
) -> Path:
    """Write the item beside the output; returns its path. Raises OutputError."""
    path = item_path(report.dst)
    try:
        text = json.dumps(result_item(report, properties, links), indent=1)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror}") from None
    return path


def result_item(
    report: SceneReport, properties: Mapping[str, Any], links: tuple[str, ...]
) -> dict[str, Any]:
    """An item for a finished output.

    properties: those of the item that it was made from; links: where that is.
    """
    with open_quietly(str(report.dst)) as dataset:
        shape, transform, crs = dataset.shape, list(dataset.transform[:6]), dataset.crs
        ring = _ring(dataset.bounds)
        tags = dataset.tags()
        bands = [
            {"name": name or f"band {k}", "data_type": dataset.dtypes[0],
             "scale": dataset.scales[k - 1], "offset": dataset.offsets[k - 1]}
            | ({} if dataset.nodata is None else {"nodata": dataset.nodata})
            for k, name in enumerate(dataset.descriptions, 1)
        ]  # fmt: skip
    geometry = None
    if crs is not None:
        geometry = transform_geom(crs, "EPSG:4326", {"type": "Polygon", "coordinates": [ring]})
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    item = {
        "type": "Feature",
        "stac_version": "1.0.0",
        "stac_extensions": list(_EXTENSIONS),
        "id": report.dst.stem,
        "geometry": geometry,
        "properties": {
            **{key: properties[key] for key in _KEPT if key in properties},
            "datetime": properties.get("datetime"),
            **_span(properties, now),
            "created": now,
            "gsd": abs(transform[0]),
            "proj:code": None if crs is None or crs.to_epsg() is None else f"EPSG:{crs.to_epsg()}",
            "proj:shape": list(shape),
            "proj:transform": transform,
            "processing:software": {"slimdiffsr": version("slimdiffsr")},
            **_model(report, tags),
        },
        "links": [{"rel": "derived_from", "href": href, "type": "application/geo+json"}
                  for href in links],
        "assets": {
            "data": {
                "href": f"./{report.dst.name}",
                "type": "image/tiff; application=geotiff; profile=cloud-optimized",
                "roles": ["data"],
                "raster:bands": bands,
            }
        },
    }  # fmt: skip
    if geometry is not None:
        corners = list(zip(*geometry["coordinates"][0], strict=True))
        item["bbox"] = [min(corners[0]), min(corners[1]), max(corners[0]), max(corners[1])]
    return item


def _ring(bounds: Any) -> list[tuple[float, float]]:  # noqa: ANN401  rasterio's BoundingBox
    left, bottom, right, top = bounds
    return [(left, bottom), (right, bottom), (right, top), (left, top), (left, bottom)]


def _span(properties: Mapping[str, Any], now: str) -> dict[str, Any]:
    """Start and end, which an item without a datetime must have."""
    if properties.get("datetime"):
        return {}
    start = properties.get("start_datetime", now)
    return {"start_datetime": start, "end_datetime": properties.get("end_datetime", start)}


def _model(report: SceneReport, tags: dict[str, str]) -> dict[str, Any]:
    """The model, as the MLM extension describes one."""
    plan = report.plan
    side_lr_px = plan.tile_hr_px // plan.model_scale
    size = {"dim_order": ["batch", "channel", "height", "width"], "data_type": "float32"}
    return {
        "mlm:name": tags.get("SLIMDIFFSR_MODEL", "unknown"),
        "mlm:architecture": "SlimDiffSR",
        "mlm:tasks": ["super-resolution"],
        "mlm:framework": "pytorch",
        "mlm:input": [{
            "name": "red, green, blue", "bands": [],
            "input": {"shape": [-1, 3, side_lr_px, side_lr_px], **size},
        }],
        "mlm:output": [{
            "name": "enlarged", "tasks": ["super-resolution"],
            "result": {"shape": [-1, 3, plan.tile_hr_px, plan.tile_hr_px], **size},
        }],
        "mlm:hyperparameters": {
            "weights_sha256": tags.get("SLIMDIFFSR_WEIGHTS_SHA256", ""),
            "scale": plan.scale, "overlap": plan.overlap_hr_px,
        },
    }  # fmt: skip

"""The page: HTML, script and MapLibre of this package, with or without the pictures in it."""

from __future__ import annotations

import base64
import json
import math
from dataclasses import dataclass
from html import escape
from importlib import resources
from importlib.metadata import version
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from affine import Affine

from slimdiffsr.errors import ConfigError, OutputError
from slimdiffsr.geo.grid import Region
from slimdiffsr.view.frame import MapFrame, PixelFrame
from slimdiffsr.view.layers import Layer, Scene, place_of, tags_of
from slimdiffsr.view.places import Frame, ground_of, metres_per_pixel
from slimdiffsr.view.tiles import MAGMA, Stretch, coloured, encode_png, read_box, stretched

__all__ = ["ASSETS", "Start", "asset", "describe", "layer_bands", "served_page", "write_page"]

# The page's own script is one module in parts, in this order.
SCRIPT = ("state.js", "maps.js", "controls.js", "pointer.js", "picture.js", "start.js")
# Everything the page loads, by the name it asks for; nothing else is served.
ASSETS = {
    "vendor/maplibre-gl.css": "text/css",
    "vendor/maplibre-gl.mjs": "text/javascript",
    "vendor/maplibre-gl-worker.mjs": "text/javascript",
    "vendor/maplibre-gl-compare.css": "text/css",
    "page.css": "text/css",
    "page.js": "text/javascript",
    "vendor/maplibre-gl-compare.js": "text/javascript",
    "vendor/LICENSES.txt": "text/plain",
}
LARGEST_HR_PX = 4096  # side of a picture that every graphics card takes as one texture


@dataclass(frozen=True, slots=True)
class Start:
    """What the page shows at first."""

    region_lr: Region | None = None  # else the whole scene
    value_range: tuple[float, float] | None = None  # else the scene's own
    basemap: str | None = None  # address of tiles with {z}, {x} and {y}

    def __post_init__(self) -> None:
        if self.basemap is None:
            return
        missing = [part for part in ("{z}", "{x}", "{y}") if part not in self.basemap]
        if missing or urlsplit(self.basemap).scheme not in ("http", "https"):
            raise ConfigError(
                "a basemap is an http(s) address with {z}, {x} and {y}, got "
                f"{self.basemap!r}: for example https://tile.openstreetmap.org/{{z}}/{{x}}/{{y}}.png"
            )


def asset(name: str) -> bytes:
    """What the page gets under a name."""
    folder = resources.files("slimdiffsr.view").joinpath("web")
    names = SCRIPT if name == "page.js" else (name,)
    return b"\n".join(folder.joinpath(name).read_bytes() for name in names)


def layer_bands(layer: Layer, asked: tuple[int, ...]) -> tuple[int, ...] | None:
    """The layer's own numbers of the input's bands; None when it lacks one."""
    found = tuple(layer.bands.get(band, 0) for band in asked)
    return found if all(found) else None


def describe(scene: Scene, frame: Frame, start: Start) -> dict[str, Any]:
    """All that the page's script needs to know, as JSON would have it."""
    source = scene.input
    low, high = start.value_range or (scene.value_range.low, scene.value_range.high)
    unsure = None
    if scene.uncertainty is not None and scene.unsure_range is not None:
        limits = scene.unsure_range
        unsure = {
            **_facts(scene.uncertainty, frame),
            "low": limits.low, "high": limits.high, "unit": scene.unit, "colours": MAGMA,
        }  # fmt: skip
    return {
        "title": scene.layers[0].name,
        "on_map": isinstance(frame, MapFrame),
        "bounds": frame.bounds,
        "start": _start_bounds(frame, start.region_lr),
        "zoom": frame.zoom,
        "size_lr_px": [source.region_lr.width, source.region_lr.height],
        "metres_per_lr_px": metres_per_pixel(source),
        "crs": _crs_name(place_of(source).crs or place_of(source).gcps_crs),
        "layers": [_facts(layer, frame) for layer in scene.layers],
        "uncertainty": unsure,
        "bands": [
            {"number": k, "name": source.names[k - 1].description or source.names[k - 1].colour}
            for k in sorted(scene.layers[0].bands)
        ],
        "seen": scene.seen,
        "range": [low, high],
        "own_range": [scene.value_range.low, scene.value_range.high],
        "basemap": _basemap(start.basemap),
        "version": version("slimdiffsr"),
    }


def _facts(layer: Layer, frame: Frame) -> dict[str, Any]:
    place, tags = place_of(layer.source), tags_of(layer.source)
    finer = math.ceil(math.log2(max(layer.scale, 1.0)) - 1e-9)
    metres = metres_per_pixel(layer.source)
    words = [f"{float(f'{metres:.4g}'):g} m pixels"] if metres else []
    words += [f"{place.width} x {place.height}", layer.source.dtype.name]
    words += [tags["SLIMDIFFSR_MODEL"]] if "SLIMDIFFSR_MODEL" in tags else []
    return {
        "name": layer.name,
        "maxzoom": frame.zoom + finer,
        "facts": " · ".join(words),
        "bands": layer.bands,
    }


def _crs_name(crs: Any) -> str:  # noqa: ANN401  rasterio's CRS or None
    if not crs:
        return ""
    code = crs.to_epsg()
    named = crs.to_wkt().split('"')[1:2]
    return f"EPSG:{code}" if code else named[0] if named else ""


def _basemap(address: str | None) -> dict[str, str] | None:
    if address is None:
        return None
    host = urlsplit(address).netloc
    credit = "OpenStreetMap contributors" if host.endswith("openstreetmap.org") else host
    return {"tiles": address, "credit": f"© {credit}"}


def _start_bounds(frame: Frame, region_lr: Region | None) -> tuple[float, ...]:
    if region_lr is None or not isinstance(frame, PixelFrame):
        return frame.bounds
    side = frame.world_lr_px
    cols, rows = (region_lr.col, region_lr.col_end), (region_lr.row, region_lr.row_end)
    return (
        0.5 + cols[0] / side, 0.5 + rows[0] / side, 0.5 + cols[1] / side, 0.5 + rows[1] / side,
    )  # fmt: skip


# ---------------------------------------------------------------------------------------------
# Pages


def served_page(facts: dict[str, Any]) -> bytes:
    """The page as the server gives it: everything else is asked for by name."""
    head = "\n".join(
        f'<link rel="stylesheet" href="{name}">' for name in ASSETS if name.endswith(".css")
    )
    body = '<script type="module" src="page.js"></script>'
    return _page(facts, head, body)


def write_page(
    scene: Scene, target: Path, start: Start | None = None, *, overwrite: bool = False
) -> Path:
    """One HTML file of a window of the scene, which needs no server, no network and no rasters.

    Pictures are as they are shown: 8 bits at one stretch, without loss. Raises OutputError for a
    window whose finest layer would be larger than LARGEST_HR_PX, or a file that cannot be written.
    """
    start = start or Start()
    if start.basemap is not None:
        raise ConfigError("a basemap is fetched as one looks: leave it away with --html")
    if target.exists() and not overwrite:
        raise OutputError(f"{target} exists: give another name or allow overwriting")
    whole = scene.input.region_lr
    region_lr = start.region_lr or whole
    frame = PixelFrame(whole.width, whole.height)
    facts = describe(scene, frame, start)
    facts["bounds"] = facts["start"] = _start_bounds(frame, region_lr)
    stretch = Stretch(*facts["range"])
    facts["images"] = {
        layer.name: _data_url(
            "image/png", encode_png(_picture(scene, layer, region_lr, stretch), level=9)
        )
        for layer in (*scene.layers, *([scene.uncertainty] if scene.uncertainty else []))
    }
    facts["origin_lr_px"] = [region_lr.col, region_lr.row]
    facts["ground"] = _corners(scene, region_lr)
    page = _page(facts, *_inlined())
    try:
        target.write_bytes(page)
    except OSError as error:
        raise OutputError(f"cannot write {target}: {error.strerror}") from None
    return target


def _picture(scene: Scene, layer: Layer, region_lr: Region, stretch: Stretch) -> Any:  # noqa: ANN401
    scale = max(layer.scale, 1.0)
    rows, cols = round(region_lr.height * scale), round(region_lr.width * scale)
    if max(rows, cols) > LARGEST_HR_PX:
        side = int(LARGEST_HR_PX / scale)
        raise OutputError(
            f"the window would be {cols} x {rows} pixels of {layer.name}, more than "
            f"{LARGEST_HR_PX} along a side: give --window with at most {side} x {side}"
        )
    box = Affine.translation(region_lr.col, region_lr.row) @ Affine.scale(
        region_lr.width / cols, region_lr.height / rows
    )
    if layer is scene.uncertainty and scene.unsure_range is not None:
        return coloured(read_box(layer, box, (1,), (rows, cols)), scene.unsure_range)
    bands = layer_bands(layer, scene.seen)
    if bands is None:
        return np.zeros((1, 1, 4), np.uint8)
    return stretched(read_box(layer, box, bands, (rows, cols)), stretch)


def _corners(scene: Scene, region_lr: Region) -> list[dict[str, list[float]]]:
    """Coordinates of the window's upper left, upper right and lower left, to go on from."""
    at = (
        (region_lr.col, region_lr.row),
        (region_lr.col_end, region_lr.row),
        (region_lr.col, region_lr.row_end),
    )
    return [ground_of(scene.input, *place) for place in at]


def _data_url(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def _inlined() -> tuple[str, str]:
    styles = [asset(name).decode() for name in ASSETS if name.endswith(".css")]
    scripts = [
        f'<script type="text/plain" id="{name}">{base64.b64encode(asset(name)).decode()}</script>'
        for name in ASSETS
        if name.startswith("vendor/") and name.endswith(("js", "txt"))
    ]
    head = "\n".join(f"<style>{style}</style>" for style in styles)
    main = f'<script type="module">{asset("page.js").decode()}</script>'
    return head, "\n".join([*scripts, main])


def _page(facts: dict[str, Any], head: str, body: str) -> bytes:
    # "</script>" in a file's name would end the block.
    data = json.dumps(facts, allow_nan=False).replace("<", "\\u003c")
    parts = {
        "TITLE": escape(facts["title"]),
        "HEAD": head,
        "SCENE": f'<script type="application/json" id="scene">{data}</script>',
        "BODY": body,
    }
    page = asset("page.html").decode()
    for name, text in parts.items():
        page = page.replace(f"<!--{name}-->", text, 1)
    return page.encode()

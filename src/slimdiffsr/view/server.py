"""A small server on this machine alone: the page, its tiles and values, behind a token."""

from __future__ import annotations

import errno
import json
import re
import secrets
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from slimdiffsr.errors import ConfigError, SlimDiffSRError
from slimdiffsr.geo.raster import GDAL_ERRORS
from slimdiffsr.view.layers import Layer, Scene
from slimdiffsr.view.page import ASSETS, Start, asset, describe, layer_bands, served_page
from slimdiffsr.view.places import frame_of, ground_of, read_tile, to_input
from slimdiffsr.view.tiles import Stretch, at_point, coloured, encode_png, stretched

__all__ = ["Viewer", "serve"]

HOST = "127.0.0.1"
DEEPEST = 30  # zooms beyond are nobody's

_TILE = re.compile(r"tiles/(\d{1,2})/(\d{1,10})/(\d{1,10})\.png")


class Viewer(ThreadingHTTPServer):
    """Serves one scene on 127.0.0.1. ``url`` is where; close it with ``server_close``."""

    daemon_threads = True
    block_on_close = False

    def __init__(self, scene: Scene, start: Start | None = None, *, port: int = 0) -> None:
        """port: 0 for any that is free. Raises ConfigError for one that is taken or not allowed."""
        self.scene = scene
        self.start = start or Start()
        self.frame = frame_of(scene, on_map=self.start.basemap is not None)
        self.token = secrets.token_urlsafe(18)
        if not 0 <= port <= 65535:
            raise ConfigError(f"a port is 0 to 65535, got {port}")
        try:
            super().__init__((HOST, port), _Handler)
        except OSError as error:
            why = (
                "is taken" if error.errno == errno.EADDRINUSE else f"is refused ({error.strerror})"
            )
            raise ConfigError(f"port {port} {why}: give another --port, or 0 for any") from None

    @property
    def url(self) -> str:
        """The page's address, with its token."""
        return f"http://{HOST}:{self.server_port}/{self.token}/"

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ANN401
        """A browser that goes away in the middle of a tile is no news."""
        import sys

        if not isinstance(sys.exc_info()[1], (ConnectionError, socket.timeout)):
            super().handle_error(request, client_address)


@contextmanager
def serve(scene: Scene, start: Start | None = None, *, port: int = 0) -> Iterator[Viewer]:
    """A viewer whose port is given back at the end; run its ``serve_forever``."""
    with Viewer(scene, start, port=port) as viewer:
        yield viewer


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 60
    server: Viewer

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        token, *rest = parts.path.removeprefix("/").split("/", 1)
        # A page of another site may make the browser ask, by a name that leads here: not answered.
        host = (self.headers.get("Host") or "").rsplit(":", 1)[0]
        if host not in (HOST, "localhost"):
            return self._answer(403, "text/plain", b"this server is asked as 127.0.0.1 only")
        if not secrets.compare_digest(token.encode(), self.server.token.encode()) or not rest:
            return self._answer(404, "text/plain", b"not here: the address has a token in it")
        try:
            kind, body = self._route(rest[0], parse_qs(parts.query))
        except SlimDiffSRError as error:
            return self._answer(400, "text/plain", str(error).encode())
        except GDAL_ERRORS as error:
            return self._answer(500, "text/plain", str(error).encode())
        return self._answer(200 if kind else 404, kind or "text/plain", body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: ANN401
        pass

    def _answer(self, status: int, kind: str, body: bytes) -> None:
        lasting = status == 200 and kind in ("image/png", "text/css", "text/javascript")
        self.send_response(status)
        self.send_header("Content-Type", f"{kind}; charset=utf-8" if "text" in kind else kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "private, max-age=3600" if lasting else "no-store")
        self.send_header("Content-Security-Policy", self._policy())
        self.send_header("Referrer-Policy", "no-referrer")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.end_headers()
        self.wfile.write(body)

    def _policy(self) -> str:
        """What the page may ask for: this server, and a basemap's if there is one."""
        basemap = self.server.start.basemap
        outside = "" if basemap is None else " {0.scheme}://{0.netloc}".format(urlsplit(basemap))
        return (
            f"default-src 'self'; img-src 'self' data: blob:{outside}; connect-src 'self'{outside}; "
            "worker-src 'self' blob:; style-src 'self' 'unsafe-inline'; frame-ancestors 'self'"
        )

    def _route(self, name: str, query: dict[str, list[str]]) -> tuple[str, bytes]:
        viewer = self.server
        if name == "":
            facts = describe(viewer.scene, viewer.frame, viewer.start)
            return "text/html", served_page(facts)
        if name in ASSETS:
            return ASSETS[name], asset(name)
        if name == "values":
            u, v = _number(query, "u"), _number(query, "v")
            return "application/json", json.dumps(_values(viewer, u, v, query)).encode()
        at = _TILE.fullmatch(name)
        layer = viewer.scene.layer(query.get("layer", [""])[0])
        if at is None or layer is None or int(at[1]) > DEEPEST:
            return "", b"there is nothing of that name"
        return "image/png", _tile(viewer, layer, (int(at[1]), int(at[2]), int(at[3])), query)


def _tile(
    viewer: Viewer, layer: Layer, at: tuple[int, int, int], query: dict[str, list[str]]
) -> bytes:
    scene = viewer.scene
    if layer is scene.uncertainty and scene.unsure_range is not None:
        return encode_png(coloured(read_tile(viewer.frame, layer, at, (1,)), scene.unsure_range))
    asked = _bands(query)
    bands = layer_bands(layer, asked)
    if bands is None:
        raise ConfigError(f"{layer.name} has not all of the input's bands {asked}")
    stretch = Stretch(_number(query, "low"), _number(query, "high"), _number(query, "gamma"))
    return encode_png(stretched(read_tile(viewer.frame, layer, at, bands), stretch))


def _values(viewer: Viewer, u: float, v: float, query: dict[str, list[str]]) -> dict[str, Any]:
    """What all layers hold at a place of the world, and where on the ground that is."""
    scene = viewer.scene
    col, row = to_input(scene, viewer.frame, u, v)
    asked = _bands(query)
    found = {}
    for layer in scene.layers:
        bands = layer_bands(layer, asked)
        found[layer.name] = (
            [None] * len(asked) if bands is None else at_point(layer, col, row, bands)
        )
    if scene.uncertainty is not None:
        found[scene.uncertainty.name] = at_point(scene.uncertainty, col, row, (1,))
    return {"col": col, "row": row, "values": found, **ground_of(scene.input, col, row)}


def _bands(query: dict[str, list[str]]) -> tuple[int, ...]:
    text = query.get("bands", [""])[0]
    bands = tuple(int(part) for part in text.split(",") if part.isdigit())
    if len(bands) not in (1, 3):
        raise ConfigError(f"bands must be one number or three, got {text!r}")
    return bands


def _number(query: dict[str, list[str]], name: str) -> float:
    text = query.get(name, [""])[0]
    try:
        return float(text)
    except ValueError:
        raise ConfigError(f"{name} must be a number, got {text!r}") from None

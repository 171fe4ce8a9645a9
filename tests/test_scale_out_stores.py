"""Jobs in an object store: a real server that speaks S3, which fails, dawdles and hangs up."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.request import Request as WebRequest
from urllib.request import urlopen

import numpy as np
import pytest
from rasters import byte_picture, write_raster
from test_scale_out import CHUNK, alone
from typer.testing import CliRunner

from slimdiffsr.errors import PlaceError
from slimdiffsr.geo import SceneOptions
from slimdiffsr.geo.job import package_version
from slimdiffsr.scale_out.finish import finish_job
from slimdiffsr.scale_out.jobfile import read_job
from slimdiffsr.scale_out.places import check_writable, open_place
from slimdiffsr.scale_out.planning import plan_job
from slimdiffsr.scale_out.request import Request, declared_spec
from slimdiffsr.scale_out.run import work_here

moto_server = pytest.importorskip("moto.server", reason="moto's S3 server is not here")
pytest.importorskip("obstore", reason="obstore is not here")


class Unreliable:
    """A proxy before the server: some answers are 503s, late, or cut off in the middle."""

    def __init__(self, port: int) -> None:
        self.behind, self.rng, self.on = port, np.random.default_rng(0), False
        self.troubles: dict[str, int] = {"error": 0, "late": 0, "cut": 0}
        self._lock = threading.Lock()

    def trouble(self) -> str:
        with self._lock:
            kind = str(
                self.rng.choice(["none", "error", "late", "cut"], p=[0.85, 0.06, 0.04, 0.05])
            )
            if not self.on:
                return "none"
            if kind != "none":
                self.troubles[kind] += 1
            return kind

    def serve(self) -> ThreadingHTTPServer:
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                kind = proxy.trouble()
                if kind == "error":
                    return self.reply(503, {}, b"<Error><Code>SlowDown</Code></Error>")
                if kind == "late":
                    threading.Event().wait(0.3)
                status, headers, data = proxy.forward(self.command, self.path, self.headers, body)
                if kind == "cut" and self.command == "GET" and len(data) > 1:
                    self.send_response(status)
                    self.send_header("Content-Length", str(len(data)))
                    self.end_headers()
                    self.wfile.write(data[: len(data) // 2])
                    self.close_connection = True
                    return None
                return self.reply(status, headers, data)

            def reply(self, status: int, headers: dict[str, str], data: bytes) -> None:
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                if self.command != "HEAD":
                    self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(data)

            do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = answer  # noqa: N815

            def log_message(self, *_: Any) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return server

    def forward(self, method: str, path: str, headers: Any, body: bytes) -> Any:
        connection = HTTPConnection("127.0.0.1", self.behind, timeout=30)
        kept = {k: v for k, v in headers.items() if k.lower() != "connection"}
        connection.request(method, path, body, kept)
        answer = connection.getresponse()
        status, found, data = answer.status, answer.headers, answer.read()
        connection.close()
        names = ("content-type", "etag", "last-modified", "content-range")
        passed = {k: v for k, v in found.items() if k.lower() in names}
        if method == "HEAD" and found.get("content-length"):
            passed["Content-Length"] = found["content-length"]
        return status, passed, data


@pytest.fixture(scope="module")
def behind() -> Iterator[Unreliable]:
    server = moto_server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    port = server.get_host_and_port()[1]
    proxy = Unreliable(port)
    urlopen(WebRequest(f"http://127.0.0.1:{port}/bucket", method="PUT")).close()
    yield proxy
    server.stop()


@pytest.fixture
def store(behind: Unreliable, monkeypatch: pytest.MonkeyPatch) -> Iterator[Unreliable]:
    server = behind.serve()
    host = f"127.0.0.1:{server.server_address[1]}"
    for name, value in {
        "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": f"http://{host}", "AWS_S3_ENDPOINT": host, "AWS_HTTPS": "NO",
        "AWS_VIRTUAL_HOSTING": "FALSE",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    yield behind
    behind.on = False
    server.shutdown()
    server.server_close()


def test_a_store_puts_once_and_lists_what_is_there(store: Unreliable, tmp_path: Path) -> None:
    place = open_place("s3://bucket/place")
    check_writable(place)
    assert place.put("a/b.1", b"x")
    assert not place.put("a/b.1", b"y")
    assert place.get("a/b.1") == b"x"
    assert place.put("a/b.1", b"z", replace=True)
    assert list(place.keys("a/")) == ["a/b.1"]
    assert list(place.keys("b/")) == []
    big = tmp_path / "big"
    big.write_bytes(os.urandom(6 << 20))
    place.put_file("big", big)
    assert place.get("big") == big.read_bytes()
    place.delete("a/b.1")
    assert not place.has("a/b.1")


@pytest.mark.slow
def test_a_job_in_a_store_that_fails_now_and_then(store: Unreliable, tmp_path: Path) -> None:
    scene = write_raster(tmp_path / "scene.tif", byte_picture(3, 260, 220), photometric="RGB")
    spec = declared_spec("bicubic", 4, "cpu", "auto", "auto", "low-frequency")
    request = Request("bicubic", spec, SceneOptions(chunk_hr_px=CHUNK))
    place = open_place("s3://bucket/job")
    store.on = True
    plan_job(place, [(str(scene), "a.tif")], "s3://bucket/out", request, shards=2, unit_chunks=1)
    work_here("s3://bucket/job", 0)
    done = finish_job(place, read_job(place, package_version()))
    assert not done.failures
    made = open_place("s3://bucket/out").get("a.tif")
    assert made == alone(scene, tmp_path / "alone.tif").read_bytes()
    assert min(store.troubles.values()) > 0, store.troubles


def test_missing_credentials_name_the_variables(
    monkeypatch: pytest.MonkeyPatch, behind: Unreliable
) -> None:
    class Refusing(Unreliable):
        def forward(self, method: str, path: str, headers: Any, body: bytes) -> Any:
            return 403, {}, b"<Error><Code>AccessDenied</Code></Error>"

    server = Refusing(0).serve()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_address[1]}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "wrong")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    with pytest.raises(PlaceError, match="AWS_ACCESS_KEY_ID"):
        open_place("s3://bucket/x").put("key", b"")
    server.shutdown()
    server.server_close()


def test_upscale_writes_to_a_store(
    store: Unreliable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from slimdiffsr.cli import app

    monkeypatch.chdir(tmp_path)
    scene = write_raster(tmp_path / "scene.tif", byte_picture(3, 60, 50), photometric="RGB")
    words = ["upscale", str(scene), "s3://bucket/made/a.tif", "-m", "bicubic", "-q"]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    made = open_place("s3://bucket/made").get("a.tif")
    CliRunner().invoke(app, ["upscale", str(scene), "local.tif", "-m", "bicubic", "-q"])
    assert made == (tmp_path / "local.tif").read_bytes()
    assert not list(tmp_path.glob("slimdiffsr-sending-*"))

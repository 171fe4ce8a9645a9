"""A folder of this machine behind HTTP, read in ranges; and GDAL kept brisk about it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

# A process of its own: GDAL keeps Python's lock while it waits. It ends with its parent's pipe.
SERVER = """
import http.server, pathlib, re, sys, threading

class Files(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def do_POST(self):  # an API's search: what it finds lies in a file
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.path += ".json"
        super().do_GET()

    def do_HEAD(self):
        if "refused" in self.path:
            return self.send_error(403)
        super().do_HEAD()

    def do_GET(self):
        if "refused" in self.path:
            return self.send_error(403)
        wanted = re.fullmatch(r"bytes=(\\d+)-(\\d+)", self.headers.get("Range", ""))
        path = pathlib.Path(self.translate_path(self.path))
        if sys.argv[1] != "ranges" or wanted is None or not path.is_file():
            return super().do_GET()
        data, start = path.read_bytes(), int(wanted[1])
        part = data[start : int(wanted[2]) + 1]
        self.send_response(206)
        self.send_header("Content-Length", str(len(part)))
        self.send_header("Content-Range", f"bytes {start}-{start + len(part) - 1}/{len(data)}")
        self.end_headers()
        self.wfile.write(part)
        print(wanted[0], flush=True)

with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Files) as server:
    print(server.server_port, flush=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    sys.stdin.read()
    server.shutdown()
"""


@contextmanager
def served(folder: Path, kind: str, asked: list[str] | None = None) -> Iterator[str]:
    """The address of a folder on this machine while the block lasts; then ``asked`` has ranges."""
    process = subprocess.Popen(
        [sys.executable, "-c", SERVER, kind], cwd=folder, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    assert process.stdout is not None
    try:
        yield f"http://127.0.0.1:{int(process.stdout.readline())}"
    finally:
        said, _ = process.communicate(timeout=20)
    if asked is not None:
        asked += said.splitlines()


def keep_gdal_brisk(monkeypatch: pytest.MonkeyPatch) -> None:
    """GDAL neither waits long, nor asks again, nor looks for other machines or accounts."""
    for name, value in {
        "GDAL_HTTP_TIMEOUT": "20", "GDAL_HTTP_CONNECTTIMEOUT": "5", "GDAL_HTTP_MAX_RETRY": "0",
        "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1", "CPL_AWS_AUTODETECT_EC2": "NO",
        "AWS_EC2_METADATA_DISABLED": "true", "CPL_VSIL_CURL_CACHE_SIZE": "1000000",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    for name in ("AWS_PROFILE", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name, raising=False)

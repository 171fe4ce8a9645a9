"""The server of a view: this machine, this token, these files; and its words when it cannot."""

from __future__ import annotations

import http.client
import io
import json
import shutil
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import rasterio
from PIL import Image
from rasters import UTM, byte_picture, repeat, write_raster
from test_cli import fails, run
from test_view_tiles import pair

from slimdiffsr.view import Start, Viewer, open_scene
from slimdiffsr.view.page import ASSETS, asset

HOW = "bands=1,2,3&low=0&high=255&gamma=1"


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("scene")
    write_raster(folder / "unsure.tif", np.full((1, 90, 120), 2.5, np.float32))
    return [*pair(folder), str(folder / "unsure.tif")]


@pytest.fixture(scope="module")
def viewer(files: list[str]) -> Iterator[Viewer]:
    with open_scene(files[:2], files[2]) as scene, Viewer(scene) as viewer:
        threading.Thread(target=viewer.serve_forever, args=(0.05,), daemon=True).start()
        yield viewer
        viewer.shutdown()


def status(address: str, **headers: str) -> tuple[int, bytes]:
    try:
        request = urllib.request.Request(address, headers=headers)
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def test_without_the_token_nothing_is_told(viewer: Viewer) -> None:
    assert status(viewer.url)[0] == 200
    root = viewer.url.replace(viewer.token, "")
    for wrong in ("", "x", viewer.token[:-1], viewer.token + "x", "%2e%2e"):
        for rest in ("", "/", "/page.js", f"/values?u=0.5&v=0.5&{HOW}"):
            code, body = status(root.rstrip("/") + "/" + wrong + rest)
            assert code == 404, (wrong, rest)
            assert b"in.tif" not in body
    assert len(viewer.token) >= 20


def test_only_this_machine_is_served_and_by_its_own_name(viewer: Viewer) -> None:
    assert viewer.server_address[0] == "127.0.0.1"
    code, body = status(viewer.url, Host="evil.example")
    assert code == 403
    assert b"in.tif" not in body


@pytest.mark.parametrize("name", [
    "../pyproject.toml", "..%2f..%2fetc%2fpasswd", "page.html", "state.js", "vendor/", "/etc/passwd",
    "tiles/0/0/0.png?layer=/etc/passwd&" + HOW, "tiles/0/0/0.png", "tiles/99/0/0.png?layer=in.tif&" + HOW,
])  # fmt: skip
def test_only_what_is_named_can_be_read(viewer: Viewer, name: str) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", viewer.server_port, timeout=10)
    connection.request("GET", f"/{viewer.token}/{name}")
    assert connection.getresponse().status == 404
    connection.close()


@pytest.mark.parametrize("query", ["bands=1,2", "bands=1,2,9", "high=0", "gamma=x", "low=nan"])
def test_senseless_questions_get_a_sentence(viewer: Viewer, query: str) -> None:
    words = dict(part.split("=") for part in HOW.split("&")) | dict([query.split("=")])
    text = "&".join(f"{key}={value}" for key, value in words.items())
    code, body = status(f"{viewer.url}tiles/3/4/4.png?layer=in.tif&{text}")
    assert code == 400
    assert b"got" in body or b"has not" in body


def test_each_part_of_the_page_is_there_and_asks_for_nothing_outside(viewer: Viewer) -> None:
    _, page = status(viewer.url)
    for name, kind in ASSETS.items():
        code, body = status(viewer.url + name)
        assert code == 200
        assert body == asset(name)
        assert f'"{name}"'.encode() in page or not name.endswith("css"), kind
    with urllib.request.urlopen(viewer.url) as answer:
        policy = answer.headers["Content-Security-Policy"]
    assert "http" not in policy
    assert "default-src 'self'" in policy


def test_values_are_those_of_the_files(viewer: Viewer, files: list[str]) -> None:
    left, top, right, bottom = viewer.frame.bounds
    u, v = left + (right - left) * 33.5 / 120, top + (bottom - top) * 17.5 / 90
    _, body = status(f"{viewer.url}values?u={u}&v={v}&bands=3,2,1")
    answer = json.loads(body)
    with rasterio.open(files[0]) as dataset:
        expected = dataset.read((3, 2, 1))[:, 17, 33].tolist()
    assert answer["values"] == {"in.tif": expected, "out.tif": expected, "uncertainty": [2.5]}
    assert (int(answer["col"]), int(answer["row"])) == (33, 17)
    assert answer["xy"] == pytest.approx([UTM.c + 33.5 * 0.6, UTM.f - 17.5 * 0.6])
    outside = json.loads(status(f"{viewer.url}values?u=0.1&v=0.1&bands=3,2,1")[1])
    assert outside["values"]["in.tif"] == [None, None, None]


def test_a_tile_is_a_png_of_the_layer(viewer: Viewer, files: list[str]) -> None:
    zoom = viewer.frame.zoom
    at = 2 ** (zoom - 1)
    _, body = status(f"{viewer.url}tiles/{zoom}/{at}/{at}.png?layer=in.tif&{HOW}")
    with Image.open(io.BytesIO(body)) as image, rasterio.open(files[0]) as dataset:
        found = np.asarray(image)[:90, :120, :3]
        np.testing.assert_array_equal(found, np.moveaxis(dataset.read(), 0, -1))


def test_a_damaged_file_is_told(tmp_path: Path) -> None:
    path = write_raster(tmp_path / "in.tif", byte_picture(1, 600, 600), compress="deflate")
    content = bytearray(path.read_bytes())
    content[60_000:160_000] = bytes(100_000)
    path.write_bytes(content)
    with open_scene([str(path)], bands=(1,)) as scene, Viewer(scene) as viewer:
        threading.Thread(target=viewer.serve_forever, args=(0.05,), daemon=True).start()
        at = f"tiles/{viewer.frame.zoom}/{2 ** (viewer.frame.zoom - 1)}/{2 ** (viewer.frame.zoom - 1)}.png"
        code, body = status(f"{viewer.url}{at}?layer=in.tif&bands=1&low=0&high=255&gamma=1")
        viewer.shutdown()
    assert code == 400
    assert b"is damaged" in body


@pytest.mark.slow
def test_a_tile_of_a_scene_of_20000_px_comes_in_less_than_300_ms(tmp_path: Path) -> None:
    block = byte_picture(3, 1000, 1000)
    plain = tmp_path / "plain.tif"
    profile = {"driver": "GTiff", "dtype": "uint8", "crs": "EPSG:32610", "transform": UTM, "tiled": True}  # fmt: skip
    with rasterio.open(plain, "w", count=3, width=20_000, height=20_000, **profile) as dataset:
        for row in range(0, 20_000, 1000):
            wide = np.tile(block, (1, 1, 20))
            dataset.write(wide, window=rasterio.windows.Window(0, row, 20_000, 1000))
    path = tmp_path / "cog.tif"
    rasterio.shutil.copy(plain, path, driver="COG", COMPRESS="ZSTD", LEVEL="1")
    seconds = []
    with open_scene([str(path)]) as scene, Viewer(scene) as viewer:
        threading.Thread(target=viewer.serve_forever, args=(0.05,), daemon=True).start()
        for zoom in range(viewer.frame.zoom - 6, viewer.frame.zoom + 1):
            for step in range(4):
                at = 2 ** (zoom - 1) + (step * 7 % (1 + 2 ** max(0, zoom - 4)))
                begin = time.perf_counter()
                code, _ = status(f"{viewer.url}tiles/{zoom}/{at}/{at}.png?layer=cog.tif&{HOW}")
                seconds.append(time.perf_counter() - begin)
                assert code == 200
        viewer.shutdown()
    assert max(seconds) < 0.3, (float(np.median(seconds)), max(seconds))


# ---------------------------------------------------------------------------------------------
# The command


def test_bad_input_gets_one_sentence(tmp_path: Path, files: list[str]) -> None:
    first, second, _ = files
    other = write_raster(tmp_path / "b.tif", byte_picture(3, 9, 9), crs="EPSG:32633")
    quiet = ("--no-browser",)
    fails(run("view", first, other, *quiet), "to the same CRS")
    fails(run("view", first, tmp_path / "no.tif", *quiet), "does not exist")
    fails(run("view", first, second, "--uncertainty", second, *quiet), "a raster of one band")
    fails(run("view", first, second, "--port", 70_000, *quiet), "0 to 65535")
    fails(run("view", first, second, "--range", "5,2", "--html", tmp_path / "a.html"), "white must")
    fails(run("view", first, second, "--basemap", "file:///x", *quiet), "with {z}, {x} and {y}")
    fails(run("view", first, "--html", tmp_path / "no" / "a.html"), "cannot write")
    fails(run("view", first, "--html", first), "exists: give another name or give --overwrite")
    fails(run("view", first, "--window", "500 0 9 9", *quiet), "outside the raster")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        fails(run("view", first, second, "--port", port, *quiet), f"port {port} is taken")


def test_a_window_too_large_for_a_page_is_refused(tmp_path: Path) -> None:
    values = np.zeros((1, 1100, 16), np.uint8)
    first = write_raster(tmp_path / "in.tif", values)
    second = write_raster(tmp_path / "out.tif", repeat(values, 4), transform=UTM @ UTM.scale(0.25))
    page = tmp_path / "page.html"
    fails(run("view", first, second, "--html", page), "with at most 1024 x 1024")
    assert run("view", first, second, "--html", page, "--window", "0 40 16 1024").exit_code == 0
    assert page.stat().st_size < 5_000_000


def test_the_command_serves_until_it_is_stopped(files: list[str]) -> None:
    import signal

    no_browser = {"BROWSER": "/bin/false", "PATH": str(Path(sys.executable).parent)}
    process = subprocess.Popen(
        [sys.executable, "-m", "slimdiffsr", "view", *files[:2]],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=no_browser,
    )  # fmt: skip
    assert process.stdout is not None
    address = process.stdout.readline().strip()
    assert status(address)[0] == 200
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=20)
    assert process.returncode == 0
    assert errors.splitlines()[-1] == "stopped"
    assert "no browser here" in errors
    assert "Traceback" not in errors


def test_a_name_cannot_break_out_of_the_page(tmp_path: Path) -> None:
    from slimdiffsr.view import write_page

    path = tmp_path / "<script>alert(1)<script>.tif"
    shutil.copy(write_raster(tmp_path / "in.tif", byte_picture(1, 8, 8)), path)
    with open_scene([str(path)]) as scene:
        page = write_page(scene, tmp_path / "page.html").read_text()
    assert "<script>alert" not in page


def test_the_start_checks_its_basemap() -> None:
    from slimdiffsr.errors import ConfigError

    for wrong in ("http://a/{z}/{x}.png", "ftp://a/{z}/{x}/{y}", "a/{z}/{x}/{y}"):
        with pytest.raises(ConfigError, match="basemap is"):
            Start(basemap=wrong)

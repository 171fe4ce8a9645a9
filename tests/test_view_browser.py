"""A view as people use it: in a browser, with mouse, keys and links."""

from __future__ import annotations

import http.server
import io
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browsers import requests_of, wait_until
from numpy.typing import NDArray
from PIL import Image
from rasters import UTM, write_raster

from slimdiffsr.view import Start, Viewer, open_scene, write_page

RED, BLUE, GREEN = (200, 0, 0), (0, 0, 200), (0, 200, 0)


def plain(path: Path, colour: tuple[int, int, int], scale: int) -> str:
    values = np.empty((3, 100 * scale, 140 * scale), np.uint8)
    values[:] = np.array(colour, np.uint8)[:, None, None]
    at = UTM @ UTM.scale(1 / scale)
    return str(write_raster(path, values, transform=at, photometric="RGB"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("view")
    plain(folder / "red.tif", RED, 1)
    plain(folder / "blue.tif", BLUE, 4)
    plain(folder / "green.tif", GREEN, 2)
    ramp = np.tile(np.linspace(0, 10, 140, dtype=np.float32), (1, 100, 1))
    write_raster(folder / "unsure.tif", ramp)
    return folder


@pytest.fixture(scope="module")
def viewer(folder: Path) -> Iterator[Viewer]:
    paths = [str(folder / f"{name}.tif") for name in ("red", "blue", "green")]
    unsure = str(folder / "unsure.tif")
    with open_scene(paths, unsure, unit="DN") as scene, Viewer(scene) as viewer:
        threading.Thread(target=viewer.serve_forever, args=(0.05,), daemon=True).start()
        yield viewer
        viewer.shutdown()


def open_view(browser: Any, address: str) -> Any:
    browser.set_window_size(1200, 800)
    browser.get("about:blank")
    browser.get(address)
    wait_until(lambda: browser.execute_script("return document.body.dataset.ready"))
    return browser.find_element("id", "compare")


def pixels(element: Any) -> NDArray[np.uint8]:
    with Image.open(io.BytesIO(element.screenshot_as_png)) as image:
        return np.asarray(image.convert("RGB"))


def shows(compare: Any, left: tuple[int, ...], right: tuple[int, ...]) -> bool:
    """Whether a place left of the middle, and one right of it, have these colours."""
    picture = pixels(compare)
    height, width, _ = picture.shape
    at = [tuple(int(n) for n in picture[height // 3, int(width * x)]) for x in (0.42, 0.58)]
    return at == [left, right]


def drag(browser: Any, by: int) -> None:
    from selenium.webdriver import ActionChains

    knob = browser.find_element("css selector", ".compare-swiper-vertical")
    ActionChains(browser).click_and_hold(knob).move_by_offset(by, 0).release().perform()


def set_value(browser: Any, name: str, value: object) -> None:
    browser.execute_script(
        "const e = document.getElementById(arguments[0]); e.value = arguments[1];"
        "for (const kind of ['input', 'change']) e.dispatchEvent(new Event(kind))",
        name, value,
    )  # fmt: skip


def test_the_swipe_moves_by_mouse_and_keys_and_the_layers_differ(
    browser: Any, viewer: Viewer
) -> None:
    from selenium.webdriver import Keys

    compare = open_view(browser, viewer.url)
    wait_until(lambda: shows(compare, RED, BLUE))
    drag(browser, 200)
    assert shows(compare, RED, RED)
    drag(browser, -400)
    assert shows(compare, BLUE, BLUE)
    knob = browser.find_element("css selector", ".compare-swiper-vertical")
    knob.send_keys(Keys.END)
    assert shows(compare, RED, RED)
    assert knob.get_attribute("aria-valuenow") == "100"


@pytest.mark.slow
def test_layers_are_chosen_and_swapped(browser: Any, viewer: Viewer) -> None:
    compare = open_view(browser, viewer.url)
    set_value(browser, "right", "green.tif")
    wait_until(lambda: shows(compare, RED, GREEN))
    assert "1.2 m" not in browser.find_element("id", "name-left").text
    assert browser.find_element("id", "name-right").text.startswith("green.tif\n0.3 m pixels")
    browser.find_element("id", "swap").click()
    wait_until(lambda: shows(compare, GREEN, RED))


@pytest.mark.slow
def test_bands_and_stretch_are_the_same_for_all_layers(browser: Any, viewer: Viewer) -> None:
    compare = open_view(browser, viewer.url)
    set_value(browser, "high", 200)
    wait_until(lambda: shows(compare, (255, 0, 0), (0, 0, 255)))
    first = browser.find_element("css selector", "#bands select")
    browser.execute_script("arguments[0].value = 3; arguments[0].onchange()", first)
    wait_until(lambda: shows(compare, (0, 0, 0), (255, 0, 255)))
    set_value(browser, "low", 300)
    wait_until(lambda: "White must be above black" in browser.find_element("id", "told").text)
    browser.find_element("id", "reset").click()
    wait_until(lambda: shows(compare, RED, BLUE))


def test_values_under_the_pointer_are_told_for_all_layers(browser: Any, viewer: Viewer) -> None:
    from selenium.webdriver import ActionChains

    compare = open_view(browser, viewer.url)

    def rows() -> list[str]:
        return [row.text for row in browser.find_elements("css selector", "#values tbody tr")]

    ActionChains(browser).move_to_element_with_offset(compare, 20, -100).perform()
    wait_until(rows)
    red, blue, green, unsure = rows()
    assert (red, blue, green) == ("red.tif 200 0 0", "blue.tif 0 0 200", "green.tif 0 200 0")
    assert unsure.startswith("uncertainty (DN) 5.")
    where = browser.find_element("id", "where").text
    assert re.match(
        r"pixel 7\d, \d+\s+·\s+EPSG:26910 594\d{3}\.\d\d, 440\d{4}\.\d\d\s+·\s+39\.\d+° N", where
    )


@pytest.mark.slow
def test_uncertainty_covers_the_layers_and_has_a_legend(browser: Any, viewer: Viewer) -> None:
    compare = open_view(browser, viewer.url)
    legend = browser.find_element("id", "unsure-set").text
    assert "DN" in legend
    assert "≥ 9.9" in legend
    wait_until(lambda: shows(compare, RED, BLUE))
    set_value(browser, "opacity", 1)
    wait_until(lambda: not shows(compare, RED, BLUE))
    height, width, _ = pixels(compare).shape
    light = [int(pixels(compare)[height // 3, int(width * x)].sum()) for x in (0.45, 0.55, 0.65)]
    assert light == sorted(light)
    set_value(browser, "opacity", 0)
    wait_until(lambda: shows(compare, RED, BLUE))


@pytest.mark.slow
def test_a_link_brings_the_view_back(browser: Any, viewer: Viewer) -> None:
    compare = open_view(browser, viewer.url)
    set_value(browser, "right", "green.tif")
    set_value(browser, "high", 200)
    browser.find_element("id", "in").click()
    drag(browser, 200)
    wait_until(lambda: "zoom" in browser.current_url)
    browser.find_element("id", "link").click()
    wait_until(lambda: "address" in browser.find_element("id", "told").text)
    wait_until(lambda: shows(compare, (255, 0, 0), (255, 0, 0)))
    address, picture = browser.current_url, pixels(compare)
    again = open_view(browser, address)
    assert browser.find_element("id", "right").get_attribute("value") == "green.tif"
    wait_until(lambda: np.abs(pixels(again)[100:-150].astype(int) - picture[100:-150]).mean() < 0.5)


@pytest.mark.slow
def test_the_scale_bar_has_the_length_it_says(browser: Any, viewer: Viewer) -> None:
    open_view(browser, viewer.url)
    number, unit = browser.find_element("id", "scale-told").text.split()
    width = browser.find_element("id", "scale-bar").size["width"]
    zoom = float(browser.current_url.split("zoom=")[1].split("&")[0])
    assert unit == "m"
    assert width == pytest.approx(float(number) / 0.6 * 2**zoom, abs=1.5)


@pytest.mark.slow
def test_what_is_seen_is_saved_as_png(browser: Any, viewer: Viewer, tmp_path: Path) -> None:
    compare = open_view(browser, viewer.url)
    wait_until(lambda: shows(compare, RED, BLUE))
    browser.execute_cdp_cmd(
        "Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(tmp_path)}
    )
    browser.find_element("id", "save").click()
    saved = tmp_path / "red_view.png"
    wait_until(saved.exists)
    with Image.open(saved) as image:
        rgb = np.asarray(image.convert("RGB"))
    height, width, _ = rgb.shape
    assert (width, height) == (compare.size["width"], compare.size["height"])
    assert tuple(rgb[height // 3, int(width * 0.42)]) == RED
    assert tuple(rgb[height // 3, int(width * 0.58)]) == BLUE


def test_no_request_leaves_the_machine(browser: Any, viewer: Viewer) -> None:
    requests_of(browser)
    browser.get_log("browser")
    compare = open_view(browser, viewer.url)
    set_value(browser, "opacity", 0.5)
    browser.find_element("id", "in").click()
    wait_until(lambda: len(pixels(compare)))
    asked = requests_of(browser)
    assert any("/tiles/" in address for address in asked)
    outside = (viewer.url, "data:", f"blob:{viewer.url.split('/' + viewer.token)[0]}", "about:")
    assert not [address for address in asked if not address.startswith(outside)]
    assert browser.get_log("browser") == []


def test_a_page_to_send_needs_no_server(browser: Any, viewer: Viewer, folder: Path) -> None:
    from selenium.webdriver import ActionChains

    page = write_page(viewer.scene, folder / "page.html", overwrite=True)
    requests_of(browser)
    browser.get_log("browser")
    compare = open_view(browser, page.as_uri())
    wait_until(lambda: shows(compare, RED, BLUE))
    drag(browser, 200)
    assert shows(compare, RED, RED)
    ActionChains(browser).move_to_element_with_offset(compare, 20, -100).perform()
    wait_until(lambda: browser.find_elements("css selector", "#values tbody tr"))
    rows = [row.text for row in browser.find_elements("css selector", "#values tbody tr")]
    assert rows == ["red.tif 200 0 0", "blue.tif 0 0 200", "green.tif 0 200 0"]
    assert "EPSG:26910 594" in browser.find_element("id", "where").text
    asked = requests_of(browser)
    assert not [x for x in asked if not x.startswith((page.as_uri(), "data:", "blob:", "about:"))]
    assert browser.get_log("browser") == []


@pytest.mark.slow
def test_a_server_that_was_stopped_is_told(browser: Any, folder: Path) -> None:
    from selenium.webdriver import ActionChains

    with open_scene([str(folder / "red.tif")]) as scene, Viewer(scene) as viewer:
        threading.Thread(target=viewer.serve_forever, args=(0.05,), daemon=True).start()
        compare = open_view(browser, viewer.url)
        viewer.shutdown()
    ActionChains(browser).move_to_element_with_offset(compare, 10, -100).perform()
    wait_until(lambda: "view stopped" in browser.find_element("id", "told").text)


@pytest.mark.slow
def test_a_basemap_lies_below_when_asked_for(browser: Any, folder: Path) -> None:
    tile = io.BytesIO()
    Image.new("RGB", (256, 256), GREEN).save(tile, "PNG")

    class Tiles(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "image/png")
            self.send_header("Access-Control-Allow-Origin", "*")
            self.end_headers()
            self.wfile.write(tile.getvalue())

        def log_message(self, *_: Any) -> None: ...

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Tiles) as tiles:
        threading.Thread(target=tiles.serve_forever, args=(0.05,), daemon=True).start()
        start = Start(basemap=f"http://127.0.0.1:{tiles.server_port}/{{z}}/{{x}}/{{y}}.png")
        with open_scene([str(folder / "red.tif")]) as scene, Viewer(scene, start) as viewer:
            threading.Thread(target=viewer.serve_forever, args=(0.05,), daemon=True).start()
            compare = open_view(browser, viewer.url)
            wait_until(lambda: shows(compare, RED, RED))
            wait_until(lambda: tuple(pixels(compare)[-20, 5]) == GREEN)
            assert f"127.0.0.1:{tiles.server_port}" in compare.text
            viewer.shutdown()
        tiles.shutdown()

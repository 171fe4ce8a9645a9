"""The HTML report, in a real browser where there is one."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browsers import requests_of, wait_until
from numpy.typing import NDArray
from PIL import Image

from slimdiffsr.evaluate import (
    PairedFolder,
    Report,
    choose_metrics,
    evaluate,
    from_function,
    pool,
)
from slimdiffsr.evaluate.page import build_page
from slimdiffsr.evaluate.pictures import Picture, captions, read_pictures, spread

Rgb8 = NDArray[np.uint8]

RED, BLUE, GREY = (255, 0, 0), (0, 0, 255), (128, 128, 128)
IMAGES = 30


# Flat images have no detail to be hallucinated: some measures of trust are not defined for them.
METRICS = tuple(m for m in choose_metrics() if m.name in ("psnr_y", "ssim_y", "consistency"))


def plain(colour: tuple[int, int, int]) -> Any:
    return from_function(
        {RED: "red", BLUE: "blue <b>"}[colour],
        lambda lr: np.full((4 * lr.shape[0], 4 * lr.shape[1], 3), colour, np.uint8),
    )


def write_set(folder: Path, images: int) -> PairedFolder:
    """Grey pairs of 64 x 64 truths."""
    for name, side in (("lr_x4", 16), ("hr", 64)):
        (folder / name).mkdir(parents=True)
        for i in range(images):
            Image.new("RGB", (side, side), GREY).save(folder / name / f"image{i:02}.png")
    return PairedFolder.open(folder / "lr_x4", folder / "hr")


def evaluated(folder: Path, images: int) -> tuple[PairedFolder, Report]:
    pairs = write_set(folder, images)
    methods = [plain(RED), plain(BLUE)]
    return pairs, evaluate(methods, pairs, METRICS, save_to=folder / "outputs")


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("page") / "set"
    pairs, report = evaluated(folder, IMAGES)
    pictures = read_pictures(pairs, report, folder / "outputs", pairs.names)
    path = folder / "report.html"
    path.write_bytes(build_page([report], pictures).html)
    return path


def open_page(browser: Any, page: Path, width: int = 1200) -> Any:
    browser.set_window_size(width, 900)
    browser.get(page.as_uri())
    return browser.find_elements("css selector", ".card")


def colour_at(element: Any, share: float) -> tuple[int, ...]:
    """The colour a quarter down and ``share`` of the width across, as it is on the screen."""
    with Image.open(io.BytesIO(element.screenshot_as_png)) as image:
        at = (round(share * image.width), image.height // 4)
        return tuple(image.convert("RGB").getpixel(at))  # type: ignore[arg-type]


def choose(browser: Any, side: str, name: str) -> None:
    from selenium.webdriver.support.select import Select

    Select(browser.find_element("id", side)).select_by_visible_text(name)


def test_moving_the_slider_by_mouse_and_by_keys_changes_the_picture(
    browser: Any, page: Path
) -> None:
    from selenium.webdriver import ActionChains, Keys

    first = open_page(browser, page)[0].find_element("css selector", ".compare")
    choose(browser, "left", "red")
    choose(browser, "right", "blue <b>")
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", first)
    assert [colour_at(first, at) for at in (0.3, 0.7)] == [RED, BLUE]
    slider = first.find_element("css selector", "input")
    width = first.size["width"]
    moves = ActionChains(browser).move_to_element(slider).click_and_hold()
    moves.move_by_offset(round(0.4 * width), 0).release().perform()
    assert [colour_at(first, at) for at in (0.3, 0.7)] == [RED, RED]
    slider.send_keys(Keys.HOME)
    assert [colour_at(first, at) for at in (0.1, 0.7)] == [BLUE, BLUE]
    before = slider.get_attribute("value")
    slider.send_keys(Keys.ARROW_RIGHT, Keys.ARROW_RIGHT)
    assert int(slider.get_attribute("value")) == int(before) + 2
    assert slider.get_attribute("aria-label").startswith("image00: ")


def test_any_two_can_be_chosen_for_all_pictures(browser: Any, page: Path) -> None:
    cards = open_page(browser, page)
    names = [option.text for option in browser.find_elements("css selector", "#left option")]
    assert names == ["input", "red", "blue <b>", "truth"]
    for side, name, share, colour in (
        ("left", "truth", 0.2, GREY),
        ("right", "red", 0.8, RED),
        ("left", "blue <b>", 0.2, BLUE),
    ):
        choose(browser, side, name)
        for card in cards[:2]:
            compare = card.find_element("css selector", ".compare")
            assert colour_at(compare, share) == colour
    caption = cards[0].find_element("tag name", "figcaption").text
    assert re.search(r"image00\nblue <b>: psnr_y \d+\.\d\d · ssim_y", caption)
    assert re.search(r"\nred: psnr_y \d", caption)


def test_the_page_asks_nothing_of_a_network_and_logs_no_error(browser: Any, page: Path) -> None:
    requests_of(browser)
    browser.get_log("browser")
    for card in open_page(browser, page)[::5]:
        browser.execute_script("arguments[0].scrollIntoView()", card)
    asked = requests_of(browser)
    assert page.as_uri() in asked
    assert not [url for url in asked if not url.startswith((page.as_uri(), "data:"))]
    assert browser.get_log("browser") == []


def test_pictures_are_loaded_when_they_come_near_and_dropped_when_they_leave(
    browser: Any, page: Path
) -> None:
    def loaded() -> list[int]:
        script = (
            "return [...document.querySelectorAll('.card')].map(c => !!c.querySelector('img').src)"
        )
        return [i for i, there in enumerate(browser.execute_script(script)) if there]

    cards = open_page(browser, page)
    assert len(cards) == IMAGES
    wait_until(lambda: 0 in loaded())
    assert IMAGES - 1 not in loaded()
    browser.execute_script("arguments[0].scrollIntoView()", cards[-1])
    wait_until(lambda: IMAGES - 1 in loaded() and 0 not in loaded())


def test_headings_sort_the_table_best_first(browser: Any, page: Path) -> None:
    open_page(browser, page)

    def column(index: int) -> list[str]:
        rows = browser.find_elements("css selector", "tbody tr")
        return [row.find_elements("css selector", "th, td")[index].text for row in rows]

    assert column(0) == ["red", "blue <b>", "truth"]
    heads = browser.find_elements("css selector", "thead th")
    psnr = next(head for head in heads if head.text.startswith("psnr_y"))
    button = psnr.find_element("tag name", "button")
    for direction in ("descending", "ascending"):
        button.click()
        assert psnr.get_attribute("aria-sort") == direction
        shown = [cell.split()[0] for cell in column(2)]
        ordered = sorted(shown[:2], key=float, reverse=direction == "descending")
        assert shown == [*ordered, "–"]  # noqa: RUF001  an empty cell
    heads[0].find_element("tag name", "button").click()
    assert column(0) == ["blue <b>", "red", "truth"]


def test_images_are_found_by_name(browser: Any, page: Path) -> None:
    open_page(browser, page)
    field = browser.find_element("id", "find")
    field.send_keys("GE03")
    shown = [c for c in browser.find_elements("css selector", ".card") if c.is_displayed()]
    assert [card.find_element("tag name", "b").text for card in shown] == ["image03"]
    field.send_keys("x")
    assert browser.find_element("id", "none").is_displayed()


@pytest.mark.parametrize("width", [500, 1400])
def test_the_page_fits_narrow_and_wide_windows(browser: Any, page: Path, width: int) -> None:
    cards = open_page(browser, page, width)
    fits = "return document.documentElement.scrollWidth <= document.documentElement.clientWidth"
    assert browser.execute_script(fits)
    side_by_side = cards[0].location["y"] == cards[1].location["y"]
    assert side_by_side == (width > 1000)


def test_the_file_says_how_many_of_the_images_it_shows(tmp_path: Path) -> None:
    pairs, report = evaluated(tmp_path / "set", 5)
    some = read_pictures(pairs, report, tmp_path / "set" / "outputs", spread(pairs.names, 2))
    page = build_page([report], some)
    assert (page.pictures, page.images) == (2, 5)
    text = page.html.decode()
    assert "2 of 5 images, evenly spread" in text
    assert re.findall(r'data-title="(\w+)"', text) == ["image00", "image04"]
    assert "<b>: " not in text
    assert "None were kept" in build_page([report], []).html.decode()
    assert not re.search(r"""(src|href)=["']?https?:""", text)


def test_several_sets_have_a_table_each_and_titles_tell_them_apart(tmp_path: Path) -> None:
    reports, pictures = [], []
    for name in ("one", "two"):
        pairs, report = evaluated(tmp_path / name, 1)
        reports.append(report)
        pictures += list(read_pictures(pairs, report, tmp_path / name / "outputs", pairs.names))
    text = build_page([*reports, pool(reports)], pictures).html.decode()
    assert re.findall(r"<h3>(.*?)</h3>", text) == ["one", "two", "all: one, two"]
    assert re.findall(r'data-title="(.*?)"', text) == ["one/image00", "two/image00"]


def test_failures_and_missing_outputs_are_told_and_harm_nothing(tmp_path: Path) -> None:
    pairs, report = evaluated(tmp_path / "set", 2)
    (tmp_path / "set" / "outputs" / "red" / "image00.png").unlink()
    pairs.lr_files["image01"].write_bytes(b"")
    (picture,) = read_pictures(pairs, report, tmp_path / "set" / "outputs", pairs.names)
    assert list(picture.results) == ["blue <b>", "truth"]
    again = evaluate([plain(RED)], pairs, METRICS)
    text = build_page([again], []).html.decode()
    assert "Not scored (1)" in text
    assert "image01" in text


def test_of_large_images_the_most_detailed_part_is_shown(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    hr = np.full((96, 160, 3), 90, np.uint8)
    hr[40:60, 100:120] = rng.integers(0, 256, (20, 20, 3))
    for name, rgb in (("hr", hr), ("lr_x4", hr[::4, ::4])):
        (tmp_path / "set" / name).mkdir(parents=True)
        Image.fromarray(rgb).save(tmp_path / "set" / name / "a.png")
    pairs = PairedFolder.open(tmp_path / "set" / "lr_x4", tmp_path / "set" / "hr")
    saved = tmp_path / "outputs"
    report = evaluate([plain(RED)], pairs, METRICS, save_to=saved)
    (picture,) = read_pictures(pairs, report, saved, ["a"], largest_hr_px=32)
    assert picture.box is not None
    row, column, side = picture.box
    assert side == 8
    assert picture.lr.shape == (8, 8, 3)
    assert 4 * row <= 40 < 60 <= 4 * (row + side)
    assert 4 * column <= 100 < 120 <= 4 * (column + side)
    np.testing.assert_array_equal(
        picture.results["truth"], hr[4 * row : 4 * row + 32, 4 * column : 4 * column + 32]
    )
    assert f"from column {column}, row {row}" in build_page([report], [picture]).html.decode()


def test_pictures_are_kept_without_loss(tmp_path: Path) -> None:
    report = evaluated(tmp_path / "set", 1)[1]
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    picture = Picture(report.name, "image00", 4, noise[::4, ::4], {"red": noise})
    text = build_page([report], [picture]).html.decode()
    block = re.search(r'class="picture".*?>(.*?)</script>', text)
    assert block is not None
    source = json.loads(block[1])["images"]["red"]["src"]
    import base64

    with Image.open(io.BytesIO(base64.b64decode(source.partition(",")[2]))) as image:
        np.testing.assert_array_equal(np.asarray(image.convert("RGB")), noise)
    assert captions(report, "image00")["red"].startswith("psnr_y ")

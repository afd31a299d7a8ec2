"""Pages of films in a real browser: they follow the film, seek, copy, harm nobody, and can be used by everyone."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests import reports
from tests.browsing import DESK, PHONE, Open, faults, opening
from wav2clip_gen.models.registry import Models
from wav2clip_gen.report import write_index, write_report
from wav2clip_gen.report_page import render_page

if TYPE_CHECKING:
    from playwright.sync_api import Browser


@pytest.fixture
def open_page(browser: Browser) -> Iterator[Open]:
    """Open a file; at the end, no page may have had an error or asked for anything but files."""
    with opening(browser) as run:
        yield run


@pytest.fixture(scope="module")
def film(mini: Models, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return reports.make_film(tmp_path_factory.mktemp("film"), mini)


@pytest.fixture(scope="module")
def page(film: Path, mini: Models) -> Path:
    """The page of the film; labels by `mini`."""
    return write_report(film, load=lambda *_, **__: mini)


def test_the_page_opens_and_draws(page: Path, open_page: Open) -> None:
    opened = open_page(page)
    assert opened.text("h1") == "song"
    assert opened.text(".facts span:nth-child(2)") == "32×32"
    assert opened.page.evaluate("document.querySelector('video').duration") == pytest.approx(4.0)
    drawn = opened.page.evaluate(
        "[...document.querySelectorAll('canvas')].map(one => "
        "new Set(new Uint32Array(one.getContext('2d').getImageData(0, 0, one.width, one.height).data.buffer)).size)"
    )
    assert len(drawn) == 6
    assert min(drawn) > 2


def test_the_cursor_and_the_words_follow_the_film(page: Path, open_page: Open) -> None:
    opened = open_page(page)
    assert opened.cursor == pytest.approx(0, abs=0.005)
    assert opened.text("#force") == "a quiet lake"
    opened.page.locator("h1").click()
    opened.page.keyboard.press(" ")
    opened.wait("document.querySelector('video').currentTime > 1.3")
    opened.page.keyboard.press(" ")
    assert opened.page.evaluate("document.querySelector('video').paused")
    opened.page.wait_for_timeout(100)
    assert opened.cursor == pytest.approx(opened.time / 4, abs=0.005)
    assert opened.text("#time").startswith("0:01.")
    assert opened.text("#force").splitlines() == ["a quiet lake", "a burning forest × 0.5"]


def test_a_click_seeks(page: Path, open_page: Open) -> None:
    opened = open_page(page)
    canvas = opened.page.locator("canvas").nth(2)
    box = canvas.bounding_box()
    assert box
    canvas.click(position={"x": box["width"] * 0.75, "y": 10})
    opened.settle(3.0)
    assert opened.cursor == pytest.approx(0.75, abs=0.005)
    opened.page.mouse.down()
    opened.page.mouse.move(box["x"] + box["width"] * 0.25, box["y"])
    opened.page.mouse.up()
    opened.settle(1.0)
    opened.page.mouse.move(box["x"] + box["width"] * 0.5, box["y"])
    assert opened.time == pytest.approx(1.0, abs=0.02)


def test_a_section_of_the_table_seeks(page: Path, open_page: Open) -> None:
    opened = open_page(page)
    opened.page.locator("#slider").press("End")
    opened.page.locator("[data-seek]").first.click()
    opened.settle(0.0)


def test_the_keyboard_seeks(page: Path, open_page: Open) -> None:
    opened = open_page(page)
    slider = opened.page.locator("#slider")
    for key, seconds in (
        ("ArrowRight", 1),
        ("Shift+ArrowRight", 1.25),
        ("End", 3.875),
        ("PageDown", 0),
        ("ArrowUp", 1),
    ):
        slider.press(key)
        opened.settle(seconds)
    assert slider.get_attribute("aria-valuetext") == "0:01.0"
    opened.page.locator("#command").press("ArrowRight")
    opened.settle(1)


def test_the_copy_button_copies(page: Path, open_page: Open) -> None:
    opened = open_page(page, permissions=["clipboard-read", "clipboard-write"])
    opened.page.locator("#copy").click()
    opened.wait("document.querySelector('#copied').textContent")
    assert opened.text("#copied") == "Copied."
    copied = opened.page.evaluate("navigator.clipboard.readText()")
    assert copied == "w2c-gen --from film.json --out film.again.mp4"


def test_without_the_right_to_copy_the_command_is_selected(page: Path, open_page: Open) -> None:
    opened = open_page(page)
    opened.page.evaluate("navigator.clipboard.writeText = () => Promise.reject(); document.execCommand = () => false")
    opened.page.locator("#copy").click()
    opened.wait("document.querySelector('#copied').textContent")
    assert "Ctrl+C" in opened.text("#copied")
    assert opened.page.evaluate("getSelection().toString()") == "w2c-gen --from film.json --out film.again.mp4"


def test_hostile_titles_and_names_do_nothing(film: Path, open_page: Open, tmp_path: Path) -> None:
    copy = reports.moved(film, tmp_path, "a #1 50%25 & <b>\"'.mp4", title=reports.HOSTILE)
    opened = open_page(write_report(copy))
    assert opened.text("h1") == " ".join(reports.HOSTILE.split())
    assert opened.page.title() == reports.HOSTILE
    assert opened.page.evaluate("window.hacked") is None


def test_a_script_that_is_not_the_page_s_own_is_refused(page: Path, open_page: Open, tmp_path: Path) -> None:
    other = tmp_path / "page.html"
    other.write_text(page.read_text().replace("<main>", "<main><script>window.hacked = 1</script>"))
    opened = open_page(other, film=False)
    assert opened.page.evaluate("window.hacked") is None
    assert any("Content Security Policy" in error for error in opened.errors)
    opened.errors.clear()


def test_an_embedded_film_plays_without_its_file(film: Path, open_page: Open, tmp_path: Path) -> None:
    opened = open_page(write_report(film, tmp_path / "page.html", embed=True))
    opened.page.locator("#slider").press("ArrowRight")
    opened.settle(1)


def test_a_missing_film_leaves_the_curves(page: Path, open_page: Open, tmp_path: Path) -> None:
    opened = open_page(Path(shutil.copy(page, tmp_path)), film=False)
    opened.wait("document.querySelector('#missing').textContent")
    assert opened.text("#missing") == "The film film.mp4 is not where it was when this page was written."
    opened.errors.clear()  # the browser tells it too


def test_a_phone_scrolls_in_one_direction(page: Path, open_page: Open) -> None:
    opened = open_page(page, viewport=PHONE, has_touch=True, is_mobile=True)
    assert opened.page.evaluate("document.documentElement.scrollWidth") == 390
    canvas = opened.page.locator("canvas").first
    box = canvas.bounding_box()
    assert box
    canvas.tap(position={"x": box["width"] / 2, "y": 10})
    opened.settle(2.0)
    assert opened.cursor == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [DESK, PHONE], ids=["desk", "phone"])
def test_everyone_can_use_it(page: Path, open_page: Open, scheme: str, size: dict[str, int]) -> None:
    opened = open_page(page, color_scheme=scheme, viewport=size)
    opened.page.evaluate("for (const one of document.querySelectorAll('details')) one.open = true")
    assert faults(opened.page) == []
    assert opened.page.evaluate("getComputedStyle(document.body).backgroundColor") == (
        "rgb(251, 251, 250)" if scheme == "light" else "rgb(21, 22, 26)"
    )


def test_an_hour_opens_in_a_second(open_page: Open, tmp_path: Path) -> None:
    """Of the browser's work, as other processes may need the cores."""
    opened, path = open_page(Path(__file__), film=False), tmp_path / "page.html"
    path.write_text(render_page(reports.hour_long(), path))
    tools = opened.page.context.new_cdp_session(opened.page)
    tools.send("Performance.enable", {"timeDomain": "threadTicks"})
    opened.page.goto(path.as_uri())
    opened.wait("document.querySelector('canvas').width > 300")
    spent = {one["name"]: one["value"] for one in tools.send("Performance.getMetrics")["metrics"]}
    assert opened.page.locator("canvas").count() == 15
    assert 0.01 < spent["TaskDuration"] < 1
    opened.errors.clear()  # its film does not exist


def test_an_index_leads_to_the_pages(page: Path, film: Path, open_page: Open, tmp_path: Path) -> None:
    copy = reports.moved(film, tmp_path, title=reports.HOSTILE)
    write_report(copy)
    index = tmp_path / "index.html"
    write_index([copy, film], index)
    opened = open_page(index)
    assert faults(opened.page) == []
    opened.page.get_by_role("link").nth(1).click()
    opened.page.wait_for_selector("#tracks")
    assert opened.page.url == page.as_uri()

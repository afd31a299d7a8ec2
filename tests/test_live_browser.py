"""The page of a run in a real browser: it follows the run, plays what is finished, stops it, and sees its end."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Any

import pytest

from tests import previews, reports
from tests.browsing import DESK, PHONE, Open, Opened, faults, opening
from tests.previews import FRAMES, Run
from wav2clip_gen.progress import Progress
from wav2clip_gen.report import write_report

if TYPE_CHECKING:
    from playwright.sync_api import Browser

PROMPTS: dict[str, Any] = {
    "motion": {"crossfade": 0.0},
    "prompts": [{"text": "a lake"}, {"text": reports.HOSTILE, "start": 1.0}],
}


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    """A run that has made three frames of a film, none of them encoded."""
    with previews.running() as running:
        running.begin(previews.make_job(tmp_path, **PROMPTS))
        running.live.show(Progress(stage="optimize", total=FRAMES))
        for number in (1, 2, 3):
            running.paint(number)
        yield running


@pytest.fixture
def open_page(browser: Browser) -> Iterator[Open]:
    """Open the page of a run; at the end, no page may have had an error or asked another server for anything."""
    with opening(browser) as open_any:

        def open_run(run: Run, **options: Any) -> Opened:
            opened = open_any(run.server.url, film=False, **options)
            opened.wait("document.querySelector('#stage').textContent !== 'Connecting'")
            return opened

        yield open_run


def color(opened: Opened) -> int:
    """Red of the newest frame that is shown."""
    return int(
        opened.page.evaluate(
            "(() => { const pen = document.createElement('canvas').getContext('2d');"
            "pen.drawImage(document.querySelector('#newest'), 0, 0); return pen.getImageData(9, 9, 1, 1).data[0]; })()"
        )
    )


def end(run: Run) -> None:
    """End the run while a page is open, which takes the film."""
    ending = Thread(target=run.server.finish)
    ending.start()
    ending.join(timeout=10)
    assert not ending.is_alive()
    assert run.server.taken


def test_the_page_follows_the_run(run: Run, open_page: Open) -> None:
    opened = open_page(run)
    opened.wait("!document.querySelector('#newest').hidden")
    assert color(opened) == pytest.approx(30, abs=1)
    assert opened.text("#stage") == "Optimizing the frames"
    assert opened.text("#frames") == "3 of 16"
    assert opened.text("#similarity-now") == "0.030"
    assert opened.page.locator("#part").is_hidden()
    run.live.note("a note")
    run.paint(4)
    opened.wait("document.querySelector('#newest').src.endsWith('1-4.jpg')")
    assert color(opened) == pytest.approx(40, abs=1)
    assert opened.text("#frames") == "4 of 16"
    assert opened.text("#notes").splitlines()[-1] == "a note"
    assert opened.page.evaluate("document.querySelector('progress').value") == 0.25
    painted, axis = (opened.page.locator(name).bounding_box() for name in ("#painted", "#slider"))
    assert painted
    assert axis
    assert painted["width"] / axis["width"] == pytest.approx(0.25, abs=0.01)
    drawn = opened.page.evaluate(
        "(() => { const canvas = document.querySelector('#similarity'), pen = canvas.getContext('2d');"
        "return [0, .5].map((left) => new Set(new Uint32Array(pen.getImageData(canvas.width * left, 0,"
        "canvas.width / 4, canvas.height).data.buffer)).size); })()"
    )
    assert drawn[0] > 2  # the frames that are there
    assert drawn[1] == 1  # and those that are not


def test_the_finished_part_plays_and_grows_without_a_restart(run: Run, open_page: Open) -> None:
    opened = open_page(run)
    run.grow(12)
    run.paint(4)
    opened.wait("document.querySelector('video').readyState >= 2")
    duration = "document.querySelector('video').duration"
    assert opened.page.evaluate(duration) == pytest.approx(3.0, abs=0.3)
    opened.page.locator("#slider").press("ArrowRight")
    opened.settle(1.0)
    assert opened.cursor == pytest.approx(0.25, abs=0.005)
    assert opened.page.locator("#load").is_hidden()
    opened.page.evaluate("document.querySelector('video').play()")
    opened.wait("document.querySelector('video').currentTime > 1.2")
    opened.wait("!document.querySelector('audio').paused")
    drift = "Math.abs(document.querySelector('video').currentTime - document.querySelector('audio').currentTime)"
    opened.wait(f"{drift} < .1")
    opened.page.evaluate("document.querySelector('video').playbackRate = .1")
    run.grow(15)
    run.paint(5)
    opened.wait("!document.querySelector('#load').hidden")
    assert opened.page.evaluate(duration) == pytest.approx(3.0, abs=0.3)
    opened.page.locator("#load").click()
    opened.wait(f"{duration} > 3.3")
    assert 1.2 < opened.time < 3
    assert opened.page.locator("#load").is_hidden()
    assert not opened.page.evaluate("document.querySelector('video').paused")


def test_a_part_that_was_played_to_its_end_goes_on(run: Run, open_page: Open) -> None:
    opened = open_page(run)
    run.grow(4)
    opened.wait("document.querySelector('video').readyState >= 2")
    opened.page.evaluate("document.querySelector('video').currentTime = .5")
    run.grow(16)
    opened.wait("!document.querySelector('#load').hidden")
    opened.page.evaluate("document.querySelector('video').play()")
    opened.wait("document.querySelector('video').currentTime > 1.1")


def test_stop_asks_first(run: Run, open_page: Open) -> None:
    opened = open_page(run)
    opened.wait("!document.querySelector('#newest').hidden")
    opened.page.locator("#stop").click()
    assert opened.text("#question") == "Stop here? The film ends with frame 3 and is kept."
    assert faults(opened.page) == []
    opened.page.keyboard.press("Escape")
    opened.page.locator("#stop").click()
    opened.page.locator("#no").click()
    assert run.stops == []
    opened.page.locator("#stop").click()
    opened.page.locator("#yes").click()
    opened.wait("document.querySelector('#told').textContent === 'Stopping after this frame.'")
    assert run.stops == [1]
    run.finish_film(partial=True)
    opened.wait("document.querySelector('#stage').textContent === 'Stopped: song.partial.mp4'")
    assert opened.page.locator("#stop").is_hidden()


def test_the_film_stays_when_the_command_has_ended(run: Run, open_page: Open) -> None:
    opened = open_page(run)
    run.grow(4)
    opened.wait("document.querySelector('video').readyState >= 2")
    run.finish_film()
    end(run)
    opened.wait("document.querySelector('video').src.startsWith('blob:')")
    assert opened.text("#stage") == "Finished: song.mp4"
    assert "no longer connected" in opened.text("#told")
    opened.page.evaluate("document.querySelector('video').currentTime = 3.5")
    opened.settle(3.5)
    opened.page.wait_for_timeout(1500)  # it asks no more


def test_the_report_takes_the_place_of_the_page(run: Run, open_page: Open) -> None:
    opened = open_page(run)
    film = run.finish_film()
    run.live.show_page(write_report(film))
    end(run)
    opened.page.wait_for_url("**/film/1/report")
    opened.wait("document.querySelector('video').readyState >= 2")
    opened.page.evaluate("document.querySelector('video').currentTime = 3.5")
    opened.settle(3.5)
    assert opened.text(".facts").startswith("0:04")


def test_the_next_film_follows(run: Run, open_page: Open, tmp_path: Path) -> None:
    opened = open_page(run)
    film = run.finish_film()
    run.live.show_page(write_report(film))
    opened.wait("document.querySelectorAll('#films a').length === 2")
    run.begin(previews.make_job(tmp_path, "second"), "2/2")
    opened.page.wait_for_selector("h1:has-text('second')")
    opened.wait("document.querySelector('#stage').textContent === 'Loading the models'")
    assert opened.text("#films") == "song.mp4 · report"
    with opened.page.context.expect_page() as other:
        opened.page.get_by_role("link", name="report").click()
    other.value.wait_for_selector("#tracks")
    run.live.fail("Failed: the disk is full")
    opened.wait("document.querySelector('#stage').textContent === 'Failed: the disk is full'")


def test_a_connection_that_is_gone_is_told_once(run: Run, open_page: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = open_page(run)
    monkeypatch.setattr(run.live, "status", lambda: 1 / 0)  # ends the connections that are open
    run.server.shutdown()
    run.server.server_close()
    opened.wait("document.querySelector('#stage').textContent === 'The connection is gone'")
    assert opened.page.locator("#stop").is_hidden()
    opened.page.wait_for_timeout(1500)
    assert len(opened.errors) <= 1  # the browser's own line
    opened.errors.clear()


def test_hostile_texts_do_nothing(run: Run, open_page: Open, tmp_path: Path) -> None:
    job = previews.make_job(tmp_path, "a #1 50%25 & <b>\"'", **PROMPTS)
    object.__setattr__(job.track, "title", reports.HOSTILE)
    run.begin(job)
    opened = open_page(run)
    run.live.note(reports.HOSTILE)
    run.paint(1)
    run.finish_film()
    opened.wait("document.querySelectorAll('#films a').length === 1")
    assert opened.text("h1") == " ".join(reports.HOSTILE.split())
    assert opened.page.title() == reports.HOSTILE
    assert opened.text("#notes li:last-child") == " ".join(reports.HOSTILE.split())
    run.live.fail(reports.HOSTILE)
    opened.wait("document.querySelector('#stage').textContent.startsWith('</title>')")
    assert opened.page.evaluate("window.hacked") is None


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [DESK, PHONE], ids=["desk", "phone"])
def test_everyone_can_use_it(run: Run, open_page: Open, scheme: str, size: dict[str, int]) -> None:
    opened = open_page(run, color_scheme=scheme, viewport=size)
    run.grow(8)
    run.live.note("a note")
    opened.wait("document.querySelector('video').readyState >= 2")
    opened.page.evaluate("for (const one of document.querySelectorAll('details')) one.open = true")
    assert faults(opened.page) == []
    assert opened.page.evaluate("document.documentElement.scrollWidth") == size["width"]
    run.finish_film()
    opened.wait("document.querySelectorAll('#films a').length === 1")
    assert faults(opened.page) == []

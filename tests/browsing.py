"""Pages in a real browser, for the tests of all that is shown there."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
DESK, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}


@dataclass
class Opened:
    """A page in the browser, and what it did."""

    page: Page
    allowed: tuple[str, ...]  # beginnings of the addresses that it may ask for
    errors: list[str] = field(default_factory=list)  # in its console, or not caught
    requests: list[str] = field(default_factory=list)

    @property
    def time(self) -> float:
        """Seconds of the film that are shown."""
        return float(self.page.evaluate("document.querySelector('video').currentTime"))

    @property
    def cursor(self) -> float:
        """Where the cursor stands, as a share of the time axis."""
        axis, cursor = (self.page.locator(name).bounding_box() for name in ("#slider", "#cursor"))
        assert axis
        assert cursor
        return (cursor["x"] + cursor["width"] / 2 - axis["x"]) / axis["width"]

    def text(self, selector: str) -> str:
        """The text of an element, as shown."""
        return self.page.locator(selector).inner_text()

    def wait(self, condition: str) -> None:
        """Wait for a condition; Playwright's own way evaluates text in the page, which the page's policy forbids."""
        for _ in range(500):
            if self.page.evaluate(condition):
                return
            self.page.wait_for_timeout(20)
        raise AssertionError(condition)

    def settle(self, seconds: float) -> None:
        """Wait until the film is at a time."""
        self.wait(f"Math.abs(document.querySelector('video').currentTime - {seconds}) < .02")


Open = Callable[..., Opened]


@contextmanager
def opening(browser: Browser) -> Iterator[Open]:
    """Open files and addresses; at the end, no page may have had an error or asked another server for anything."""
    contexts, opened = [], list[Opened]()

    def run(where: Path | str, *, film: bool = True, permissions: list[str] | None = None, **options: Any) -> Opened:
        contexts.append(browser.new_context(**{"viewport": DESK, "permissions": permissions or [], **options}))
        allowed = ("file:", "data:") if isinstance(where, Path) else (where, f"blob:{where.partition('/')[0]}", "data:")
        shown = Opened(contexts[-1].new_page(), allowed)
        opened.append(shown)
        shown.page.on("console", lambda one: shown.errors.append(one.text) if one.type == "error" else None)
        shown.page.on("pageerror", lambda one: shown.errors.append(str(one)))
        shown.page.on("request", lambda one: shown.requests.append(one.url))
        shown.page.goto(where.as_uri() if isinstance(where, Path) else where)
        if film:
            shown.wait("document.querySelector('video').readyState >= 2")
        return shown

    yield run
    for context in contexts:
        context.close()
    assert [error for one in opened for error in one.errors] == []
    assert [url for one in opened for url in one.requests if not url.startswith(one.allowed)] == []


def faults(page: Page) -> list[str]:
    """What axe-core finds that is serious."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright")
    found = axe.Axe().run(page).response["violations"]
    return [f"{one['id']}: {one['nodes'][0]['html']}" for one in found if one["impact"] in ("serious", "critical")]

"""Remake the pictures of pages that the README shows, in light and in dark.

`pages.png` is the page of `demo.mp4`, `preview.png` the page that shows the same film while it is made.

python samples/make_pages.py
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image
from playwright.sync_api import sync_playwright

from wav2clip_gen import load_family
from wav2clip_gen.report import write_report

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

HERE = Path(__file__).parent
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
VIEWPORT = {"width": 1120, "height": 1240}  # px
WIDTH = 720  # px of each half
SECONDS = 6.0  # of the film at which it is shown
MADE = 0.6  # share of the film that is made when the preview is shown


def main() -> None:
    """Take both pictures."""
    family = load_family("mini")
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as driver:
        running = driver.chromium.launch(executable_path=browser)
        page = write_report(HERE / "demo.mp4", Path(folder) / "demo.html", load=lambda *_, **__: family)
        take_picture(running, page.as_uri(), "pages.png")
        with preview(Path(folder)) as url:
            take_picture(running, url, "preview.png")
        running.close()


@contextmanager
def preview(folder: Path) -> Iterator[str]:
    """Make the demo, and give the address of its preview when most of it is made."""
    command = [
        sys.executable,
        "-m",
        "wav2clip_gen",
        str(HERE / "song"),
        "--config",
        str(HERE / "demo.yaml"),
        "--preview",
    ]
    with subprocess.Popen(
        [*command, "--out", str(folder / "demo.mp4"), "--progress", "json"], stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        url = ""
        for line in (json.loads(line) for line in process.stderr if line.startswith("{")):
            url = line.get("url", url)
            if line.get("stage") == "optimize" and line["done"] > MADE * line["total"]:
                break
        yield url
        process.kill()


def wait(page: Page, condition: str) -> None:
    """Wait until a condition holds, and until what it concerns is drawn."""
    while not page.evaluate(condition):
        page.wait_for_timeout(100)
    page.wait_for_timeout(1500)


def take_picture(browser: Browser, url: str, name: str) -> None:
    """Show a page twice, lay out, save."""
    halves = []
    for scheme in ("light", "dark"):
        shown = browser.new_page(color_scheme=scheme, viewport=VIEWPORT)
        shown.goto(url)
        wait(shown, "document.querySelector('video').duration")
        shown.evaluate(f"document.querySelector('video').currentTime = {SECONDS}")
        wait(shown, "!document.querySelector('video').seeking")
        with tempfile.NamedTemporaryFile(suffix=".png") as file:
            shown.screenshot(path=file.name)
            with Image.open(file.name) as picture:
                height = round(picture.height * WIDTH / picture.width)
                halves.append(picture.convert("RGB").resize((WIDTH, height), Image.Resampling.LANCZOS))
    both = Image.new("RGB", (2 * WIDTH, halves[0].height))
    for number, half in enumerate(halves):
        both.paste(half, (number * WIDTH, 0))
    both.quantize(256, dither=Image.Dither.NONE).save(HERE / name, optimize=True)
    print(f"{name}: {(HERE / name).stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()

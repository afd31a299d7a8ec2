"""Remake the picture of the page of a film that the README shows: of `demo.mp4`, in light and in dark.

python samples/make_pages.py
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

from wav2clip_gen import load_family
from wav2clip_gen.report import write_report

HERE = Path(__file__).parent
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
VIEWPORT = {"width": 1120, "height": 1180}  # px
WIDTH = 720  # px of each half
SECONDS = 6.0  # of the film at which it is shown


def main() -> None:
    """Write the page, take its picture twice, lay out, save."""
    family, halves = load_family("mini"), []
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as driver:
        page = write_report(HERE / "demo.mp4", Path(folder) / "demo.html", load=lambda *_, **__: family)
        running = driver.chromium.launch(executable_path=browser)
        for scheme in ("light", "dark"):
            shown = running.new_page(color_scheme=scheme, viewport=VIEWPORT)
            shown.goto(page.as_uri())
            shown.evaluate(f"document.querySelector('video').currentTime = {SECONDS}")
            shown.wait_for_timeout(1000)
            shown.screenshot(path=page.with_suffix(".png"))
            with Image.open(page.with_suffix(".png")) as picture:
                height = round(picture.height * WIDTH / picture.width)
                halves.append(picture.convert("RGB").resize((WIDTH, height), Image.Resampling.LANCZOS))
        running.close()
    both = Image.new("RGB", (2 * WIDTH, halves[0].height))
    for number, half in enumerate(halves):
        both.paste(half, (number * WIDTH, 0))
    both.quantize(256, dither=Image.Dither.NONE).save(HERE / "pages.png", optimize=True)
    print(f"pages.png: {(HERE / 'pages.png').stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()

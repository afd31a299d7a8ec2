"""Adds files from outside docs/ to the site, at the paths that the pages link to with `../`."""

from __future__ import annotations

from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parent.parent
PAGES = ("CHANGELOG.md", "weights/README.md")
MEDIA = ("sheet.png", "presets.png", "held-out.png", "sounds.png", "song.lrc")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add pages and pictures."""
    for path in (*PAGES, *(f"samples/{name}" for name in MEDIA)):
        files.append(File.generated(config, path, abs_src_path=str(ROOT / path)))
    return files


def on_page_markdown(markdown: str, *, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Make links relative to the site instead of the repository."""
    if page.file.src_uri in PAGES:
        return markdown.replace("](../docs/", "](../")
    return markdown.replace("](../", "](")

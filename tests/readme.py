"""The parts of the README that are made from the code: `make docs` writes them, a test compares them."""

from __future__ import annotations

import re

from tests.conftest import ROOT
from wav2clip_gen.config import SECTIONS, describe_range, knobs
from wav2clip_gen.models import manifest

README = ROOT / "README.md"
RESULTS = ROOT / "tests" / "benchmarks" / "results.md"


def settings_table() -> str:
    """All knobs, as a Markdown table."""
    rows = ["| setting | default | range | meaning |", "| --- | --- | --- | --- |"]
    for section, group in SECTIONS.items():
        for name, item in knobs(group).items():
            default = "" if item.default is None else str(item.default)
            rows.append(f"| `{section}.{name}` | {default} | {describe_range(item)} | {item.metadata['meaning']} |")
    return "\n".join(rows)


def parts_table() -> str:
    """All parts of the manifest, as a Markdown table."""
    rows = ["| part | role | size | licence |", "| --- | --- | --- | --- |"]
    for part in manifest.published().parts.values():
        size = f"{part.size / 2**20:,.0f} MiB" if part.size else "with w2c-gen" if part.shipped else "unknown"
        rows.append(f"| `{part.name}` | {part.role} | {size} | {part.licence} |")
    return "\n".join(rows)


def filled(text: str) -> str:
    """The README with its generated parts made anew."""
    contents = {"settings": settings_table(), "speed": RESULTS.read_text().strip(), "parts": parts_table()}
    for name, content in contents.items():
        begin, end = f"<!-- {name}: made by `make docs` -->", f"<!-- end of {name} -->"
        pattern = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.DOTALL)
        before, after = pattern.split(text)
        text = f"{before}{begin}\n{content}\n{end}{after}"
    return text


def blocks(language: str) -> list[str]:
    """The fenced code blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", README.read_text(), re.DOTALL | re.MULTILINE)


if __name__ == "__main__":
    README.write_text(filled(README.read_text()))

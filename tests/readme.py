"""The documentation that is made from the code: `make docs` writes it, a test compares it."""

from __future__ import annotations

import re
from pathlib import Path

from tests.conftest import ROOT
from wav2clip_gen.models import manifest

README = ROOT / "README.md"
DOCS = ROOT / "docs"
RESULTS = ROOT / "tests" / "benchmarks" / "results.md"
WRITTEN = [README, *sorted(DOCS.glob("*.md")), ROOT / "weights" / "README.md", ROOT / "samples" / "README.md"]


def parts_table() -> str:
    """All parts of the manifest, as a Markdown table."""
    rows = ["| part | role | size | license |", "| --- | --- | --- | --- |"]
    for part in manifest.published().parts.values():
        size = f"{part.size / 2**20:,.0f} MiB" if part.size else "with w2c-gen" if part.shipped else "unknown"
        rows.append(f"| `{part.name}` | {part.role} | {size} | {part.licence} |")
    return "\n".join(rows)


def generated_pages() -> dict[Path, str]:
    """The content of each page that is made from the code, or has a section that is."""
    speed, parts = DOCS / "performance.md", DOCS / "models.md"
    return {
        speed: with_section(speed.read_text(), "speed", RESULTS.read_text().strip()),
        parts: with_section(parts.read_text(), "parts", parts_table()),
    }


def with_section(text: str, name: str, content: str) -> str:
    """A page with new content between the comments of a section."""
    begin, end = f"<!-- {name}: made by `make docs` -->", f"<!-- end of {name} -->"
    before, after = re.split(f"{re.escape(begin)}.*?{re.escape(end)}", text, flags=re.DOTALL)
    return f"{before}{begin}\n{content}\n{end}{after}"


def blocks(page: Path, language: str) -> list[str]:
    """The fenced code blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE)


if __name__ == "__main__":
    for path, content in generated_pages().items():
        path.write_text(content)

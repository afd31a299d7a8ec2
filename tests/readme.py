"""The documentation that is made from the code: `make docs` writes it, a test compares it."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

from tests.conftest import ROOT
from wav2clip_gen.cli import options
from wav2clip_gen.config import (
    DESTINATIONS,
    FEATURES,
    PRESETS,
    SECTIONS,
    AudioMap,
    Prompt,
    StemWeight,
    StyleImage,
    describe_range,
    preset_names,
)
from wav2clip_gen.models import manifest

README = ROOT / "README.md"
DOCS = ROOT / "docs"
RESULTS = ROOT / "tests" / "benchmarks" / "results.md"
WRITTEN = [README, *sorted(DOCS.glob("*.md")), ROOT / "weights" / "README.md", ROOT / "samples" / "README.md"]

INTRODUCTION = """\
# Settings and options

<!-- made from the code by `make docs` -->

Every setting has a key, such as `painting.steps`, for YAML files (`--config FILE`) and for `--set painting.steps=8`,
and most have an option. Later sources win: defaults (for `full`, those of the preset `full`), `--from`, `--preset`,
`--config`, `--set`, options. `w2c-gen --help` shows the everyday options (bold below), `w2c-gen --help-all` shows all.
`w2c-gen --install-completion` installs completion for your shell.
"""


def table(*rows: tuple[str, ...]) -> str:
    """Rows as a Markdown table; the first is the header."""
    lines = [" | ".join(cell.replace("|", "\\|") for cell in row) for row in rows]
    lines.insert(1, " | ".join("---" for _ in rows[0]))
    return "\n".join(f"| {line} |" for line in lines)


def flags(option: options.Option) -> str:
    """The flags of an option, bold if `--help` shows it."""
    shown = ", ".join(f"`{flag}`" for flag in option.flags)
    return f"**{shown}**" if option.everyday else shown


def settings_table(section: str) -> str:
    """The settings of a group, as a Markdown table."""
    by_key = {option.key: option for option in options.SETTINGS}
    rows = [("setting", "option", "default", "range", "meaning")]
    for item in fields(SECTIONS[section]):
        key = f"{section}.{item.name}"
        option = flags(by_key[key]) if key in by_key else "**`--size`**"
        default = options.describe_default(item)
        rows.append((f"`{key}`", option, default, describe_range(item), item.metadata["meaning"]))
    return table(*rows)


def options_table() -> str:
    """The options that are not single settings, as a Markdown table."""
    plain = {option.name: re.sub(r"\[/?(dim)?\]", "", option.help) for option in options.OTHERS}
    rows = [(flags(option), option.panel.lower(), plain[option.name]) for option in options.OTHERS]
    return table(("option", "panel", "meaning"), *rows)


def list_tables() -> str:
    """The fields of the items of lists of settings, as Markdown tables."""
    sections = []
    for kind in (Prompt, StyleImage, StemWeight, AudioMap):
        rows = []
        for item in sorted(fields(kind), key=lambda item: item.name != kind.CONTENT):
            default = options.describe_default(item)
            rows.append((f"`{item.name}`", default, describe_range(item), item.metadata["meaning"]))
        fields_table = table(("field", "default", "range", "meaning"), *rows)
        sections.append(f"### {kind.KEY}\n\nAs text: `{kind.EXAMPLE}`. Or a mapping of these fields:\n\n{fields_table}")
    features = ", ".join(f"`{name}`" for name in FEATURES)
    targets = ", ".join(f"`{name}`" for name in (*DESTINATIONS, "prompt.1"))
    return "\n\n".join([*sections, f"Features of maps: {features}.", f"Settings that maps modulate: {targets}."])


def presets_table() -> str:
    """The presets, as a Markdown table; the first line of each file, a comment, describes it."""
    rows = []
    for name in preset_names():
        comment, *content = (PRESETS / f"{name}.yaml").read_text().splitlines()
        rows.append((f"`{name}`", comment.removeprefix("# "), "<br>".join(f"`{line}`" for line in content)))
    return table(("preset", "meaning", "settings"), *rows)


def options_page() -> str:
    """The content of docs/options.md."""
    parts = [INTRODUCTION.rstrip(), "## Settings"]
    for section, group in SECTIONS.items():
        parts.append(f"### {section}\n\n{(group.__doc__ or '').strip()}\n\n{settings_table(section)}")
    parts += ["## Lists of settings", list_tables(), "## Presets", presets_table()]
    parts += ["## Other options", options_table()]
    return "\n\n".join(parts) + "\n"


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
        DOCS / "options.md": options_page(),
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

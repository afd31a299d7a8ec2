"""The table that all benchmarks fill."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

RESULTS = Path(__file__).with_name("results.md")
TOP = "| what | figure |\n| --- | --- |\n"


@pytest.fixture(scope="session")
def table() -> Iterator[list[tuple[str, str]]]:
    """Rows (what, figure) that become the results; those of the same machine that are not measured anew stay."""
    rows: list[tuple[str, str]] = []
    yield rows
    head = f"Measured on {processor()}, {os.cpu_count()} cores, torch {torch.__version__}, models mini, medians.\n\n"
    known = {**earlier(head), **dict(rows)}
    lines = "".join(f"| {what} | {figure} |\n" for what, figure in known.items())
    RESULTS.write_text(f"{head}{TOP}{lines}")


def earlier(head: str) -> dict[str, str]:
    """The rows of a table with the same head, if there is one."""
    text = RESULTS.read_text() if RESULTS.exists() else ""
    if not text.startswith(head + TOP):
        return {}
    cells = (line.strip("| ").split(" | ") for line in text.removeprefix(head + TOP).splitlines())
    return {what: figure for what, figure in cells}


def processor() -> str:
    """Name of the processor, as Linux tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.partition(": ")[2] for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()

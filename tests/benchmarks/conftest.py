"""The table that all benchmarks fill."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

RESULTS = Path(__file__).with_name("results.md")


@pytest.fixture(scope="session")
def table() -> Iterator[list[tuple[str, str]]]:
    """Rows (what, figure) that become the results."""
    rows: list[tuple[str, str]] = []
    yield rows
    head = f"Measured on {processor()}, {os.cpu_count()} cores, torch {torch.__version__}, models mini, medians.\n\n"
    lines = "".join(f"| {what} | {figure} |\n" for what, figure in rows)
    RESULTS.write_text(f"{head}| what | figure |\n| --- | --- |\n{lines}")


def processor() -> str:
    """Name of the processor, as Linux tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.partition(": ")[2] for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()

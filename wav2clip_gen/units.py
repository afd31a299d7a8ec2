"""Times and sizes as people write them."""

from __future__ import annotations

import re

from wav2clip_gen.errors import SettingsError

TIME = r"(?:\d+:){0,2}\d+(?:\.\d*)?|\.\d+"  # 75, 75.5, 1:15.5, 0:01:15.5
SIZE = r"(\d+(?:\.\d*)?|\.\d+)\s*([kmgt])(i?)b?"  # 8GB, 512MB, 8GiB, 1.5 g
SHORTEST_SEGMENT = 1.0  # seconds


def parse_time(written: str) -> float:
    """Read `75`, `75.5`, `1:15.5` or `0:01:15.5` as seconds.

    Raises:
        SettingsError: It is not a time.
    """
    if not re.fullmatch(TIME, written):
        raise SettingsError(f"{written!r} is not a time", hint="write 75.5 or 1:15.5")
    seconds = 0.0
    for part in written.split(":"):
        seconds = seconds * 60 + float(part)
    return seconds


def parse_bytes(written: str) -> int:
    """Read `8GB` (10^9 bytes each), `512MB` or `8GiB` (2^30 bytes each) as bytes.

    Raises:
        SettingsError: It is no size, or 0.
    """
    found = re.fullmatch(SIZE, written.strip(), re.IGNORECASE)
    if not found:
        raise SettingsError(f"{written!r} is not a size of memory", hint="write 8GB, 512MB or 8GiB")
    number, prefix, binary = found.groups()
    size = round(float(number) * (1024 if binary else 1000) ** (1 + "kmgt".index(prefix.lower())))
    if not size:
        raise SettingsError(f"{written!r} is no memory at all", hint="write 8GB, 512MB or 8GiB")
    return size


def parse_segments(written: str) -> float | None:
    """Read the setting `segments`: the seconds of a segment; infinity for "none", None for "auto".

    Raises:
        SettingsError: It is neither of them nor a time, or shorter than `SHORTEST_SEGMENT`.
    """
    if written in ("auto", "none"):
        return None if written == "auto" else float("inf")
    if not re.fullmatch(TIME, written) or parse_time(written) < SHORTEST_SEGMENT:
        hint = f"write auto, none, or the seconds of a segment, at least {SHORTEST_SEGMENT:g}, as in 30 or 1:15"
        raise SettingsError(f"segments cannot be {written!r}", hint=hint)
    return parse_time(written)


def describe_bytes(count: float) -> str:
    """Bytes for people: 3.6 GiB, 120 MiB."""
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{max(1, round(count / 2**20))} MiB"


def parse_workers(written: str) -> int | None:
    """Read the number of processes that paint a film; None for "auto".

    Raises:
        SettingsError: It is neither "auto" nor a number from 1 up.
    """
    if written == "auto":
        return None
    if not written.isdecimal() or int(written) < 1:
        raise SettingsError(f"workers cannot be {written!r}", hint="give auto, or a number such as 4")
    return int(written)

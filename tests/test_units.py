"""Times and sizes as people write them."""

from __future__ import annotations

import math

import pytest

from wav2clip_gen.config import Settings
from wav2clip_gen.errors import SettingsError
from wav2clip_gen.units import describe_bytes, parse_bytes, parse_segments


@pytest.mark.parametrize(
    ("written", "size"),
    [
        ("8GB", 8_000_000_000), ("512MB", 512_000_000), ("8GiB", 8 * 2**30), ("1.5 g", 1_500_000_000),
        (" 300mib ", 300 * 2**20), (".5T", 500_000_000_000), ("64K", 64_000), ("2.GB", 2_000_000_000),
    ],
)  # fmt: skip
def test_a_size_is_read(written: str, size: int) -> None:
    assert parse_bytes(written) == size


@pytest.mark.parametrize("written", ["8", "8 bytes", "GB", "-1GB", "8Gb8", "8,5GB", "", "1e3MB", "nanGB", "8 G iB"])
def test_what_is_no_size_is_refused(written: str) -> None:
    with pytest.raises(SettingsError) as caught:
        Settings().merged({"run": {"max_memory": written}})
    assert caught.value.what == f"{written!r} is not a size of memory"
    assert caught.value.hint == "write 8GB, 512MB or 8GiB"


def test_nothing_is_no_size() -> None:
    with pytest.raises(SettingsError, match=r"'0\.0GB' is no memory at all"):
        parse_bytes("0.0GB")


def test_sizes_for_people() -> None:
    sizes = (1, 5 * 2**20, 2**30 - 1, 2**30, 225.2 * 2**30)
    assert [describe_bytes(size) for size in sizes] == ["1 MiB", "5 MiB", "1024 MiB", "1.0 GiB", "225.2 GiB"]


@pytest.mark.parametrize(("written", "length"), [("auto", None), ("none", math.inf), ("30", 30), ("1:15.5", 75.5)])
def test_lengths_of_segments_are_read(written: str, length: float | None) -> None:
    assert parse_segments(Settings().merged({"run": {"segments": written}}).run.segments) == length


@pytest.mark.parametrize("written", ["0", "0.99", "-3", "half", "", "30s", "nan", "Auto"])
def test_what_is_no_length_of_a_segment_is_refused(written: str) -> None:
    with pytest.raises(SettingsError) as caught:
        Settings().merged({"run": {"segments": written}})
    assert caught.value.what == f"segments cannot be {written!r}"
    assert caught.value.hint == "write auto, none, or the seconds of a segment, at least 1, as in 30 or 1:15"


def test_a_number_in_a_settings_file_is_a_length() -> None:
    assert Settings().merged({"run": {"segments": 20}}).run.segments == "20"

"""An output is made by one run at a time, and film and record get their names together."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from wav2clip_gen.errors import OutputError
from wav2clip_gen.video.claim import claim, claim_folder, publish_film


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "film.mp4"


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def publish(out: Path, *, partial: bool = False, overwrite: bool = False) -> Path:
    film, record = out.with_name("made"), out.with_name("made.json")
    film.write_bytes(b"new")
    path = publish_film(film, record, out, lambda path: {"film": path.name}, partial=partial, overwrite=overwrite)
    film.unlink(missing_ok=True)
    record.unlink(missing_ok=True)
    return path


def test_an_output_is_claimed_by_one_run(out: Path) -> None:
    other = claim(out.with_name("other.mp4"))
    with claim(out), other, pytest.raises(OutputError, match=r"another run is making .*film\.mp4"), claim(out):
        pass
    with claim(out):
        pass
    assert names(out.parent) == []


def test_a_folder_for_frames_is_claimed_by_one_run(tmp_path: Path) -> None:
    with (
        claim_folder(tmp_path),
        pytest.raises(OutputError, match="another run is writing frames"),
        claim_folder(tmp_path),
    ):
        pass
    with claim_folder(tmp_path):
        pass


def test_film_and_record_appear_together(out: Path) -> None:
    assert publish(out) == out
    assert names(out.parent) == ["film.json", "film.mp4"]
    assert out.with_suffix(".json").read_text() == '{\n "film": "film.mp4"\n}\n'


@pytest.mark.parametrize("appeared", ["film.mp4", "film.json"])
@pytest.mark.parametrize("links", [True, False])
def test_what_appeared_meanwhile_is_not_replaced(
    appeared: str, links: bool, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unsupported(*arguments: object) -> None:
        raise OSError(1, "Operation not permitted")

    if not links:
        monkeypatch.setattr(os, "link", unsupported)
    out.with_name(appeared).write_text("foreign")
    film = publish(out)
    assert film.name == "film.partial.mp4"
    assert out.with_name(appeared).read_text() == "foreign"
    assert names(out.parent) == sorted([appeared, "film.partial.mp4", "film.partial.json"])
    assert film.with_suffix(".json").read_text() == '{\n "film": "film.partial.mp4"\n}\n'


def test_with_overwrite_both_are_replaced(out: Path) -> None:
    for path in (out, out.with_suffix(".json")):
        path.write_text("old")
    publish(out, overwrite=True)
    assert (out.read_bytes(), "old" in out.with_suffix(".json").read_text()) == (b"new", False)


def test_a_partial_film_never_replaces_the_old_one(out: Path) -> None:
    out.write_text("old")
    film = publish(out, partial=True, overwrite=True)
    assert (out.read_text(), film.name) == ("old", "film.partial.mp4")


def test_a_record_that_appears_in_the_last_moment_is_not_left_next_to_another_film(
    out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = os.link

    def appear(part: Path, path: Path) -> None:
        if path == out.with_suffix(".json"):
            path.write_text("foreign")
        link(part, path)

    monkeypatch.setattr(os, "link", appear)
    assert publish(out).name == "film.partial.mp4"
    assert names(out.parent) == ["film.json", "film.partial.json", "film.partial.mp4"]
    assert out.with_suffix(".json").read_text() == "foreign"

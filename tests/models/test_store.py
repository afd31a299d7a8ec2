"""Where weights lie, in what state they are, and what is recorded of them."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

from tests.models.tiny import place, write_weights
from wav2clip_gen.errors import OutputError, WeightsError
from wav2clip_gen.files import hash_file
from wav2clip_gen.models import locks, manifest, store
from wav2clip_gen.models.locks import Lock


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "weights"
    monkeypatch.setenv("W2C_WEIGHTS", str(path))
    return path


def fill(family: str = "full", **training: int) -> None:
    for part in store.members(family).values():
        write_weights(store.locate_part(part), training=training)


def test_the_folder_is_in_the_users_cache_unless_chosen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if sys.platform.startswith("linux"):
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
        assert store.weights_folder() == tmp_path / "w2c-gen" / "weights"
    monkeypatch.setenv("W2C_WEIGHTS", str(tmp_path / "mine"))
    assert store.weights_folder() == tmp_path / "mine"


def test_what_ships_is_found_wherever_weights_are_fetched_to(folder: Path) -> None:
    shipped = manifest.shipped_folder() / "mini" / "clip.safetensors"
    assert store.find_part("mini-clip") == store.find_part("mini-clip", folder) == shipped


def test_a_folder_of_ones_own_hides_what_ships(folder: Path) -> None:
    (folder / "mini").mkdir(parents=True)
    for name in ("mini-wav2clip", "mini-clip", "mini-vqgan"):
        with pytest.raises(WeightsError, match="no such weights file") as caught:
            store.find_part(name)
        assert "W2C_WEIGHTS" in caught.value.hint
    shutil.copytree(manifest.shipped_folder() / "mini", folder / "mini", dirs_exist_ok=True)
    assert store.find_part("mini-vqgan") == folder / "mini" / "vqgan.safetensors"


def test_auto_takes_the_better_family_once_it_is_whole(folder: Path) -> None:
    assert store.resolve("auto") == "mini"
    fill()
    assert store.resolve("auto") == "full"
    assert store.resolve("auto", folder) == "full"
    place("full", "clip").unlink()
    assert store.resolve("auto") == "mini"


def test_auto_never_takes_random_weights(folder: Path) -> None:
    fill(random=0)
    assert store.resolve("auto") == "mini"
    assert store.resolve("full") == "full"
    assert store.find_part("vit-b-32").is_file()


def test_what_is_missing_is_one_command_away(folder: Path) -> None:
    with pytest.raises(WeightsError, match="no such weights file") as caught:
        store.find_part("coco")
    assert caught.value.hint == "run `w2c-gen weights fetch coco`"


def test_unknown_names_are_told() -> None:
    with pytest.raises(WeightsError, match="no family of models is called 'huge'") as caught:
        store.resolve("huge")
    assert caught.value.hint == "choose from: auto, full, mini"
    with pytest.raises(WeightsError, match="no part is called 'huge'"):
        store.find_part("huge")


def test_states(folder: Path) -> None:
    part = manifest.part("vit-b-32")
    path, original = store.locate_part(part), store.locate_original(part)
    assert (store.status(part).state, store.status(part).size) == ("missing", 353976522)
    original.parent.mkdir(parents=True)
    original.with_name(f"{original.name}.part").write_bytes(b"123")
    assert (store.status(part).state, store.status(part).partial) == ("missing", 3)
    original.write_bytes(b"12345")
    assert (store.status(part).state, store.status(part).size) == ("fetched", 5)
    write_weights(path)
    assert (store.status(part).state, store.status(part).path) == ("ready", path)
    write_weights(path, training={"random": 0})
    assert store.status(part).state == "RANDOM"
    assert store.status(manifest.part("mini-clip")).state == "shipped"


@pytest.mark.parametrize("cut", [0, 4, 20, -1])
def test_a_file_that_is_not_whole_is_damaged(folder: Path, cut: int) -> None:
    part = manifest.part("vit-b-32")
    path = write_weights(store.locate_part(part))
    path.write_bytes(path.read_bytes()[:cut])
    assert store.status(part).state == "damaged"
    with pytest.raises(WeightsError, match="not a whole safetensors file") as caught:
        store.read_metadata(path)
    assert "\n" not in caught.value.what


@pytest.mark.parametrize("content", [b"<html>sign in, please</html>", b"\x02\0\0\0\0\0\0\0[]", b"\x02\0\0\0\0\0\0\0{}"])
def test_other_files_are_damaged_weights(folder: Path, content: bytes) -> None:
    path = place("full", "clip")
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    assert store.status(manifest.part("vit-b-32")).state == "damaged"


def test_a_recorded_hash_is_not_computed_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_weights(place("full", "clip"))
    true = hash_file(path)
    assert store.sha256(path) == true
    Lock(folder).record_converted("vit-b-32", path, sha256=true)
    monkeypatch.setattr(store, "hash_file", lambda _: "hashed")
    assert store.sha256(path) == true
    write_weights(path, values=b"changed!")
    assert store.sha256(path) == "hashed"


def test_the_first_hash_of_a_published_file_stays(tmp_path: Path) -> None:
    lock = Lock(tmp_path / "new")
    assert lock.original_hash("coco") is None
    lock.record_original("coco", file="coco.ckpt", size=3, sha256="first", source="https://a/coco.ckpt")
    lock.record_original("coco", file="coco.ckpt", size=3, sha256="second", source="https://b/coco.ckpt")
    assert lock.original_hash("coco") == "first"
    lock.forget("coco")
    assert lock.original_hash("coco") == "first"
    lock.forget("coco", original=True)
    assert lock.entries() == {}


@pytest.mark.parametrize("content", ["", "[]", '{"format": 1}', '{"format": 9, "parts": {}}', '{"parts": {}}'])
def test_a_damaged_lock_file_is_one_clear_line(tmp_path: Path, content: str) -> None:
    (tmp_path / locks.NAME).write_text(content)
    with pytest.raises(WeightsError) as caught:
        Lock(tmp_path).entries()
    assert "\n" not in caught.value.what
    assert caught.value.hint


def test_a_folder_that_cannot_be_written_to_is_told(tmp_path: Path) -> None:
    (tmp_path / "weights").write_text("a file")
    with pytest.raises(OutputError, match="cannot be written"):
        Lock(tmp_path / "weights").record_original("coco", file="f", size=1, sha256="s", source="u")

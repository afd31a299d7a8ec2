"""Where weights are and in what state, and what is recorded of them."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest

from tests.models.tiny import place, write_weights
from wav2clip_gen.errors import OutputError, WeightsError
from wav2clip_gen.files import hash_file
from wav2clip_gen.models import manifest, store
from wav2clip_gen.models.store import read_header


def test_the_folder_is_in_the_users_cache_unless_chosen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if sys.platform.startswith("linux"):
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
        assert store.weights_folder() == tmp_path / "w2c-gen" / "weights"
    monkeypatch.setenv("W2C_WEIGHTS", str(tmp_path / "mine"))
    assert store.weights_folder() == tmp_path / "mine"


def test_what_ships_is_found_wherever_weights_are_fetched_to(folder: Path) -> None:
    shipped = manifest.shipped_folder() / "mini" / "clip.safetensors"
    assert [store.require_part(manifest.part("mini-clip"), where) for where in (None, folder)] == [shipped] * 2


def test_a_folder_of_ones_own_hides_what_ships(folder: Path) -> None:
    (folder / "mini").mkdir(parents=True)
    for name in ("mini-wav2clip", "mini-clip", "mini-vqgan"):
        with pytest.raises(WeightsError, match="no such weights file") as caught:
            store.require_part(manifest.part(name))
        assert "W2C_WEIGHTS" in caught.value.hint
    shutil.copytree(manifest.shipped_folder() / "mini", folder / "mini", dirs_exist_ok=True)
    assert store.require_part(manifest.part("mini-vqgan")) == folder / "mini" / "vqgan.safetensors"


def test_what_is_missing_is_one_command_away(folder: Path) -> None:
    with pytest.raises(WeightsError, match="no such weights file") as caught:
        store.require_part(manifest.part("coco"))
    assert caught.value.hint == "run `w2c-gen weights fetch coco`"


def test_states(folder: Path) -> None:
    part = manifest.part("vit-b-32")
    path, original = store.locate(part), store.locate_original(part)
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
    path = write_weights(store.locate(part))
    path.write_bytes(path.read_bytes()[:cut])
    assert store.status(part).state == "damaged"
    with pytest.raises(WeightsError, match="not a readable safetensors file") as caught:
        read_header(path)
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
    assert store.weights_sha256(path) == true
    store.record(folder, "vit-b-32", converted={**store.stamp(path), "sha256": true})
    monkeypatch.setattr(store, "hash_file", lambda _: "hashed")
    assert store.weights_sha256(path) == true
    write_weights(path, values=b"changed!")
    assert store.weights_sha256(path) == "hashed"


def test_what_is_recorded_of_a_part_is_changed_and_forgotten(tmp_path: Path) -> None:
    folder = tmp_path / "new"
    store.record(folder, "coco", converted=None)
    assert not folder.exists()
    store.record(folder, "coco", original={"sha256": "first"}, converted={"sha256": "second"})
    store.record(folder, "coco", converted=None)
    assert store.read_records(folder) == {"coco": {"original": {"sha256": "first"}}}
    store.record(folder, "coco", original=None)
    assert store.read_records(folder) == {}


@pytest.mark.parametrize("content", ["", "[]", '{"format": 1}', '{"format": 9, "parts": {}}', '{"parts": {}}'])
def test_a_damaged_lock_file_is_one_clear_line(tmp_path: Path, content: str) -> None:
    (tmp_path / store.RECORDS).write_text(content)
    with pytest.raises(WeightsError) as caught:
        store.read_records(tmp_path)
    assert "\n" not in caught.value.what
    assert caught.value.hint


def test_a_folder_that_cannot_be_written_to_is_reported(tmp_path: Path) -> None:
    (tmp_path / "weights").write_text("a file")
    with pytest.raises(OutputError, match="cannot be written"):
        store.record(tmp_path / "weights", "coco", original={"file": "f", "size": 1})


def test_the_records_of_version_0_1_are_read(folder: Path) -> None:
    path = write_weights(place("full", "clip"))
    found = path.stat()
    converted = {"file": path.name, "size": found.st_size, "mtime_ns": found.st_mtime_ns, "sha256": "as recorded"}
    original = {"file": "ViT-B-32.pt", "size": 3, "sha256": "first", "source": "https://a/ViT-B-32.pt"}
    content = {"format": 1, "parts": {"vit-b-32": {"original": original, "converted": converted}}}
    (folder / "weights.lock.json").write_text(json.dumps(content))
    assert store.weights_sha256(path) == "as recorded"
    assert store.read_records(folder)["vit-b-32"]["original"]["sha256"] == "first"

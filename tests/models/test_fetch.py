"""Published models are brought, converted and recorded, and what is in place is left alone."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.models import server as servers
from tests.models.fetching import BODY, HALF, HASH, OTHER, fails, first_hash, part_from, run, unknown
from tests.models.server import Answer, Server
from tests.models.tiny import write_weights
from wav2clip_gen.errors import OutputError, WeightsError
from wav2clip_gen.files import hash_file
from wav2clip_gen.models import download, fetch, manifest, store
from wav2clip_gen.models.download import Progress
from wav2clip_gen.models.manifest import Part

pytestmark = pytest.mark.usefixtures("converter")


def in_place(path: Path) -> Progress:
    """The last event of a part that was there before."""
    return Progress(f"in place, {path}")


def test_a_part_is_fetched_checked_converted_and_recorded(server: Server, folder: Path, converter: Any) -> None:
    part = part_from(server.plan("/eyes.pt", Answer(body=BODY)))
    events = run(part, folder)
    path = store.locate(part, folder)
    assert events[0] == Progress("from 127.0.0.1")
    assert events[-1] == Progress(str(path))
    last = [event for event in events if not event.message][-1]
    assert (last.done, last.total) == (len(BODY), len(BODY))
    assert last.rate > 0
    assert converter.given == [(BODY, "clip", {"architecture": "x"}, "fp32")]
    assert store.status(part, folder).state == "ready"
    assert {path.name for path in path.parent.iterdir()} == {"clip.safetensors", ".fetch.lock"}
    entry = store.read_records(folder)["eyes"]
    assert entry["original"] == {"file": "eyes.pt", "size": len(BODY), "sha256": HASH, "source": part.sources[0]}
    assert store.weights_sha256(path) == entry["converted"]["sha256"] == hash_file(path)


@pytest.mark.parametrize("make", [part_from, unknown])
def test_a_published_file_is_read_once_for_its_hash(
    make: Callable[[str], Part], server: Server, folder: Path, converter: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    hashed: list[str] = []

    def hash_file(path: Path) -> str:
        hashed.append(path.name)
        return hashlib.sha256(path.read_bytes()).hexdigest()

    for module in ("fetch", "store"):
        monkeypatch.setattr(f"wav2clip_gen.models.{module}.hash_file", hash_file)
    run(make(server.plan("/eyes.pt", Answer(body=BODY))), folder)
    assert hashed == ["eyes.pt.part", "clip.safetensors"]
    assert converter.hashes == [HASH]
    assert first_hash(folder) == HASH


def test_what_is_in_place_is_not_fetched_again(server: Server, folder: Path) -> None:
    part = part_from(server.plan("/eyes.pt", Answer(body=BODY)))
    run(part, folder)
    assert run(part, folder) == [in_place(store.locate(part, folder))]
    assert len(server.asked) == 1


def test_the_published_file_can_be_kept(server: Server, folder: Path, converter: Any) -> None:
    part = part_from(server.plan("/eyes.pt", Answer(body=BODY)))
    run(part, folder, keep_original=True, precision="fp16")
    assert store.locate_original(part, folder).read_bytes() == BODY
    assert converter.given[0][-1] == "fp16"


def test_random_and_damaged_weights_are_replaced(server: Server, folder: Path) -> None:
    part = part_from(server.plan("/eyes.pt", Answer(body=BODY)))
    path = write_weights(store.locate(part, folder), training={"random": 0})
    run(part, folder)
    assert store.status(part, folder).state == "ready"
    path.write_bytes(path.read_bytes()[:-1])
    run(part, folder)
    assert store.status(part, folder).state == "ready"


def test_the_next_source_is_asked(server: Server, folder: Path, converter: Any) -> None:
    gone = server.plan("/gone", Answer(status=404))
    wrong = server.plan("/wrong", Answer(body=OTHER))
    part = part_from(gone, wrong, server.plan("/eyes.pt", Answer(body=BODY)))
    events = run(part, folder)
    assert [event.message.partition(" ")[2][:22] for event in events if event.message.startswith("127.0.0.1: ")] == [
        "has no such file (404)",
        "gives another file: it",
    ]
    assert converter.given[0][0] == BODY


def test_gone_from_all_sources_is_one_clear_line(server: Server, folder: Path) -> None:
    part = unknown(server.plan("/a", Answer(status=404)), server.plan("/b", Answer(status=410)))
    error = fails(part, folder, "eyes cannot be fetched", "(404)", "(410)")
    assert str(store.locate_original(part, folder)) in error.hint


def test_no_network_is_reported(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setattr(download, "sleep", lambda seconds: None)
    with servers.running() as closed:
        url = f"{closed.url}/eyes.pt"
    error = fails(unknown(url), folder, "127.0.0.1: cannot be reached")
    assert "network" in error.hint
    assert "HTTPS_PROXY" in error.hint


@pytest.mark.parametrize("how", ["flag", "W2C_OFFLINE"])
def test_offline_asks_nobody(server: Server, folder: Path, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    part = part_from(server.plan("/eyes.pt", Answer(body=BODY)))
    if how == "W2C_OFFLINE":
        monkeypatch.setenv(how, "1")
    error = fails(part, folder, "stay offline", offline=how == "flag")
    assert str(store.locate_original(part, folder)) in error.hint
    assert server.asked == []


def test_a_file_copied_there_by_hand_is_taken_offline(folder: Path, converter: Any) -> None:
    part = part_from("https://nowhere.invalid/eyes.pt")
    original = store.locate_original(part, folder)
    original.parent.mkdir(parents=True)
    original.write_bytes(OTHER)
    with pytest.raises(WeightsError, match="its sha256 is") as caught:
        run(part, folder, offline=True)
    assert "delete it" in caught.value.hint
    original.write_bytes(BODY)
    run(part, folder, offline=True)
    assert converter.given[0][0] == BODY


def test_a_folder_that_cannot_be_made_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    fails(
        part_from("https://nowhere.invalid/x"), tmp_path / "file" / "weights", "cannot be written to", kind=OutputError
    )


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_folder_is_reported(folder: Path) -> None:
    folder.mkdir()
    folder.chmod(0o500)
    fails(part_from("https://nowhere.invalid/x"), folder, "cannot be written to", kind=OutputError)


def test_a_read_only_disk_is_reported(server: Server, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Path, *arguments: object, **options: object) -> None:
        raise OSError(30, "Read-only file system", str(self))

    monkeypatch.setattr(Path, "mkdir", refuse)
    error = fails(part_from(server.url), folder, "Read-only file system", kind=OutputError)
    assert "--weights-dir" in error.hint


def test_a_read_only_folder_that_others_filled_is_enough(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    part = part_from("https://nowhere.invalid/x")
    path = write_weights(store.locate(part, folder))

    def refuse(self: Path, *arguments: object, **options: object) -> None:
        raise OSError(30, "Read-only file system", str(self))

    monkeypatch.setattr(Path, "mkdir", refuse)
    assert run(part, folder) == [in_place(path)]
    assert not path.with_name(".fetch.lock").exists()


def test_the_hash_of_the_first_fetch_holds_ever_after(server: Server, folder: Path, converter: Any) -> None:
    part = unknown(server.plan("/eyes.pt", Answer(body=BODY)))
    run(part, folder)
    store.locate(part, folder).unlink()
    server.plan("/eyes.pt", Answer(body=OTHER, etag='"two"'))
    error = fails(part, folder, "gives another file", HASH)
    assert error.hint.endswith("`w2c-gen weights remove eyes --forget`")
    store.record(folder, "eyes", original=None)
    run(part, folder)
    assert converter.given[-1][0] == OTHER


def test_a_file_that_cannot_be_converted_is_not_remembered(server: Server, folder: Path, converter: Any) -> None:
    part = unknown(server.plan("/eyes.pt", Answer(body=BODY[:HALF], length=-1)))  # cut off unnoticed
    converter.refuses = True
    with pytest.raises(WeightsError, match="holds no clip") as caught:
        run(part, folder)
    assert "`w2c-gen weights remove eyes`" in caught.value.hint
    assert store.status(part, folder).state == "fetched"
    assert first_hash(folder) is None
    assert [path.name for path in folder.joinpath("eyes").glob(".w2c-*")] == []


def test_two_at_once_fetch_only_once(server: Server, folder: Path, converter: Any) -> None:
    part = part_from(server.plan("/eyes.pt", Answer(body=BODY, pace=0.005)))
    received: list[list[Any]] = [[], []]
    threads = [
        threading.Thread(target=lambda events: events.extend(fetch.fetch(part, folder)), args=(events,))
        for events in received
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(server.asked) == 1
    waited = min(received, key=len)
    waiting = Progress("another w2c-gen fetches it, waiting")
    assert waited == [waiting, in_place(store.locate(part, folder))]
    assert max(received, key=len)[-1].message == str(store.locate(part, folder))


def test_what_ships_needs_no_fetching(folder: Path) -> None:
    part = manifest.part("mini-clip")
    assert run(part, folder) == [in_place(store.require_part(part))]
    assert not folder.exists()

"""Published models are fetched whole or not at all, whatever the network does."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import threading
from collections import namedtuple
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.models import server as servers
from tests.models.server import Answer, Server
from tests.models.tiny import write_weights
from wav2clip_gen.errors import OutputError, W2CError, WeightsError
from wav2clip_gen.models import download, fetch, store
from wav2clip_gen.models.download import Downloading, Retrying
from wav2clip_gen.models.fetch import Done, Failed, Trying, Waiting
from wav2clip_gen.models.locks import Lock
from wav2clip_gen.models.manifest import Part

pytestmark = pytest.mark.usefixtures("converter")

BODY = b"PK" + bytes(range(256)) * 1000  # 256,002 bytes, begins as a torch file does
OTHER = b"PK" + bytes(reversed(range(256))) * 1000
HASH = hashlib.sha256(BODY).hexdigest()
HALF = 128_000


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "weights"


def part_from(*sources: str, size: int | None = len(BODY), sha256: str | None = HASH) -> Part:
    return Part(
        name="eyes", role="clip", file="eyes.pt", licence="MIT", citation="us", config={"architecture": "x"},
        sources=sources, size=size, sha256=sha256,
    )  # fmt: skip


def unknown(*sources: str) -> Part:
    """A part of which neither size nor hash were published."""
    return part_from(*sources, size=None, sha256=None)


def run(part: Part, folder: Path, **options: Any) -> list[Any]:
    return list(fetch.fetch(part, folder, sleep=lambda _: None, **options))


def fails(part: Part, folder: Path, *words: str, kind: type[W2CError] = WeightsError, **options: Any) -> W2CError:
    """Fetching ends in one line with `words` and one of what to do, and leaves nothing that looks whole."""
    with pytest.raises(kind) as caught:
        run(part, folder, **options)
    for word in words:
        assert word in caught.value.what
    assert "\n" not in caught.value.what
    assert caught.value.hint
    assert store.status(part, folder).state == "missing"
    return caught.value


def test_a_part_is_fetched_checked_converted_and_recorded(server: Server, folder: Path, converter: Any) -> None:
    part = part_from(server.plan("/eyes.pt", Answer(body=BODY)))
    events = run(part, folder)
    path = store.locate_part(part, folder)
    assert events[0] == Trying("eyes", part.sources[0])
    assert events[-1] == Done("eyes", path, new=True)
    heard = [event for event in events if isinstance(event, Downloading)]
    assert (heard[-1].done, heard[-1].total) == (len(BODY), len(BODY))
    assert heard[-1].rate > 0
    assert converter.given == [(BODY, "clip", {"architecture": "x"}, "fp32")]
    assert store.status(part, folder).state == "ready"
    assert {path.name for path in path.parent.iterdir()} == {"clip.safetensors", ".fetch.lock"}
    entry = Lock(folder).entries()["eyes"]
    assert entry["original"] == {"file": "eyes.pt", "size": len(BODY), "sha256": HASH, "source": part.sources[0]}
    assert store.sha256(path) == entry["converted"]["sha256"] == store.hash_file(path)


@pytest.mark.parametrize("make", [part_from, unknown])
def test_a_published_file_is_read_once_for_its_hash(
    make: Callable[[str], Part], server: Server, folder: Path, converter: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    hashed: list[str] = []

    def hash_file(path: Path) -> str:
        hashed.append(path.name)
        return hashlib.sha256(path.read_bytes()).hexdigest()

    monkeypatch.setattr(store, "hash_file", hash_file)
    run(make(server.plan("/eyes.pt", Answer(body=BODY))), folder)
    assert hashed == ["eyes.pt.part", "clip.safetensors"]
    assert converter.hashes == [HASH]
    assert Lock(folder).original_hash("eyes") == HASH


def test_what_is_in_place_is_not_fetched_again(server: Server, folder: Path) -> None:
    part = part_from(server.plan("/eyes.pt", Answer(body=BODY)))
    run(part, folder)
    assert run(part, folder) == [Done("eyes", store.locate_part(part, folder), new=False)]
    assert len(server.asked) == 1


def test_the_published_file_can_be_kept(server: Server, folder: Path, converter: Any) -> None:
    part = part_from(server.plan("/eyes.pt", Answer(body=BODY)))
    run(part, folder, keep_original=True, precision="fp16")
    assert store.locate_original(part, folder).read_bytes() == BODY
    assert converter.given[0][-1] == "fp16"


def test_random_and_damaged_weights_are_replaced(server: Server, folder: Path) -> None:
    part = part_from(server.plan("/eyes.pt", Answer(body=BODY)))
    path = write_weights(store.locate_part(part, folder), training={"random": 0})
    run(part, folder)
    assert store.status(part, folder).state == "ready"
    path.write_bytes(path.read_bytes()[:-1])
    run(part, folder)
    assert store.status(part, folder).state == "ready"


def test_a_broken_download_goes_on_where_it_stopped(server: Server, folder: Path, converter: Any) -> None:
    part = unknown(server.plan("/eyes.pt", Answer(body=BODY, stop_at=HALF), Answer(body=BODY)))
    events = run(part, folder)
    assert [type(event) for event in events].count(Retrying) == 1
    first, second = server.ranges()
    assert first is None
    assert second is not None
    assert 0 < int(second.removeprefix("bytes=").removesuffix("-")) <= HALF
    assert server.asked[1][1]["If-Range"] == '"one"'
    assert converter.given[0][0] == BODY


def test_a_later_run_goes_on_too(server: Server, folder: Path, converter: Any) -> None:
    part = unknown(server.plan("/eyes.pt", Answer(body=BODY, stop_at=HALF)))
    fails(part, folder, "127.0.0.1", "connection")
    assert 0 < store.status(part, folder).partial <= HALF
    server.plan("/eyes.pt", Answer(body=BODY))
    server.asked.clear()
    run(part, folder)
    assert server.ranges()[0] is not None
    assert converter.given[0][0] == BODY


def test_an_interrupted_download_keeps_what_came(server: Server, folder: Path, converter: Any) -> None:
    part = unknown(server.plan("/eyes.pt", Answer(body=BODY, pace=0.01)))

    def stop_after_some() -> None:
        for event in fetch.fetch(part, folder):
            if isinstance(event, Downloading):
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stop_after_some()
    begun = store.status(part, folder).partial
    assert 0 < begun < len(BODY)
    server.plan("/eyes.pt", Answer(body=BODY))
    run(part, folder)
    assert server.ranges()[-1] == f"bytes={begun}-"
    assert converter.given[0][0] == BODY


def test_a_download_that_was_complete_is_not_asked_for_again(server: Server, folder: Path, converter: Any) -> None:
    part = part_from(server.plan("/eyes.pt", Answer(body=BODY)))
    wanted = store.locate_original(part, folder)
    wanted.parent.mkdir(parents=True)
    wanted.with_name("eyes.pt.part").write_bytes(BODY)
    run(part, folder)
    assert server.ranges() == [f"bytes={len(BODY)}-"]
    assert converter.given[0][0] == BODY


def test_a_file_that_changed_meanwhile_is_not_glued(server: Server, folder: Path, converter: Any) -> None:
    changed = Answer(body=OTHER, etag='"two"')
    part = unknown(server.plan("/eyes.pt", Answer(body=BODY, stop_at=HALF), changed))
    run(part, folder)
    assert converter.given[0][0] == OTHER


def test_nor_by_a_server_that_knows_no_conditions(server: Server, folder: Path, converter: Any) -> None:
    changed = Answer(body=OTHER, etag='"two"', conditions=False)
    part = unknown(server.plan("/eyes.pt", Answer(body=BODY, stop_at=HALF), changed))
    run(part, folder)
    assert converter.given[0][0] == OTHER


def test_nor_when_it_has_no_validator(server: Server, folder: Path, converter: Any) -> None:
    first, then = Answer(body=BODY, stop_at=HALF, etag=None), Answer(body=OTHER, etag=None)
    part = unknown(server.plan("/eyes.pt", first, then))
    run(part, folder)
    assert server.ranges() == [None, None]
    assert converter.given[0][0] == OTHER


def test_a_weak_etag_is_no_validator_but_a_date_is(server: Server, folder: Path, converter: Any) -> None:
    date = {"Last-Modified": "Wed, 21 Oct 2015 07:28:00 GMT"}
    answers = [Answer(body=BODY, stop_at=HALF, etag='W/"one"'), Answer(body=BODY, etag='W/"one"')]
    run(unknown(server.plan("/eyes.pt", *answers)), folder)
    assert server.ranges() == [None, None]
    shutil.rmtree(folder)
    server.asked.clear()
    answers = [Answer(body=BODY, stop_at=HALF, etag=None, headers=date), Answer(body=BODY, etag=None, headers=date)]
    run(unknown(server.plan("/eyes.pt", *answers)), folder)
    assert server.asked[1][1]["If-Range"] == date["Last-Modified"]
    assert converter.given[1][0] == BODY


def test_nor_are_two_mirrors_files_that_carry_the_same_tag(server: Server, folder: Path, converter: Any) -> None:
    broken = server.plan("/a", Answer(body=BODY, stop_at=HALF), Answer(status=404))
    run(unknown(broken, server.plan("/b", Answer(body=OTHER))), folder)
    assert server.ranges()[-1] is None
    assert converter.given[0][0] == OTHER


def test_as_long_as_something_comes_it_goes_on(server: Server, folder: Path, converter: Any) -> None:
    often = [Answer(body=BODY, stop_at=stop) for stop in range(20_000, len(BODY), 20_000)]
    run(unknown(server.plan("/eyes.pt", *often, Answer(body=BODY))), folder)
    assert len(server.asked) > 2 * download.TRIES
    assert converter.given[0][0] == BODY


def test_fewer_bytes_than_told_are_noticed_whatever_the_http_library_does(
    server: Server, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "_chunks", lambda url, response: iter([BODY[:HALF]]))
    part = unknown(server.plan("/eyes.pt", Answer(body=BODY, ranges=False)))
    fails(part, folder, f"the connection ended after {HALF} of {len(BODY)} bytes")


def test_with_a_known_hash_another_mirror_goes_on(server: Server, folder: Path, converter: Any) -> None:
    broken = server.plan("/a", Answer(body=BODY, stop_at=HALF), Answer(status=404))
    part = part_from(broken, server.plan("/b", Answer(body=BODY, etag='"b"')))
    run(part, folder)
    assert server.asked[-1][0] == "/b"
    assert server.ranges()[-1] is not None
    assert converter.given[0][0] == BODY


def test_a_known_hash_shows_what_was_glued_and_it_is_fetched_anew(server: Server, folder: Path, converter: Any) -> None:
    part = part_from(server.plan("/eyes.pt", Answer(body=BODY, etag=None)))
    original = store.locate_original(part, folder)
    original.parent.mkdir(parents=True)
    original.with_name("eyes.pt.part").write_bytes(OTHER[:HALF])
    run(part, folder)
    assert server.ranges() == [f"bytes={HALF}-", None]
    assert converter.given[0][0] == BODY


def test_a_server_that_ignores_ranges_is_asked_from_the_start(server: Server, folder: Path, converter: Any) -> None:
    part = unknown(server.plan("/eyes.pt", Answer(body=BODY, stop_at=HALF), Answer(body=BODY, ranges=False)))
    run(part, folder)
    assert converter.given[0][0] == BODY


def test_a_server_that_always_hangs_up_is_given_up(server: Server, folder: Path) -> None:
    part = unknown(server.plan("/eyes.pt", Answer(body=BODY, ranges=False, stop_at=HALF)))
    fails(part, folder, "127.0.0.1", "connection")
    assert len(server.asked) <= download.TRIES + 1


def test_a_length_that_is_not_true_is_noticed(server: Server, folder: Path) -> None:
    part = unknown(server.plan("/eyes.pt", Answer(body=BODY, length=len(BODY) + 5)))
    fails(part, folder, "connection")
    shutil.rmtree(folder)
    part = part_from(server.plan("/eyes.pt", Answer(body=BODY, length=len(BODY) - 5)), size=None)
    fails(part, folder, "gives another file: its sha256 is")


def test_a_length_other_than_the_published_one_is_noticed_before_anything_is_fetched(
    server: Server, folder: Path
) -> None:
    part = part_from(server.plan("/eyes.pt", Answer(body=BODY + b"x")))
    fails(part, folder, f"has a file of {len(BODY) + 1} bytes instead of {len(BODY)}")
    assert store.status(part, folder).partial == 0


def test_a_body_that_does_not_end_is_cut(server: Server, folder: Path) -> None:
    part = part_from(server.plan("/eyes.pt", Answer(body=BODY * 2, length=-1)))
    fails(part, folder, f"gives more than the {len(BODY)} bytes")


def test_without_a_length_size_and_hash_decide(server: Server, folder: Path, converter: Any) -> None:
    part = part_from(server.plan("/eyes.pt", Answer(body=BODY[:HALF], length=-1)))
    fails(part, folder, f"it has {HALF} bytes instead of {len(BODY)}")
    server.plan("/eyes.pt", Answer(body=BODY, length=-1))
    run(part, folder)
    assert converter.given[0][0] == BODY


def test_an_empty_answer_is_no_file(server: Server, folder: Path) -> None:
    fails(unknown(server.plan("/eyes.pt", Answer(body=b""))), folder, "it is empty")


def test_another_file_is_told_by_its_hash(server: Server, folder: Path) -> None:
    part = part_from(server.plan("/eyes.pt", Answer(body=OTHER)))
    fails(part, folder, "gives another file: its sha256 is", HASH)
    assert store.status(part, folder).partial == 0


def test_the_next_source_is_asked(server: Server, folder: Path, converter: Any) -> None:
    gone = server.plan("/gone", Answer(status=404))
    wrong = server.plan("/wrong", Answer(body=OTHER))
    part = part_from(gone, wrong, server.plan("/eyes.pt", Answer(body=BODY)))
    events = run(part, folder)
    assert [event.reason.partition(" ")[2][:22] for event in events if isinstance(event, Failed)] == [
        "has no such file (404)",
        "gives another file: it",
    ]
    assert converter.given[0][0] == BODY


def test_gone_from_all_sources_is_one_clear_line(server: Server, folder: Path) -> None:
    part = unknown(server.plan("/a", Answer(status=404)), server.plan("/b", Answer(status=410)))
    error = fails(part, folder, "eyes cannot be had", "(404)", "(410)")
    assert str(store.locate_original(part, folder)) in error.hint


@pytest.mark.parametrize("status", [401, 403])
def test_a_login_is_told(server: Server, folder: Path, status: int) -> None:
    fails(unknown(server.plan("/eyes.pt", Answer(status=status))), folder, f"asks for a login or refuses ({status})")
    assert len(server.asked) == 1


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("text/html; charset=utf-8", b"please sign in"),
        ("application/json", b'{"error": "quota"}'),
        ("application/octet-stream", b"\xef\xbb\xbf \n<!DOCTYPE html><html>sign in</html>"),
    ],
)
def test_a_page_instead_of_the_file_is_told(server: Server, folder: Path, kind: str, body: bytes) -> None:
    part = unknown(server.plan("/eyes.pt", Answer(body=body, headers={"Content-Type": kind})))
    fails(part, folder, "gives a web page instead of the file")
    assert len(server.asked) == 1


def test_a_redirect_is_followed(server: Server, folder: Path, converter: Any) -> None:
    server.plan("/there", Answer(body=BODY))
    run(part_from(server.plan("/eyes.pt", Answer(status=302, headers={"Location": "/there"}))), folder)
    assert converter.given[0][0] == BODY


def test_a_redirect_to_plain_http_needs_a_known_hash(
    server: Server, folder: Path, converter: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = server.plan("/there", Answer(body=BODY))
    get = requests.Session.get
    monkeypatch.setattr(requests.Session, "get", lambda self, url, **options: get(self, there, **options))
    fails(unknown("https://safe.invalid/eyes.pt"), folder, "safe.invalid: leads to plain http")
    run(part_from("https://safe.invalid/eyes.pt"), folder)
    assert converter.given[0][0] == BODY


def test_redirects_that_do_not_end_are_told(server: Server, folder: Path) -> None:
    fails(unknown(server.plan("/a", Answer(status=302, headers={"Location": "/a"}))), folder, "TooManyRedirects")


def test_a_server_that_is_busy_is_asked_again_as_it_says(server: Server, folder: Path, converter: Any) -> None:
    busy = Answer(status=503, headers={"Retry-After": "7"})
    part = part_from(server.plan("/eyes.pt", busy, Answer(status=500), Answer(body=BODY)))
    slept: list[float] = []
    events = list(fetch.fetch(part, folder, sleep=slept.append))
    assert slept == [7.0, 2.0]
    assert [event.seconds for event in events if isinstance(event, Retrying)] == slept
    assert converter.given[0][0] == BODY


def test_pauses_grow_and_end(server: Server, folder: Path) -> None:
    part = unknown(server.plan("/eyes.pt", Answer(status=500)))
    slept: list[float] = []
    with pytest.raises(WeightsError, match="answers 500"):
        list(fetch.fetch(part, folder, sleep=slept.append))
    assert slept == [1.0, 2.0, 4.0]


def test_a_server_that_does_not_answer_is_given_up(
    server: Server, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "TIMEOUT", (1.0, 0.1))
    fails(unknown(server.plan("/eyes.pt", Answer(body=BODY, wait=0.4))), folder, "no answer within")


def test_no_network_is_told(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "*")
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


def test_a_full_disk_is_told_before_the_start(server: Server, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(9, 8, 1000))
    part = part_from(server.plan("/eyes.pt", Answer(body=BODY)))
    fails(part, folder, "are needed and 0 MiB are free", kind=OutputError)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(9, 8, len(BODY)))
    run(part, folder)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full here")
def test_a_disk_that_fills_up_is_told(server: Server, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    part = part_from(server.plan("/eyes.pt", Answer(body=BODY)))
    arrived = store.locate_original(part, folder).with_name("eyes.pt.part")
    arrived.parent.mkdir(parents=True)
    monkeypatch.setattr(download.Wanted, "arrived", Path("/dev/full"))
    monkeypatch.setattr(download.Wanted, "discard", lambda self: None)
    monkeypatch.setattr(download.Wanted, "length", lambda self: 0)
    error = fails(part, folder, "the disk is full", kind=OutputError)
    assert "goes on where it stopped" in error.hint


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    fails(
        part_from("https://nowhere.invalid/x"), tmp_path / "file" / "weights", "cannot be written to", kind=OutputError
    )


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_folder_is_told(folder: Path) -> None:
    folder.mkdir()
    folder.chmod(0o500)
    fails(part_from("https://nowhere.invalid/x"), folder, "cannot be written to", kind=OutputError)


def test_a_read_only_disk_is_told(server: Server, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Path, *arguments: object, **options: object) -> None:
        raise OSError(30, "Read-only file system", str(self))

    monkeypatch.setattr(Path, "mkdir", refuse)
    error = fails(part_from(server.url), folder, "Read-only file system", kind=OutputError)
    assert "--weights-dir" in error.hint


def test_a_read_only_folder_that_others_filled_is_enough(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    part = part_from("https://nowhere.invalid/x")
    path = write_weights(store.locate_part(part, folder))

    def refuse(self: Path, *arguments: object, **options: object) -> None:
        raise OSError(30, "Read-only file system", str(self))

    monkeypatch.setattr(Path, "mkdir", refuse)
    assert run(part, folder) == [Done("eyes", path, new=False)]
    assert not path.with_name(".fetch.lock").exists()


def test_the_hash_of_the_first_fetch_holds_ever_after(server: Server, folder: Path, converter: Any) -> None:
    part = unknown(server.plan("/eyes.pt", Answer(body=BODY)))
    run(part, folder)
    store.locate_part(part, folder).unlink()
    server.plan("/eyes.pt", Answer(body=OTHER, etag='"two"'))
    error = fails(part, folder, "gives another file", HASH)
    assert error.hint.endswith("`w2c-gen weights remove eyes --forget`")
    Lock(folder).forget("eyes", original=True)
    run(part, folder)
    assert converter.given[-1][0] == OTHER


def test_a_file_that_cannot_be_converted_is_not_remembered(server: Server, folder: Path, converter: Any) -> None:
    part = unknown(server.plan("/eyes.pt", Answer(body=BODY[:HALF], length=-1)))  # cut off, and nothing tells
    converter.refuses = True
    with pytest.raises(WeightsError, match="holds no clip") as caught:
        run(part, folder)
    assert "`w2c-gen weights remove eyes`" in caught.value.hint
    assert store.status(part, folder).state == "fetched"
    assert Lock(folder).original_hash("eyes") is None
    assert [path.name for path in folder.joinpath("eyes").glob(".w2c-*")] == []


def test_two_at_once_fetch_only_once(server: Server, folder: Path, converter: Any) -> None:
    part = part_from(server.plan("/eyes.pt", Answer(body=BODY, pace=0.005)))
    heard: list[list[Any]] = [[], []]
    threads = [
        threading.Thread(target=lambda events: events.extend(fetch.fetch(part, folder)), args=(events,))
        for events in heard
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(server.asked) == 1
    assert sorted(events[-1].new for events in heard) == [False, True]
    waited = next(events for events in heard if not events[-1].new)
    assert waited == [Waiting("eyes"), Done("eyes", store.locate_part(part, folder), new=False)]


def test_what_ships_needs_no_fetching(folder: Path) -> None:
    part = replace(unknown(), name="mini-clip", file="mini/clip.safetensors", shipped=True)
    assert run(part, folder) == [Done("mini-clip", store.find_part("mini-clip"), new=False)]
    assert not folder.exists()


def test_a_damaged_note_beside_a_broken_download_begins_anew(server: Server, folder: Path, converter: Any) -> None:
    part = unknown(server.plan("/eyes.pt", Answer(body=BODY)))
    arrived = store.locate_original(part, folder).with_name("eyes.pt.part")
    for note in ("", "[]", json.dumps({"url": part.sources[0]})):
        arrived.parent.mkdir(parents=True)
        arrived.write_bytes(OTHER[:HALF])
        arrived.with_name("eyes.pt.part.json").write_text(note)
        run(part, folder)
        shutil.rmtree(folder)
    assert server.ranges() == [None] * 3
    assert {given[0] for given in converter.given} == {BODY}

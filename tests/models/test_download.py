"""Files arrive whole or not at all, whatever the network does."""

from __future__ import annotations

import json
import shutil
from collections import namedtuple
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.models.fetching import BODY, HALF, HASH, OTHER, fails, part_from, run, unknown
from tests.models.server import Answer, Server
from wav2clip_gen.errors import OutputError, WeightsError
from wav2clip_gen.models import download, fetch, store

pytestmark = pytest.mark.usefixtures("converter")


def test_a_broken_download_goes_on_where_it_stopped(server: Server, folder: Path, converter: Any) -> None:
    part = unknown(server.plan("/eyes.pt", Answer(body=BODY, stop_at=HALF), Answer(body=BODY)))
    events = run(part, folder)
    assert sum("again in" in event.message for event in events) == 1
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
            if not event.message:
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


def test_another_file_is_reported_by_its_hash(server: Server, folder: Path) -> None:
    part = part_from(server.plan("/eyes.pt", Answer(body=OTHER)))
    fails(part, folder, "gives another file: its sha256 is", HASH)
    assert store.status(part, folder).partial == 0


@pytest.mark.parametrize("status", [401, 403])
def test_a_login_is_reported(server: Server, folder: Path, status: int) -> None:
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
def test_a_page_instead_of_the_file_is_reported(server: Server, folder: Path, kind: str, body: bytes) -> None:
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


def test_redirects_that_do_not_end_are_reported(server: Server, folder: Path) -> None:
    fails(unknown(server.plan("/a", Answer(status=302, headers={"Location": "/a"}))), folder, "TooManyRedirects")


def test_a_server_that_is_busy_is_asked_again_as_it_says(
    server: Server, folder: Path, converter: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    busy = Answer(status=503, headers={"Retry-After": "7"})
    part = part_from(server.plan("/eyes.pt", busy, Answer(status=500), Answer(body=BODY)))
    slept: list[float] = []
    monkeypatch.setattr(download, "sleep", slept.append)
    events = run(part, folder)
    assert slept == [7.0, 2.0]
    assert [event.message.partition("; ")[2] for event in events if "again in" in event.message] == [
        "again in 7 s",
        "again in 2 s",
    ]
    assert converter.given[0][0] == BODY


def test_pauses_grow_and_end(server: Server, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    part = unknown(server.plan("/eyes.pt", Answer(status=500)))
    slept: list[float] = []
    monkeypatch.setattr(download, "sleep", slept.append)
    with pytest.raises(WeightsError, match="answers 500"):
        run(part, folder)
    assert slept == [1.0, 2.0, 4.0]


def test_a_server_that_does_not_answer_is_given_up(
    server: Server, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "TIMEOUT", (1.0, 0.1))
    fails(unknown(server.plan("/eyes.pt", Answer(body=BODY, wait=0.4))), folder, "no answer within")


def test_a_full_disk_is_reported_before_the_start(
    server: Server, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(9, 8, 1000))
    part = part_from(server.plan("/eyes.pt", Answer(body=BODY)))
    fails(part, folder, "are needed and 0 MiB are free", kind=OutputError)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(9, 8, len(BODY)))
    run(part, folder)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full here")
def test_a_disk_that_fills_up_is_reported(server: Server, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    part = part_from(server.plan("/eyes.pt", Answer(body=BODY)))
    arrived = store.locate_original(part, folder).with_name("eyes.pt.part")
    arrived.parent.mkdir(parents=True)
    monkeypatch.setattr(download.Target, "arrived", Path("/dev/full"))
    monkeypatch.setattr(download.Target, "discard", lambda self: None)
    monkeypatch.setattr(download.Target, "length", lambda self: 0)
    error = fails(part, folder, "the disk is full", kind=OutputError)
    assert "goes on where it stopped" in error.hint


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

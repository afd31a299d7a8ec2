"""The server of the preview: who may ask, and that nothing a client does can disturb a run."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from tests import previews
from tests.previews import Run
from wav2clip_gen import live_server
from wav2clip_gen.live_server import requested


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    """A run that has begun a film."""
    with previews.running() as running:
        running.begin(previews.make_job(tmp_path))
        yield running


# who may ask


def test_only_who_knows_the_address_gets_an_answer(run: Run) -> None:
    assert run.server.server_address[0] == "127.0.0.1"
    assert len(run.server.token) >= 22
    assert run.server.url == f"http://127.0.0.1:{run.server.port}/{run.server.token}/"
    assert run.ask("")[0] == 200
    token = run.server.token
    for path in (
        "/",
        "/status",
        "/wrong/status",
        f"/{token}",
        f"/{token}x/",
        f"/x/{token}/",
        "/%00/",
        "//",
        "/%C3%A9/",
    ):
        assert run.ask("", path=path)[0] == 404, path
    for address in ("nothing", "../song.wav", "film/1/song.mp4", "film/9/report", "frame/1-1.jpg", "part/7-1.mp4"):
        assert run.ask(address)[0] == 404, address


@pytest.mark.parametrize(
    ("host", "code"),
    [
        ("localhost:80", 200),
        ("127.0.0.1", 200),
        ("[::1]:9", 200),
        ("evil.example", 403),
        ("127.0.0.1.evil.example", 403),
        ("127.0.0.1@evil.example", 403),
        ("[", 403),
    ],
)
def test_a_foreign_name_of_this_machine_is_refused(host: str, code: int, run: Run) -> None:
    """As after DNS rebinding."""
    assert run.ask("status", host=host)[0] == code


def test_answers_are_kept_by_nobody_and_framed_by_nobody(run: Run) -> None:
    _, headers, body = run.ask("")
    page = html.unescape(body.decode())
    assert headers["Cache-Control"] == "no-store"
    assert headers["Referrer-Policy"] == "no-referrer"
    assert headers["X-Frame-Options"] == "DENY"
    assert headers["X-Content-Type-Options"] == "nosniff"
    script = re.findall(r"<script>(.*?)</script>", body.decode(), re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script[-1].encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in page
    assert "default-src 'none'" in page


# what is given


@pytest.mark.parametrize(
    ("header", "span"),
    [
        (None, range(100)),
        ("bytes=0-", range(100)),
        ("bytes=10-19", range(10, 20)),
        ("bytes=90-500", range(90, 100)),
        ("bytes=-5", range(95, 100)),
        ("bytes=-500", range(100)),
        ("bytes=100-", None),
        ("bytes=20-10", None),
        ("bytes=-0", None),
        ("bytes=-", range(100)),
        ("bytes=0-1,5-6", range(100)),
        ("lines=1-2", range(100)),
    ],
)
def test_ranges(header: str | None, span: range | None) -> None:
    assert requested(header, 100) == span


def test_a_film_is_given_in_ranges(run: Run) -> None:
    film = run.finish_film().read_bytes()
    code, headers, body = run.ask("film/1/song.mp4", Range="bytes=10-19")
    assert (code, headers["Content-Range"], body) == (206, f"bytes 10-19/{len(film)}", film[10:20])
    code, headers, body = run.ask("film/1/song.mp4", Range=f"bytes={len(film)}-")
    assert (code, headers["Content-Range"], body) == (416, f"bytes */{len(film)}", b"")
    code, headers, body = run.ask("film/1/song.mp4", method="HEAD")
    assert (code, headers["Content-Length"], headers["Accept-Ranges"], body) == (200, str(len(film)), "bytes", b"")
    code, headers, body = run.ask("film/1/song.mp4", Range="bytes=0-1,5-6")
    assert (code, body == film, "Content-Range" in headers) == (200, True, False)


def test_the_report_has_its_film_inside(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run.finish_film(page='<video src="./song.mp4">')
    assert b'<video src="data:video/mp4;base64,' in run.ask("film/1/report")[2]
    monkeypatch.setattr(live_server, "MOST_EMBEDDED", 10)
    assert run.ask("film/1/report")[2] == b'<video src="./song.mp4">'
    (tmp_path / "song.mp4").unlink()  # by somebody else
    assert run.ask("film/1/song.mp4")[0] == 404


# the stop


def test_only_the_page_stops(run: Run) -> None:
    own = f"http://127.0.0.1:{run.server.port}"
    assert run.ask("stop/1")[0] == 404
    assert run.ask("stop/1", method="POST")[0] == 403
    assert run.ask("stop/1", method="POST", Origin="http://evil.example")[0] == 403
    assert run.ask("stop/1", method="POST", Origin="http://localhost")[0] == 403
    assert run.ask("stop/1", method="POST", Origin=own, host="evil.example")[0] == 403
    assert run.ask("", method="POST", Origin=own)[0] == 404
    assert run.ask("", method="POST", Origin=own, path="/stop")[0] == 404
    assert run.stops == []
    assert run.ask("stop/1", method="POST", Origin=own)[0] == 202
    assert run.stops == [1]
    assert run.ask("stop/2", method="POST", Origin=own)[0] == 409
    run.begin(run.live.current.job)
    assert run.ask("stop/1", method="POST", Origin=own)[0] == 409
    assert run.stops == [1]


def test_what_is_finished_cannot_be_stopped(run: Run) -> None:
    run.finish_film()
    assert run.ask("stop/1", method="POST", Origin=f"http://127.0.0.1:{run.server.port}")[0] == 409
    assert run.stops == []


# clients that behave badly


def connect(run: Run, request: str) -> socket.socket:
    client = socket.create_connection(("127.0.0.1", run.server.port), timeout=10)
    client.sendall(request.encode())
    return client


def test_a_client_that_says_nothing_holds_up_nobody(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_server.Handler, "timeout", 0.3)
    silent = [connect(run, ""), connect(run, f"GET /{run.server.token}/ HTTP/1.1\r\nHost: loc")]
    assert run.ask("status")[0] == 200
    assert [client.recv(100) for client in silent] == [b"", b""]
    for client in silent:
        client.close()


def test_a_client_that_leaves_in_the_middle_of_a_film_disturbs_nothing(
    run: Run, capfd: pytest.CaptureFixture[str]
) -> None:
    path = run.finish_film()
    with path.open("ab") as file:
        file.truncate(50_000_000)
    head = f"GET /{run.server.token}/film/1/song.mp4 HTTP/1.1\r\nHost: localhost\r\n\r\n"
    for _ in range(3):
        client = connect(run, head)
        assert client.recv(1000).startswith(b"HTTP/1.1 200")
        client.close()
    slow = connect(run, head)  # it reads no more
    assert run.ask("status")[0] == 200
    slow.close()
    garbage = connect(run, "\0\xff\r\n\r\n")
    assert b"Error response" in garbage.recv(1000)
    garbage.close()
    time.sleep(0.1)
    assert capfd.readouterr() == ("", "")


def test_a_failure_in_an_answer_ends_nothing(
    run: Run, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(run.live, "status", lambda: 1 / 0)
    with pytest.raises(ConnectionError):
        run.ask("status")
    monkeypatch.undo()
    assert run.ask("status")[0] == 200
    assert capfd.readouterr() == ("", "")


# the end


def test_nobody_waits_for_a_page_that_is_not_open(run: Run) -> None:
    run.finish_film()
    began = time.monotonic()
    run.server.finish()
    assert time.monotonic() - began < 1


@pytest.mark.parametrize("last", ["film/1/song.mp4", "film/1/report", "status"])
def test_an_open_page_takes_the_film_before_the_end(last: str, run: Run) -> None:
    if last != "status":
        run.finish_film(page="<p>" if "report" in last else "")
    assert run.status()["ended"] is False
    ending = Thread(target=run.server.finish)
    ending.start()
    while not run.live.ended.is_set():
        time.sleep(0.01)
    if last != "status":
        assert run.status()["ended"] is True
        time.sleep(0.2)
        assert ending.is_alive()
    assert run.ask(last)[0] == 200
    ending.join(timeout=2)
    assert not ending.is_alive()
    with pytest.raises(OSError, match=r"refused|reset"):
        run.ask("status")


def test_a_page_that_is_not_in_view_is_told_the_end_at_once(run: Run) -> None:
    """It waits for its answer, as browsers slow down its own clock."""
    run.finish_film()
    told: list[dict[str, Any]] = []
    waiting = Thread(target=lambda: told.append(json.loads(run.ask("status?wait")[2])))
    began = time.monotonic()
    waiting.start()
    time.sleep(0.3)
    assert told == []
    ending = Thread(target=run.server.finish)
    ending.start()
    waiting.join()
    assert told[0]["ended"] is True
    assert run.ask("film/1/song.mp4")[0] == 200
    ending.join()
    assert time.monotonic() - began < 2


def test_the_wait_for_a_page_is_short(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_server, "FAREWELL", 0.3)
    run.finish_film()
    run.status()
    began = time.monotonic()
    run.server.finish()
    assert 0.3 <= time.monotonic() - began < 1.5

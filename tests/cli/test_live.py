"""`--preview`, as a person types it: the address is told, the film is the same, and the page stops it like Ctrl-C."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Event, Thread
from typing import Any
from urllib.parse import urlsplit

import pytest
from typer.testing import CliRunner, Result

from tests.cli.refusals import assert_refused
from tests.conftest import ROOT
from tests.interruption import has_frames
from wav2clip_gen import live_server
from wav2clip_gen.cli import live
from wav2clip_gen.cli.render import app
from wav2clip_gen.live import Live
from wav2clip_gen.live_server import Server
from wav2clip_gen.video.verify import probe

QUICK = ["--size", "32x32", "--fps", "4", "--first-steps", "1", "--steps", "1", "--cuts", "2", "--seed", "7"]


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [*QUICK, *map(str, arguments)])


def ask(url: str, address: str = "", *, method: str = "GET") -> tuple[int, bytes]:
    """Status and body of an answer to the page."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.netloc, timeout=10)
    connection.request(method, parts.path + address, headers={"Origin": f"http://{parts.netloc}"})
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    return answer.status, body


@pytest.fixture
def servers(monkeypatch: pytest.MonkeyPatch) -> list[Server]:
    """The servers that commands have started."""
    started: list[Server] = []

    def start(shown: Live) -> Server:
        started.append(Server(shown))
        return started[-1]

    monkeypatch.setattr(live, "Server", start)
    return started


@contextmanager
def watched(servers: list[Server], *more: Callable[[str, dict[str, Any]], object]) -> Iterator[list[dict[str, Any]]]:
    """Ask the page again and again, as long as a command runs; gives what was answered.

    `more`: called with the address of the page and each state.
    """
    states: list[dict[str, Any]] = []
    done = Event()

    def watch() -> None:
        while not done.wait(0.05):
            with suppress(OSError, http.client.HTTPException, ValueError, IndexError):
                url = servers[-1].url
                ask(url)
                states.append(json.loads(ask(url, "status")[1]))
                for address in (states[-1]["part"], f"frame/{states[-1]['number']}-1.jpg", "sound/1"):
                    ask(url, address)
                for one in more:
                    one(url, states[-1])

    thread = Thread(target=watch)
    thread.start()
    try:
        yield states
    finally:
        done.set()
        thread.join()


def test_the_film_is_the_same_and_the_page_follows_it(songs: Path, servers: list[Server]) -> None:
    assert run("a.wav", "--out", "alone.mp4").exit_code == 0
    with watched(servers) as states:
        done = run("a.wav", "--preview", "--progress", "plain")
    assert (done.exit_code, done.stdout) == (0, "a.mp4\n"), done.stderr
    assert done.stderr.splitlines()[0] == f"preview: {servers[0].url}"
    assert (songs / "a.mp4").read_bytes() == (songs / "alone.mp4").read_bytes()
    frames = [json.loads((songs / name).read_text())["frames"] for name in ("a.json", "alone.json")]
    assert frames[0] == frames[1]
    assert max(one["frames"] for one in states) == 6
    assert states[-1]["films"][0]["name"] == "a.mp4"
    with pytest.raises(OSError, match="refused"):
        ask(servers[0].url)


@pytest.mark.slow
@pytest.mark.more
def test_songs_in_turn_have_one_page(songs: Path, servers: list[Server]) -> None:
    (songs / "b.wav").write_bytes((songs / "b.wav").read_bytes()[:-1000])
    with watched(servers) as states:
        done = run("a.wav", "b.wav", "--preview", "--report", "--progress", "plain")
    assert (done.exit_code, done.stdout) == (0, "a.mp4\nb.mp4\n"), done.stderr
    assert done.stderr.count("preview: ") == 1
    assert {(one["number"], one["place"]) for one in states} >= {(1, "1/2"), (2, "2/2")}
    assert [one.page for one in servers[0].live.scenes] == [Path("a.html"), Path("b.html")]
    assert (songs / "index.html").exists()


def test_a_song_that_fails_is_told_and_the_next_one_follows(
    songs: Path, servers: list[Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    def change(url: str, state: dict[str, Any]) -> None:
        if state["number"] == 1:
            (songs / "a.wav").write_bytes((songs / "b.wav").read_bytes()[:-1000])

    with watched(servers, change):
        done = run("a.wav", "b.wav", "--preview")
    assert (done.exit_code, done.stdout) == (1, "b.mp4\n"), done.stderr
    first, second = servers[0].live.scenes
    assert first.failure.startswith("Failed: ")
    assert "a.wav" in first.failure
    assert second.film == Path("b.mp4")


def test_json_has_an_event_of_its_own(songs: Path, servers: list[Server], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSH_CONNECTION", "192.0.2.1 50000 192.0.2.2 22")
    done = run("a.wav", "--preview", "--progress", "json")
    events = [json.loads(line) for line in done.stderr.splitlines()]
    port = servers[0].port
    tunnel = f"ssh -L {port}:127.0.0.1:{port} {socket.gethostname()}"
    assert events[0] == {"event": "preview", "url": servers[0].url, "tunnel": tunnel}


def test_over_ssh_the_tunnel_is_told(songs: Path, servers: list[Server], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSH_CONNECTION", "192.0.2.1 50000 192.0.2.2 22")
    done = run("a.wav", "--preview", "--progress", "none")
    assert done.exit_code == 0
    port = servers[0].port
    tunnel = f"ssh -L {port}:127.0.0.1:{port} {socket.gethostname()}"
    assert done.stderr == f"preview: {servers[0].url} (from another machine: {tunnel})\n"


def test_without_a_port_the_film_is_made(songs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Server) -> None:
        raise OSError(98, "Address already in use")

    monkeypatch.setattr(live_server.Server, "server_bind", refuse)
    done = run("a.wav", "--preview", "--progress", "plain")
    assert (done.exit_code, done.stdout) == (0, "a.mp4\n"), done.stderr
    note = "note: there is no preview, as no port can be opened on 127.0.0.1: Address already in use"
    assert done.stderr.splitlines()[0] == note


def test_a_page_that_fails_has_no_effect(songs: Path, servers: list[Server], monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("begin", "show", "show_picture", "show_film", "status", "note"):
        monkeypatch.setattr(Live, name, lambda *_: 1 / 0)
    with watched(servers):
        done = run("a.wav", "--preview", "--progress", "plain")
    assert (done.exit_code, done.stdout) == (0, "a.mp4\n"), done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("flag", ["--dry-run", "--storyboard"])
def test_without_a_film_there_is_nothing_to_show(flag: str, songs: Path, servers: list[Server]) -> None:
    assert_refused(run("a.wav", "--preview", flag), f"{flag} makes no film", code=2)
    assert run("typo.wav", "--preview").exit_code == 1
    assert servers == []


def stopped(
    *arguments: object, when: Callable[[dict[str, Any]], bool], ignored: int | None = None
) -> tuple[int, str, str]:
    """Run w2c-gen and stop it from the page, twice, after a line for which `when` holds: exit code, stdout, stderr."""

    def set_signals() -> None:
        for one in (signal.SIGINT, signal.SIGTERM):
            signal.signal(one, signal.SIG_IGN if one == ignored else signal.SIG_DFL)

    command = [sys.executable, "-m", "wav2clip_gen", *map(str, arguments), "--preview", "--progress", "json"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT, env=dict(os.environ),
        preexec_fn=set_signals,  # noqa: PLW1509
    ) as process:  # fmt: skip
        assert process.stderr is not None
        url = ""
        for line in map(json.loads, process.stderr):
            url = line.get("url", url)
            if when(line):
                break
        assert ask(url, "stop/1", method="POST")[0] == 202
        with suppress(OSError, http.client.HTTPException):
            ask(url, "stop/1", method="POST")
        stdout, stderr = process.communicate(timeout=60)
    return process.returncode, stdout, stderr


@pytest.mark.slow
@pytest.mark.parametrize("ignored", [None, pytest.param(signal.SIGINT, marks=pytest.mark.more)])
def test_the_page_stops_a_film_as_ctrl_c_does(ignored: int | None, songs: Path) -> None:
    slow = ["--size", "64x64", "--fps", "60", "--first-steps", "1", "--steps", "20"]
    out = ["-o", songs / "{stem}.mp4"]
    code, stdout, stderr = stopped(songs / "a.wav", songs / "b.wav", *out, *slow, when=has_frames, ignored=ignored)
    assert code == (-signal.SIGTERM if ignored else -signal.SIGINT), stderr
    assert stdout == f"{songs / 'a.partial.mp4'}\n"
    assert "stopping after this frame" in stderr
    assert 1 <= probe(songs / "a.partial.mp4").frames < 90
    names = sorted(path.name for path in songs.iterdir())
    assert names == ["a.partial.json", "a.partial.mp4", "a.wav", "b.wav"]


@pytest.mark.slow
@pytest.mark.more
def test_a_stop_before_the_first_frame_leaves_nothing(songs: Path) -> None:
    began = time.monotonic()
    code, stdout, stderr = stopped(
        songs / "a.wav", "-o", songs / "a.mp4", "--first-steps", "9999",
        when=lambda line: line.get("stage") == "optimize",
    )  # fmt: skip
    assert (code, stdout) == (-signal.SIGINT, ""), stderr
    assert "nothing half-finished was left behind" in stderr
    assert time.monotonic() - began < 60
    assert sorted(path.name for path in songs.iterdir()) == ["a.wav", "b.wav"]

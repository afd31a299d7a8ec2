"""A web server on this machine alone, which shows a run while it goes on. Imports no torch.

It listens on 127.0.0.1, at a port that the system chooses; every address begins with a random word. Its threads only
read, but for the stop; what goes wrong in them ends one answer and nothing else.
"""

from __future__ import annotations

import json
import mimetypes
import os
import re
import secrets
import socketserver
import time
from contextlib import suppress
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import unquote_to_bytes, urlsplit

from wav2clip_gen.live import Live
from wav2clip_gen.report_page import embedded, live_curve, relative_url, render_live

ADDRESS = "127.0.0.1"
HOSTS = {ADDRESS, "localhost", "::1"}  # by which a browser may know this machine; any other is a trick (DNS rebinding)
BLOCK = 1 << 16  # bytes
PATIENCE = 20.0  # seconds that a client may take for one block, or for its next request
WAIT = 4.0  # seconds until a page that is not in view gets its answer: browsers slow down its own clock
WATCHED = 6.0  # seconds since the last question within which a page counts as open
FAREWELL = 4.0  # seconds at most that an open page has to take the finished film
MOST_EMBEDDED = 200_000_000  # bytes of a film that is put into its report
RANGE = re.compile(r"bytes=(?=-?\d)(\d*)-(\d*)")
HEADERS = {
    "Cache-Control": "no-store",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


class Server(socketserver.ThreadingTCPServer):
    """Serves the page of a run; `with` ends it."""

    daemon_threads = True
    request_queue_size = 32

    def __init__(self, live: Live) -> None:
        super().__init__((ADDRESS, 0), Handler)
        self.live = live
        self.token = secrets.token_urlsafe(16)
        self.asked = float("-inf")  # when a page asked for the state
        self.taken = False  # a page has all that it shows when the server is gone
        self._thread = Thread(target=self.serve_forever, args=(0.1,), name="preview", daemon=True)
        self._thread.start()

    @property
    def port(self) -> int:
        """Its port."""
        return int(self.server_address[1])

    @property
    def url(self) -> str:
        """The address of the page."""
        return f"http://{ADDRESS}:{self.port}/{self.token}/"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A thread that fails ends its answer; nothing is printed into the progress of the run."""

    def finish(self) -> None:
        """End; a page that is open has a moment to take the finished film."""
        self.live.ended.set()
        until = time.monotonic() + FAREWELL
        while not self.taken and time.monotonic() < until and time.monotonic() - self.asked < WATCHED:
            time.sleep(0.05)
        self.shutdown()
        self.server_close()


class Handler(BaseHTTPRequestHandler):
    """Answers one client."""

    protocol_version = "HTTP/1.1"
    server_version, sys_version = "w2c-gen", ""
    timeout = PATIENCE
    server: Server

    def do_GET(self) -> None:
        """Give the page, or what it asks for."""
        try:
            if self._admitted():
                self._route()
        except OSError:  # the client has left, or a file has just been renamed
            self.close_connection = True

    def do_HEAD(self) -> None:
        """Give the head of an answer."""
        self.do_GET()

    def do_POST(self) -> None:
        """Stop the film."""
        self.close_connection = True  # what was sent with it is not read
        with suppress(OSError):
            if not self._admitted():
                return
            if self.headers.get("Origin") != f"http://{self.headers['Host']}":
                self._send(b"this is for the page alone\n", "text/plain", 403)
            elif found := re.fullmatch(r"stop/(\d+)", self._address()):
                self._send(b"", "text/plain", 202 if self.server.live.stop(int(found[1])) else 409)
            else:
                self._missing()

    def log_message(self, format: str, *args: Any) -> None:
        """Print nothing."""

    def _address(self) -> str:
        """The path below the token."""
        return self.path.partition("?")[0][1:].partition("/")[2]

    def _admitted(self) -> bool:
        """Whether the client knows the address of the page; else it is told that there is nothing."""
        try:
            host = urlsplit(f"//{self.headers.get('Host', '')}").hostname
        except ValueError:
            host = None
        if host not in HOSTS:
            self._send(b"this server has another name\n", "text/plain", 403)
            return False
        self.server.asked = time.monotonic()
        token, slash, _ = self.path[1:].partition("/")
        if not slash or not secrets.compare_digest(os.fsencode(token), self.server.token.encode()):
            self._missing()
            return False
        return True

    def _route(self) -> None:
        address, live = self._address(), self.server.live
        if not live.scenes:
            self._missing()
        elif not address:
            self._send(render_live(live.current).encode(errors="replace"), "text/html; charset=utf-8")
        elif address == "status":
            self._send_status()
        elif found := re.fullmatch(r"frame/(\d+)-\d+\.jpg", address):
            self._send_or_miss(live.newest_frame(int(found[1])), "image/jpeg")
        elif found := re.fullmatch(r"part/(\d+)-(\d+)\.mp4", address):
            scene = live.scene(int(found[1]))
            self._send_file(scene.growth.path if scene else None, int(found[2]))
        elif address == f"sound/{live.current.number}":
            self._send_file(live.current.job.track.path)
        elif found := re.fullmatch(r"film/(\d+)/(.+)", address):
            self._send_finished(int(found[1]), found[2])
        else:
            self._missing()

    def _send_status(self) -> None:
        live = self.server.live
        if self.path.endswith("?wait"):
            live.ended.wait(WAIT)
        ended, scene, status = live.ended.is_set(), live.current, live.status()
        status["curve"] = live_curve(scene.similarity)
        self._send(json.dumps(status).encode(), "application/json")
        if ended and not (scene.film or scene.page):
            self.server.taken = True

    def _send_finished(self, number: int, name: str) -> None:
        """A finished film, or its report with the film inside: it has to last longer than this server."""
        scene = self.server.live.scene(number)
        film = scene and scene.film
        if not film or not scene:
            self._missing()
        elif name == "report" and scene.page:
            page = scene.page.read_text(encoding="utf-8")
            if film.stat().st_size <= MOST_EMBEDDED:
                page = page.replace(f'src="{relative_url(film, scene.page.parent)}"', f'src="{embedded(film)}"')
            self._send(page.encode(), "text/html; charset=utf-8")
            self.server.taken |= self.server.live.ended.is_set()
        elif unquote_to_bytes(name) == os.fsencode(film.name):
            self._send_file(film)
            self.server.taken |= self.server.live.ended.is_set() and "Range" not in self.headers
        else:
            self._missing()

    def _missing(self) -> None:
        self._send(b"there is nothing here\n", "text/plain", 404)

    def _send_or_miss(self, body: bytes | None, kind: str) -> None:
        if body is None:
            self._missing()
        else:
            self._send(body, kind)

    def _send(self, body: bytes, kind: str, status: int = 200) -> None:
        self._begin(status, kind, len(body))
        if self.command != "HEAD":
            self.wfile.write(body)

    def _send_file(self, path: Path | None, size: int | None = None) -> None:
        """Send a file, or the range of it that is asked for; `size`: as if it had only so many bytes."""
        try:
            file = path.open("rb") if path else None
        except OSError:
            file = None
        if file is None or path is None:
            self._missing()
            return
        with file:
            whole = os.fstat(file.fileno()).st_size
            if size is not None and size > whole:  # another film by now
                self._missing()
                return
            whole = whole if size is None else size
            span = requested(self.headers.get("Range"), whole)
            kind = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
            if span is None:
                self._begin(416, kind, 0, **{"Content-Range": f"bytes */{whole}"})
                return
            headers = {"Accept-Ranges": "bytes"}
            if ranged := bool(RANGE.fullmatch(self.headers.get("Range", ""))):
                headers["Content-Range"] = f"bytes {span.start}-{span.stop - 1}/{whole}"
            self._begin(206 if ranged else 200, kind, len(span), **headers)
            if self.command == "HEAD":
                return
            file.seek(span.start)
            for start in range(span.start, span.stop, BLOCK):
                self.wfile.write(file.read(min(BLOCK, span.stop - start)))

    def _begin(self, status: int, kind: str, length: int, **headers: str) -> None:
        self.send_response(status)
        for name, value in {**HEADERS, "Content-Type": kind, "Content-Length": str(length), **headers}.items():
            self.send_header(name, value)
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()


def requested(header: str | None, size: int) -> range | None:
    """The bytes that a Range header asks for, of a file of `size` bytes; None: it has none of them.

    A header that is not understood, or that asks for several ranges, asks for everything.
    """
    found = RANGE.fullmatch(header or "")
    if not found:
        return range(size)
    if not found[1]:
        span = range(max(0, size - int(found[2])), size)
    else:
        span = range(int(found[1]), min(size, int(found[2]) + 1) if found[2] else size)
    return span if span else None

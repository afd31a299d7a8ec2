"""A web server on this machine that can be made to misbehave."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a request gets."""

    body: bytes = b""
    status: int = 200
    etag: str | None = '"one"'
    headers: dict[str, str] = field(default_factory=dict)
    ranges: bool = True  # whether Range is obeyed
    conditions: bool = True  # whether If-Range is
    stop_at: int | None = None  # hang up after so many bytes of the body
    length: int | None = None  # a Content-Length that is not true; -1: none at all
    wait: float = 0.0  # seconds before the answer
    pace: float = 0.0  # seconds between two blocks


@dataclass
class Server:
    """Answers by path: each request takes the next one, the last goes on for ever."""

    url: str
    answers: dict[str, list[Answer]] = field(default_factory=dict)
    asked: list[tuple[str, dict[str, str]]] = field(default_factory=list)  # path and headers of each request

    def plan(self, path: str, *answers: Answer) -> str:
        """Set what requests for `path` get; return its URL."""
        self.answers[path] = list(answers)
        return f"{self.url}{path}"

    def ranges(self) -> list[str | None]:
        """The Range of each request."""
        return [headers.get("Range") for _, headers in self.asked]

    def next(self, path: str) -> Answer:
        """The answer whose turn it is."""
        plan = self.answers.get(path, [Answer(status=404)])
        return plan.pop(0) if len(plan) > 1 else plan[0]


@contextmanager
def running() -> Iterator[Server]:
    """A server on a free port of this machine."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            server.asked.append((self.path, dict(self.headers)))
            _give(self, server.next(self.path))

        def log_message(self, format: str, *args: object) -> None:
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    http.daemon_threads = True
    server = Server(f"http://127.0.0.1:{http.server_address[1]}")
    thread = threading.Thread(target=http.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        http.shutdown()
        http.server_close()
        thread.join()


def _give(handler: BaseHTTPRequestHandler, answer: Answer) -> None:
    time.sleep(answer.wait)
    start, status, size = 0, answer.status, len(answer.body)
    found = re.fullmatch(r"bytes=(\d+)-", handler.headers.get("Range", ""))
    condition = handler.headers.get("If-Range")
    met = not answer.conditions or condition is None or condition in (answer.etag, answer.headers.get("Last-Modified"))
    if found and answer.ranges and met and status == 200:
        start = int(found[1])
        status = 206 if start < size else 416
    body = answer.body[start:] if status != 416 else b""
    handler.send_response(status)
    if status == 206:
        handler.send_header("Content-Range", f"bytes {start}-{size - 1}/{size}")
    if status == 416:
        handler.send_header("Content-Range", f"bytes */{size}")
    if answer.etag:
        handler.send_header("ETag", answer.etag)
    if answer.length != -1:
        handler.send_header("Content-Length", str(len(body) if answer.length is None else answer.length))
    for name, value in answer.headers.items():
        handler.send_header(name, value)
    handler.send_header("Connection", "close")
    handler.close_connection = True
    handler.end_headers()
    stop = len(body) if answer.stop_at is None else max(answer.stop_at - start, 0)
    try:
        for at in range(0, min(stop, len(body)), 4096):
            handler.wfile.write(body[at : min(at + 4096, stop)])
            time.sleep(answer.pace)
    except (BrokenPipeError, ConnectionResetError):
        pass  # the other side has left

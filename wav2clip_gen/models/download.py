"""One URL into one file: resumed where it broke off, and never glued together from two different files.

What has arrived lies in `<file>.part`; `<file>.part.json` holds what the server said of the file (ETag or
Last-Modified), and the rest is asked for under that condition only (RFC 9110, Range and If-Range). Proxies and
certificates are those of the environment, as `requests` reads them (HTTPS_PROXY, REQUESTS_CA_BUNDLE).
"""

from __future__ import annotations

import json
import os
import re
import shutil
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import requests
from requests.exceptions import ProxyError, RequestException, SSLError, Timeout

from wav2clip_gen import __version__
from wav2clip_gen.errors import OutputError, WeightsError
from wav2clip_gen.models.disk import OTHER_FOLDER, disk_errors_told

CHUNK = 64 * 1024  # bytes
TIMEOUT = (10.0, 30.0)  # seconds to connect, and between two packets
TRIES = 4  # in a row without a new byte
LONGEST_WAIT = 60.0  # seconds, whatever a server asks for
EVERY = 0.1  # seconds between two reports


@dataclass(frozen=True)
class Downloading:
    """So much of a part has arrived."""

    part: str
    done: int  # bytes, those of earlier runs included
    total: int | None
    rate: float  # bytes per second, in this run


@dataclass(frozen=True)
class Retrying:
    """A source failed for now and is asked again after a pause."""

    part: str
    reason: str
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """A published file and where it shall be."""

    part: str
    path: Path  # of the whole file; it is left to the caller to put it there
    size: int | None = None
    hash_is_known: bool = False  # the caller will notice a file that was glued together

    @property
    def arrived(self) -> Path:
        """What has arrived so far."""
        return self.path.with_name(f"{self.path.name}.part")

    @property
    def notes(self) -> Path:
        """What the server said of it."""
        return self.path.with_name(f"{self.path.name}.part.json")

    def length(self) -> int:
        """How many bytes have arrived."""
        return self.arrived.stat().st_size if self.arrived.exists() else 0

    def discard(self) -> None:
        """Begin anew."""
        self.arrived.unlink(missing_ok=True)
        self.notes.unlink(missing_ok=True)


class SourceError(WeightsError):
    """A source cannot give the file; another one may."""

    def __init__(self, url: str, reason: str, *, unreachable: bool = False) -> None:
        super().__init__(f"{urlsplit(url).hostname}: {reason}")
        self.unreachable = unreachable


class _TryError(Exception):
    """This try failed; another one may not."""

    def __init__(self, reason: str, *, unreachable: bool = False, wait: float | None = None) -> None:
        super().__init__(reason)
        self.unreachable = unreachable
        self.wait = wait  # seconds that the server asked for


def download(
    url: str, wanted: Wanted, *, sleep: Callable[[float], None] = time.sleep
) -> Generator[Downloading | Retrying, None, bool]:
    """Fetch `url` into `wanted.arrived`, going on with what is there already; give back whether it did.

    Raises:
        SourceError: The source has no such file, or another one, or cannot be reached.
        OutputError: The file cannot be written, or there is no room for it.
    """
    resumed, failures, reached = False, 0, wanted.length()
    with requests.Session() as session:
        while True:
            try:
                resumed = (yield from _attempt(session, url, wanted)) or resumed
            except _TryError as broken:
                failures = failures + 1 if wanted.length() <= reached else 1
                reached = max(reached, wanted.length())
                if failures >= TRIES:
                    raise SourceError(url, str(broken), unreachable=broken.unreachable) from None
                pause = min(2.0 ** (failures - 1) if broken.wait is None else broken.wait, LONGEST_WAIT)
                yield Retrying(wanted.part, f"{urlsplit(url).hostname}: {broken}", pause)
                sleep(pause)
            else:
                return resumed


def _attempt(session: requests.Session, url: str, wanted: Wanted) -> Generator[Downloading, None, bool]:
    """Ask once, and write what comes; give back whether it was put behind what was there."""
    start = wanted.length()
    condition = _condition(url, wanted)
    headers = {"Accept-Encoding": "identity", "User-Agent": f"w2c-gen/{__version__}"}
    if start and (condition or wanted.hash_is_known):
        headers |= {"Range": f"bytes={start}-"} | ({"If-Range": condition} if condition else {})
    try:
        response = session.get(url, headers=headers, stream=True, timeout=TIMEOUT)
    except RequestException as error:
        raise _translated(url, error, "cannot be reached", unreachable=True) from None
    except OSError as error:  # requests' word for a certificate bundle that is not there
        raise SourceError(url, f"cannot be asked: {error} (see REQUESTS_CA_BUNDLE)") from None
    with response:
        _check_status(url, response)
        if url.startswith("https:") and not response.url.startswith("https:") and not wanted.hash_is_known:
            raise SourceError(url, "leads to plain http, and no hash is known that would show a forgery")
        if response.status_code == 416:  # there is nothing behind what we have
            if _range(response)[1] == start:
                return True
            wanted.discard()
            raise _TryError("the file has changed there", wait=0)
        if response.status_code == 206 and (_range(response)[0] != start or _is_another(response, condition)):
            wanted.discard()
            raise _TryError("the file has changed there", wait=0)
        start = start if response.status_code == 206 else 0
        total = _total(response)
        if total is not None and wanted.size is not None and total != wanted.size:
            raise SourceError(url, f"has a file of {total} bytes instead of {wanted.size}")
        _check_room(wanted, total)
        yield from _write(url, response, wanted, start=start, total=total)
    return start > 0


def _write(
    url: str, response: requests.Response, wanted: Wanted, *, start: int, total: int | None
) -> Generator[Downloading, None, None]:
    began = told = time.monotonic()
    done = start
    note = {"url": url, "etag": response.headers.get("ETag"), "modified": response.headers.get("Last-Modified")}
    with disk_errors_told(wanted.path.parent):
        if not start:
            wanted.discard()  # first, so that old bytes are never taken for those of the new note
        wanted.notes.write_text(json.dumps(note), encoding="utf-8")
        with wanted.arrived.open("ab" if start else "wb") as file:
            for chunk in _chunks(url, response):
                if not done and _is_page(chunk):
                    raise SourceError(url, _PAGE)
                done += len(chunk)
                if wanted.size is not None and done > wanted.size:
                    raise SourceError(url, f"gives more than the {wanted.size} bytes of the published file")
                file.write(chunk)
                now = time.monotonic()
                if now - told >= EVERY:
                    told = now
                    yield Downloading(wanted.part, done, total or wanted.size, (done - start) / (now - began))
            file.flush()
            os.fsync(file.fileno())
    if total is not None and done != total:
        raise _TryError(f"the connection ended after {done} of {total} bytes")
    yield Downloading(wanted.part, done, total or wanted.size, (done - start) / max(time.monotonic() - began, 1e-6))


_PAGE = "gives a web page instead of the file (a login, a consent or an error)"


def _condition(url: str, wanted: Wanted) -> str | None:
    """What If-Range may ask for: the strong ETag or the date that this URL gave for what has arrived."""
    try:
        note: dict[str, Any] = json.loads(wanted.notes.read_text(encoding="utf-8"))
        if note["url"] != url:
            return None
        etag, modified = note["etag"], note["modified"]
    except (OSError, KeyError, TypeError, ValueError):
        return None
    return str(etag) if etag and not etag.startswith("W/") else modified


def _is_another(response: requests.Response, condition: str | None) -> bool:
    """Whether a partial answer belongs to another file than was asked for, as from a server without If-Range."""
    tags = (response.headers.get("ETag"), response.headers.get("Last-Modified"))
    return condition is not None and any(tags) and condition not in tags


def _check_status(url: str, response: requests.Response) -> None:
    code = response.status_code
    if code in (408, 425, 429) or code >= 500:
        asked = response.headers.get("Retry-After", "")
        raise _TryError(f"answers {code} {response.reason}", wait=float(asked) if asked.isdigit() else None)
    if code in (401, 403):
        raise SourceError(url, f"asks for a login or refuses ({code})")
    if code in (404, 410):
        raise SourceError(url, f"has no such file ({code})")
    if code not in (200, 206, 416):
        raise SourceError(url, f"answers {code} {response.reason}")
    kind = response.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    if code != 416 and kind in ("text/html", "application/xhtml+xml", "application/json"):
        raise SourceError(url, _PAGE)


def _check_room(wanted: Wanted, total: int | None) -> None:
    expected = wanted.size if total is None else total
    with disk_errors_told(wanted.path.parent):
        free = shutil.disk_usage(wanted.path.parent).free
    needed = (expected or 0) - wanted.length()  # what is there is gone on with or makes room
    if needed > free:
        raise OutputError(
            f"{wanted.path.parent}: {needed / 2**20:.0f} MiB are needed and {free / 2**20:.0f} MiB are free",
            hint=f"make room, or {OTHER_FOLDER}",
        )


def _range(response: requests.Response) -> tuple[int | None, int | None]:
    """First byte and length of the whole file, from Content-Range."""
    found = re.fullmatch(r"bytes (?:(\d+)-\d+|\*)/(\d+|\*)", response.headers.get("Content-Range", "").strip())
    first, total = found.groups() if found else (None, None)
    return int(first) if first else None, int(total) if total and total != "*" else None


def _total(response: requests.Response) -> int | None:
    """Length of the whole file, where the server tells it."""
    if response.status_code == 206:
        return _range(response)[1]
    length = response.headers.get("Content-Length", "")
    packed = response.headers.get("Content-Encoding", "identity") != "identity"
    return int(length) if length.isdigit() and not packed else None


def _chunks(url: str, response: requests.Response) -> Iterator[bytes]:
    try:
        yield from response.iter_content(CHUNK)
    except RequestException as error:
        raise _translated(url, error, "the connection broke off") from None


def _is_page(chunk: bytes) -> bool:
    return chunk.removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"<")  # no checkpoint begins like that


def _translated(url: str, error: RequestException, reason: str, *, unreachable: bool = False) -> Exception:
    if isinstance(error, SSLError):
        return SourceError(url, "its certificate is not trusted (REQUESTS_CA_BUNDLE names those that are)")
    if isinstance(error, ProxyError):
        return _TryError("the proxy does not let us through", unreachable=True)
    if isinstance(error, Timeout):
        return _TryError(f"no answer within {TIMEOUT[1]:.0f} s", unreachable=unreachable)
    if isinstance(error, requests.ConnectionError | requests.exceptions.ChunkedEncodingError):
        return _TryError(reason, unreachable=unreachable)
    return SourceError(url, f"{type(error).__name__}: {' '.join(str(error).split())}")

"""One URL into one file: resumed where it broke off, and never joined from two different files.

What has arrived is in `<file>.part`; `<file>.part.json` holds the validator that the server gave (ETag or
Last-Modified), and the rest is asked for under that condition only (RFC 9110, Range and If-Range). Proxies and
certificates are those of the environment, as `requests` reads them (HTTPS_PROXY, REQUESTS_CA_BUNDLE). Retries are
counted here, because urllib3's `Retry` neither resumes a body that broke off nor reports a pause.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, sleep
from urllib.parse import urlsplit

import requests
from requests.exceptions import ProxyError, RequestException, SSLError, Timeout

from wav2clip_gen import __version__
from wav2clip_gen.errors import OutputError, WeightsError
from wav2clip_gen.models.manifest import Part
from wav2clip_gen.models.store import OTHER_FOLDER, translate_disk_errors

CHUNK = 64 * 1024  # bytes
TIMEOUT = (10.0, 30.0)  # seconds to connect, and between two packets
TRIES = 4  # in a row without a new byte
LONGEST_WAIT = 60.0  # seconds, whatever a server asks for
EVERY = 0.1  # seconds between two reports
PAGES = ("text/html", "application/xhtml+xml", "application/json")
_PAGE = "gives a web page instead of the file (a login, a consent or an error)"


@dataclass(frozen=True)
class Progress:
    """How the fetching of a part goes."""

    message: str = ""  # in words, for a log; empty while bytes arrive
    done: int = 0  # bytes that have arrived, those of earlier runs included
    total: int | None = None  # bytes
    rate: float = 0.0  # bytes per second, in this run


@dataclass(frozen=True, kw_only=True)
class Target:
    """The published file of a part and where it is downloaded to."""

    part: Part
    path: Path  # of the whole file; the caller puts it there once it is checked
    sha256: str | None  # where it is known, the caller notices a file joined from two

    @property
    def arrived(self) -> Path:
        """What has arrived so far."""
        return self.path.with_name(f"{self.path.name}.part")

    @property
    def notes(self) -> Path:
        """The validator of what has arrived."""
        return self.path.with_name(f"{self.path.name}.part.json")

    def length(self) -> int:
        """How many bytes have arrived."""
        return self.arrived.stat().st_size if self.arrived.exists() else 0

    def discard(self) -> None:
        """Start over."""
        self.arrived.unlink(missing_ok=True)
        self.notes.unlink(missing_ok=True)


class SourceError(WeightsError):
    """A source cannot give the file; another one may, and with `retry` this one at another time."""

    def __init__(
        self, url: str, reason: str, *, retry: bool = False, unreachable: bool = False, wait: float | None = None
    ) -> None:
        super().__init__(f"{urlsplit(url).hostname}: {reason}")
        self.retry = retry
        self.unreachable = unreachable
        self.wait = wait  # seconds that the server asked for


def download(url: str, target: Target) -> Generator[Progress, None, bool]:
    """Download `url` into `target.arrived`, resuming what is there; return whether anything was resumed.

    Raises:
        SourceError: The source has no such file, or another one, or cannot be reached.
        OutputError: The file cannot be written, or there is no room for it.
    """
    failures, reached = 0, target.length()
    with requests.Session() as session:
        while True:
            try:
                return (yield from _try(session, url, target))
            except SourceError as error:
                failures = failures + 1 if target.length() <= reached else 1
                reached = max(reached, target.length())
                if not error.retry or failures >= TRIES:
                    raise
                pause = min(2.0 ** (failures - 1) if error.wait is None else error.wait, LONGEST_WAIT)
                yield Progress(f"{error.what}; again in {pause:.0f} s")
                sleep(pause)


def _try(session: requests.Session, url: str, target: Target) -> Generator[Progress, None, bool]:
    """Ask once, and write what comes; return whether it was appended to what was there."""
    start = target.length()
    validator = _validator(url, target)
    headers = {"Accept-Encoding": "identity", "User-Agent": f"w2c-gen/{__version__}"}
    if start and (validator or target.sha256):
        headers |= {"Range": f"bytes={start}-"} | ({"If-Range": validator} if validator else {})
    try:
        response = session.get(url, headers=headers, stream=True, timeout=TIMEOUT)
    except RequestException as error:
        raise _translate(url, error, "cannot be reached", unreachable=True) from None
    except OSError as error:  # from requests, where the certificate bundle is missing
        raise SourceError(url, f"cannot be asked: {error} (see REQUESTS_CA_BUNDLE)") from None
    with response:
        _check_status(url, response)
        if url.startswith("https:") and not response.url.startswith("https:") and not target.sha256:
            raise SourceError(url, "leads to plain http, and no hash is known that would show a forgery")
        first, total = _range(response)
        code = response.status_code
        if code == 416 and total == start:  # nothing is missing
            return True
        if code == 416 or (code == 206 and (first != start or _has_changed(response, validator))):
            target.discard()
            raise SourceError(url, "the file has changed there", retry=True, wait=0)
        start = start if code == 206 else 0
        if total is not None and target.part.size is not None and total != target.part.size:
            raise SourceError(url, f"has a file of {total} bytes instead of {target.part.size}")
        _check_room(target, total)
        yield from _write(url, response, target, start=start, total=total)
    return start > 0


def _write(
    url: str, response: requests.Response, target: Target, *, start: int, total: int | None
) -> Generator[Progress, None, None]:
    began = reported = monotonic()
    done, size = start, target.part.size

    def progress() -> Progress:
        rate = (done - start) / max(monotonic() - began, 1e-6)
        return Progress(done=done, total=total or size, rate=rate)

    note = {"url": url, "etag": response.headers.get("ETag"), "modified": response.headers.get("Last-Modified")}
    with translate_disk_errors(target.path.parent):
        if not start:
            target.discard()  # first, so that the new validator never belongs to old bytes
        target.notes.write_text(json.dumps(note), encoding="utf-8")
        with target.arrived.open("ab" if start else "wb") as file:
            for chunk in _chunks(url, response):
                if not done and chunk.removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"<"):
                    raise SourceError(url, _PAGE)
                done += len(chunk)
                if size is not None and done > size:
                    raise SourceError(url, f"gives more than the {size} bytes of the published file")
                file.write(chunk)
                if monotonic() - reported >= EVERY:
                    reported = monotonic()
                    yield progress()
            file.flush()
            os.fsync(file.fileno())
    if total is not None and done != total:
        raise SourceError(url, f"the connection ended after {done} of {total} bytes", retry=True)
    yield progress()


def _validator(url: str, target: Target) -> str | None:
    """What If-Range may ask for: the strong ETag or the date that this URL gave for what has arrived."""
    try:
        note = json.loads(target.notes.read_text(encoding="utf-8"))
        etag, modified = note["etag"], note["modified"]
        if note["url"] != url:
            return None
    except (OSError, KeyError, TypeError, ValueError):
        return None
    return str(etag) if etag and not etag.startswith("W/") else modified


def _has_changed(response: requests.Response, validator: str | None) -> bool:
    """Whether a partial answer belongs to another file than was asked for, as from a server without If-Range."""
    found = (response.headers.get("ETag"), response.headers.get("Last-Modified"))
    return validator is not None and any(found) and validator not in found


def _check_status(url: str, response: requests.Response) -> None:
    code = response.status_code
    if code in (408, 425, 429) or code >= 500:
        asked = response.headers.get("Retry-After", "")
        wait = float(asked) if asked.isdigit() else None
        raise SourceError(url, f"answers {code} {response.reason}", retry=True, wait=wait)
    if code in (401, 403):
        raise SourceError(url, f"asks for a login or refuses ({code})")
    if code in (404, 410):
        raise SourceError(url, f"has no such file ({code})")
    if code not in (200, 206, 416):
        raise SourceError(url, f"answers {code} {response.reason}")
    kind = response.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    if code != 416 and kind in PAGES:
        raise SourceError(url, _PAGE)


def _check_room(target: Target, total: int | None) -> None:
    folder = target.path.parent
    with translate_disk_errors(folder):
        free = shutil.disk_usage(folder).free
    needed = (total or target.part.size or 0) - target.length()  # what is there is resumed or makes room
    if needed > free:
        raise OutputError(
            f"{folder}: {needed / 2**20:.0f} MiB are needed and {free / 2**20:.0f} MiB are free",
            hint=f"make room, or {OTHER_FOLDER}",
        )


def _range(response: requests.Response) -> tuple[int | None, int | None]:
    """The first byte of an answer, and the length of the whole file, where the server gives them."""
    headers = response.headers
    if response.status_code == 200:
        length, encoding = headers.get("Content-Length", ""), headers.get("Content-Encoding", "identity")
        return 0, int(length) if length.isdigit() and encoding == "identity" else None
    found = re.fullmatch(r"bytes (?:(\d+)-\d+|\*)/(\d+|\*)", headers.get("Content-Range", "").strip())
    first, total = found.groups() if found else (None, None)
    return int(first) if first else None, int(total) if total and total != "*" else None


def _chunks(url: str, response: requests.Response) -> Iterator[bytes]:
    try:
        yield from response.iter_content(CHUNK)
    except RequestException as error:
        raise _translate(url, error, "the connection broke off") from None


def _translate(url: str, error: RequestException, reason: str, *, unreachable: bool = False) -> SourceError:
    """What went wrong between us and a source, and whether another try may help."""
    if isinstance(error, SSLError):
        return SourceError(url, "its certificate is not trusted (REQUESTS_CA_BUNDLE names those that are)")
    if isinstance(error, ProxyError):
        return SourceError(url, "the proxy refuses", retry=True, unreachable=True)
    if isinstance(error, Timeout):
        reason = f"no answer within {TIMEOUT[1]:.0f} s"
    elif not isinstance(error, requests.ConnectionError | requests.exceptions.ChunkedEncodingError):
        return SourceError(url, f"{type(error).__name__}: {' '.join(str(error).split())}")
    return SourceError(url, reason, retry=True, unreachable=unreachable)

"""Separated stems on disk, found again by what the song holds; what was not used for longest goes first.

    stems/<key>/vocals.flac ...     24 bits, divided by the headroom
    stems/<key>/stems.json          the headroom and the files' sizes; written last: without it, nothing counts
    stems/<key>.lock                held by who fills or removes the entry

A stem may be louder than its song, and the song louder than full scale. So that no sample is clipped, all are stored
at half their level, and where that is not enough, so much quieter as the loudest block asks for.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from wav2clip_gen.audio.readers import Reader, SoundfileReader
from wav2clip_gen.audio.separation import STEMS, Separator, separated
from wav2clip_gen.audio.stem_files import file_of, write_flac, writing_told
from wav2clip_gen.audio.track import Samples, Track
from wav2clip_gen.errors import SoundError
from wav2clip_gen.files import appear_whole, hash_file, scratch_path

LIMIT = 4 << 30  # bytes of all stems; a song of four minutes takes about 130 MB
HEADROOM = 2.0
LOUDEST = 2.0**100  # of a sample; sums and products of what is louder are infinite
ABOUT = "stems.json"
OTHER_CACHE = "choose another cache folder with W2C_CACHE"


@dataclass(frozen=True)
class Entry:
    """The stems of one span of one song by one separator, there or not."""

    folder: Path

    @classmethod
    def of(cls, song: Track, separator: Separator, cache: Path | None = None) -> Entry:
        """Where they belong: below `cache`, else below `W2C_CACHE` or the user's cache folder."""
        content = hash_file(song.path)
        what = [content, song.start, song.samples, song.sample_rate, song.channels, separator.name, separator.version]
        return cls(_folder_of_all(cache) / hashlib.sha256(json.dumps(what).encode()).hexdigest()[:32])

    def tracks(self, song: Track) -> dict[str, Track] | None:
        """The stems of `song`, if they are there, all as they were written; they count as used now."""
        try:
            about = json.loads(self._about.read_text(encoding="utf-8"))
            headroom, sizes = float(about["headroom"]), about["sizes"]
            if {name: file_of(self.folder, name).stat().st_size for name in STEMS} != sizes:
                return None
        except (OSError, ValueError, KeyError, TypeError):
            return None
        with suppress(OSError):  # a cache that may only be read
            os.utime(self._about)
        readers = {name: SoundfileReader.open(file_of(self.folder, name)) for name in STEMS}
        found = {name: _track(reader, headroom, song) for name, reader in readers.items() if reader}
        return found if len(found) == len(STEMS) else None

    def fill(
        self, song: Track, separator: Separator, *, on_progress: Callable[[float], None] = lambda share: None
    ) -> None:
        """Separate the song, unless another process just does; then make room by removing what is oldest.

        Raises:
            OutputError: The folder cannot be written to.
            SoundError: The song changed while it was read, or is too loud for any number.
        """
        with writing_told(self.folder, OTHER_CACHE):
            self.folder.parent.mkdir(parents=True, exist_ok=True)
            with _locked(self.folder):
                if self.tracks(song) is None:
                    self._replace(song, separator, on_progress)
        _make_room(self.folder)

    def _replace(self, song: Track, separator: Separator, on_progress: Callable[[float], None]) -> None:
        """Separate into an empty folder, which is gone again where that does not succeed."""
        _remove(self.folder)  # what a broken run left
        self.folder.mkdir(exist_ok=True)
        try:
            headroom = HEADROOM
            while (peak := self._write(song, separator, headroom, on_progress)) >= headroom:
                headroom = 2.0 ** (math.floor(math.log2(peak)) + 2)
            sizes = {name: file_of(self.folder, name).stat().st_size for name in STEMS}
            with appear_whole(self._about, option="W2C_CACHE") as part:
                part.write_text(json.dumps({"headroom": headroom, "sizes": sizes}), encoding="utf-8")
        finally:
            if not self._about.exists():
                _remove(self.folder)

    @property
    def _about(self) -> Path:
        return self.folder / ABOUT

    def _write(self, song: Track, separator: Separator, headroom: float, on_progress: Callable[[float], None]) -> float:
        """Separate into files that are `headroom` times too quiet; if that is not enough, leave none.

        Returns:
            The peak of all, or of the first block that is too loud.
        """
        done, loudest = 0, 0.0
        with suppress(_TooLoudError), ExitStack() as appearing:
            paths = [file_of(self.folder, name) for name in STEMS]
            parts = [appearing.enter_context(appear_whole(path, option="W2C_CACHE")) for path in paths]
            with ExitStack() as opened, np.errstate(over="ignore", invalid="ignore"):  # told by `_peak`
                files = [opened.enter_context(write_flac(part, song)) for part in parts]
                for stems in separated(song, separator):
                    loudest = max(loudest, _peak(stems, song))
                    if loudest >= headroom:
                        raise _TooLoudError
                    for file, stem in zip(files, stems, strict=True):
                        file.write(stem.T / np.float32(headroom))
                    done += stems.shape[2]
                    on_progress(done / song.samples)
        return loudest


class _TooLoudError(Exception):
    """The headroom does not suffice."""


@dataclass(frozen=True)
class LouderReader:
    """Streams another reader's samples, louder."""

    path: Path
    sample_rate: int  # Hz
    channels: int
    title: str | None
    reader: Reader
    factor: float

    def blocks(self, first: int, stop: int | None, size: int) -> Iterator[Samples]:
        """See `Reader`."""
        return (np.float32(self.factor) * block for block in self.reader.blocks(first, stop, size))


def cache_folder() -> Path:
    """The folder of what can be made again: `W2C_CACHE`, else one in the user's cache."""
    if chosen := os.environ.get("W2C_CACHE"):
        return Path(chosen).expanduser()
    from platformdirs import user_cache_path

    return user_cache_path("w2c-gen", appauthor=False)


def check_cache(cache: Path | None = None) -> None:
    """Make sure that stems can be written to the cache, before any work is done; nothing is made.

    Raises:
        OutputError: They cannot.
    """
    folder = _folder_of_all(cache)
    with writing_told(folder, OTHER_CACHE):
        there = next(place for place in (folder, *folder.parents) if place.exists())
        with scratch_path(there / "trial") as trial:
            trial.touch()


def _folder_of_all(cache: Path | None) -> Path:
    return (cache or cache_folder()) / "stems"


def _peak(stems: Samples, song: Track) -> float:
    peak = float(np.abs(stems).max())
    if not peak < LOUDEST:  # which NaN is not either
        raise SoundError(
            f"{song.path} cannot be separated: its samples are too large",
            hint="export it again at a usual level: a sample of full scale is 1",
        )
    return peak


def _track(reader: Reader, headroom: float, song: Track) -> Track:
    louder = LouderReader(reader.path, reader.sample_rate, reader.channels, song.title, reader, headroom)
    return replace(song, path=reader.path, start=0.0, whole=False, reader=louder)


def _make_room(latest: Path) -> None:
    """Remove entries, those first that were not used for longest, until `LIMIT` holds; never the latest."""
    others = [entry for entry in latest.parent.iterdir() if entry != latest and _is_ours(entry)]
    total = _size(latest) + sum(map(_size, others))
    for entry in sorted(others, key=_last_used):
        if total <= LIMIT:
            return
        with suppress(OSError), _locked(entry, timeout=0):  # one that is just being filled stays
            total -= _size(entry)
            _remove(entry)


def _is_ours(entry: Path) -> bool:
    """Whether this is an entry, with nothing in it that somebody else put there."""
    if not re.fullmatch("[0-9a-f]{32}", entry.name) or entry.is_symlink() or not entry.is_dir():
        return False
    try:
        return all(map(_is_own, entry.iterdir()))
    except OSError:  # just removed by another process
        return False


def _is_own(file: Path) -> bool:
    """Whether a file is part of an entry, or was to become one."""
    own = file.name in (ABOUT, *(file_of(file.parent, name).name for name in STEMS))
    return file.is_file() and (own or file.name.startswith(".w2c-"))


def _remove(entry: Path) -> None:
    """Delete our own files in an entry, that first without which nothing counts, and the entry if it is empty then."""
    with suppress(OSError):
        for file in sorted(filter(_is_own, entry.iterdir()), key=lambda file: file.name != ABOUT):
            file.unlink(missing_ok=True)
        entry.rmdir()


@contextmanager
def _locked(entry: Path, timeout: float = -1) -> Iterator[None]:
    """Hold the lock of an entry; wait for it, if need be for ever.

    Raises:
        OSError: It cannot be had; a `TimeoutError` where another process holds it.
    """
    from filelock import FileLock

    lock = entry.with_name(f"{entry.name}.lock")
    with FileLock(lock, timeout=timeout):
        try:
            yield
        finally:
            with suppress(OSError):  # Windows deletes no file that is held open
                lock.unlink()


def _size(entry: Path) -> int:
    """Bytes of an entry; none where another process has just removed it."""
    try:
        return sum(path.stat().st_size for path in entry.iterdir())
    except OSError:
        return 0


def _last_used(entry: Path) -> float:
    """Seconds since the epoch; of an entry that is being made, when that began."""
    about = entry / ABOUT
    try:
        return (about if about.exists() else entry).stat().st_mtime
    except OSError:  # just removed by another process
        return 0.0

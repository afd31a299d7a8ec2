"""Separated stems on disk, found again by what the song holds; what was not used for longest goes first.

    stems/<key>/vocals.flac ...     24 bits, divided by the headroom
    stems/<key>/stems.json          written last: without it, nothing counts

A stem may be louder than its song, and the song louder than full scale. So that no sample is clipped, all are stored
at half their level, and where that is not enough at a thirty-second, and so on.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from wav2clip_gen.audio.readers import Reader, SoundfileReader
from wav2clip_gen.audio.separation import STEMS, Separator, separated
from wav2clip_gen.audio.track import Samples, Track
from wav2clip_gen.errors import OutputError
from wav2clip_gen.files import appear_whole, check_output, hash_file

if TYPE_CHECKING:
    from soundfile import SoundFile

LIMIT = 4 << 30  # bytes of all stems; a song of four minutes takes about 130 MB
HEADROOM, MORE_HEADROOM = 2.0, 16.0
FULL_SCALE = 1 - 2**-23  # the largest sample that 24 bits hold
MOST_CHANNELS = 8  # of a FLAC file


@dataclass(frozen=True)
class Entry:
    """The stems of one span of one song by one separator, there or not."""

    folder: Path

    @classmethod
    def of(cls, song: Track, separator: Separator, cache: Path | None = None) -> Entry:
        """Where they belong: below `cache`, else below `W2C_CACHE` or the user's cache folder."""
        content = hash_file(song.path)
        what = [content, song.start, song.samples, song.sample_rate, song.channels, separator.name, separator.version]
        key = hashlib.sha256(json.dumps(what).encode()).hexdigest()[:32]
        return cls((cache or cache_folder()) / "stems" / key)

    def tracks(self, song: Track) -> dict[str, Track] | None:
        """The stems of `song`, if they are there; they count as used now."""
        try:
            headroom = float(json.loads(self._about.read_text(encoding="utf-8"))["headroom"])
        except (OSError, ValueError, KeyError, TypeError):
            return None
        with suppress(OSError):  # a cache that may only be read
            os.utime(self._about)
        readers = {name: SoundfileReader.open(self.path(name)) for name in STEMS if self.path(name).is_file()}
        found = {name: _track(reader, headroom, song) for name, reader in readers.items() if reader}
        return found if len(found) == len(STEMS) else None

    def path(self, name: str) -> Path:
        """The file of a stem."""
        return self.folder / f"{name}.flac"

    def fill(
        self, song: Track, separator: Separator, *, on_progress: Callable[[float], None] = lambda share: None
    ) -> None:
        """Separate the song, then make room by removing what was not used for longest.

        Raises:
            OutputError: The folder cannot be written to.
            SoundError: The song changed while it was read.
        """
        with _writing(self.folder, "choose another cache folder with W2C_CACHE"):
            self.folder.mkdir(parents=True, exist_ok=True)
            headroom = HEADROOM
            while not self._write(song, separator, headroom, on_progress):
                headroom *= MORE_HEADROOM
            with appear_whole(self._about) as part:
                part.write_text(json.dumps({"headroom": headroom}), encoding="utf-8")
        _make_room(self.folder)

    @property
    def _about(self) -> Path:
        return self.folder / "stems.json"

    def _write(self, song: Track, separator: Separator, headroom: float, on_progress: Callable[[float], None]) -> bool:
        """Separate into files that are `headroom` times too quiet; if that is not enough, leave none and say so."""
        done = 0
        try:
            with ExitStack() as appearing:
                parts = [appearing.enter_context(appear_whole(self.path(name))) for name in STEMS]
                with ExitStack() as opened:
                    files = [opened.enter_context(_flac(part, song)) for part in parts]
                    for stems in separated(song, separator):
                        if np.abs(stems).max() >= headroom:
                            raise _TooLoudError
                        for file, stem in zip(files, stems, strict=True):
                            file.write(stem.T / np.float32(headroom))
                        done += stems.shape[2]
                        on_progress(done / song.samples)
        except _TooLoudError:
            return False
        return True


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


def check_keep(folder: Path, *, overwrite: bool = False) -> None:
    """Make sure that separated stems can be kept in a folder, before they are separated.

    Raises:
        OutputError: It cannot be written to, or holds stems that may not be replaced.
    """
    with _writing(folder, "choose another one with --keep-stems"):
        folder.mkdir(parents=True, exist_ok=True)
    for name in STEMS:
        check_output(folder / f"{name}.flac", overwrite=overwrite, option="--keep-stems")


def keep_stems(stems: dict[str, Track], folder: Path, *, overwrite: bool = False) -> None:
    """Copy stems into a folder, as NAME.flac with 24 bits; all quieter by the same factor if one would be clipped.

    Raises:
        OutputError: The folder cannot be written to, or holds stems that may not be replaced.
    """
    check_keep(folder, overwrite=overwrite)
    loudest = max(float(np.abs(block).max()) for track in stems.values() for block in track.blocks())
    factor = np.float32(min(1.0, FULL_SCALE / max(loudest, FULL_SCALE)))
    with _writing(folder, "choose another one with --keep-stems"):
        for name, track in stems.items():
            with appear_whole(folder / f"{name}.flac") as part, _flac(part, track) as file:
                for block in track.blocks():
                    file.write(block.T * factor)


def _track(reader: Reader, headroom: float, song: Track) -> Track:
    louder = LouderReader(reader.path, reader.sample_rate, reader.channels, song.title, reader, headroom)
    return replace(song, path=reader.path, start=0.0, whole=False, reader=louder)


def _flac(path: Path, like: Track) -> SoundFile:
    import soundfile

    return soundfile.SoundFile(
        path, "w", samplerate=like.sample_rate, channels=like.channels, format="FLAC", subtype="PCM_24"
    )


@contextmanager
def _writing(folder: Path, hint: str) -> Iterator[None]:
    """Tell what went wrong while a folder was written to."""
    import soundfile

    try:
        yield
    except (OSError, soundfile.LibsndfileError) as error:
        what = error.strerror if isinstance(error, OSError) else str(error)
        raise OutputError(f"stems cannot be written into {folder}: {what}", hint=hint) from error


def _make_room(latest: Path) -> None:
    """Remove entries, those first that were not used for longest, until `LIMIT` holds; never the latest."""
    others = [entry for entry in latest.parent.iterdir() if entry.is_dir() and entry != latest]
    total = _size(latest) + sum(map(_size, others))
    for entry in sorted(others, key=_last_used):
        if total <= LIMIT:
            return
        total -= _size(entry)
        shutil.rmtree(entry, ignore_errors=True)


def _size(entry: Path) -> int:
    """Bytes of an entry; none where another process has just removed it."""
    try:
        return sum(path.stat().st_size for path in entry.iterdir())
    except OSError:
        return 0


def _last_used(entry: Path) -> float:
    """Seconds since the epoch; of an entry that is being made, when that began."""
    about = entry / "stems.json"
    try:
        return (about if about.exists() else entry).stat().st_mtime
    except OSError:  # just removed by another process
        return 0.0

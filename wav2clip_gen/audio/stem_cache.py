"""Cache of separated stems, keyed by the content of the song; least recently used entries are removed first.

    stems/<key>/vocals.wav ...      32-bit floats, so that samples beyond full scale survive
    stems/<key>.lock                held by the process that fills or removes the entry

An entry counts if all four files have the size that the song's samples take. It was last used when its folder changed.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from wav2clip_gen.audio.separation import STEMS, Separator, separated
from wav2clip_gen.audio.track import Samples, Source, Track
from wav2clip_gen.errors import OutputError, SoundError
from wav2clip_gen.files import appear_whole, hash_file, scratch_path

if TYPE_CHECKING:
    from soundfile import SoundFile

LIMIT = 4 << 30  # bytes of all stems; a stereo song of four minutes takes about 340 MB
LOUDEST = 2.0**100  # of a sample; sums and products of larger ones overflow
HEADER = 1_000  # bytes of a file that are not samples, at most
OTHER_CACHE = "choose another cache folder with W2C_CACHE"


@dataclass(frozen=True)
class Entry:
    """The stems of one span of one song by one separator, present or not."""

    folder: Path

    @classmethod
    def of(cls, song: Track, separator: Separator, cache: Path | None = None) -> Entry:
        """Where they belong: below `cache`, else below `W2C_CACHE` or the user's cache folder."""
        content = hash_file(song.path)
        key = [content, song.start, song.samples, song.sample_rate, song.channels, separator.name, separator.version]
        return cls(_root(cache) / hashlib.sha256(json.dumps(key).encode()).hexdigest()[:32])

    def load(self, song: Track) -> dict[str, Track] | None:
        """The stems of `song`, if all are there as they were written; they count as used now."""
        audio = song.samples * song.channels * 4  # bytes
        try:
            if not all(audio < path.stat().st_size < audio + HEADER for path in self._files()):
                return None
            sources = [Source.open(path) for path in self._files()]
        except (OSError, SoundError):
            return None
        with suppress(OSError):  # a read-only cache
            os.utime(self.folder)
        tracks = [replace(song, source=source, start=0.0, whole=False) for source in sources]
        return dict(zip(STEMS, tracks, strict=True))

    def fill(
        self, song: Track, separator: Separator, *, on_progress: Callable[[float], None] = lambda share: None
    ) -> None:
        """Separate the song, unless another process is just doing so; then remove the oldest entries.

        Raises:
            OutputError: The folder cannot be written to.
            SoundError: The song changed while it was read, or its samples are too large.
        """
        with describe_write_errors(self.folder, OTHER_CACHE):
            self.folder.parent.mkdir(parents=True, exist_ok=True)
            with _locked(self.folder):
                if self.load(song) is None:
                    _remove(self.folder)  # what a broken run left
                    self.folder.mkdir(exist_ok=True)
                    try:
                        self._separate(song, separator, on_progress)
                    except BaseException:
                        _remove(self.folder)
                        raise
        _make_room(self.folder)

    def _separate(self, song: Track, separator: Separator, on_progress: Callable[[float], None]) -> None:
        done = 0
        with ExitStack() as stack, np.errstate(over="ignore", invalid="ignore"):  # reported by `_check_levels`
            parts = [stack.enter_context(appear_whole(path, option="W2C_CACHE")) for path in self._files()]
            with ExitStack() as opened:
                files = [opened.enter_context(create_audio(part, song, "RF64", "FLOAT")) for part in parts]
                for stems in separated(song, separator):
                    _check_levels(stems, song)
                    for file, stem in zip(files, stems, strict=True):
                        file.write(stem.T)
                    done += stems.shape[2]
                    on_progress(done / song.samples)

    def _files(self) -> list[Path]:
        return [self.folder / f"{name}.wav" for name in STEMS]


def cache_folder() -> Path:
    """The folder of what can be made again: `W2C_CACHE`, else one in the user's cache."""
    if chosen := os.environ.get("W2C_CACHE"):
        return Path(chosen).expanduser()
    from platformdirs import user_cache_path

    return user_cache_path("w2c-gen", appauthor=False)


def check_cache(cache: Path | None = None) -> None:
    """Make sure that stems can be written to the cache, before any work is done; nothing is created.

    Raises:
        OutputError: They cannot.
    """
    folder = _root(cache)
    with describe_write_errors(folder, OTHER_CACHE):
        existing = next(place for place in (folder, *folder.parents) if place.exists())
        with scratch_path(existing / "trial") as trial:
            trial.touch()


def create_audio(path: Path, like: Track, kind: str, subtype: str) -> SoundFile:
    """Open a file to be written with the sample rate and the channels of a track."""
    import soundfile

    return soundfile.SoundFile(
        path, "w", samplerate=like.sample_rate, channels=like.channels, format=kind, subtype=subtype
    )


@contextmanager
def describe_write_errors(folder: Path, hint: str) -> Iterator[None]:
    """Turn failures to write stems into a folder into errors for the user.

    Raises:
        OutputError: Writing failed; `hint` is what can be done.
    """
    import soundfile

    try:
        yield
    except (OSError, soundfile.LibsndfileError) as error:
        what = error.strerror if isinstance(error, OSError) else str(error)
        raise OutputError(f"stems cannot be written into {folder}: {what}", hint=hint) from error


def _root(cache: Path | None) -> Path:
    return (cache or cache_folder()) / "stems"


def _check_levels(stems: Samples, song: Track) -> None:
    if not float(np.abs(stems).max()) < LOUDEST:  # NaN is not either
        raise SoundError(
            f"{song.path} cannot be separated: its samples are too large",
            hint="export it again at a usual level: a sample of full scale is 1",
        )


def _make_room(latest: Path) -> None:
    """Remove the least recently used entries until `LIMIT` holds; never the latest, nor one that is being filled."""
    entries = []  # (last use in seconds since the epoch, bytes, folder)
    for folder in latest.parent.iterdir():
        with suppress(OSError):  # just removed by another process
            files = list(folder.iterdir()) if re.fullmatch("[0-9a-f]{32}", folder.name) else []
            if files and not folder.is_symlink() and all(map(_is_own, files)):
                entries.append((folder.stat().st_mtime, sum(file.stat().st_size for file in files), folder))
    total = sum(size for _, size, _ in entries)
    for _, size, folder in sorted(entries):
        if total > LIMIT and folder != latest:
            with suppress(OSError), _locked(folder, timeout=0):
                _remove(folder)
                total -= size


def _is_own(file: Path) -> bool:
    """Whether a file belongs to an entry, or was about to; version 0.1 wrote FLAC files and stems.json."""
    own = file.stem in STEMS and file.suffix in (".wav", ".flac")
    return file.is_file() and (own or file.name == "stems.json" or file.name.startswith(".w2c-"))


def _remove(entry: Path) -> None:
    """Delete our own files in an entry, and the folder if it is empty then."""
    with suppress(OSError):
        for file in filter(_is_own, list(entry.iterdir())):
            file.unlink(missing_ok=True)
        entry.rmdir()


@contextmanager
def _locked(entry: Path, timeout: float = -1) -> Iterator[None]:
    """Hold the lock of an entry; wait for it, forever by default.

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

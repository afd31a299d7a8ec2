"""Cache of separated stems, keyed by the content of the song; least recently used entries are removed first.

    stems/<key>/vocals.wav ...      32-bit floats, so that samples beyond full scale survive
    stems/<key>.part/               an entry that is being made
    stems/<key>.lock                held by the process that makes or removes the entry

An entry counts if all four files have the song's samples. It was last used when its folder changed.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from wav2clip_gen.audio.separation import STEMS, Separator, separated
from wav2clip_gen.audio.track import Track
from wav2clip_gen.environment import is_writable, private_folder, user_cache
from wav2clip_gen.errors import OutputError, SoundError
from wav2clip_gen.files import hash_file, scratch_path

if TYPE_CHECKING:
    from soundfile import SoundFile

LIMIT = 4 << 30  # bytes of all stems; a stereo song of four minutes takes about 340 MB
LOUDEST = 2.0**100  # of a sample; sums and products of larger ones overflow
OTHER_CACHE = "choose another cache folder with W2C_CACHE"
ENTRY = re.compile(r"[0-9a-f]{32}(\.part)?")
OWN = re.compile(rf"({'|'.join(STEMS)})\.(wav|flac)|stems\.json|\.w2c-.*")  # also of earlier versions


def cache_folder() -> Path:
    """The folder of what can be made again: `W2C_CACHE`, else one in the user's cache, or where that can be made."""
    if chosen := os.environ.get("W2C_CACHE"):
        return Path(chosen).expanduser()
    folder = user_cache()
    return folder if folder.exists() or is_writable(folder) else private_folder()


def entry_of(song: Track, separator: Separator) -> Path:
    """The folder for the stems of a span of a song by a separator."""
    content = hash_file(song.path)
    key = [content, song.start, song.samples, song.sample_rate, song.channels, separator.name, separator.version]
    return cache_folder() / "stems" / hashlib.sha256(json.dumps(key).encode()).hexdigest()[:32]


def load_entry(entry: Path, song: Track) -> dict[str, Track] | None:
    """The stems of `song`, if all are there as they were written; they count as used now."""
    import soundfile

    try:
        if any(soundfile.info(os.fsencode(entry / f"{name}.wav")).frames != song.samples for name in STEMS):
            return None
    except (OSError, soundfile.LibsndfileError):
        return None
    with suppress(OSError):  # a read-only cache
        os.utime(entry)
    return _tracks(entry, song)


def _tracks(entry: Path, song: Track) -> dict[str, Track]:
    layout = f"{song.channels} channels"  # without names, as they were written
    plain = replace(song, stream=0, layout=layout, decoded=song.samples, start=0.0, whole=False)
    stored = replace(plain, edits=(), contiguous=True, notes=())
    return {name: replace(stored, path=entry / f"{name}.wav") for name in STEMS}


def fill_entry(
    entry: Path, song: Track, separator: Separator, *, on_progress: Callable[[float], None]
) -> dict[str, Track]:
    """Separate the song, unless another process is just doing so; then remove the oldest entries.

    Raises:
        OutputError: The folder cannot be written to.
        SoundError: The song changed while it was read, or its samples are too large.
    """
    part = entry.with_suffix(".part")
    with describe_write_errors(entry, OTHER_CACHE):
        entry.parent.mkdir(parents=True, exist_ok=True)
        with _locked(entry):
            if load_entry(entry, song) is None:
                _remove(part)  # what a broken run left
                _remove(entry)
                part.mkdir(exist_ok=True)
                try:
                    _separate(song, separator, part, on_progress)
                    entry.mkdir(exist_ok=True)
                    for file in list(part.iterdir()):
                        file.replace(entry / file.name)
                finally:
                    _remove(part)
        _make_room(entry)
    return _tracks(entry, song)


def _separate(song: Track, separator: Separator, folder: Path, on_progress: Callable[[float], None]) -> None:
    done = 0
    with ExitStack() as stack, np.errstate(over="ignore", invalid="ignore"):  # reported below
        files = [stack.enter_context(create_audio(folder / f"{name}.wav", song, "RF64", "FLOAT")) for name in STEMS]
        for stems in separated(song, separator):
            if not float(np.abs(stems).max()) < LOUDEST:  # NaN is not either
                raise SoundError(
                    f"{song.path} cannot be separated: its samples are too large",
                    hint="export it again at a usual level: a sample of full scale is 1",
                )
            for file, stem in zip(files, stems, strict=True):
                file.write(stem.T)
            done += stems.shape[2]
            on_progress(done / song.samples)


def check_cache() -> None:
    """Make sure that stems can be written to the cache, before any work is done; nothing is created.

    Raises:
        OutputError: They cannot.
    """
    folder = cache_folder() / "stems"
    with describe_write_errors(folder, OTHER_CACHE):
        existing = next(place for place in (folder, *folder.parents) if place.exists())
        with scratch_path(existing / "trial") as trial:
            trial.touch()


def create_audio(path: Path, like: Track, kind: str, subtype: str) -> SoundFile:
    """Open a file to be written with the sample rate and the channels of a track."""
    import soundfile

    return soundfile.SoundFile(
        os.fsencode(path), "w", samplerate=like.sample_rate, channels=like.channels, format=kind, subtype=subtype
    )


@contextmanager
def describe_write_errors(folder: Path, hint: str) -> Iterator[None]:
    """Raise failures to write stems into a folder as an OutputError; `hint` is what can be done."""
    import soundfile

    try:
        yield
    except (OSError, soundfile.LibsndfileError) as error:
        what = error.strerror if isinstance(error, OSError) else str(error)
        raise OutputError(f"stems cannot be written into {folder}: {what}", hint=hint) from error


def _make_room(latest: Path) -> None:
    """Remove the least recently used entries until `LIMIT` holds; never the latest, nor one that is being made."""
    entries = []  # (last use in seconds since the epoch, bytes, folder)
    for folder in latest.parent.iterdir():
        with suppress(OSError):  # just removed by another process
            if ENTRY.fullmatch(folder.name) and _is_own(folder):
                entries.append((folder.stat().st_mtime, sum(file.stat().st_size for file in folder.iterdir()), folder))
    total = sum(size for _, size, _ in entries)
    for _, size, folder in sorted(entries):
        if total > LIMIT and folder != latest:
            with suppress(OSError), _locked(folder, timeout=0):
                _remove(folder)
                total -= size


def _is_own(folder: Path) -> bool:
    """Whether a folder holds nothing but files of an entry, of any version."""
    return not folder.is_symlink() and all(OWN.fullmatch(file.name) and file.is_file() for file in folder.iterdir())


def _remove(folder: Path) -> None:
    """Delete an entry, as far as it can be, unless somebody stored other files in it."""
    with suppress(OSError):
        if _is_own(folder):
            shutil.rmtree(folder)


@contextmanager
def _locked(entry: Path, timeout: float = -1) -> Iterator[None]:
    """Hold the lock of an entry; wait for it, forever by default.

    Raises:
        OSError: It cannot be had; a `TimeoutError` where another process holds it.
    """
    from filelock import FileLock

    lock = entry.with_suffix(".lock")
    with FileLock(lock, timeout=timeout):
        try:
            yield
        finally:
            with suppress(OSError):  # Windows deletes no file that is held open
                lock.unlink()

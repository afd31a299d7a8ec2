"""Stems that exist as files: found by name, in folders (as Demucs and musdb18-HQ write them), in .stem.mp4; aligned."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from wav2clip_gen import ffmpeg
from wav2clip_gen.audio.track import Track, survey
from wav2clip_gen.config import MIX
from wav2clip_gen.errors import SettingsError, SoundError

MIXES = (MIX, "mixture")  # file names of the song among its stems
STREAMS = (MIX, "drums", "bass", "other", "vocals")  # of a .stem.mp4, in the order of musdb18
SUFFIXES = frozenset(
    (".aac", ".aif", ".aiff", ".flac", ".m4a", ".mp3", ".mp4", ".oga", ".ogg", ".opus", ".wav", ".wma", ".wv")
)
NAME = r"\w[\w-]*"  # what a stem can be called

SECONDS_OFF = 1.0  # by which a stem may be shorter or longer than its song, ...
SHARE_OFF = 0.01  # ... or, where that is more, this share of the song's span
SAME_LENGTH = "a stem lasts as long as its song: export both from the same project, or choose the right file"


@dataclass(frozen=True)
class StemFile:
    """Where a stem is stored."""

    path: Path
    stream: int = 0  # which of the file's audio streams

    def __str__(self) -> str:
        return f"{self.path}, stream {self.stream}" if self.stream else str(self.path)


def resolve_input(path: Path) -> Path:
    """The song that an input path means: a folder of stems means the mix inside it.

    Raises:
        SoundError: The folder has no mix, or several.
    """
    if not path.is_dir():
        return path
    found = (_members(path, [name]).get(name) for name in reversed(MIXES))
    mix = next(filter(None, found), None)
    if mix is None:
        raise SoundError(
            f"{path} is a folder without a mix in it (mixture.wav, mix.flac, ...)",
            hint=f"give the song, and the folder as --stem-file {path}",
        )
    return mix.path


def find_given(names: Sequence[str], given: Sequence[str | Path]) -> dict[str, StemFile]:
    """The stems among `names` that the user gave; `NAME=FILE` takes precedence over folders and .stem.mp4 files.

    Args:
        names: The stems that are wanted.
        given: `NAME=FILE`, folders and .stem.mp4 files.

    Raises:
        SettingsError: It is unclear which stem a file is, or it is not wanted, or given twice.
        SoundError: There is no such file or folder, or it holds none of the stems.
    """
    if given and not names:
        raise SettingsError("stems are given, but none is used", hint="choose some, as in --stems vocals,drums")
    single: dict[str, StemFile] = {}
    collected: dict[str, StemFile] = {}
    for one in given:
        name, path = _split(one)
        if name is None:
            found, into = _collection(path, names), collected
        elif name in names:
            found, into = {name: _single(name, path)}, single
        else:
            raise SettingsError(
                f"a file is given for the stem {name}, which is not used",
                hint=f"use it with --stems {','.join([*names, name])}, or leave it out",
            )
        for twice in found.keys() & into.keys():
            raise SettingsError(
                f"the stem {twice} is given twice: {into[twice]} and {found[twice]}", hint="leave one of them out"
            )
        into.update(found)
    return collected | single


def find_with_song(names: Sequence[str], song: Path) -> dict[str, StemFile]:
    """The stems among `names` that come with the song: in its .stem.mp4, or next to a file that is called a mix.

    Raises:
        SoundError: A stem exists there twice.
    """
    if is_stem_file(song):
        return _streams(song, names) if ffmpeg.count_sounds(song) == len(STREAMS) else {}
    return _members(song.parent, names) if song.stem.casefold() in MIXES else {}


def is_stem_file(path: Path) -> bool:
    """Whether a file is named as one that holds a song and its stems."""
    return path.name.casefold().endswith((".stem.mp4", ".stem.m4a"))


def _split(given: str | Path) -> tuple[str | None, Path]:
    """The name and the file of `NAME=FILE`; no name where it is a folder or a .stem.mp4."""
    path = Path(given).expanduser()
    name, equals, file = str(given).partition("=")
    if isinstance(given, str) and equals and not path.exists():
        if not re.fullmatch(NAME, name) or not file:
            raise SettingsError(f"--stem-file {given}: not NAME=FILE", hint="for example --stem-file drums=drums.wav")
        return name, Path(file).expanduser()
    if not path.exists():
        raise SoundError(f"{path}: no such file or folder", hint="give NAME=FILE, a folder of stems or a .stem.mp4")
    if not path.is_dir() and not is_stem_file(path):
        raise SettingsError(f"{path}: which stem is it?", hint=f"name it, as in --stem-file drums={path}")
    return None, path


def _collection(path: Path, names: Sequence[str]) -> dict[str, StemFile]:
    """The stems among `names` in a folder or a .stem.mp4."""
    if path.is_dir():
        found = _members(path, names)
        if not found:
            raise SoundError(f"{path} holds no {' or '.join(names)}", hint=f"name its files {names[0]}.wav and so on")
        return found
    if (count := ffmpeg.count_sounds(path)) != len(STREAMS):
        raise SoundError(
            f"{path} holds {count} sound streams instead of {len(STREAMS)}",
            hint=f"a .stem.mp4 has these, in this order: {', '.join(STREAMS)}",
        )
    return _streams(path, names)


def _single(name: str, path: Path) -> StemFile:
    """The file of `NAME=FILE`; of a .stem.mp4, the stream of that name."""
    if not is_stem_file(path) or not path.is_file():
        return StemFile(path)
    found = _collection(path, [name])
    if not found:
        raise SoundError(f"{path} holds no {name}", hint=f"it has {', '.join(STREAMS[1:])}")
    return found[name]


def _streams(path: Path, names: Sequence[str]) -> dict[str, StemFile]:
    return {name: StemFile(path, STREAMS.index(name)) for name in names if name in STREAMS}


def _members(folder: Path, names: Sequence[str]) -> dict[str, StemFile]:
    """The audio files of these names in a folder, whatever their suffix and capitals."""
    try:
        files = sorted(path for path in folder.iterdir() if path.suffix.casefold() in SUFFIXES and path.is_file())
    except OSError as error:
        raise SoundError(f"{folder} cannot be read: {error.strerror}", hint="check its permissions") from error
    found = {}
    for name in names:
        match [path for path in files if path.stem.casefold() == name.casefold()]:
            case [path]:
                found[name] = StemFile(path)
            case [one, other, *_]:
                raise SoundError(f"{folder} holds both {one.name} and {other.name}", hint="name the one that is meant")
    return found


def align_stem(file: StemFile, song: Track) -> Track:
    """Open a stem as a track of exactly the song's span, sample rate and samples, so that one timeline fits both.

    What is missing at its end is silence, what is too much is cut. Its channels stay as they are.

    Raises:
        SoundError: The file cannot be read, or its length is not that of the song.
        VideoError: ffmpeg is missing.
    """
    stem = survey(file.path, start=song.start, duration=None if song.whole else song.duration, stream=file.stream)
    if stem.samples == 0 or not _similar(stem.duration, song.duration):
        length, end = survey(file.path, stream=file.stream).duration, song.start + song.duration
        raise SoundError(
            f"{file.path} lasts {length:.3f} s, but the song {song.path} is used up to {end:.3f} s",
            hint=SAME_LENGTH,
        )
    decoded = min(song.samples, round(stem.samples * song.sample_rate / stem.sample_rate))
    return replace(stem, sample_rate=song.sample_rate, samples=song.samples, decoded=decoded, whole=False)


def check_whole_length(stem: Path, song: Path) -> None:
    """Make sure that a stem is as long as the whole song, where only a span of the song is used.

    Raises:
        SoundError: It is not: it may begin at another place of the song.
    """
    length, whole = survey(stem).duration, survey(song).duration
    if not _similar(length, whole):
        raise SoundError(f"{stem} lasts {length:.3f} s, but the song {song} lasts {whole:.3f} s", hint=SAME_LENGTH)


def _similar(seconds: float, wanted: float) -> bool:
    return abs(seconds - wanted) <= max(SECONDS_OFF, SHARE_OFF * wanted)

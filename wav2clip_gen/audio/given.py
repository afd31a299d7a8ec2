"""Stems that are there already: files that were named, folders as Demucs and musdb18-HQ write them, and .stem.mp4."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from wav2clip_gen import ffmpeg
from wav2clip_gen.config import MIX
from wav2clip_gen.errors import SettingsError, SoundError

MIXES = (MIX, "mixture")  # what the song is called among its stems
STREAMS = (MIX, "drums", "bass", "other", "vocals")  # of a .stem.mp4, in the order of musdb18
SUFFIXES = frozenset(
    (".aac", ".aif", ".aiff", ".flac", ".m4a", ".mp3", ".mp4", ".oga", ".ogg", ".opus", ".wav", ".wma", ".wv")
)
NAME = r"\w[\w-]*"  # what a stem can be called


@dataclass(frozen=True)
class Given:
    """Where a stem lies."""

    path: Path
    stream: int = 0  # which of the file's sound streams

    def __str__(self) -> str:
        return f"{self.path}, stream {self.stream}" if self.stream else str(self.path)


def resolve_input(path: Path) -> Path:
    """The song that is meant: a folder of stems stands for the mix inside it.

    Raises:
        SoundError: The folder has no mix, or several.
    """
    if not path.is_dir():
        return path
    mix = next((found for name in reversed(MIXES) if (found := _named(path, name))), None)
    if mix is None:
        raise SoundError(
            f"{path} is a folder without a mix in it (mixture.wav, mix.flac, ...)",
            hint=f"give the song, and the folder as --stem-file {path}",
        )
    return mix


def find_given(names: Sequence[str], given: Sequence[str | Path]) -> dict[str, Given]:
    """The stems among `names` that were given; one that was named by itself goes before those of folders.

    Args:
        names: The stems that are wanted.
        given: `NAME=FILE`, folders and .stem.mp4 files.

    Raises:
        SettingsError: It cannot be told which stem a file is, or it is not wanted, or given twice.
        SoundError: There is no such file or folder, or it holds none of the stems.
    """
    if given and not names:
        raise SettingsError("stems are given, but none is used", hint="choose some, as in --stems vocals,drums")
    alone: dict[str, Given] = {}
    together: dict[str, Given] = {}
    for one in given:
        name, path = _split(one)
        if name is None:
            found, into = _collection(path, names), together
        else:
            _check_wanted(name, names)
            found, into = {name: _by_itself(name, path)}, alone
        for twice in found.keys() & into.keys():
            raise SettingsError(
                f"the stem {twice} is given twice: {into[twice]} and {found[twice]}", hint="leave one of them out"
            )
        into.update(found)
    return together | alone


def find_beside(names: Sequence[str], song: Path) -> dict[str, Given]:
    """The stems among `names` that lie with the song: in the same .stem.mp4, or beside a file that is called a mix.

    Raises:
        SoundError: A stem lies there twice.
    """
    if is_stem_file(song):
        return _streams(song, names) if ffmpeg.count_sounds(song) == len(STREAMS) else {}
    return _members(song.parent, names) if song.stem.casefold() in MIXES else {}


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


def _collection(path: Path, names: Sequence[str]) -> dict[str, Given]:
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


def _streams(path: Path, names: Sequence[str]) -> dict[str, Given]:
    return {name: Given(path, STREAMS.index(name)) for name in names if name in STREAMS}


def _members(folder: Path, names: Sequence[str]) -> dict[str, Given]:
    found = {name: _named(folder, name) for name in names}
    return {name: Given(path) for name, path in found.items() if path}


def _named(folder: Path, name: str) -> Path | None:
    """The sound file of that name in a folder, whatever its suffix."""
    try:
        files = sorted(path for path in folder.iterdir() if path.suffix.casefold() in SUFFIXES)
    except OSError as error:
        raise SoundError(f"{folder} cannot be read: {error.strerror}", hint="check its permissions") from error
    found = [path for path in files if path.stem.casefold() == name.casefold() and path.is_file()]
    if len(found) > 1:
        raise SoundError(f"{folder} holds both {found[0].name} and {found[1].name}", hint="name the one that is meant")
    return found[0] if found else None


def _by_itself(name: str, path: Path) -> Given:
    """The file of `NAME=FILE`; of a .stem.mp4, the stream of that name."""
    if not is_stem_file(path) or not path.is_file():
        return Given(path)
    found = _collection(path, [name])
    if not found:
        raise SoundError(f"{path} holds no {name}", hint=f"it has {', '.join(STREAMS[1:])}")
    return found[name]


def _check_wanted(name: str, names: Sequence[str]) -> None:
    if name not in names:
        raise SettingsError(
            f"a file is given for the stem {name}, which is not used",
            hint=f"use it with --stems {','.join([*names, name])}, or leave it out",
        )


def is_stem_file(path: Path) -> bool:
    """Whether a file is named as one that holds a song and its stems."""
    return path.name.casefold().endswith((".stem.mp4", ".stem.m4a"))

"""Stems that exist as files: found by name, in folders (as separators write them), in .stem.mp4; aligned."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Sequence
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
MOST_LISTED = 8  # files that an error names


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
    found = (_members([path], [name]).get(name) for name in reversed(MIXES))
    mix = next(filter(None, found), None)
    if mix is None:
        raise SoundError(
            f"{path} is a folder without a mix in it (mixture.wav, mix.flac, ...)",
            hint=f"give the song, and the folder as --stem-file {path}",
        )
    return mix.path


def find_given(names: Sequence[str], given: Sequence[str | Path], song: Path) -> dict[str, StemFile]:
    """The stems among `names` that the user gave; `NAME=FILE` takes precedence over folders and .stem.mp4 files.

    Args:
        names: The stems that are wanted.
        given: `NAME=FILE`, folders and .stem.mp4 files.
        song: The song, after which separators name files and folders.

    Raises:
        SettingsError: It is unclear which stem a file is, or it is not wanted, or given twice.
        SoundError: There is no such file or folder, or it holds none of the stems, or one of them twice.
    """
    if given and not names:
        raise SettingsError("stems are given, but none is used", hint="choose some, as in --stems vocals,drums")
    single: dict[str, StemFile] = {}
    collected: dict[str, StemFile] = {}
    for one in given:
        name, path = _split(one)
        if name is None:
            found, into = _collection(path, names, song), collected
        elif name in names:
            found, into = {name: _single(name, path, song)}, single
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


def is_in_stem_folder(song: Path) -> bool:
    """Whether the song is called a mix, so that what is called a stem next to it belongs to it."""
    return song.stem.casefold() in MIXES


def find_with_song(names: Sequence[str], song: Path) -> dict[str, StemFile]:
    """The stems among `names` that come with the song.

    They are in its .stem.mp4, or next to a song that is called a mix, or where separators write them: as
    `SONG_(Vocals).wav` and the like next to it, in the folder `SONG`, `output/SONG` or `separated/MODEL/SONG` there.

    Raises:
        SoundError: A stem exists there twice.
    """
    if is_stem_file(song):
        return _streams(song, names) if ffmpeg.count_sounds(song) == len(STREAMS) else {}
    if is_in_stem_folder(song) and (found := _members([song.parent], names)):
        return found
    folder, title = song.parent, song.stem
    models = _folders(folder / "separated")
    places = [folder / title, folder / "output" / title, *(model / title for model in models)]
    return _unique({name: [*_named_after([folder], name, song), *_called(places, name, song)] for name in names})


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


def _collection(path: Path, names: Sequence[str], song: Path) -> dict[str, StemFile]:
    """The stems among `names` in a .stem.mp4 or a folder; for the folder, see `find_with_song`."""
    if not path.is_dir():
        if (count := ffmpeg.count_sounds(path)) != len(STREAMS):
            raise SoundError(
                f"{path} holds {count} sound streams instead of {len(STREAMS)}",
                hint=f"a .stem.mp4 has these, in this order: {', '.join(STREAMS)}",
            )
        return _streams(path, names)
    inside = [path / song.stem, *(folder / song.stem for folder in _folders(path))]
    found = _members([path], names, song) or _members(inside, names, song)
    if not found:
        raise _nothing_found(path, names, song)
    return found


def _nothing_found(folder: Path, names: Sequence[str], song: Path) -> SoundError:
    """The error for a folder without stems of the song: lists what is there, those named like a stem first."""
    what = f"{folder} holds no {' or '.join(names)} of {song.name}"
    level = _folders(folder)
    there = _audio_files([folder, *level, *(inner for one in level for inner in _folders(one))])
    if not there:
        return SoundError(what, hint=f"name its files {names[0]}.wav and so on")
    like = {name: [path for path in there if name.casefold() in path.stem.casefold()] for name in names}
    first = list(dict.fromkeys([path for paths in like.values() for path in paths] + there))
    listed = ", ".join(str(path.relative_to(folder)) for path in first[:MOST_LISTED])
    more = f" and {len(first) - MOST_LISTED} more" if len(first) > MOST_LISTED else ""
    proposed = {name: paths[0] for name, paths in like.items() if len(paths) == 1} or {names[0]: Path("FILE")}
    return SoundError(f"{what}; there are {listed}{more}", hint=f"name them: {_as_options(proposed)}")


def _as_options(files: dict[str, Path]) -> str:
    return " ".join(f"--stem-file {shlex.quote(f'{name}={file}')}" for name, file in files.items())


def _single(name: str, path: Path, song: Path) -> StemFile:
    """The file of `NAME=FILE`; of a .stem.mp4, the stream of that name."""
    if not is_stem_file(path) or not path.is_file():
        return StemFile(path)
    found = _collection(path, [name], song)
    if not found:
        raise SoundError(f"{path} holds no {name}", hint=f"it has {', '.join(STREAMS[1:])}")
    return found[name]


def _streams(path: Path, names: Sequence[str]) -> dict[str, StemFile]:
    return {name: StemFile(path, STREAMS.index(name)) for name in names if name in STREAMS}


def _members(folders: Iterable[Path], names: Sequence[str], song: Path | None = None) -> dict[str, StemFile]:
    """The audio files in folders that are called one of `names`, or that and the name of the song.

    Raises:
        SoundError: A stem exists twice.
    """
    return _unique({name: _called(folders, name, song) for name in names})


def _unique(found: dict[str, list[Path]]) -> dict[str, StemFile]:
    for name, paths in found.items():
        if len(paths) > 1:
            raise SoundError(
                f"several files may be the stem {name}: {', '.join(map(str, paths[:MOST_LISTED]))}",
                hint=f"name the one that is meant: {_as_options({name: paths[0]})}",
            )
    return {name: StemFile(paths[0]) for name, paths in found.items() if paths}


def _called(folders: Iterable[Path], name: str, song: Path | None) -> list[Path]:
    """The audio files in folders called `vocals.wav`, whatever their suffix and capitals, or see `_named_after`."""
    plain = [path for path in _audio_files(folders) if path.stem.casefold() == name.casefold()]
    return plain + (_named_after(folders, name, song) if song else [])


def _named_after(folders: Iterable[Path], name: str, song: Path) -> list[Path]:
    """The audio files called `SONG_vocals`, `SONG-vocals`, `SONG.vocals`, `1_SONG_(Vocals)_MODEL` or the like.

    No mp4: such a film may be one of ours, with the sound of the whole song.
    """
    title, name = re.escape(song.stem.casefold()), re.escape(name.casefold())
    pattern = re.compile(rf"(\d+_)?{title}[ _.-]+({name}|\({name}\)([ _.-].*)?)")
    files = (path for path in _audio_files(folders) if path.suffix.casefold() != ".mp4")
    return [path for path in files if pattern.fullmatch(path.stem.casefold())]


def _audio_files(folders: Iterable[Path]) -> list[Path]:
    """The audio files in those of the folders that exist."""
    files = (path for folder in folders if folder.is_dir() for path in _entries(folder))
    return [path for path in files if path.suffix.casefold() in SUFFIXES and path.is_file()]


def _folders(folder: Path) -> list[Path]:
    """The folders in a folder, if that exists."""
    return [path for path in _entries(folder) if path.is_dir()] if folder.is_dir() else []


def _entries(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError as error:
        raise SoundError(f"{folder} cannot be read: {error.strerror}", hint="check its permissions") from error


def align_stem(file: StemFile, song: Track) -> tuple[Track, str | None]:
    """Open a stem as a track of exactly the song's span, sample rate and samples, so that one timeline fits both.

    What is missing at its end is silence, what is too much is cut; a note tells it, unless it is a little. The
    channels stay as they are.

    Raises:
        SoundError: The file cannot be read, or it ends before the song's span.
        VideoError: ffmpeg is missing.
    """
    stem = survey(file.path, start=song.start, duration=None if song.whole else song.duration, stream=file.stream)
    decoded = min(song.samples, round(stem.samples * song.sample_rate / stem.sample_rate))
    aligned = replace(stem, sample_rate=song.sample_rate, samples=song.samples, decoded=decoded, whole=False)
    if stem.samples and _similar(stem.duration, song.duration):
        return aligned, None
    length, end = survey(file.path, stream=file.stream).duration, song.start + song.duration
    what = f"{file.path} lasts {length:.3f} s, but the song {song.path} is used up to {end:.3f} s"
    if stem.samples == 0:
        raise SoundError(f"{what}, from {song.start:.3f} s on", hint="a stem begins where its song begins")
    return aligned, f"{what}: {'silence follows' if stem.duration < song.duration else 'the rest is left out'}"


def differing_length(stem: Path, song: Path) -> str | None:
    """How the length of a stem differs from that of the whole song; None where both are about the same."""
    length, whole = survey(stem).duration, survey(song).duration
    if _similar(length, whole):
        return None
    return f"{stem} lasts {length:.3f} s, but the song {song} lasts {whole:.3f} s"


def _similar(seconds: float, wanted: float) -> bool:
    return abs(seconds - wanted) <= max(SECONDS_OFF, SHARE_OFF * wanted)

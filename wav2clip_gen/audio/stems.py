"""The stems of a song, vocals, drums, bass and other: given as files, or separated from the song."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from wav2clip_gen.audio import stem_cache, stem_files
from wav2clip_gen.audio.separation import STEMS, DspSeparator, Separator
from wav2clip_gen.audio.stem_files import StemFile
from wav2clip_gen.audio.track import Track
from wav2clip_gen.config import SEPARATORS
from wav2clip_gen.errors import OutputError, SettingsError, SoundError, W2CError
from wav2clip_gen.files import appear_whole, check_output

__all__ = ["STEMS", "StemPlan", "plan_stems", "separator_version"]

FULL_SCALE = 1 - 2**-23  # the largest sample that 24 bits hold
MOST_CHANNELS = 8  # of a FLAC file
OTHER_FOLDER = "choose another one with --keep-stems"


@dataclass(frozen=True, eq=False)
class StemPlan:
    """Where each stem of a song comes from, checked; nothing is separated yet."""

    song: Track
    names: tuple[str, ...]
    given: dict[str, Track]  # each with the song's span, sample rate and number of samples
    origins: dict[str, str]  # of every name: a file, or the separator
    maker: Separator | None  # of the others; None where all stems are given
    notes: tuple[str, ...] = ()  # about lengths that differ from the song's, a line each

    @property
    def separator(self) -> str | None:
        """The separator in use, "demucs" or "dsp"; None where all stems are given."""
        return self.maker.name if self.maker else None

    def check_places(self, *, keep: Path | None = None, overwrite: bool = False) -> None:
        """Make sure that the stems can be written, before any work is done; the arguments are those of `load`.

        Raises:
            OutputError: The cache or `keep` cannot be written to, or holds files that may not be replaced.
        """
        if self.maker is None:
            return
        try:
            stem_cache.check_cache()
        except OutputError:
            if not self.is_separated():  # else it need not be written to
                raise
        if keep:
            self._check_keep(keep, overwrite=overwrite)

    def is_separated(self) -> bool:
        """Whether all stems exist already, given or cached, as far as is known without fetching weights."""
        if self.maker is None or not self.maker.is_ready:
            return self.maker is None
        return stem_cache.load_entry(stem_cache.entry_of(self.song, self.maker), self.song) is not None

    def load(
        self,
        *,
        keep: Path | None = None,
        overwrite: bool = False,
        on_progress: Callable[[float], None] = lambda share: None,
    ) -> dict[str, Track]:
        """All stems in the order of `names`, separated now where they must be.

        Each has the song's sample rate and number of samples; channels, and `start` in its own file, are its own.

        Args:
            keep: Folder into which the separated stems are copied, all four, as `vocals.flac` and so on.
            overwrite: Replace older files there.
            on_progress: Called with the share of the song that is separated, from 0 to 1.

        Raises:
            OutputError: The cache or `keep` cannot be written to, or holds files that may not be replaced.
            SoundError: The song changed while it was read.
        """
        if self.maker is None:
            return {name: self.given[name] for name in self.names}
        self.check_places(keep=keep, overwrite=overwrite)
        entry = stem_cache.entry_of(self.song, self.maker)
        made = stem_cache.load_entry(entry, self.song)
        if made is None:
            made = stem_cache.fill_entry(entry, self.song, self.maker, on_progress=on_progress)
        if keep:
            keep_stems(made, keep)
        return {name: self.given.get(name) or made[name] for name in self.names}

    def _check_keep(self, folder: Path, *, overwrite: bool) -> None:
        """Make sure that separated stems can be kept in a folder.

        They may not lie next to a song of which they are only a span, because they would later be used for the whole.
        """
        if not self.song.whole and folder.resolve() == self.song.path.resolve().parent:
            raise OutputError(
                f"stems of a part of {self.song.path} would be stored next to it as if they were of the whole",
                hint=OTHER_FOLDER,
            )
        with stem_cache.describe_write_errors(folder, OTHER_FOLDER):
            folder.mkdir(parents=True, exist_ok=True)
        for name in STEMS:
            target = folder / f"{name}.flac"
            if any(target.exists() and target.samefile(track.path) for track in (self.song, *self.given.values())):
                raise OutputError(f"{target} is used in this film, so it cannot be replaced", hint=OTHER_FOLDER)
            check_output(target, overwrite=overwrite, option="--keep-stems")


def keep_stems(stems: dict[str, Track], folder: Path) -> None:
    """Copy stems into a folder, as 24-bit NAME.flac; if one would be clipped, all are scaled by the same factor.

    Raises:
        OutputError: The folder cannot be written to.
    """
    loudest = max(float(np.abs(block).max()) for track in stems.values() for block in track.blocks())
    factor = np.float32(min(1.0, FULL_SCALE / max(loudest, FULL_SCALE)))
    with stem_cache.describe_write_errors(folder, OTHER_FOLDER):
        for name, track in stems.items():
            appearing = appear_whole(folder / f"{name}.flac", option="--keep-stems")
            with appearing as part, stem_cache.create_audio(part, track, "FLAC", "PCM_24") as file:
                for block in track.blocks():
                    file.write(block.T * factor)


def plan_stems(
    track: Track,
    names: Sequence[str],
    *,
    given: Sequence[str | Path] = (),
    separator: str = "auto",
    demucs_repo: Path | None = None,
) -> StemPlan:
    """Find out where the stems of a track come from, without separating anything.

    In this order: what is `given`; what comes with the track (see `find_with_song`), unless a separator is chosen by
    name; what a separator makes.

    Args:
        track: The song.
        names: The stems that are wanted; given ones may have other names than `STEMS`.
        given: `NAME=FILE`, folders that hold `vocals.wav` and so on, or .stem.mp4 files.
        separator: One of `config.SEPARATORS`; "auto" is Demucs where it and its model are available, else "dsp".
        demucs_repo: Folder of Demucs' weights, instead of `W2C_DEMUCS_REPO` or the published ones.

    Raises:
        SettingsError: There is no such stem or separator.
        SoundError: A given file cannot be read, or does not belong to this song, or it has too many channels.
        W2CError: Demucs is chosen, and it or its weights are missing.
    """
    if separator not in SEPARATORS:
        raise SettingsError(f"no separator is called {separator!r}", hint=f"choose from: {', '.join(SEPARATORS)}")
    names = tuple(dict.fromkeys(names))
    for name in names:
        if name.casefold() in stem_files.MIXES:
            raise SettingsError(f"{name} is the song, not a stem", hint=f"separated stems are {', '.join(STEMS)}")
        if not re.fullmatch(stem_files.NAME, name):
            raise SettingsError(f"{name!r} is no name of a stem", hint=f"such as {', '.join(STEMS)}")
    chosen = stem_files.find_given(names, given, track.path)
    notes: list[str] = []
    others = [name for name in names if name not in chosen]
    files = (_find_implicit(others, track, notes) if separator == "auto" else {}) | chosen
    missing = [name for name in names if name not in files]
    for name in missing:
        if name not in STEMS:
            near = difflib.get_close_matches(name.casefold(), STEMS, n=1)
            meant = f"did you mean {near[0]}? else " if near else ""
            raise SettingsError(
                f"no stem is called {name!r}",
                hint=f"{meant}choose from: {', '.join(STEMS)}, or give its file: --stem-file {name}=FILE",
            )
    found = {}
    for name, file in files.items():
        with nullcontext() if name in chosen else _hint_to_ignore():
            found[name], note = stem_files.align_stem(file, track)
        notes += [note] if note else []
    maker = _choose_separator(separator, track, demucs_repo) if missing else None
    origins = {name: str(files[name]) if name in files or maker is None else maker.name for name in names}
    return StemPlan(track, names, found, origins, maker, tuple(notes))


def _find_implicit(names: Sequence[str], song: Track, notes: list[str]) -> dict[str, StemFile]:
    """The stems that come with the song; those of another length are noted, and only used next to a mix."""
    found = stem_files.find_with_song(names, song.path)
    named_mix = stem_files.is_in_stem_folder(song.path)
    for name, file in list(found.items()):
        if file.path == song.path or (named_mix and song.whole):  # then alignment tells it
            continue
        with _hint_to_ignore():
            difference = stem_files.differing_length(file.path, song.path)
        if difference and named_mix:
            notes.append(f"{difference}: both are used as if they began together")
        elif difference:
            del found[name]
            notes.append(f"{difference}: it is not used; to use it, --stem-file {name}={file}")
    return found


@contextmanager
def _hint_to_ignore() -> Iterator[None]:
    """Tell how to do without a stem that comes with the song, if it cannot be read."""
    try:
        yield
    except SoundError as error:
        hint = "it is stored with the song: --separator dsp uses no stems from there"
        raise SoundError(error.what, hint=hint) from error


def separator_version(name: str, demucs_repo: Path | None = None) -> str | None:
    """What a separator's stems depend on, for the run record; None where it or its weights are not available."""
    from wav2clip_gen.audio.demucs import find_demucs

    if name != "demucs":
        return DspSeparator.version
    try:
        found = find_demucs(required=False, repo=demucs_repo, channels=1)
    except W2CError:
        return None
    return found.version if found else None


def _choose_separator(name: str, song: Track, demucs_repo: Path | None) -> Separator:
    from wav2clip_gen.audio.demucs import find_demucs

    if song.channels > MOST_CHANNELS:
        raise SoundError(
            f"{song.path} has {song.channels} channels, at most {MOST_CHANNELS} can be separated",
            hint="make a version with fewer channels first, or give its stems with --stem-file",
        )
    demucs = name != "dsp" and find_demucs(required=name == "demucs", repo=demucs_repo, channels=song.channels)
    return demucs or DspSeparator()

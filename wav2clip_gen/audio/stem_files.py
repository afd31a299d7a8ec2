"""Files of stems: FLAC with 24 bits, in a folder that a person chose with --keep-stems, or in the cache."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from wav2clip_gen.audio.separation import STEMS
from wav2clip_gen.audio.track import Track
from wav2clip_gen.errors import OutputError
from wav2clip_gen.files import appear_whole, check_output

if TYPE_CHECKING:
    from soundfile import SoundFile

FULL_SCALE = 1 - 2**-23  # the largest sample that 24 bits hold
MOST_CHANNELS = 8  # of a FLAC file
OTHER_FOLDER = "choose another one with --keep-stems"


def check_keep(folder: Path, song: Track, heard: Iterable[Track] = (), *, overwrite: bool = False) -> None:
    """Make sure that separated stems can be kept in a folder, before they are separated.

    Args:
        folder: Where they shall go.
        song: What they are separated from.
        heard: Other tracks that must not be replaced.
        overwrite: Replace older files.

    Raises:
        OutputError: It cannot be written to, or holds stems that may not be replaced, or these would later be taken
            for stems of the whole song, which they are not.
    """
    if not song.whole and folder.resolve() == song.path.resolve().parent:
        raise OutputError(
            f"stems of a part of {song.path} would lie beside it as if they were of the whole", hint=OTHER_FOLDER
        )
    with writing_told(folder, OTHER_FOLDER):
        folder.mkdir(parents=True, exist_ok=True)
    for name in STEMS:
        target = file_of(folder, name)
        for track in (song, *heard):
            if target.exists() and target.samefile(track.path):
                raise OutputError(f"{target} is heard in this film, so it cannot be replaced", hint=OTHER_FOLDER)
        check_output(target, overwrite=overwrite, option="--keep-stems")


def keep_stems(stems: dict[str, Track], folder: Path) -> None:
    """Copy stems into a folder, as NAME.flac with 24 bits; all quieter by the same factor if one would be clipped.

    Raises:
        OutputError: The folder cannot be written to.
    """
    loudest = max(float(np.abs(block).max()) for track in stems.values() for block in track.blocks())
    factor = np.float32(min(1.0, FULL_SCALE / max(loudest, FULL_SCALE)))
    with writing_told(folder, OTHER_FOLDER):
        for name, track in stems.items():
            with appear_whole(file_of(folder, name), option="--keep-stems") as part, write_flac(part, track) as file:
                for block in track.blocks():
                    file.write(block.T * factor)


def file_of(folder: Path, name: str) -> Path:
    """The file of a stem in a folder."""
    return folder / f"{name}.flac"


def write_flac(path: Path, like: Track) -> SoundFile:
    """Open a file that is written with the sample rate and the channels of a track."""
    import soundfile

    return soundfile.SoundFile(
        path, "w", samplerate=like.sample_rate, channels=like.channels, format="FLAC", subtype="PCM_24"
    )


@contextmanager
def writing_told(folder: Path, hint: str) -> Iterator[None]:
    """Tell what went wrong while stems were written into a folder.

    Raises:
        OutputError: Something did; `hint` is what can be done.
    """
    import soundfile

    try:
        yield
    except (OSError, soundfile.LibsndfileError) as error:
        what = error.strerror if isinstance(error, OSError) else str(error)
        raise OutputError(f"stems cannot be written into {folder}: {what}", hint=hint) from error

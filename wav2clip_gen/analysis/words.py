"""What the sound encoder hears in a span of a track, as the nearest of some words, and whether it is guessing."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from wav2clip_gen.audio.windows import Timeline
from wav2clip_gen.errors import SettingsError

if TYPE_CHECKING:
    from wav2clip_gen.models.registry import Models

EVERYDAY = Path(__file__).with_name("everyday.txt")  # sounds, scenes and instruments, most of them known to `mini`
FEWEST = 10  # words in a vocabulary, for a margin to mean something
SHOWN = 3
SILENT = 1e-3  # of a track's loud places (-60 dB): what is less loud has nothing to say

# Standard deviations from the vocabulary's mean that the best word must reach. With `mini` and `everyday.txt`, over the
# 267 pieces that its encoder was not trained on: of the 130 that reach it 68 % have the right word (or a near one, as
# lightning for a thunderstorm) first, of the others 24 %. Of eleven noises and steady tones two reach it (3.6), and of
# random directions of the space one in twenty. It was not calibrated for other networks or other words.
SURE = 3.5


@dataclass(frozen=True)
class Word:
    """A word and how near it is."""

    text: str
    cosine: float  # to the sound
    margin: float  # of the cosine over the vocabulary's mean, in the vocabulary's standard deviations


@dataclass(frozen=True)
class Meaning:
    """The nearest words of a span, best first; none where it is silent."""

    words: tuple[Word, ...]

    @property
    def guessing(self) -> bool:
        """Whether the best word is not far enough above the rest to be believed."""
        return not self.words or self.words[0].margin < SURE


def read_words(path: Path = EVERYDAY) -> tuple[str, ...]:
    """Words or phrases from a file, one a line; empty lines and repetitions are left out.

    Raises:
        SettingsError: The file cannot be read, or holds too few.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        raise SettingsError(f"{path}: cannot be read ({error.strerror})", hint="give a text file to --words") from None
    except UnicodeDecodeError:
        raise SettingsError(f"{path}: not a text in UTF-8", hint="save it as UTF-8, one word a line") from None
    words = tuple(dict.fromkeys(line.strip() for line in lines if line.strip()))
    if len(words) < FEWEST:
        raise SettingsError(
            f"{path}: holds {len(words)} words, too few to compare", hint=f"give {FEWEST} or more, one a line"
        )
    return words


def name_spans(
    heard: NDArray[np.floating],
    timeline: Timeline,
    edges: NDArray[np.float64],
    loudness: NDArray[np.float64],
    *,
    family: Models,
    words: tuple[str, ...],
) -> list[Meaning]:
    """Put each span of a track into words, from the windows that a film would be painted after.

    Args:
        heard: (W, D) unit vectors of the windows.
        timeline: Windows and frames of the track.
        edges: Where spans begin and end, (S + 1,) seconds.
        loudness: (F,) in [0, 1]; the louder a window, the more it has to say in its span.
        family: Networks that hear and read.
        words: The vocabulary.
    """
    vocabulary = family.clip.encode_text(list(words)).detach().cpu().numpy()
    centres = np.arange(len(heard)) * timeline.hop
    frames = np.minimum((centres * float(timeline.fps)).astype(np.int64), timeline.frames - 1)
    firsts = [frames_of(timeline, start, stop).start for start, stop in pairwise(edges.tolist())]
    spans = np.searchsorted(firsts, frames, side="right") - 1
    meanings = []
    for span in range(len(edges) - 1):
        inside = spans == span
        weights = loudness[frames[inside]]
        mean = np.where(weights < SILENT, 0, weights) @ heard[inside]
        length = float(np.linalg.norm(mean))
        meanings.append(Meaning(nearest(mean / length, vocabulary, words) if length > 0 else ()))
    return meanings


def frames_of(timeline: Timeline, start: float, stop: float) -> slice:
    """The frames that lie (mostly) between two seconds, at least one: an attack belongs to what it begins."""
    first, after = (round(second * float(timeline.fps)) for second in (start, stop))
    first = min(first, timeline.frames - 1)
    return slice(first, max(after, first + 1))


def nearest(sound: NDArray[np.floating], vocabulary: NDArray[np.floating], words: tuple[str, ...]) -> tuple[Word, ...]:
    """The nearest words of a unit vector (D,), best first; `vocabulary` holds the words' unit vectors (N, D)."""
    cosines = vocabulary @ sound
    margins = (cosines - cosines.mean()) / max(float(cosines.std()), 1e-12)
    best = np.argsort(-cosines)[:SHOWN]
    return tuple(Word(words[index], float(cosines[index]), float(margins[index])) for index in best)

"""Score a film of any program: the offset of its sound, how well its picture follows it, and flicker."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from wav2clip_gen.audio.decode import FEATURE_RATE, decode
from wav2clip_gen.audio.features import measure
from wav2clip_gen.audio.timeline import Timeline
from wav2clip_gen.audio.track import Track, open_track
from wav2clip_gen.errors import VideoError
from wav2clip_gen.video.reactivity import Onsets, Reactivity, measure_reactivity, visual_change
from wav2clip_gen.video.verify import MAX_LAG_SECONDS, FilmFacts, measure_offsets, probe


@dataclass(frozen=True, kw_only=True)
class Score:
    """What was measured of a film."""

    film: Path
    song: Path | None  # None: the film's own sound
    start: float  # seconds of the song before the film
    frames: int
    fps: float  # frames per second, the mean where it changes
    seconds: float  # of picture
    offsets: tuple[float | None, ...] | None  # seconds by which the sound is later than the song; see `measure_offsets`
    reactivity: Reactivity
    flicker: float | None  # mean difference of neighbouring frames, as a share of full scale; None: there is one frame
    notes: tuple[str, ...]


def score_film(film: Path, song: Path | None = None, *, start: float = 0.0) -> Score:
    """Measure a film against a song, or against its own sound.

    Args:
        film: Any film that ffmpeg can decode.
        song: What it plays; its sound is compared with it, and the onsets are those of the song.
        start: Seconds of the song before the film.

    Raises:
        W2CError: The film has no picture, there is no sound, or the film plays another song.
    """
    if not film.is_file():
        raise VideoError(f"{film}: {'a folder' if film.is_dir() else 'no such file'}", hint="give a film")
    facts = probe(film)
    track = _sound(film, facts) if song is None else open_track(song, start=start, duration=_common_seconds(facts))
    timeline = Timeline.of(track, fps=facts.fps)
    change = visual_change(film, fps=None if facts.steady else timeline.fps)
    features = measure(decode(track, timeline, [FEATURE_RATE]), timeline)
    return Score(
        film=film,
        song=song,
        start=start,
        frames=facts.frames,
        fps=float(facts.fps),
        seconds=facts.picture_seconds,
        offsets=_offsets(facts.sound, track) if song and facts.sound and facts.sound.samples else None,
        reactivity=measure_reactivity(change, Onsets.of(features, timeline.fps), timeline.fps),
        flicker=float(change[1:].mean()) if len(change) > 1 else None,
        notes=tuple(_notes(facts, track, own=song is None)),
    )


def _sound(film: Path, facts: FilmFacts) -> Track:
    """A film's own sound, as far as there is a picture."""
    if facts.sound is None or facts.sound.samples == 0:
        raise VideoError(f"{film} has no sound", hint=f"name the song that it shows: w2c-gen score {film} song.wav")
    return open_track(film, duration=facts.picture_seconds)


def _common_seconds(facts: FilmFacts) -> float:
    """Seconds with both picture and sound; those of the picture where a film has no sound, or all but a frame of it."""
    short = 0 < facts.sound_seconds < facts.picture_seconds - 1 / facts.fps
    return facts.sound_seconds if short else facts.picture_seconds


def _offsets(sound: Track, song: Track) -> tuple[float | None, ...]:
    try:
        return measure_offsets(sound, song)
    except VideoError as error:
        hint = f"name the song of the film, and with --start where in it the film begins, to within {MAX_LAG_SECONDS} s"
        raise VideoError(error.what, hint=hint) from None


def _notes(facts: FilmFacts, track: Track, *, own: bool) -> Iterator[str]:
    """What limits the figures, a line each."""
    if not facts.steady:
        yield f"the frames are shown for different times; they are compared at {float(facts.fps):.6g} frames per second"
    if facts.sound is None:
        yield f"the film has no sound; its picture is compared with {track.path.name}"
    if facts.picture_seconds - track.duration > 1 / facts.fps:
        yield f"only the first {track.duration:.2f} s have picture and sound"
    elif not own and not track.whole:
        yield f"compared with {track.duration:.2f} s of {track.path.name}, from {track.start:.2f} s on"
    yield from track.notes

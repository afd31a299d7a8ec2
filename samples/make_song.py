"""Assemble the four-stem sample song from CC0 loops and single sounds.

    python samples/make_song.py SOURCES [--out samples/song]

Eight bars at 120 beats a minute, in E minor. The guitar begins alone, the bass joins in bar 2, the drums in
bar 3, the choir sings from bar 4 to bar 6, and the bass leaves after bar 6.

The mix is the sum of the stems, sample for sample, before each is encoded for itself.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

Stereo = NDArray[np.float64]  # (n, 2)

RATE = 44_100  # Hz
BAR = 2.0  # seconds: four beats at 120 beats a minute
BARS = 8
FADE = 0.01  # seconds, at every edit
PEAK = 0.9  # of the mix
QUALITY = 0.55  # libsndfile's compression level, 0 (best) to 1 (smallest)


def main() -> None:
    """Read the sources, write mix and stems."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("sources", type=Path, help="folder with the CC0 source sounds as flac")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "song", help="folder for the song")
    options = parser.parse_args()
    stems = normalised(arrange(options.sources))
    options.out.mkdir(parents=True, exist_ok=True)
    for name, sound in {"mix": sum_of(stems), **stems}.items():
        path = options.out / f"{name}.ogg"
        write(path, sound)
        print(f"{path}  {len(sound) / RATE:.3f} s  peak {np.abs(sound).max():.3f}")


def arrange(sources: Path) -> dict[str, Stereo]:
    """The four stems, each as long as the song."""
    loop, bass_note, choir = (read(sources, name) for name in ("loop_mika", "bass_woodsy_c", "ambi_choir"))
    guitar, fifths = read(sources, "guit_em9"), read(sources, "guit_e_fifths")
    drums, bass, other, vocals = (silence(BARS * BAR) for _ in range(4))

    place(other, cut(guitar, 5 * BAR), bar=1)
    place(other, cut(fifths, 3 * BAR, fade_out=1.5), bar=6)
    place(drums, cut(loop, 4 * BAR), bar=3, gain=0.6)
    place(drums, cut(loop, 2 * BAR, fade_out=0.5), bar=7, gain=0.6)
    for bar, semitones in zip(range(2, 7), (4, 4, 0, 2, 4), strict=True):  # E E C D E
        note = transposed(bass_note, semitones)
        place(bass, cut(note, 0.75 * BAR, fade_out=0.3), bar=bar, gain=0.45)
        place(bass, cut(note, 0.25 * BAR, fade_out=0.1), bar=bar + 0.75, gain=0.35)
    for beat, semitones in enumerate((0, 3, 0, 7, 3, 0)):  # E G E B G E, a voice every two beats
        voice = transposed(choir, semitones)
        place(vocals, cut(voice, min(1.1, len(voice) / RATE), fade_out=0.4), bar=4 + beat / 2, gain=1.3)
    return {"vocals": vocals, "drums": drums, "bass": bass, "other": other}


def read(sources: Path, name: str) -> Stereo:
    """A source sound, in stereo."""
    sound, rate = soundfile.read(sources / f"{name}.flac", always_2d=True)
    if rate != RATE:
        raise SystemExit(f"error: {name}.flac has {rate} Hz instead of {RATE} Hz")
    return np.repeat(sound, 2, axis=1) if sound.shape[1] == 1 else sound


def silence(seconds: float) -> Stereo:
    """Nothing, for a while."""
    return np.zeros((round(seconds * RATE), 2))


def cut(sound: Stereo, seconds: float, *, fade_out: float = FADE) -> Stereo:
    """The first `seconds`, or what there is of them, with soft edges."""
    piece = sound[: round(seconds * RATE)].copy()
    rise, fall = round(FADE * RATE), round(fade_out * RATE)
    piece[:rise] *= np.linspace(0, 1, rise)[:, None]
    piece[-fall:] *= np.linspace(1, 0, fall)[:, None]
    return piece


def transposed(sound: Stereo, semitones: int) -> Stereo:
    """The sound played faster, and so higher."""
    return soxr.resample(sound, RATE * 2 ** (semitones / 12), RATE) if semitones else sound


def place(stem: Stereo, piece: Stereo, *, bar: float, gain: float = 1.0) -> None:
    """Add a piece to a stem; bars are counted from 1, as musicians do."""
    first = round((bar - 1) * BAR * RATE)
    room = stem[first : first + len(piece)]
    room += gain * piece[: len(room)]


def sum_of(stems: dict[str, Stereo]) -> Stereo:
    """The mix."""
    return np.sum(list(stems.values()), axis=0)


def normalised(stems: dict[str, Stereo]) -> dict[str, Stereo]:
    """The stems with one gain for all of them, so that the mix peaks at `PEAK`."""
    gain = PEAK / np.abs(sum_of(stems)).max()
    return {name: gain * sound for name, sound in stems.items()}


def write(path: Path, sound: Stereo) -> None:
    """Write an ogg, second by second: libsndfile's Vorbis encoder does not take long arrays at once."""
    with soundfile.SoundFile(path, "w", RATE, 2, format="OGG", subtype="VORBIS", compression_level=QUALITY) as file:
        for first in range(0, len(sound), RATE):
            file.write(sound[first : first + RATE])


if __name__ == "__main__":
    main()

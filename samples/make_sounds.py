"""Remake the contact sheets of sounds: one row each, eight frames of two seconds of film.

python samples/make_sounds.py [--data DATA]

sounds.png shows the free sounds of this folder. With the training data's folder, held-out.png shows sounds that the
family was not trained on: the first held-out piece of each label, without a selection by its film.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rows import Row, along, sheet

from wav2clip_gen import load_family
from wav2clip_gen.audio.track import ENCODER_RATE, open_track
from wav2clip_gen.config import settings_from
from wav2clip_gen.evaluation.film import SECONDS, loudest_start, render_sound
from wav2clip_gen.evaluation.held_out import HeldOut
from wav2clip_gen.models.registry import Models
from wav2clip_gen.training.mini.audio import AudioExample

HERE = Path(__file__).parent
SIDE = 96  # of a picture on the sheet, px
SEED = 7
SETTINGS = settings_from(preset="still")
FREE = {
    "djembe": "africa.ogg", "tabla": "sounds/tabla.ogg", "drums": "song/drums.ogg", "bass": "song/bass.ogg",
    "guitar": "song/other.ogg", "choir": "song/vocals.ogg", "bell": "sounds/bell.ogg", "glass hum": "sounds/glass.ogg",
}  # fmt: skip
HELD_OUT = (
    "sea_waves", "rain", "thunderstorm", "crackling_fire", "chirping_birds", "dog", "cat", "rooster", "cow", "train",
    "helicopter", "clock_tick", "violin", "saxophone",
)  # fmt: skip


def main() -> None:
    """Render, lay out, save."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, help="folder of the training data")
    options = parser.parse_args()
    family = load_family("mini")
    save((read(name, HERE / path) for name, path in FREE.items()), family, HERE / "sounds.png")
    if options.data is not None:
        save(held_out(options.data), family, HERE / "held-out.png")


def read(name: str, path: Path) -> AudioExample:
    """A sound file as the encoder gets it."""
    mono = np.concatenate(list(open_track(path).mono_blocks(ENCODER_RATE)))
    return AudioExample.from_samples((mono.clip(-1, 1) * 32767).astype(np.int16), key=name, set="samples", label=name)


def held_out(data: Path) -> list[AudioExample]:
    """The first held-out piece of each label."""
    pieces = HeldOut(data).all_sounds
    return [next(piece for piece in pieces if piece.label == label) for label in HELD_OUT]


def save(sounds: Iterable[AudioExample], family: Models, path: Path) -> None:
    """Render each sound and write the sheet."""
    rows = []
    for sound in sounds:
        rows.append(row(sound, family))
        print(f"{path.name}: {sound.label}")
    page = sheet(rows, side=SIDE)
    # 256 colours make a third of the file; Pillow dithers only towards a palette that it is given
    page.quantize(palette=page.quantize()).save(path, optimize=True)
    print(f"{path.name}: {path.stat().st_size / 2**20:.2f} MiB")


def row(sound: AudioExample, family: Models) -> Row:
    """Render the loudest stretch of a sound."""
    frames, _ = render_sound(family, sound, SETTINGS, seed=SEED)
    shown = along(len(frames))
    pictures = (255 * frames[shown].permute(0, 2, 3, 1)).round().byte().numpy()
    labels = [f"{at / SETTINGS.picture.fps:.1f} s" for at in shown]
    return Row(sound.label.replace("_", " "), list(pictures), labels, loudness(sound, len(frames)))


def loudness(sound: AudioExample, frames: int) -> NDArray[np.float64]:
    """How loud each frame of the film is, as a share of the loudest."""
    start = round(loudest_start(sound.samples) * ENCODER_RATE)
    samples = sound.samples[start : start + round(SECONDS * ENCODER_RATE)].astype(np.float64)
    levels = np.array([np.sqrt(np.square(frame).mean()) for frame in np.array_split(samples, frames)])
    return levels / max(levels.max(), 1.0)


if __name__ == "__main__":
    main()

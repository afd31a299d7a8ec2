"""Remake the picture of the presets that the README shows: a row of frames of each, with the sample song.

python samples/make_presets.py
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
from PIL import Image
from rows import COLUMNS, Row, along, sheet

from wav2clip_gen import Settings, load_family, render
from wav2clip_gen.config import settings_from
from wav2clip_gen.prompts import read_prompts

HERE = Path(__file__).parent
SONG = HERE / "song" / "mix.ogg"
STARTS = {"pulse": 4.0, "dream": 4.0, "lyric": 4.0, "storyboard": 1.0}  # seconds
LENGTH = 6.0  # seconds
STROKE = 94  # the frame of `pulse` before a strong drum stroke, which lasts half a second; every second one is shown
SIDE = 96  # px
SEED = 7


def main() -> None:
    """Render, lay out, save."""
    family, rows = load_family("mini"), []
    with tempfile.TemporaryDirectory() as folder:
        for name, start in STARTS.items():
            settings = of_preset(name, start)
            frames_dir = Path(folder) / name
            film = render(SONG, Path(folder) / f"{name}.mp4", settings, family=family, frames_dir=frames_dir)
            print(f"{name}: {film.frames} frames, {film.timings['optimize'] / film.seconds:.2f} s per second of song")
            shown = list(range(STROKE, STROKE + 2 * COLUMNS, 2)) if name == "pulse" else along(film.frames)
            pictures = [np.asarray(Image.open(frames_dir / f"{index:06d}.png")) for index in shown]
            rows.append(Row(name, pictures, [f"{start + index / settings.picture.fps:.2f} s" for index in shown]))
    sheet(rows, side=SIDE).save(HERE / "presets.png", optimize=True)
    print(f"presets.png: {(HERE / 'presets.png').stat().st_size / 1000:.0f} kB")


def of_preset(name: str, start: float) -> Settings:
    """What is made of the song; `lyric` has words."""
    settings = settings_from(preset=name).merged({"sound": {"start": start, "duration": LENGTH}, "run": {"seed": SEED}})
    return settings.merged({"prompts": read_prompts(HERE / "song.lrc")}) if name == "lyric" else settings


if __name__ == "__main__":
    main()

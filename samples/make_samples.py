"""Remake what the README shows: a contact sheet of two films and some words.

python samples/make_samples.py
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from rows import Picture, Row, along, sheet

from wav2clip_gen import Settings, load_family, render
from wav2clip_gen.audio.decode import decode
from wav2clip_gen.audio.smoothing import normalize_to_peak
from wav2clip_gen.audio.timeline import Timeline
from wav2clip_gen.audio.track import open_track

HERE = Path(__file__).parent
SONGS = {"africa.ogg": HERE / "africa.ogg", "song/mix.ogg": HERE / "song" / "mix.ogg"}
WORDS = ("the sea", "a forest", "a sunflower", "a street", "a mountain", "a guitar", "a sunset", "a leopard")
SEED = 7


def main() -> None:
    """Render, lay out, save."""
    family = load_family("mini")
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for name, path in SONGS.items():
            frames_dir = Path(folder) / path.stem
            settings = Settings().merged({"run": {"seed": SEED}})
            film = render(path, Path(folder) / f"{path.stem}.mp4", settings, family=family, frames_dir=frames_dir)
            print(f"{name}: {film.frames} frames, {film.timings['optimize'] / film.seconds:.2f} s per second of song")
            shown = along(film.frames)
            pictures = [np.asarray(Image.open(frames_dir / f"{index:06d}.png")) for index in shown]
            labels = [f"{index / settings.picture.fps:.1f} s" for index in shown]
            rows.append(Row(name, pictures, labels, curve(path, film.frames, settings.picture.fps)))
        words = [paint_words(text, Path(folder), family) for text in WORDS]
        rows.append(Row("in words", words, list(WORDS)))
    sheet(rows).save(HERE / "sheet.png", optimize=True)
    print(f"sheet.png: {(HERE / 'sheet.png').stat().st_size / 2**20:.2f} MiB")


def paint_words(text: str, folder: Path, family: object) -> Picture:
    """A picture of a text, with the sound at weight 0."""
    settings = Settings().merged(
        {
            "sound": {"weight": 0, "duration": 0.1},
            "painting": {"first_steps": 120, "cuts": 16},
            "picture": {"fps": 1},
            "run": {"seed": SEED},
            "prompts": [text],
        }
    )
    frames_dir = folder / text.replace(" ", "-")
    render(HERE / "africa.ogg", folder / f"{frames_dir.name}.mp4", settings, family=family, frames_dir=frames_dir)  # type: ignore[arg-type]
    return np.asarray(Image.open(frames_dir / "000000.png"))


def curve(path: Path, frames: int, fps: float) -> NDArray[np.float64]:
    """How loud each frame is, in [0, 1]."""
    track = open_track(path)
    values = normalize_to_peak(decode(track, Timeline.of(track, fps=fps), rates=()).levels).values
    assert len(values) == frames
    return values


if __name__ == "__main__":
    main()

"""Remake the film of `make demo`, and the animation of it that the README opens with.

python samples/make_demo.py
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from PIL import Image

from wav2clip_gen import load_family, render
from wav2clip_gen.config import settings_from

HERE = Path(__file__).parent
EVERY = 2  # frames of the film for one of the animation
SIDE, QUALITY = 288, 75  # px, and of WebP


def main() -> None:
    """Render, animate, save."""
    with tempfile.TemporaryDirectory() as folder:
        settings = settings_from(config=HERE / "demo.yaml")
        frames_dir = Path(folder) / "frames"
        film = render(
            HERE / "song",
            HERE / "demo.mp4",
            settings,
            family=load_family("mini"),
            overwrite=True,
            frames_dir=frames_dir,
        )
        print(f"{film.frames} frames, {film.timings['optimize'] / film.seconds:.2f} s per second of song")
        print(f"follows the beat: {film.reactivity}")
        pictures = [
            Image.open(frames_dir / f"{index:06d}.png").resize((SIDE, SIDE), Image.Resampling.LANCZOS)
            for index in range(0, film.frames, EVERY)
        ]
    duration = round(1000 * EVERY / settings.picture.fps)  # ms
    animation = HERE / "demo.webp"
    pictures[0].save(
        animation, save_all=True, append_images=pictures[1:], duration=duration, loop=0, quality=QUALITY, method=6
    )
    print(f"{animation.name}: {animation.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()

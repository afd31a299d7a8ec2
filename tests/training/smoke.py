"""`make weights-smoke`: from data to a film on made-up data, through the command line.

A few steps each: clip's image tower and text tower, with derived concepts; vqgan, without codes, with them, and with
its discriminator; wav2clip from labeled sounds, wav2clip from videos; the prior. Then one second of film is rendered
with the resulting weights. It checks that everything fits together, not what is learned.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import soundfile

from tests.training.conftest import ToyFeatures, ToySentences, write_data, write_table, write_videos, write_yamnet
from wav2clip_gen.cli.train import app
from wav2clip_gen.files import hash_file
from wav2clip_gen.training.mini import clip, concepts, vqgan

STEPS = ("--steps", "4", "--batch", "4", "--device", "cpu")
STAGES = {  # run -> terms of its loss, from each stage of the run
    "clip-image": {"concepts"},
    "clip-text": {"direction", "cosine", "contrast"},
    "vqgan": {"pixels", "lattice", "commitment", "perceptual", "adversarial"},
    "data/wav2clip": {"sound-image", "sound-projected image", "sound-name", "sound-concept", "sound-tag", "tags"},
    "videos/wav2clip": {"sound-projected image", "projected sound-image"},
}
FILM = (
    "--duration", "1", "--models", "mini", "--device", "cpu", "--seed", "1", "--size", "64x64", "--fps", "4",
    "--set", "painting.first_steps=2", "--set", "painting.steps=1", "--set", "painting.cuts=2", "--progress", "plain",
)  # fmt: skip


def train(*words: str | Path) -> None:
    """`w2c-gen train ...` in this process, which has torch already; lines of progress go to the terminal."""
    try:
        app([str(word) for word in words])
    except SystemExit as end:
        if end.code:
            raise


def logged_terms(log: Path) -> set[str]:
    """The terms of the loss in a run's log."""
    entries = [json.loads(line) for line in log.read_text().splitlines()]
    return {term for entry in entries for term in entry.get("losses", {})}


def render(*words: str | Path, weights: Path) -> str:
    """`w2c-gen ...` in a process of its own; its stderr goes to the terminal, its stdout is returned."""
    command = [sys.executable, "-m", "wav2clip_gen", *(str(word) for word in words)]
    environment = {**os.environ, "W2C_WEIGHTS": str(weights)}
    return subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True).stdout


def smoke(scratch: Path) -> Path:
    """Train and render in a folder; returns the film."""
    data, videos, runs = scratch / "data", scratch / "videos", scratch / "runs"
    weights = scratch / "weights"
    concepts.SentenceModel = ToySentences  # type: ignore[assignment, misc]
    setattr(vqgan, "ObjectFeatures", ToyFeatures)  # noqa: B010
    clip.PHRASES = 100
    write_data(data)
    write_yamnet(data)
    tags = [{"display_name": f"tag {row}"} for row in range(521)]
    write_table(data / "teachers" / "yamnet_class_map.csv", tags)
    write_videos(videos, count=8)
    where = ("--out", weights / "mini", "--runs", runs)
    train("clip", "--data", data, *where, *STEPS, "--text-steps", "4")
    train("vqgan", "--data", data, *where, *STEPS)
    for source in (("--data", data), ("--videos", videos, "--micro-batches", "2", "--width", "4")):
        own = ("--out", weights / "mini", "--runs", runs / source[0][2:])
        train("wav2clip", *source, *own, *STEPS)
    for run, terms in STAGES.items():
        missed = terms - logged_terms(runs / run / "log.jsonl")
        assert not missed, f"{run}: no step has the losses {missed}"
    train("prior", "--data", data, "--out", weights / "mini")
    song, film = scratch / "song.wav", scratch / "film.mp4"
    soundfile.write(song, 0.4 * np.sin(np.arange(16_000) / 9), 16_000)
    output = render(song, "--out", film, *FILM, weights=weights)
    assert Path(output.strip()) == film, output
    assert film.stat().st_size > 0
    used = json.loads(film.with_suffix(".json").read_text())["family"]["sha256"]
    made = {part: hash_file(weights / "mini" / f"{part}.safetensors") for part in used}
    assert used == made, "the film was made with other weights"
    return film


def main() -> None:
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as scratch:
        smoke(Path(scratch))
    sys.stderr.write(f"weights-smoke: passed in {time.monotonic() - began:.0f} s\n")


if __name__ == "__main__":
    main()

"""`make weights-smoke`: the whole way from data to a film on made-up data, through the commands a person types.

A handful of steps each: clip's image tower and text tower, with concepts given a vector by regression; vqgan, without
codes, with them, and against its discriminator; wav2clip from labelled sounds, wav2clip from videos; the prior. Then
one second of film is rendered with the weights that this left. It proves that the parts fit, and nothing about what
they learn.
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

from tests.training.conftest import ToySentences, write_data, write_videos
from wav2clip_gen.cli.train import app
from wav2clip_gen.files import hash_file
from wav2clip_gen.training import anchors

STEPS = ("--steps", "4", "--batch", "4", "--device", "cpu")
STAGES = {  # run -> terms of its loss, each from another of the run's stages or parts
    "clip-image": {"concepts"},
    "clip-text": {"direction", "cosine", "contrast"},
    "vqgan": {"pixels", "lattice", "commitment", "perceptual", "adversarial"},
    "data/wav2clip": {"sound-image", "sound-projected image", "sound-text", "pull", "teacher"},
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


def learned(log: Path) -> set[str]:
    """The terms of the loss that a run's log tells of."""
    entries = [json.loads(line) for line in log.read_text().splitlines()]
    return {term for entry in entries for term in entry.get("losses", {})}


def render(*words: str | Path, weights: Path) -> str:
    """`w2c-gen ...` as a person would run it; what it says goes to the terminal, its stdout comes back."""
    command = [sys.executable, "-m", "wav2clip_gen", *(str(word) for word in words)]
    environment = {**os.environ, "W2C_WEIGHTS": str(weights)}
    return subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True).stdout


def smoke(scratch: Path) -> Path:
    """Go the whole way in a folder; give the film."""
    data, videos, runs = scratch / "data", scratch / "videos", scratch / "runs"
    weights = scratch / "weights"
    anchors.SentenceModel = ToySentences  # type: ignore[assignment, misc]
    write_data(data)
    write_videos(videos, count=8)
    where = ("--out", weights / "mini", "--runs", runs)
    train("clip", "--data", data, *where, *STEPS, "--text-steps", "4")
    train("vqgan", "--data", data, *where, *STEPS)
    for source in (("--data", data, "--teacher", "1"), ("--videos", videos, "--parts", "2", "--width", "4")):
        own = ("--out", weights / "mini", "--runs", runs / source[0][2:])
        train("wav2clip", *source, *own, *STEPS)
    for run, terms in STAGES.items():
        missed = terms - learned(runs / run / "log.jsonl")
        assert not missed, f"{run}: no step learned from {missed}"
    train("prior", "--data", data, "--out", weights / "mini")
    song, film = scratch / "song.wav", scratch / "film.mp4"
    soundfile.write(song, 0.4 * np.sin(np.arange(16_000) / 9), 16_000)
    said = render(song, "--out", film, *FILM, weights=weights)
    assert Path(said.strip()) == film, said
    assert film.stat().st_size > 0
    used = json.loads(film.with_suffix(".json").read_text())["family"]["sha256"]
    made = {part: hash_file(weights / "mini" / f"{part}.safetensors") for part in used}
    assert used == made, "the film was made with other weights"
    return film


def main() -> None:
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as scratch:
        smoke(Path(scratch))
    sys.stderr.write(f"weights-smoke: all parts fit, in {time.monotonic() - began:.0f} s\n")


if __name__ == "__main__":
    main()

"""`w2c-gen caption`, as a person types it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from numpy.typing import NDArray
from typer.testing import CliRunner, Result

from tests.cli.refusals import assert_refused
from tests.conftest import SAMPLES, Write
from wav2clip_gen.benchmark.caption_decoder import CaptionDecoder, save_decoder
from wav2clip_gen.benchmark.encoders import LogMelEncoder
from wav2clip_gen.cli.caption import app

TRAINING = {"encoder": "log-mel", "identity": LogMelEncoder.identity, "hop": 0.5, "beam": 2, "length_penalty": 1.0,
            "no_repeat": 3}  # fmt: skip


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(one) for one in arguments], catch_exceptions=False)


def write_decoder(path: Path, features: int = 128, **training: Any) -> Path:
    """A decoder that always writes `a dog`."""
    decoder = CaptionDecoder(
        words=("a", "dog"), features=features, of_frames=True, longest=2, width=8, heads=2, feedforward=8
    )
    with torch.no_grad():
        for parameter in decoder.parameters():
            parameter.zero_()
        decoder.positions[:3] = 9 * torch.eye(8)[:3]
        decoder.get_parameter("decoder.norm.weight").fill_(1.0)
        decoder.embedding.weight[[4, 5, 2]] = torch.eye(8)[:3]  # the words by their places, and the end
    save_decoder(decoder, path, training={**TRAINING, **training})
    return path


def test_each_sound_gets_a_line(write_sound: Write, tone: NDArray[Any], tmp_path: Path) -> None:
    first, second = write_sound(tone, "ä song.wav"), write_sound(tone[:90], "short.wav")
    done = run(first, second, "--decoder", write_decoder(tmp_path / "d.safetensors"), "--beam", "1", "--threads", "1")
    assert done.exit_code == 0, done.stderr
    assert done.stdout == f"{first}\ta dog\n{second}\ta dog\n"
    assert done.stderr == "2 of 2 sounds described\n"


def test_a_bad_sound_stops_no_other(write_sound: Write, tone: NDArray[Any], tmp_path: Path) -> None:
    good, bad = write_sound(tone), tmp_path / "bad.wav"
    bad.write_bytes(b"RIFF")
    done = run(bad, good, tmp_path / "none.wav", "--decoder", write_decoder(tmp_path / "d.safetensors"))
    assert done.exit_code == 1
    assert done.stdout == f"{good}\ta dog\n"
    assert f"{bad}: cannot be decoded" in done.stderr
    assert f"{tmp_path / 'none.wav'}: cannot be read" in done.stderr
    assert "1 of 3 sounds described; failed: " in done.stderr


def test_the_decoder_that_ships_describes_a_sample() -> None:
    sample = SAMPLES / "sounds" / "bell.ogg"
    done = run(sample)
    assert done.exit_code == 0, done.stderr
    path, caption = done.stdout.removesuffix("\n").split("\t")
    assert path == str(sample)
    assert len(caption.split()) >= 3


def test_other_weights_are_noted(write_sound: Write, tone: NDArray[Any], tmp_path: Path) -> None:
    done = run(write_sound(tone), "--decoder", write_decoder(tmp_path / "d.safetensors", identity="log-mel-0"))
    assert done.exit_code == 0
    assert "was made for log-mel with other weights (log-mel-0): its captions may be wrong" in done.stderr


def test_what_cannot_work_is_refused(write_sound: Write, tone: NDArray[Any], tmp_path: Path) -> None:
    song, decoder = write_sound(tone), tmp_path / "d.safetensors"
    assert_refused(run(song, "--decoder", decoder), f"{decoder}: no such weights file")
    decoder.write_bytes(b"nothing of use")
    assert_refused(run(song, "--decoder", decoder), f"{decoder}: not a readable safetensors file")
    wrong = write_decoder(decoder, features=512)
    assert_refused(run(song, "--decoder", wrong), "made for features of 512 dimensions, not 128")
    assert_refused(run(song, "--decoder", write_decoder(decoder, encoder="mine")), "no encoder 'mine'", code=2)


@pytest.mark.parametrize("missing", ["beam", "encoder"])
def test_a_decoder_that_tells_too_little_is_refused(missing: str, tmp_path: Path) -> None:
    decoder = write_decoder(tmp_path / "d.safetensors")
    from wav2clip_gen.benchmark.caption_decoder import load_decoder

    made, training = load_decoder(decoder)
    del training[missing]
    save_decoder(made, decoder, training=training)
    assert_refused(run("song.wav", "--decoder", decoder), f"does not tell its {missing}")

"""Embeddings are computed once for each content, survive interruption, and damaged clips are counted."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.benchmark import sets
from wav2clip_gen.benchmark import features as module
from wav2clip_gen.benchmark.datasets import open_dataset
from wav2clip_gen.benchmark.encoders import Encoded, LogMelEncoder
from wav2clip_gen.benchmark.features import embed, leave_out_trained, shrink
from wav2clip_gen.errors import OutputError, W2CError


class Counting(LogMelEncoder):
    """Counts the sounds it encodes."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def encode(self, sound: Tensor, hop: float) -> Encoded:
        self.count += 1
        return super().encode(sound, hop)


def test_the_cache_gives_what_was_computed(tmp_path: Path) -> None:
    clips, encoder = open_dataset(sets.urbansound8k(tmp_path / "set")).clips, Counting()
    steps: list[tuple[int, int]] = []
    first = embed(clips, encoder, cache=tmp_path / "cache", on_progress=lambda *now: steps.append(now))
    assert encoder.count == 27
    assert steps[0] == (1, 27)
    assert steps[-1] == (27, 27)
    again = embed(clips, encoder, cache=tmp_path / "cache", frames=False)
    assert encoder.count == 27
    assert torch.equal(first.vectors, again.vectors)
    assert again.encoded[0].frames.shape == (1, 128)
    torch.testing.assert_close(again.encoded[3].frames[0], first.encoded[3].frames.float().mean(dim=0))
    embed(clips, encoder, hop=0.1, cache=tmp_path / "cache")
    assert encoder.count == 54  # another hop is another embedding
    encoder.identity = "other weights"
    embed(clips[:2], encoder, cache=tmp_path / "cache")
    assert encoder.count == 56


def test_the_same_content_is_encoded_once_wherever_it_lies(tmp_path: Path) -> None:
    clips, encoder = open_dataset(sets.urbansound8k(tmp_path / "a")).clips, Counting()
    embed(clips, encoder, cache=tmp_path / "cache")
    embed(open_dataset(sets.urbansound8k(tmp_path / "b")).clips, encoder, cache=tmp_path / "cache")
    assert encoder.count == 27


def test_an_interrupted_run_keeps_what_it_has(tmp_path: Path) -> None:
    clips, encoder = open_dataset(sets.urbansound8k(tmp_path / "set")).clips, Counting()

    def stop(done: int, total: int) -> None:
        if done == 10:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        embed(clips, encoder, cache=tmp_path / "cache", on_progress=stop)
    embed(clips, encoder, cache=tmp_path / "cache")
    assert encoder.count == 27


def test_damaged_clips_are_left_out_up_to_a_limit(tmp_path: Path) -> None:
    clips = open_dataset(sets.urbansound8k(tmp_path / "set")).clips
    clips[4].path.write_bytes(b"no sound")
    found = embed(clips, LogMelEncoder(), cache=tmp_path / "cache")
    assert len(found.clips) == len(found.encoded) == 26
    assert found.notes == [f"1 of 27 sounds are damaged: {clips[4].key}"]
    with pytest.raises(W2CError, match="1 of 27 sounds are damaged"):
        embed(clips, LogMelEncoder(), cache=tmp_path / "cache", most_damaged=0.01)


def test_a_damaged_cache_is_computed_again(tmp_path: Path) -> None:
    clips, encoder = open_dataset(sets.urbansound8k(tmp_path / "set")).clips, Counting()
    embed(clips, encoder, cache=tmp_path / "cache")
    (path,) = (tmp_path / "cache").glob("*/*.safetensors")
    path.write_bytes(path.read_bytes()[:100])
    embed(clips, encoder, cache=tmp_path / "cache")
    assert encoder.count == 54


def test_a_cache_that_cannot_be_written(tmp_path: Path) -> None:
    clips = open_dataset(sets.urbansound8k(tmp_path / "set")).clips
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(OutputError, match="cannot write"):
        embed(clips[:1], LogMelEncoder(), cache=tmp_path / "cache")


def test_the_cache_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CLIPS_PER_FILE", 9)
    clips, encoder = open_dataset(sets.urbansound8k(tmp_path / "set")).clips, Counting()
    embed(clips, encoder, cache=tmp_path / "cache")
    files = sorted((tmp_path / "cache").glob("*/*"), key=lambda path: path.stat().st_mtime_ns)
    assert len(files) == 3
    shrink(tmp_path / "cache", limit=sum(path.stat().st_size for path in files[1:]))
    assert not files[0].exists()
    assert files[2].exists()


def test_recordings_of_the_training_are_left_out(tmp_path: Path) -> None:
    dataset, encoder = open_dataset(sets.urbansound8k(tmp_path)), LogMelEncoder()
    assert leave_out_trained(dataset, encoder) == (list(dataset.clips), [])
    encoder.trained_on = frozenset({"1000", "1001", "77"})
    clips, notes = leave_out_trained(dataset, encoder)
    assert len(clips) == 25
    assert notes == ["2 clips of recordings that an encoder was trained on are left out"]
    clips, notes = leave_out_trained(dataset, encoder, keep=True)
    assert len(clips) == 27
    assert notes == ["2 clips of recordings that an encoder was trained on are kept, which flatters it"]

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.training.conftest import SOUNDS, interrupt, train, write_table
from wav2clip_gen.errors import TrainingError
from wav2clip_gen.models import checkpoints
from wav2clip_gen.models.wav2clip import Wav2CLIP, Wav2CLIPConfig
from wav2clip_gen.training.mini.audio import random_excerpt
from wav2clip_gen.training.mini.wav2clip import LabeledAudioTask, label_contrast
from wav2clip_gen.training.settings import LabeledAudioSettings


def wav2clip(data: Path, clip: Path) -> LabeledAudioTask:
    return LabeledAudioTask(data, clip, LabeledAudioSettings(batch=4), config=Wav2CLIPConfig(width=4))


def test_the_sound_encoder_trains_on_labeled_sounds(toy_data: Path, untrained_clip: Path, tmp_path: Path) -> None:
    task = wav2clip(toy_data, untrained_clip)
    assert task.labels.names == ("cat", "dog", "drums", "sea_waves")
    train_groups, held_out = ({example.group for example in side} for side in (task.train, task.validation))
    assert not train_groups & held_out
    losses, scores = train(task, tmp_path, 2)
    assert {"sound-image", "sound-projected image", "sound-text", "cosine"} == losses[0].keys()
    assert scores["chance"] == 0.25
    assert isinstance(checkpoints.load(tmp_path / "wav2clip.safetensors", role="wav2clip"), Wav2CLIP)


@pytest.mark.usefixtures("no_sentences")
def test_sounds_without_known_labels_are_an_error(toy_data: Path, untrained_clip: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    shutil.copytree(toy_data, data)
    table = data / "text" / "audio_labels.csv"
    rows = [{"set": "toy", "label": name, "anchors": "", "how": "", "esc50_class": ""} for name, _, _ in SOUNDS]
    write_table(table, [row | {"esc50_class": row["label"]} for row in rows])
    with pytest.raises(TrainingError, match="no sound has a label with a visible concept"):
        LabeledAudioTask(data, untrained_clip)
    table.write_text(table.read_text().splitlines()[0] + "\n")
    with pytest.raises(TrainingError, match="none of the labels of the set 'toy' is known, such as 'dog'") as caught:
        LabeledAudioTask(data, untrained_clip)
    assert "audio_labels.csv" in caught.value.hint


def test_a_changed_speed_changes_the_pitch() -> None:
    tone = (20_000 * np.sin(2 * np.pi * 1000 * np.arange(32_000) / 16_000)).astype(np.int16)
    pitches = {
        int(torch.fft.rfft(random_excerpt(tone, 16_000, generator=torch.Generator().manual_seed(seed))).abs().argmax())
        for seed in range(20)
    }
    assert min(pitches) >= 850
    assert max(pitches) <= 1150
    assert max(pitches) - min(pitches) > 150


def test_sounds_of_one_label_are_not_each_others_negatives() -> None:
    shares = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    right = label_contrast(50 * shares, shares, smoothing=0.0)
    wrong = label_contrast(50 * shares.flip(1), shares, smoothing=0.0)
    assert right < 0.5 < wrong


def test_a_resumed_run_equals_an_uninterrupted_one(toy_data: Path, untrained_clip: Path, tmp_path: Path) -> None:
    whole, scores = train(wav2clip(toy_data, untrained_clip), tmp_path / "whole", 3)
    interrupt(wav2clip(toy_data, untrained_clip), tmp_path / "resumed", 3)
    rest, final = train(wav2clip(toy_data, untrained_clip), tmp_path / "resumed", 3)
    assert rest == whole[1:]
    assert final == scores


@pytest.mark.usefixtures("no_sentences")
def test_without_the_sentence_model_labels_without_an_anchor_are_left_out(toy_data: Path, untrained_clip: Path) -> None:
    task = wav2clip(toy_data, untrained_clip)
    assert task.labels.names == ("cat", "dog", "drums")
    assert "wav2clip-gen[train]" in task.notes[0]

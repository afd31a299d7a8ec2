from __future__ import annotations

import io
import shutil
import tarfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from tests.training.conftest import SOUNDS, add, interrupt, train, write_table, write_yamnet
from wav2clip_gen.errors import TrainingError
from wav2clip_gen.models import checkpoints
from wav2clip_gen.models.wav2clip import Wav2CLIP, Wav2CLIPConfig
from wav2clip_gen.training.mini.audio import label_names, load_audio, load_unlabeled, sound_names, tag_names
from wav2clip_gen.training.mini.wav2clip import TEMPLATES, LabeledAudioTask, Names, label_contrast, weighted_entropy
from wav2clip_gen.training.settings import LabeledAudioSettings

LABELED = {"sound-name", "sound-concept", "sound-image", "sound-projected image", "cosine"}


def wav2clip(data: Path, clip: Path, **settings: float) -> LabeledAudioTask:
    chosen = LabeledAudioSettings(batch=4, **({"teacher": 0.0} | settings))
    return LabeledAudioTask(data, clip, chosen, config=Wav2CLIPConfig(width=4))


@pytest.fixture(scope="module")
def taught_data(toy_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The toy data with a teacher, and with sounds that have no label; one of them is of a held-out recording."""
    data = tmp_path_factory.mktemp("taught") / "data"
    shutil.copytree(toy_data, data)
    write_yamnet(data)
    tags = [{"display_name": f"Tag {row}, {row} tags" if row else "Drill (tool)"} for row in range(521)]
    write_table(data / "teachers" / "yamnet_class_map.csv", tags)
    held_out = load_audio(data)[1][0].group.removeprefix("freesound ")
    encoded = io.BytesIO()
    soundfile.write(encoded, 0.1 * np.sin(np.arange(30_000)), 16_000, format="OGG", subtype="VORBIS")
    (data / "urbansound8k").mkdir()
    for fold in (1, 2, 3):
        with tarfile.open(data / "urbansound8k" / f"fold{fold}.tar", "w") as tar:
            for number in ("9999", held_out):
                add(tar, f"audio/fold{fold}/{number}-3-0-{fold}.ogg", encoded.getvalue())
    return data


def test_the_sound_encoder_trains_on_labeled_sounds(toy_data: Path, untrained_clip: Path, tmp_path: Path) -> None:
    task = wav2clip(toy_data, untrained_clip)
    assert task.labels.names == ("cat", "dog", "drums", "sea_waves")
    train_groups, held_out = ({example.group for example in side} for side in (task.train, task.validation))
    assert not train_groups & held_out
    losses, scores = train(task, tmp_path, 2)
    assert losses[0].keys() == LABELED
    assert scores["chance"] == 0.25
    assert isinstance(checkpoints.load(tmp_path / "wav2clip.safetensors", role="wav2clip"), Wav2CLIP)


@pytest.mark.usefixtures("no_sentences")
def test_sounds_whose_labels_are_numbers_are_an_error(toy_data: Path, untrained_clip: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    shutil.copytree(toy_data, data)
    table = data / "text" / "audio_labels.csv"
    rows = [{"set": "toy", "label": name, "anchors": "", "how": "", "esc50_class": ""} for name, _, _ in SOUNDS]
    write_table(table, [row | {"esc50_class": str(number)} for number, row in enumerate(rows)])
    with pytest.raises(TrainingError, match="no sound has a label that is a name") as caught:
        wav2clip(data, untrained_clip)
    assert "audio_labels.csv" in caught.value.hint
    table.write_text(table.read_text().splitlines()[0] + "\n")  # then they are read as they are written
    assert wav2clip(data, untrained_clip).labels.names == ("cat", "dog", "drums", "waves")


def test_a_teacher_adds_its_tags_and_sounds_without_labels(taught_data: Path, untrained_clip: Path) -> None:
    task = wav2clip(taught_data, untrained_clip, teacher=1.0, unlabeled=0.5)
    assert task.data_facts["pieces without labels"] == 2  # fold 3 and the held-out recording are never heard
    assert task.data_facts["tags"] == 521
    batch = task._load_batch(torch.Generator().manual_seed(0))
    assert (len(batch.spectrogram), len(batch.shares), len(batch.windows)) == (4, 2, 4)
    torch.testing.assert_close(batch.shares.sum(dim=1), torch.ones(2))
    losses = task.losses(0, 0.0, torch.Generator().manual_seed(0))
    assert losses.keys() == {*LABELED, "sound-tag", "tags"}
    assert all(value.isfinite() for value in losses.values())


def test_without_sounds_without_labels_all_windows_have_one(toy_data: Path, untrained_clip: Path) -> None:
    task = wav2clip(toy_data, untrained_clip)
    assert task.unlabeled == []
    assert len(task._load_batch(torch.Generator().manual_seed(0)).shares) == 4


def test_unlabeled_sounds_are_those_of_the_folds_that_may_be_heard(taught_data: Path) -> None:
    found, skipped = load_unlabeled(taught_data, load_audio(taught_data)[1])
    assert [example.key.split("/")[-2] for example in found] == ["fold1", "fold2"]
    assert skipped == ()


def test_tags_and_labels_have_several_names(taught_data: Path) -> None:
    assert tag_names(taught_data)[:2] == [("drill",), ("tag 1", "1 tags")]
    assert label_names(taught_data)["sea_waves"] == ("sea waves", "waves")
    assert {"drilling", "tag 1", "sea waves"} <= set(sound_names(taught_data))


def test_each_draw_takes_a_name_of_each_class() -> None:
    read: dict[str, int] = {}

    def reader(phrases: Sequence[str]) -> torch.Tensor:
        read.update({phrase: row for row, phrase in enumerate(phrases)})
        return torch.eye(len(phrases))

    names = Names([("dog", "hound"), ("cat",)], reader, torch.device("cpu"))
    assert list(read)[:4] == [template.format("dog") for template in TEMPLATES]
    generator = torch.Generator().manual_seed(0)
    drawn = {tuple(names.draw(generator).argmax(dim=1).tolist()) for _ in range(200)}
    assert {first for first, _ in drawn} == set(range(8))
    assert {second for _, second in drawn} == set(range(8, 12))
    assert names.means().shape == (2, 12)


def test_a_target_without_weight_has_no_loss() -> None:
    logits = torch.tensor([[2.0, 0.0], [0.0, 2.0]])
    assert weighted_entropy(logits, torch.zeros(2, 2)) == 0
    expected = torch.nn.functional.cross_entropy(logits, torch.tensor([0, 1]))
    torch.testing.assert_close(weighted_entropy(logits, torch.eye(2)), expected)


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
def test_the_text_tower_reads_what_has_no_embedding(toy_data: Path, untrained_clip: Path) -> None:
    task = wav2clip(toy_data, untrained_clip)
    assert task.labels.names == ("cat", "dog", "drums", "sea_waves")
    assert task.notes == ()


def test_without_a_teacher_file_the_message_names_it(toy_data: Path, untrained_clip: Path) -> None:
    with pytest.raises(TrainingError, match=r"yamnet\.npz: cannot be read"):
        wav2clip(toy_data, untrained_clip, teacher=1.0)

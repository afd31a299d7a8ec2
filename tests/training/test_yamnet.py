"""The teacher: its published numbers where the training data is at hand, the rest anywhere."""

from __future__ import annotations

import math
import os
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from tests.conftest import ROOT
from tests.training.conftest import write_teacher
from wav2clip_gen.errors import TrainingError
from wav2clip_gen.training.anchors import load_anchors
from wav2clip_gen.training.teacher import load_unlabelled, soft_contrast
from wav2clip_gen.training.yamnet import YAMNet, load_tags, load_yamnet, mel_matrix

DATA = Path(os.environ.get("DATA", ROOT.parent / "shared" / "data"))  # as in the Makefile

with_data = pytest.mark.skipif(not (DATA / "teachers" / "yamnet.npz").is_file(), reason="no training data here")


def beep() -> torch.Tensor:
    return 0.5 * torch.sin(2 * math.pi * 1000 * torch.arange(15_600, dtype=torch.float64) / 16_000).float()[None]


def test_a_beep_has_the_stated_log_mel() -> None:
    frames = YAMNet().log_mel(beep())
    assert frames.shape == (1, 96, 64)
    assert frames.mean().item() == pytest.approx(-5.019, abs=5e-4)


def test_the_bands_are_triangles_of_height_one() -> None:
    mel = mel_matrix()
    assert mel.shape == (257, 64)
    assert mel[0].abs().sum() == 0
    assert 0.6 < mel.amax(dim=0).median() <= 1
    assert (mel > 0).sum(dim=1).max() == 2  # neighbours overlap, no more


@with_data
def test_a_beep_is_heard_as_stated() -> None:
    teacher = load_yamnet(DATA)
    embedding = teacher.embed(teacher.log_mel(beep()))
    assert embedding.mean().item() == pytest.approx(0.0938, abs=1e-4)
    assert embedding.max().item() == pytest.approx(6.911, abs=2e-3)
    scores = teacher(beep())[0]
    assert scores.topk(3).indices.tolist() == [475, 495, 0]
    assert scores[[475, 495, 0]].tolist() == pytest.approx([0.921, 0.084, 0.019], abs=1e-3)


@with_data
def test_silence_is_heard_as_silence() -> None:
    teacher = load_yamnet(DATA)
    zeros = torch.zeros(1, 15_600)
    assert teacher(zeros)[0, 494].item() == pytest.approx(1.0, abs=5e-4)
    assert teacher.embed(teacher.log_mel(zeros)).mean().item() == pytest.approx(1.7316, abs=1e-4)


def test_the_teacher_is_read_from_its_arrays(tmp_path: Path) -> None:
    original = write_teacher(tmp_path)
    teacher = load_yamnet(tmp_path)
    for name, tensor in original.state_dict().items():
        assert torch.equal(teacher.state_dict()[name], tensor.half().float()), name
    long = teacher(torch.rand(2, 40_000))
    assert long.shape == (2, 521)
    sound = torch.rand(1, 100)
    torch.testing.assert_close(teacher(sound), teacher(torch.nn.functional.pad(sound, (0, 15_500))))


def test_a_damaged_teacher_is_an_error(tmp_path: Path) -> None:
    write_teacher(tmp_path)
    path = tmp_path / "teachers" / "yamnet.npz"
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(TrainingError, match="teacher cannot be read"):
        load_yamnet(tmp_path)
    np.savez(path, nothing=np.zeros(1))
    with pytest.raises(TrainingError, match="teacher cannot be read"):
        load_yamnet(tmp_path)
    with pytest.raises(TrainingError, match=r"yamnet\.npz"):
        load_yamnet(tmp_path / "nowhere")


def test_classes_that_mean_the_same_are_one_tag(toy_data: Path, tmp_path: Path) -> None:
    write_teacher(tmp_path)
    anchors = load_anchors(toy_data)
    tags = load_tags(tmp_path, anchors)
    assert [rows.tolist() for rows in tags.members] == [[1, 2], [3], [5]]  # dog twice; 4 is general, 0 and 6 nothing
    torch.testing.assert_close(tags.vectors[0], anchors.vectors[anchors.index["dog"]])
    scores = torch.zeros(1, 521)
    scores[0, 2], scores[0, 3] = 0.7, 0.2
    assert tags.scores(scores).tolist() == [[pytest.approx(0.7), pytest.approx(0.2), 0]]


def test_what_the_teacher_does_not_know_weighs_nothing() -> None:
    vectors = torch.eye(3)
    scale = torch.tensor(10.0)
    unsure = soft_contrast(vectors[:1], torch.zeros(1, 3), vectors, scale)
    right = soft_contrast(vectors[:1], torch.tensor([[0.9, 0.0, 0.0]]), vectors, scale)
    wrong = soft_contrast(vectors[1:2], torch.tensor([[0.9, 0.0, 0.0]]), vectors, scale)
    assert unsure == 0
    assert right < 0.01
    assert wrong > 5


def test_unlabelled_sounds_are_brought_to_16_khz(tmp_path: Path) -> None:
    (tmp_path / "more").mkdir()
    soundfile.write(tmp_path / "more" / "a.wav", 0.5 * np.ones((44_100, 2)), 44_100)
    (tmp_path / "broken.wav").write_bytes(b"nothing")
    sounds = load_unlabelled(tmp_path)
    assert [piece.label for piece in sounds.pieces] == [""]
    assert len(sounds.pieces[0].samples) == 16_000
    assert sounds.skipped == ("broken.wav",)


@pytest.mark.parametrize(("name", "told"), [("a.wav", "none of its 1 sounds"), ("a.txt", "no sound file")])
def test_a_folder_without_sounds_is_an_error(tmp_path: Path, name: str, told: str) -> None:
    (tmp_path / name).write_bytes(b"nothing")
    with pytest.raises(TrainingError, match=told) as caught:
        load_unlabelled(tmp_path)
    assert "--unlabelled" in caught.value.hint

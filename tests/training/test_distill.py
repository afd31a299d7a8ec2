"""The paper's distillation on toy videos: one process or two, with micro-batches or without, resumed or not."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from tests.conftest import ROOT
from tests.training.worker import gradients, small
from wav2clip_gen.errors import SettingsError, TrainingError
from wav2clip_gen.models import checkpoints
from wav2clip_gen.models.wav2clip import Wav2CLIP
from wav2clip_gen.training.distill import DistillTask, clip_loss
from wav2clip_gen.training.schedule import Schedule
from wav2clip_gen.training.settings import DistillSettings
from wav2clip_gen.training.trainer import Trainer
from wav2clip_gen.training.videos import VideoDataset

CPU = torch.device("cpu")


@pytest.fixture(scope="session")
def videos(toy_videos: Path, untrained_clip: Path, tmp_path_factory: pytest.TempPathFactory) -> VideoDataset:
    """The toy videos, embedded."""
    found = VideoDataset(toy_videos, untrained_clip, tmp_path_factory.mktemp("cache"))
    list(found.prepare(CPU))
    return found


def assert_same(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert one.keys() == other.keys()
    for name, gradient in one.items():
        assert torch.allclose(gradient, other[name], rtol=1e-4, atol=1e-6), name


def test_clip_loss_equals_its_formula() -> None:
    a = F.normalize(torch.tensor([[1.0, 0.0], [1.0, 1.0]]), dim=-1)
    b = torch.eye(2)
    scale = torch.tensor(2.0)
    logits = 2 * torch.tensor([[1.0, 0.0], [0.5**0.5, 0.5**0.5]])
    rows = -logits.log_softmax(dim=1).diagonal().mean()
    columns = -logits.log_softmax(dim=0).diagonal().mean()
    torch.testing.assert_close(clip_loss(a, b, scale), (rows + columns) / 2)


def test_negatives_span_the_micro_batches(videos: VideoDataset) -> None:
    # with fixed batch norms nothing but the contrast joins the clips of a batch; dropout would differ between the two
    whole, divided = (DistillTask(videos, small(micro_batches=count)) for count in (1, 2))
    for task in (whole, divided):
        for module in task.network.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
    assert_same(gradients(whole, frozen_norms=True), gradients(divided, frozen_norms=True))


def test_the_first_pass_does_not_update_the_running_statistics(videos: VideoDataset) -> None:
    task = DistillTask(videos, small(micro_batches=2))
    norm = task.network.encoder.audio_encoder.bn1
    gradients(task)
    assert norm.num_batches_tracked == 2  # once per micro-batch, although each has two passes


@pytest.mark.more
@pytest.mark.slow
def test_two_processes_have_the_gradient_of_one(
    toy_videos: Path, untrained_clip: Path, videos: VideoDataset, tmp_path: Path
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "GLOO_SOCKET_IFNAME": "lo"}
    command = [sys.executable, "-m", "tests.training.worker", toy_videos, untrained_clip, tmp_path / "cache", tmp_path]
    workers = [
        subprocess.Popen(
            [str(word) for word in command],
            cwd=ROOT,
            env={**os.environ, **shared, "RANK": str(rank), "LOCAL_RANK": str(rank), "OMP_NUM_THREADS": "1"},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        errors = [worker.communicate(timeout=120)[1] for worker in workers]
    finally:
        for worker in workers:
            worker.kill()
    assert [worker.returncode for worker in workers] == [0, 0], errors
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2))
    assert (first["size"], first["embedded"], second["embedded"]) == (2, 5, 5)
    # batch norm sees a micro-batch, and a process has one: two micro-batches in one process are the same
    whole = gradients(DistillTask(videos, small(micro_batches=2)))
    assert_same(first["gradients"], whole)
    assert_same(second["gradients"], whole)


def trainer(videos: VideoDataset, folder: Path, steps: int, **more: Any) -> Trainer[Any]:
    return Trainer(DistillTask(videos, small()), Schedule(folder=folder, steps=steps, report_every=0, **more))


def losses(trainer: Trainer[Any]) -> list[dict[str, float]]:
    return [event.losses for event in trainer.run() if event.losses]


def test_a_resumed_run_equals_an_uninterrupted_one(videos: VideoDataset, tmp_path: Path) -> None:
    whole = losses(trainer(videos, tmp_path / "whole", 6, score_steps=2))
    for event in trainer(videos, tmp_path / "resumed", 6, score_steps=2, save_every=0).run():
        if event.losses and event.step == 4:
            break
    assert losses(trainer(videos, tmp_path / "resumed", 6, score_steps=2)) == whole[3:]


def test_it_writes_the_sound_encoder_with_its_provenance(videos: VideoDataset, tmp_path: Path) -> None:
    whole = trainer(videos, tmp_path, 2, score_steps=2)
    scored = [event.scores for event in whole.run() if event.scores]
    assert len(scored) == 1
    assert {"loss", "recall at 1", "recall at 5", "clips"} == scored[0].keys()
    network = checkpoints.load(whole.weights, role="wav2clip")
    assert isinstance(network, Wav2CLIP)
    assert network.config.embedding == 512
    training = checkpoints.read_header(whole.weights).training
    assert (training["clips trained on"], training["clips held out"], training["clips skipped"]) == (8, 2, 0)


def test_other_clips_are_refused(videos: VideoDataset, toy_videos: Path, untrained_clip: Path, tmp_path: Path) -> None:
    losses(trainer(videos, tmp_path / "run", 1))
    table = toy_videos / "fewer.csv"
    table.write_text(
        "path\n" + "\n".join(f"{p.relative_to(toy_videos)}" for p in sorted(toy_videos.rglob("*.mp4"))[:7])
    )
    fewer = VideoDataset(table, untrained_clip, tmp_path)
    list(fewer.prepare(CPU))
    table.unlink()
    with pytest.raises(TrainingError, match=r"clips trained on \(8, now 5\)"):
        losses(trainer(fewer, tmp_path / "run", 2))


def test_a_run_without_improvement_stops_early(
    videos: VideoDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(DistillTask, "scores", lambda self, network: {"loss": 1.0})
    settings = DistillSettings(batch=4, width=2, seconds=1.0, patience=2, stop_after=3)
    task = DistillTask(videos, settings)
    schedule = Schedule(folder=tmp_path, steps=50, report_every=0, score_steps=1)
    events = list(Trainer(task, schedule).run())
    assert sum(bool(event.scores) for event in events) == 4  # the first is the best, three do not improve
    assert checkpoints.read_header(tmp_path / "wav2clip.safetensors").training["steps"] == 1
    resumed = Trainer(DistillTask(videos, settings), schedule)
    assert losses(resumed) == []  # and has stopped for good


@pytest.mark.parametrize(
    ("batch", "count", "reason"), [(6, 4, "multiple of 4"), (2, 2, "at least 4"), (16, 1, "smaller")]
)
def test_a_batch_must_divide_evenly(videos: VideoDataset, batch: int, count: int, reason: str) -> None:
    with pytest.raises(TrainingError) as caught:
        DistillTask(videos, small(batch=batch, micro_batches=count))
    assert reason in caught.value.hint


@pytest.mark.parametrize("wrong", [{"loss": "mse"}, {"precision": "fp8"}, {"seconds": 11.0}])
def test_invalid_settings_are_errors(wrong: dict[str, Any]) -> None:
    with pytest.raises(SettingsError):
        DistillSettings(**wrong)


@pytest.mark.slow
def test_it_learns_which_color_a_pitch_has(videos: VideoDataset, tmp_path: Path) -> None:
    task = DistillTask(videos, DistillSettings(batch=8, width=8, seconds=1.0, precision="bf16"))
    schedule = Schedule(folder=tmp_path, steps=40, report_every=0, score_steps=1000)
    found = [event.losses for event in Trainer(task, schedule).run() if event.losses]
    assert found[-1]["projected sound-image"] < 0.7 * found[0]["projected sound-image"]

"""The paper's method on toy videos: one process or two, whole or in parts, interrupted or not."""

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
from wav2clip_gen.training.distillation import clip_loss
from wav2clip_gen.training.loop import Run
from wav2clip_gen.training.plan import Plan, Progress, Scored
from wav2clip_gen.training.videos import Videos
from wav2clip_gen.training.watched import Plateau, WatchedRecipe, WatchedTraining

CPU = torch.device("cpu")


@pytest.fixture(scope="session")
def videos(toy_videos: Path, untrained_clip: Path, tmp_path_factory: pytest.TempPathFactory) -> Videos:
    """The toy videos, embedded."""
    found = Videos(toy_videos, untrained_clip, tmp_path_factory.mktemp("cache"))
    list(found.prepare(CPU))
    return found


def assert_same(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert one.keys() == other.keys()
    for name, gradient in one.items():
        assert torch.allclose(gradient, other[name], rtol=1e-4, atol=1e-6), name


def test_the_contrast_by_hand() -> None:
    a = F.normalize(torch.tensor([[1.0, 0.0], [1.0, 1.0]]), dim=-1)
    b = torch.eye(2)
    scale = torch.tensor(2.0)
    logits = 2 * torch.tensor([[1.0, 0.0], [0.5**0.5, 0.5**0.5]])
    rows = -logits.log_softmax(dim=1).diagonal().mean()
    columns = -logits.log_softmax(dim=0).diagonal().mean()
    torch.testing.assert_close(clip_loss(a, b, scale), (rows + columns) / 2)


def test_the_negatives_span_the_parts(videos: Videos) -> None:
    # with fixed batch norms nothing but the contrast joins the clips of a batch; dropout would differ between the two
    whole, parts = (WatchedRecipe(videos, small(parts=parts)) for parts in (1, 2))
    for recipe in (whole, parts):
        for module in recipe.network.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
    assert_same(gradients(whole, frozen_norms=True), gradients(parts, frozen_norms=True))


def test_the_pass_before_leaves_the_running_statistics_alone(videos: Videos) -> None:
    recipe = WatchedRecipe(videos, small(parts=2))
    norm = recipe.network.encoder.audio_encoder.bn1
    gradients(recipe)
    assert norm.num_batches_tracked == 2  # once a part, although each was seen twice


@pytest.mark.slow
def test_two_processes_have_the_gradient_of_one(
    toy_videos: Path, untrained_clip: Path, videos: Videos, tmp_path: Path
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
        said = [worker.communicate(timeout=120)[1] for worker in workers]
    finally:
        for worker in workers:
            worker.kill()
    assert [worker.returncode for worker in workers] == [0, 0], said
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2))
    assert (first["size"], first["embedded"], second["embedded"]) == (2, 5, 5)
    # batch norm sees a part, and a process is a part: so the whole batch in two parts is the same
    whole = gradients(WatchedRecipe(videos, small(parts=2)))
    assert_same(first["gradients"], whole)
    assert_same(second["gradients"], whole)


def run(videos: Videos, folder: Path, steps: int, **plan: Any) -> Run[Any]:
    return Run(WatchedRecipe(videos, small()), Plan(folder=folder, steps=steps, report_every=0, **plan))


def losses(run: Run[Any]) -> list[dict[str, float]]:
    return [event.losses for event in run.events() if isinstance(event, Progress)]


def test_an_interrupted_run_goes_on_as_if_it_had_not_been(videos: Videos, tmp_path: Path) -> None:
    whole = losses(run(videos, tmp_path / "whole", 6, score_steps=2))
    for event in run(videos, tmp_path / "parts", 6, score_steps=2, save_every=0).events():
        if isinstance(event, Progress) and event.step == 4:
            break
    assert losses(run(videos, tmp_path / "parts", 6, score_steps=2)) == whole[3:]


def test_it_leaves_the_sound_encoder_and_what_it_was_made_of(videos: Videos, tmp_path: Path) -> None:
    run_ = run(videos, tmp_path, 2, score_steps=2)
    scored = [event.scores for event in run_.events() if isinstance(event, Scored)]
    assert len(scored) == 1
    assert {"loss", "recall at 1", "recall at 5", "clips"} == scored[0].keys()
    network = checkpoints.load(run_.weights, role="wav2clip")
    assert isinstance(network, Wav2CLIP)
    assert network.config.embedding == 512
    training = checkpoints.read_header(run_.weights).training
    assert (training["clips trained on"], training["clips held out"], training["clips skipped"]) == (8, 2, 0)


def test_other_clips_are_refused(videos: Videos, toy_videos: Path, untrained_clip: Path, tmp_path: Path) -> None:
    losses(run(videos, tmp_path / "run", 1))
    table = toy_videos / "fewer.csv"
    table.write_text(
        "path\n" + "\n".join(f"{p.relative_to(toy_videos)}" for p in sorted(toy_videos.rglob("*.mp4"))[:7])
    )
    fewer = Videos(table, untrained_clip, tmp_path)
    list(fewer.prepare(CPU))
    table.unlink()
    with pytest.raises(TrainingError, match=r"clips trained on \(8, now 5\)"):
        losses(run(fewer, tmp_path / "run", 2))


def test_the_run_ends_where_nothing_is_gained(videos: Videos, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(WatchedRecipe, "scores", lambda self, network: {"loss": 1.0})
    settings = WatchedTraining(batch=4, width=2, seconds=1.0, patience=2, stop_after=3)
    recipe = WatchedRecipe(videos, settings)
    plan = Plan(folder=tmp_path, steps=50, report_every=0, score_steps=1)
    events = list(Run(recipe, plan).events())
    assert sum(isinstance(event, Scored) for event in events) == 4  # the first is the best, three gain nothing
    assert checkpoints.read_header(tmp_path / "wav2clip.safetensors").training["steps"] == 1
    again = Run(WatchedRecipe(videos, settings), plan)
    assert losses(again) == []  # and has ended for good


def test_a_plateau_lowers_the_learning_rate_and_then_ends_the_run() -> None:
    plateau = Plateau(fall=0.1, patience=2, stop_after=5)
    assert [plateau.see(loss) for loss in (3.0, 2.0, 2.5, 2.5)] == [True, True, False, False]
    assert plateau.factor == pytest.approx(0.1)
    assert plateau.see(1.0)
    copy = Plateau(fall=0.1, patience=2, stop_after=5)
    copy.load_state(plateau.state())
    for expected in (False, False, False, False, True):
        copy.see(1.0)
        assert copy.over is expected
    assert copy.factor == pytest.approx(1e-3)


@pytest.mark.parametrize(
    ("batch", "parts", "told"), [(6, 4, "multiple of 4"), (2, 2, "at least 4"), (16, 1, "smaller")]
)
def test_a_batch_must_fit(videos: Videos, batch: int, parts: int, told: str) -> None:
    with pytest.raises(TrainingError) as caught:
        WatchedRecipe(videos, small(batch=batch, parts=parts))
    assert told in caught.value.hint


@pytest.mark.parametrize("wrong", [{"loss": "mse"}, {"precision": "fp8"}, {"seconds": 11.0}])
def test_settings_that_cannot_be_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(SettingsError):
        WatchedTraining(**wrong)


@pytest.mark.slow
def test_it_learns_which_colour_a_pitch_has(videos: Videos, tmp_path: Path) -> None:
    recipe = WatchedRecipe(videos, WatchedTraining(batch=8, width=8, seconds=1.0, precision="bf16"))
    plan = Plan(folder=tmp_path, steps=40, report_every=0, score_steps=1000)
    found = [event.losses for event in Run(recipe, plan).events() if isinstance(event, Progress)]
    assert found[-1]["projected sound-image"] < 0.7 * found[0]["projected sound-image"]

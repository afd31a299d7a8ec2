from __future__ import annotations

import json
import resource
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from wav2clip_gen.errors import OutputError, TrainingError
from wav2clip_gen.models import checkpoints
from wav2clip_gen.models.wav2clip import Wav2CLIP, Wav2CLIPConfig
from wav2clip_gen.training.schedule import AverageModel, PlateauSchedule, Schedule, learning_rate, seeded
from wav2clip_gen.training.trainer import Trainer, TrainTask


@dataclass(frozen=True, kw_only=True)
class ToySettings:
    learning_rate: float = 1e-2
    breaks_at: int = -1  # step whose loss is not a number
    steep_at: int = -1  # step whose loss is, and its gradient is not


class Toy(TrainTask[Wav2CLIP]):
    """A real network with dropout on an easy task."""

    name = "wav2clip"

    def __init__(self, settings: ToySettings | None = None, seed: int = 0, pictures: int = 4) -> None:
        self.settings: ToySettings = settings or ToySettings()
        self.seed, self.device, self.data_facts = seed, torch.device("cpu"), {"pictures": pictures}
        with seeded(seed):
            self.network = Wav2CLIP(Wav2CLIPConfig(width=1, embedding=8)).train()
        self.optimizer = torch.optim.AdamW(self.network.parameters())

    def losses(self, step: int, progress: float, generator: torch.Generator) -> dict[str, Tensor]:
        inputs = torch.rand(4, 8, generator=generator)
        loss = (self.network.audio_transform(inputs) - inputs).square().mean()
        if step == self.settings.steep_at:
            loss = loss + (loss - loss.detach()).sqrt()
        return {"toy": loss * (torch.nan if step == self.settings.breaks_at else 1)}

    def scores(self, network: Wav2CLIP) -> dict[str, float]:
        return {"weight": next(network.parameters()).sum().item()}


def schedule(folder: Path, steps: int) -> Schedule:
    return Schedule(folder=folder, steps=steps, report_every=0, save_every=0)


def losses(trainer: Trainer[Wav2CLIP], *, fresh: bool = False) -> list[float]:
    return [event.losses["toy"] for event in trainer.run(fresh=fresh) if event.losses]


def test_a_run_reports_progress_and_writes_weights_that_load(tmp_path: Path) -> None:
    trainer = Trainer(Toy(), schedule(tmp_path, 3))
    started, *steps, scored, finished = list(trainer.run())
    assert started.message == "started"
    assert [event.step for event in steps] == [1, 2, 3]
    assert all(event.losses.keys() == {"toy"} for event in steps)
    assert steps[-1].message.startswith("step 3/3  toy 0.")
    assert scored.scores.keys() == {"weight"}
    assert str(trainer.weights) in finished.message
    assert isinstance(checkpoints.load(trainer.weights, role="wav2clip"), Wav2CLIP)
    training = checkpoints.read_header(trainer.weights).training
    assert (training["steps"], training["seed"], training["settings"]["learning_rate"]) == (3, 0, 0.01)
    assert set(training["scores"]) == {"weight"}
    logged = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [entry["step"] for entry in logged] == [1, 2, 3, 3]


def test_a_resumed_run_equals_an_uninterrupted_one(tmp_path: Path) -> None:
    whole_run = Trainer(Toy(), schedule(tmp_path / "whole", 8))
    whole = losses(whole_run)
    first = []
    for event in Trainer(Toy(), schedule(tmp_path / "resumed", 8)).run():
        if event.losses:
            first.append(event.losses["toy"])
            if event.step == 4:  # its checkpoint is not written yet: the step is repeated
                break
    rest = Trainer(Toy(), schedule(tmp_path / "resumed", 8))
    second = losses(rest)
    assert first[:3] + second == whole
    assert rest.step == 8
    for name, tensor in whole_run.averaged.state_dict().items():
        assert torch.equal(rest.averaged.state_dict()[name], tensor), name


def test_seeds_decide_the_run(tmp_path: Path) -> None:
    one, same, other = (
        losses(Trainer(Toy(seed=seed), schedule(tmp_path / name, 3))) for name, seed in (("a", 1), ("b", 1), ("c", 2))
    )
    assert one == same != other


def test_a_fresh_run_forgets_the_last(tmp_path: Path) -> None:
    first = losses(Trainer(Toy(), schedule(tmp_path, 3)))
    assert losses(Trainer(Toy(), schedule(tmp_path, 3))) == []
    assert losses(Trainer(Toy(), schedule(tmp_path, 3)), fresh=True) == first


def test_other_settings_are_refused_and_named(tmp_path: Path) -> None:
    losses(Trainer(Toy(), schedule(tmp_path, 2)))
    with pytest.raises(TrainingError, match=r"learning_rate \(0.01, now 0.5\).*seed \(0, now 4\)") as caught:
        losses(Trainer(Toy(ToySettings(learning_rate=0.5), seed=4), schedule(tmp_path, 4)))
    assert "--fresh" in caught.value.hint


def test_the_length_of_a_run_may_change(tmp_path: Path) -> None:
    losses(Trainer(Toy(), schedule(tmp_path, 2)))
    assert len(losses(Trainer(Toy(), schedule(tmp_path, 5)))) == 3


def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_last_good_state(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="loss is nan at step 3"):
        losses(Trainer(Toy(ToySettings(breaks_at=3)), schedule(tmp_path, 9)))
    state = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    assert state["progress"]["step"] == 3
    assert all(torch.isfinite(tensor).all() for tensor in state["network"].values())


def test_a_gradient_that_is_not_finite_does_not_reach_the_weights(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"gradient's norm is (inf|nan) at step 3"):
        losses(Trainer(Toy(ToySettings(steep_at=3)), schedule(tmp_path, 9)))
    state = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    assert state["progress"]["step"] == 3
    assert all(torch.isfinite(tensor).all() for tensor in state["network"].values())


def test_other_data_are_refused_and_named(tmp_path: Path) -> None:
    losses(Trainer(Toy(), schedule(tmp_path, 2)))
    with pytest.raises(TrainingError, match=r"pictures \(4, now 5\)"):
        losses(Trainer(Toy(pictures=5), schedule(tmp_path, 4)))


def test_unreadable_examples_are_reported_and_logged(tmp_path: Path) -> None:
    toy = Toy()
    toy.skipped = ("a.tar:1", "a.tar:2")
    *_, last = Trainer(toy, schedule(tmp_path, 1)).run()
    assert "2 unreadable examples were skipped" in last.message
    logged = json.loads((tmp_path / "log.jsonl").read_text().splitlines()[0])
    assert logged["skipped"] == ["a.tar:1", "a.tar:2"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a disk that is always full")
def test_a_log_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    losses(Trainer(Toy(), schedule(tmp_path, 1)))
    before = (tmp_path / "checkpoint.pt").read_bytes()
    (tmp_path / "log.jsonl").unlink()
    (tmp_path / "log.jsonl").symlink_to("/dev/full")
    with pytest.raises(OutputError, match=r"cannot write .*log\.jsonl.*No space left") as caught:
        losses(Trainer(Toy(), schedule(tmp_path, 4)))
    assert "resume" in caught.value.hint
    assert (tmp_path / "checkpoint.pt").read_bytes() == before


def test_a_damaged_checkpoint_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "checkpoint.pt").write_bytes(b"nothing")
    with pytest.raises(TrainingError, match="cannot be read"):
        losses(Trainer(Toy(), schedule(tmp_path, 2)))


def test_a_run_of_minutes_follows_the_clock_and_goes_on_where_it_was(tmp_path: Path) -> None:
    seen: list[float] = []

    class Timed(Toy):
        def losses(self, step: int, progress: float, generator: torch.Generator) -> dict[str, Tensor]:
            seen.append(progress)
            return super().losses(step, progress, generator)

    in_minutes = Schedule(folder=tmp_path, minutes=0.005, report_every=0, save_every=0)
    began = time.monotonic()
    for event in Trainer(Timed(), in_minutes).run():
        if event.losses and event.step == 3:
            break
    first = len(seen)
    list(Trainer(Timed(), in_minutes).run())
    assert 0.3 <= time.monotonic() - began < 5
    assert seen[0] == 0
    assert 0 < seen[first] < 1
    assert seen[first:] == sorted(seen[first:])
    assert seen[-1] < 1


def test_unread_losses_are_read_before_a_checkpoint_and_a_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a GPU: the numbers of a few steps stay on the device."""
    expected = losses(Trainer(Toy(), schedule(tmp_path / "cpu", 4)))
    monkeypatch.setattr(Trainer, "_reads_each_step", False)
    assert losses(Trainer(Toy(), schedule(tmp_path / "gpu", 4))) == expected
    with pytest.raises(TrainingError, match="loss is nan at step 3"):
        losses(Trainer(Toy(ToySettings(breaks_at=3)), schedule(tmp_path / "nan", 9)))
    state = torch.load(tmp_path / "nan" / "checkpoint.pt", weights_only=True)
    assert all(torch.isfinite(tensor).all() for tensor in state["network"].values())


def test_another_network_is_refused(tmp_path: Path) -> None:
    losses(Trainer(Toy(), schedule(tmp_path, 1)))
    wider = Toy()
    wider.network = Wav2CLIP(Wav2CLIPConfig(width=2, embedding=8)).train()
    wider.optimizer = torch.optim.AdamW(wider.network.parameters())
    with pytest.raises(TrainingError, match="started with another network"):
        losses(Trainer(wider, schedule(tmp_path, 2)))


def test_too_small_a_disk_is_an_error_before_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=1000))
    with pytest.raises(OutputError, match="0 MB are free, and the run's files") as caught:
        losses(Trainer(Toy(), schedule(tmp_path, 2)))
    assert "--runs" in caught.value.hint


def test_a_disk_that_fills_up_leaves_the_last_good_checkpoint(tmp_path: Path) -> None:
    losses(Trainer(Toy(), schedule(tmp_path, 2)))
    before = (tmp_path / "checkpoint.pt").read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    events = Trainer(Toy(), schedule(tmp_path, 4)).run()
    next(events)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) // 2, limits[1]))
    try:
        with pytest.raises(OutputError, match=r"cannot write .*checkpoint\.pt") as caught:
            list(events)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "last good checkpoint is kept" in caught.value.hint
    assert (tmp_path / "checkpoint.pt").read_bytes() == before
    assert not list(tmp_path.glob(".w2c-*"))


def test_a_folder_that_cannot_be_made_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="cannot make the folder"):
        losses(Trainer(Toy(), schedule(tmp_path / "file" / "runs", 1)))


def test_evaluations_every_two_come_when_they_are_due(tmp_path: Path) -> None:
    every_two = Schedule(folder=tmp_path, steps=5, report_every=0, score_steps=2)
    assert [event.step for event in Trainer(Toy(), every_two).run() if event.scores] == [2, 4, 5]


@pytest.mark.parametrize("lengths", [{}, {"steps": 3, "minutes": 1.0}, {"steps": 0}, {"minutes": 0.0}])
def test_a_schedule_has_one_length(tmp_path: Path, lengths: dict[str, float]) -> None:
    with pytest.raises(TrainingError):
        Schedule(folder=tmp_path, **lengths)  # type: ignore[arg-type]


def test_the_learning_rate_warms_up_and_decays() -> None:
    rates = [learning_rate(step, step / 1000, peak=1.0, decay_fraction=0.3, warm_up=200) for step in range(1000)]
    assert rates[0] == 1 / 200
    assert rates[200:700] == [1.0] * 500
    assert rates[-1] == pytest.approx(1 / 300)
    assert rates[200:] == sorted(rates[200:], reverse=True)


def test_an_average_follows_its_network() -> None:
    network = nn.BatchNorm1d(2)
    average = AverageModel(network)
    with torch.no_grad():
        network.weight.fill_(5.0)
        network.running_mean.fill_(1.0)  # type: ignore[union-attr]
    average.update_parameters(network)
    torch.testing.assert_close(average.module.weight, torch.full((2,), 0.1 * 1 + 0.9 * 5))
    for _ in range(200):
        average.update_parameters(network)
    torch.testing.assert_close(average.module.weight, network.weight, atol=0.01, rtol=0)
    torch.testing.assert_close(average.module.running_mean, network.running_mean, atol=0.01, rtol=0)
    assert not average.module.training


def test_a_task_can_restart_the_average(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task = Toy()
    trainer = Trainer(task, schedule(tmp_path, 3))
    monkeypatch.setattr(Toy, "after_step", lambda self: setattr(self, "restart_average", True))
    list(trainer.run())
    for mean, value in zip(trainer.averaged.state_dict().values(), task.network.state_dict().values(), strict=True):
        torch.testing.assert_close(mean, value)


def test_a_plateau_lowers_the_learning_rate_and_then_ends_the_run() -> None:
    def plateau() -> tuple[PlateauSchedule, torch.optim.Optimizer]:
        optimizer = torch.optim.SGD([torch.zeros(1)], lr=1.0)
        return PlateauSchedule(optimizer, factor=0.1, patience=2, stop_after=5), optimizer

    first, optimizer = plateau()
    assert [first.update(loss) for loss in (3.0, 2.0, 2.5, 2.5)] == [True, True, False, False]
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.1)
    assert first.update(1.0)
    copy, other = plateau()
    copy.load_state_dict(first.state_dict())
    other.load_state_dict(optimizer.state_dict())
    for expected in (False, False, False, False, True):
        copy.update(1.0)
        assert copy.exhausted is expected
    assert other.param_groups[0]["lr"] == pytest.approx(1e-3)


def test_losses_and_scores_go_to_tensorboard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[tuple[str, float, int]] = []

    class Writer:
        def __init__(self, folder: str) -> None:
            assert folder == str(tmp_path / "board")

        def add_scalar(self, name: str, value: float, step: int) -> None:
            written.append((name, value, step))

        def close(self) -> None:
            written.append(("closed", 0.0, 0))

    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", SimpleNamespace(SummaryWriter=Writer))
    list(Trainer(Toy(), schedule(tmp_path, 1), tensorboard=tmp_path / "board").run())
    assert [(name, step) for name, _, step in written] == [
        ("losses/toy", 1), ("speed/steps per second", 1), ("scores/weight", 1), ("closed", 0),
    ]  # fmt: skip


def test_without_tensorboard_the_message_names_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(TrainingError, match="TensorBoard is not installed") as caught:
        Trainer(Toy(), schedule(tmp_path, 1), tensorboard=tmp_path)
    assert caught.value.hint == "pip install tensorboard"

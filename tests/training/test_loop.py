from __future__ import annotations

import json
import resource
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from wav2clip_gen.errors import OutputError, TrainingError
from wav2clip_gen.models import checkpoints
from wav2clip_gen.models.wav2clip import Wav2CLIP, Wav2CLIPConfig
from wav2clip_gen.training.loop import Average, Recipe, Run, learning_rate, seeded
from wav2clip_gen.training.plan import Finished, Plan, Progress, Scored, Started


@dataclass(frozen=True, kw_only=True)
class ToySettings:
    learning_rate: float = 1e-2
    breaks_at: int = -1  # step whose loss is not a number
    steep_at: int = -1  # step whose loss is, and its gradient is not


class Toy(Recipe[Wav2CLIP]):
    """A real network that learns something easy, with dropout, quickly."""

    name = "wav2clip"

    def __init__(self, settings: ToySettings | None = None, seed: int = 0) -> None:
        self.settings: ToySettings = settings or ToySettings()
        self.seed, self.device = seed, torch.device("cpu")
        with seeded(seed):
            self.network = Wav2CLIP(Wav2CLIPConfig(width=1, embedding=8)).train()
        self.optimiser = torch.optim.AdamW(self.network.parameters())

    def losses(self, step: int, progress: float, generator: torch.Generator) -> dict[str, Tensor]:
        inputs = torch.rand(4, 8, generator=generator)
        loss = (self.network.audio_transform(inputs) - inputs).square().mean()
        if step == self.settings.steep_at:
            loss = loss + (loss - loss.detach()).sqrt()
        return {"toy": loss * (torch.nan if step == self.settings.breaks_at else 1)}

    def scores(self, network: Wav2CLIP) -> dict[str, float]:
        return {"weight": next(network.parameters()).sum().item()}


def plan(folder: Path, steps: int) -> Plan:
    return Plan(folder=folder, steps=steps, report_every=0, save_every=0)


def losses(run: Run[Wav2CLIP], *, fresh: bool = False) -> list[float]:
    return [event.losses["toy"] for event in run.events(fresh=fresh) if isinstance(event, Progress)]


def test_a_run_tells_how_it_goes_and_leaves_weights_that_load(tmp_path: Path) -> None:
    events = list(Run(Toy(), plan(tmp_path, 3)).events())
    assert [type(event) for event in events] == [Started, Progress, Progress, Progress, Scored, Finished]
    assert isinstance(events[-1], Finished)
    assert isinstance(checkpoints.load(events[-1].weights, role="wav2clip"), Wav2CLIP)
    training = checkpoints.read_header(events[-1].weights).training
    assert (training["steps"], training["seed"]) == (3, 0)
    assert set(training["scores"]) == {"weight"}
    logged = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [entry["step"] for entry in logged] == [1, 2, 3, 3]


def test_an_interrupted_run_goes_on_as_if_it_had_not_been(tmp_path: Path) -> None:
    whole = losses(Run(Toy(), plan(tmp_path / "whole", 8)))
    first = []
    for event in Run(Toy(), plan(tmp_path / "parts", 8)).events():
        if isinstance(event, Progress):
            first.append(event.losses["toy"])
            if event.step == 4:  # its checkpoint is not written yet: the step is done again
                break
    rest = Run(Toy(), plan(tmp_path / "parts", 8))
    second = losses(rest)
    assert first[:3] + second == whole
    assert rest.step == 8


def test_seeds_decide_the_run(tmp_path: Path) -> None:
    one, same, other = (
        losses(Run(Toy(seed=seed), plan(tmp_path / name, 3))) for name, seed in (("a", 1), ("b", 1), ("c", 2))
    )
    assert one == same != other


def test_a_fresh_run_forgets_the_last(tmp_path: Path) -> None:
    first = losses(Run(Toy(), plan(tmp_path, 3)))
    assert losses(Run(Toy(), plan(tmp_path, 3))) == []
    assert losses(Run(Toy(), plan(tmp_path, 3)), fresh=True) == first


def test_other_settings_are_refused_and_named(tmp_path: Path) -> None:
    losses(Run(Toy(), plan(tmp_path, 2)))
    with pytest.raises(TrainingError, match=r"learning_rate \(0.01, now 0.5\).*seed \(0, now 4\)") as caught:
        losses(Run(Toy(ToySettings(learning_rate=0.5), seed=4), plan(tmp_path, 4)))
    assert "--fresh" in caught.value.hint


def test_the_length_of_a_run_may_change(tmp_path: Path) -> None:
    losses(Run(Toy(), plan(tmp_path, 2)))
    assert len(losses(Run(Toy(), plan(tmp_path, 5)))) == 3


def test_a_loss_that_is_no_number_stops_the_run_and_keeps_the_last_good_state(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="loss is nan at step 3"):
        losses(Run(Toy(ToySettings(breaks_at=3)), plan(tmp_path, 9)))
    state = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    assert state["step"] == 3
    assert all(torch.isfinite(tensor).all() for tensor in state["network"].values())


def test_a_gradient_that_is_no_number_does_not_reach_the_weights(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"gradient's norm is (inf|nan) at step 3"):
        losses(Run(Toy(ToySettings(steep_at=3)), plan(tmp_path, 9)))
    state = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    assert state["step"] == 3
    assert all(torch.isfinite(tensor).all() for tensor in state["network"].values())


def test_other_data_are_refused_and_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Toy, "conditions", lambda self: {"pictures": 4})
    losses(Run(Toy(), plan(tmp_path, 2)))
    monkeypatch.setattr(Toy, "conditions", lambda self: {"pictures": 5})
    with pytest.raises(TrainingError, match=r"pictures \(4, now 5\)"):
        losses(Run(Toy(), plan(tmp_path, 4)))


def test_what_could_not_be_read_is_told_at_the_end_and_logged(tmp_path: Path) -> None:
    toy = Toy()
    toy.skipped = ("a.tar:1", "a.tar:2")
    (last,) = [event for event in Run(toy, plan(tmp_path, 1)).events() if isinstance(event, Finished)]
    assert last.skipped == toy.skipped
    logged = json.loads((tmp_path / "log.jsonl").read_text().splitlines()[0])
    assert logged["skipped"] == ["a.tar:1", "a.tar:2"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a disk that is always full")
def test_a_log_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    losses(Run(Toy(), plan(tmp_path, 1)))
    before = (tmp_path / "checkpoint.pt").read_bytes()
    (tmp_path / "log.jsonl").unlink()
    (tmp_path / "log.jsonl").symlink_to("/dev/full")
    with pytest.raises(OutputError, match=r"cannot write .*log\.jsonl.*No space left") as caught:
        losses(Run(Toy(), plan(tmp_path, 4)))
    assert "resume" in caught.value.hint
    assert (tmp_path / "checkpoint.pt").read_bytes() == before


def test_a_damaged_checkpoint_is_told(tmp_path: Path) -> None:
    (tmp_path / "checkpoint.pt").write_bytes(b"nothing")
    with pytest.raises(TrainingError, match="cannot be read"):
        losses(Run(Toy(), plan(tmp_path, 2)))


def test_minutes_become_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wav2clip_gen.training.loop.MEASURED_STEPS", 3)
    run = Run(Toy(), Plan(folder=tmp_path, minutes=0.005, report_every=0))
    progress = [event for event in run.events() if isinstance(event, Progress)]
    assert progress[0].steps is None
    assert progress[-1].step == progress[-1].steps == run.steps


def test_another_network_is_refused(tmp_path: Path) -> None:
    losses(Run(Toy(), plan(tmp_path, 1)))
    wider = Toy()
    wider.network = Wav2CLIP(Wav2CLIPConfig(width=2, embedding=8)).train()
    wider.optimiser = torch.optim.AdamW(wider.network.parameters())
    with pytest.raises(TrainingError, match="begun with another network"):
        losses(Run(wider, plan(tmp_path, 2)))


def test_too_small_a_disk_is_told_before_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=1000))
    with pytest.raises(OutputError, match="0 MB are free, and the run's files") as caught:
        losses(Run(Toy(), plan(tmp_path, 2)))
    assert "--runs" in caught.value.hint


def test_a_disk_that_fills_up_leaves_the_last_good_checkpoint(tmp_path: Path) -> None:
    losses(Run(Toy(), plan(tmp_path, 2)))
    before = (tmp_path / "checkpoint.pt").read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    events = Run(Toy(), plan(tmp_path, 4)).events()
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


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="cannot make the folder"):
        losses(Run(Toy(), plan(tmp_path / "file" / "runs", 1)))


def test_evaluations_by_steps_come_when_they_are_due(tmp_path: Path) -> None:
    by_steps = Plan(folder=tmp_path, steps=5, report_every=0, score_steps=2)
    assert [event.step for event in Run(Toy(), by_steps).events() if isinstance(event, Scored)] == [2, 4, 5]


@pytest.mark.parametrize("lengths", [{}, {"steps": 3, "minutes": 1.0}, {"steps": 0}, {"minutes": 0.0}])
def test_a_plan_has_one_length(tmp_path: Path, lengths: dict[str, float]) -> None:
    with pytest.raises(TrainingError):
        Plan(folder=tmp_path, **lengths)  # type: ignore[arg-type]


def test_the_learning_rate_rises_stays_and_falls() -> None:
    rates = [learning_rate(step, 1000, peak=1.0, cool_down=0.3) for step in range(1000)]
    assert rates[0] == 1 / 200
    assert rates[200:700] == [1.0] * 500
    assert rates[-1] == pytest.approx(1 / 300)
    assert rates[200:] == sorted(rates[200:], reverse=True)


def test_an_average_follows_its_network() -> None:
    network = nn.BatchNorm1d(2)
    average = Average(network)
    with torch.no_grad():
        network.weight.fill_(5.0)
        network.running_mean.fill_(1.0)  # type: ignore[union-attr]
    for _ in range(200):
        average.update()
    torch.testing.assert_close(average.network.weight, network.weight, atol=0.01, rtol=0)
    torch.testing.assert_close(average.network.running_mean, network.running_mean, atol=0.01, rtol=0)
    assert not average.network.training

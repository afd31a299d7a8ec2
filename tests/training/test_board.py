from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from wav2clip_gen.errors import TrainingError
from wav2clip_gen.training.board import Board
from wav2clip_gen.training.plan import Progress, Scored, Started


def test_losses_and_scores_become_scalars_by_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[tuple[str, float, int]] = []

    class Writer:
        def __init__(self, folder: str) -> None:
            assert folder == str(tmp_path)

        def add_scalar(self, name: str, value: float, step: int) -> None:
            written.append((name, value, step))

        def close(self) -> None:
            written.append(("closed", 0.0, 0))

    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", SimpleNamespace(SummaryWriter=Writer))
    with Board(tmp_path) as board:
        board.show(Started(0))
        board.show(Progress(3, 9, {"pull": 0.5}, 0.25))
        board.show(Scored(4, {"top1": 0.75}))
    assert written == [
        ("loss/pull", 0.5, 3), ("speed/steps a second", 4.0, 3), ("score/top1", 0.75, 4), ("closed", 0.0, 0),
    ]  # fmt: skip


def test_without_tensorboard_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(TrainingError, match="TensorBoard is not installed") as caught:
        Board(tmp_path)
    assert caught.value.hint == "pip install tensorboard"

"""`w2c-gen train`, from the command to the weights in their folder."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from wav2clip_gen.cli.running import install
from wav2clip_gen.cli.train import app
from wav2clip_gen.errors import OutputError
from wav2clip_gen.models import checkpoints, manifest, registry
from wav2clip_gen.models.registry import load_family

QUICK = ("--steps", "1", "--batch", "2", "--device", "cpu")


def run(*arguments: str | Path) -> tuple[int, str]:
    """Exit code, and what was said on stderr; stdout stays empty."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.stdout == ""
    return result.exit_code, result.stderr


@pytest.mark.slow
def test_four_commands_make_a_family(toy_data: Path, tmp_path: Path) -> None:
    out, runs = tmp_path / "weights" / "mini", tmp_path / "runs"
    where = ("--data", toy_data, "--out", out, "--runs", runs)
    code, said = run("clip", *where, *QUICK, "--text-steps", "1")
    assert code == 0, said
    assert "step 1/1" in said
    for part in ("vqgan", "wav2clip"):
        code, said = run(part, *where, *QUICK)
        assert code == 0, said
        assert "scores at step 1" in said
    assert load_family("mini", weights_dir=tmp_path / "weights").prior is None
    code, said = run("prior", "--data", toy_data, "--out", out)
    assert code == 0, said
    family = load_family("mini", weights_dir=tmp_path / "weights")
    assert family.clip.size == 64
    assert family.prior is not None


def test_one_tower_alone_writes_no_weights_yet(toy_data: Path, tmp_path: Path) -> None:
    where = ("--data", toy_data, "--out", tmp_path / "mini", "--runs", tmp_path / "runs")
    code, said = run("clip", *where, "--tower", "text", "--text-steps", "1", "--batch", "2")
    assert code == 0, said
    assert "the image tower is untrained" in said
    assert not (tmp_path / "mini").exists()
    assert (tmp_path / "runs" / "clip-text" / "clip.safetensors").exists()


def test_a_missing_folder_names_the_option(tmp_path: Path) -> None:
    code, said = run("vqgan", "--data", tmp_path / "nowhere", "--runs", tmp_path)
    assert code == 1
    assert "nowhere" in said
    assert "--data" in said


def text_tower(data: Path, folder: Path, *more: str) -> tuple[int, str]:
    """Train the half of CLIP that is trained fastest."""
    where = ("--data", data, "--out", folder / "mini", "--runs", folder / "runs")
    return run("clip", *where, "--tower", "text", "--text-steps", "1", "--batch", "2", *more)


def test_a_run_that_goes_on_with_other_settings_is_refused(toy_data: Path, tmp_path: Path) -> None:
    code, said = text_tower(toy_data, tmp_path)
    assert code == 0, said
    code, said = text_tower(toy_data, tmp_path, "--seed", "3", "--batch", "4")
    assert code == 1
    assert "batch (2, now 4), seed (0, now 3)" in " ".join(said.split())
    assert "--fresh" in said
    code, said = text_tower(toy_data, tmp_path, "--memory", "1", "--workers", "2", "--threads", "1")  # decide nothing
    assert code == 0, said


@pytest.mark.slow
def test_what_cannot_be_read_and_what_does_not_fit_is_told(toy_data: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    shutil.copytree(toy_data, data)
    broken = data / "images" / "train-natural-001.tar"
    broken.write_bytes(b"no tar")
    where = ("--data", data, "--out", tmp_path / "mini", "--runs", tmp_path / "runs")
    code, said = run("vqgan", *where, *QUICK, "--memory", "0.001", "--workers", "1")
    assert code == 0, said
    begun, *_, finished = [line for line in said.splitlines() if "vqgan: " in line]
    assert "1 members of the data cannot be read and are skipped: train-natural-001.tar" in begun
    assert "0.000983 of 0.00197 GB of decoded data fit into --memory" in begun
    assert "1 that cannot be read were skipped, log.jsonl names them" in finished
    assert "train-natural-001.tar" in (tmp_path / "runs" / "vqgan" / "log.jsonl").read_text()


def test_a_disk_that_does_not_take_the_weights_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(source: Path, target: Path) -> None:
        target.write_bytes(b"half of it")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(shutil, "copyfile", full)
    out = tmp_path / "mini"
    with pytest.raises(OutputError, match=r"cannot write .*mini/vqgan\.safetensors: No space left") as caught:
        install(tmp_path / "runs" / "vqgan.safetensors", out)
    assert "runs/vqgan.safetensors" in caught.value.hint
    assert list(out.iterdir()) == []


@pytest.mark.parametrize("words", [("wav2clip", "--runs", "runs"), ("prior",)])
def test_the_sound_encoder_and_the_prior_need_the_trained_clip(
    words: tuple[str, ...], toy_data: Path, tmp_path: Path
) -> None:
    code, said = run(*words, "--data", toy_data, "--out", tmp_path)
    assert code == 1
    assert "clip.safetensors" in said
    assert "w2c-gen train clip" in said


def test_steps_and_minutes_exclude_each_other(toy_data: Path, tmp_path: Path) -> None:
    code, said = run("vqgan", "--data", toy_data, "--runs", tmp_path, "--steps", "2", "--minutes", "1")
    assert code == 1
    assert "--steps or --minutes" in said


def test_the_command_loads_without_torch() -> None:
    code = "import sys, wav2clip_gen.cli.train; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.slow
def test_a_weights_file_says_how_it_was_trained(toy_data: Path, tmp_path: Path) -> None:
    run("vqgan", "--data", toy_data, "--out", tmp_path, "--runs", tmp_path / "runs", *QUICK, "--seed", "4")
    training = checkpoints.read_header(tmp_path / "vqgan.safetensors").training
    assert (training["steps"], training["seed"], training["sets"]) == (1, 4, ["toy"])
    assert training["settings"]["batch"] == 2


@pytest.mark.slow
def test_the_painter_is_trained_further_from_a_file(toy_data: Path, tmp_path: Path) -> None:
    first, further = tmp_path / "first", tmp_path / "further"
    run("vqgan", "--data", toy_data, "--out", first, "--runs", first, *QUICK)
    start = first / "vqgan.safetensors"
    code, said = run("vqgan", "--data", toy_data, "--out", further, "--runs", further, *QUICK, "--from", start)
    assert code == 0, said
    assert "commitment" in said
    assert checkpoints.read_header(further / "vqgan.safetensors").training["before"]["steps"] == 1


def test_only_a_painter_can_be_trained_further_as_one(toy_data: Path, tmp_path: Path) -> None:
    ears = registry.require_part(manifest.part("mini-wav2clip"))
    code, said = run("vqgan", "--data", toy_data, "--runs", tmp_path, "--from", ears)
    assert code == 1
    assert "not a vqgan" in said


@pytest.mark.slow
def test_the_sound_encoder_learns_from_videos(
    toy_videos: Path, untrained_clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[object] = []
    monkeypatch.setattr("wav2clip_gen.training.board.Board.__init__", lambda self, folder: None)
    monkeypatch.setattr("wav2clip_gen.training.board.Board.show", lambda self, event: shown.append(event))
    monkeypatch.setattr("wav2clip_gen.training.board.Board.__exit__", lambda self, *problem: None)
    where = ("--out", tmp_path / "mini", "--runs", tmp_path, "--perceptor", untrained_clip, "--tensorboard", tmp_path)
    small = ("--steps", "2", "--batch", "4", "--parts", "2", "--width", "2", "--loss", "clip_loss", "--device", "cpu")
    code, said = run("wav2clip", "--videos", toy_videos, *where, *small)
    assert code == 0, said
    assert "10/10 clips embedded, 0 skipped" in said
    assert "projected sound-image" in said
    assert "sound-projected image" not in said  # clip_loss has one projection only
    assert len(shown) >= 4
    training = checkpoints.read_header(tmp_path / "mini" / "wav2clip.safetensors").training
    assert training["settings"]["parts"] == 2


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ((), "nothing to learn from was given"),
        ((), "either --data"),
        (("--data", "a", "--videos", "b"), "--data and --videos contradict each other"),
        (("--data", "a", "--loss", "clip_loss"), "--loss needs --videos"),
        (("--videos", "b", "--teacher", "1"), "--teacher needs --data"),
        (("--videos", "nowhere", "--perceptor", "nowhere.safetensors"), "no such weights file"),
    ],
)
def test_options_that_do_not_go_together_are_told(tmp_path: Path, options: tuple[str, ...], told: str) -> None:
    code, said = run("wav2clip", *options, "--runs", tmp_path)
    assert code != 0
    assert told in " ".join(said.split())

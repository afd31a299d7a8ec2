"""`w2c-gen train`, from the command to the weights in their folder."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tests.training.conftest import write_table, write_yamnet
from wav2clip_gen.cli.train import app, install_weights
from wav2clip_gen.errors import OutputError
from wav2clip_gen.models import checkpoints, manifest, store
from wav2clip_gen.models.registry import load_family
from wav2clip_gen.training.settings import DistillSettings, LabeledAudioSettings

QUICK = ("--steps", "1", "--batch", "2", "--device", "cpu")


def run(*arguments: str | Path) -> tuple[int, str]:
    """Exit code and stderr; stdout stays empty."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.stdout == ""
    return result.exit_code, result.stderr


@pytest.mark.slow
def test_four_commands_make_a_family(toy_data: Path, tmp_path: Path) -> None:
    out, runs, data = tmp_path / "weights" / "mini", tmp_path / "runs", tmp_path / "data"
    shutil.copytree(toy_data, data)
    write_yamnet(data)
    write_table(data / "teachers" / "yamnet_class_map.csv", [{"display_name": f"tag {row}"} for row in range(521)])
    where = ("--data", data, "--out", out, "--runs", runs)
    code, output = run("clip", *where, *QUICK, "--text-steps", "1")
    assert code == 0, output
    assert "step 1/1" in output
    for part in ("vqgan", "wav2clip"):
        code, output = run(part, *where, *QUICK)
        assert code == 0, output
        assert "scores at step 1" in output
    assert load_family("mini", weights_dir=tmp_path / "weights").prior is None
    code, output = run("prior", "--data", data, "--out", out)
    assert code == 0, output
    family = load_family("mini", weights_dir=tmp_path / "weights")
    assert family.clip.size == 64
    assert family.prior is not None


def text_tower(data: Path, folder: Path, *more: str) -> tuple[int, str]:
    """Train the half of CLIP that trains fastest."""
    where = ("--data", data, "--out", folder / "mini", "--runs", folder / "runs")
    return run("clip", *where, "--tower", "text", "--text-steps", "1", "--batch", "2", *more)


def test_one_tower_alone_writes_no_weights_and_other_settings_are_not_resumed(toy_data: Path, tmp_path: Path) -> None:
    code, output = text_tower(toy_data, tmp_path, "--named", "0.5")
    assert code == 0, output
    assert "the image tower is untrained" in output
    assert not (tmp_path / "mini").exists()
    weights = tmp_path / "runs" / "clip-text" / "clip.safetensors"
    assert checkpoints.read_header(weights).training["settings"]["named"] == 0.5
    code, output = text_tower(toy_data, tmp_path, "--seed", "3", "--batch", "4", "--named", "0.5")
    assert code == 1
    assert "batch (2, now 4), seed (0, now 3)" in " ".join(output.split())
    assert "--fresh" in output
    irrelevant = ("--memory", "1", "--workers", "2", "--threads", "1")
    code, output = text_tower(toy_data, tmp_path, "--named", "0.5", *irrelevant)
    assert code == 0, output
    assert "resuming at step 1" in output


def test_a_missing_folder_names_the_option(tmp_path: Path) -> None:
    code, output = run("vqgan", "--data", tmp_path / "nowhere", "--runs", tmp_path)
    assert code == 1
    assert "nowhere" in output
    assert "--data" in output


@pytest.mark.slow
def test_unreadable_data_and_the_memory_bound_are_reported(toy_data: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    shutil.copytree(toy_data, data)
    broken = data / "images" / "train-natural-001.tar"
    broken.write_bytes(b"no tar")
    where = ("--data", data, "--out", tmp_path / "mini", "--runs", tmp_path / "runs")
    code, output = run("vqgan", *where, *QUICK, "--memory", "0.001", "--workers", "1")
    assert code == 0, output
    started, *_, finished = [line for line in output.splitlines() if "vqgan: " in line]
    assert "1 members of the data cannot be read and are skipped: train-natural-001.tar" in started
    assert "0.000983 of 0.00197 GB of decoded data fit into --memory" in started
    assert "1 unreadable examples were skipped, log.jsonl names them" in finished
    assert "train-natural-001.tar" in (tmp_path / "runs" / "vqgan" / "log.jsonl").read_text()


def test_a_full_disk_at_the_end_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(source: Path, target: Path) -> None:
        target.write_bytes(b"half of it")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(shutil, "copyfile", full)
    out = tmp_path / "mini"
    with pytest.raises(OutputError, match=r"cannot write .*mini/vqgan\.safetensors: No space left") as caught:
        install_weights(tmp_path / "runs" / "vqgan.safetensors", out)
    assert "runs/vqgan.safetensors" in caught.value.hint
    assert list(out.iterdir()) == []


@pytest.mark.parametrize("words", [("wav2clip", "--runs", "runs"), ("prior",)])
def test_the_sound_encoder_and_the_prior_need_the_trained_clip(
    words: tuple[str, ...], toy_data: Path, tmp_path: Path
) -> None:
    code, output = run(*words, "--data", toy_data, "--out", tmp_path)
    assert code == 1
    assert "clip.safetensors" in output
    assert "w2c-gen train clip" in output


def test_steps_and_minutes_exclude_each_other(toy_data: Path, tmp_path: Path) -> None:
    code, output = run("vqgan", "--data", toy_data, "--runs", tmp_path, "--steps", "2", "--minutes", "1")
    assert code == 1
    assert "--steps or --minutes" in output


def test_the_command_loads_without_torch() -> None:
    code = "import sys, wav2clip_gen.cli.train; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_each_setting_is_an_option() -> None:
    result = CliRunner().invoke(app, ["wav2clip", "--help"], env={"COLUMNS": "200", "TERMINAL_WIDTH": "200"})
    for field in (*fields(DistillSettings), *fields(LabeledAudioSettings)):
        assert f"--{field.name.replace('_', '-')}" in result.stdout
    assert "--parts" not in result.stdout  # a deprecated name


@pytest.mark.slow
def test_the_vqgan_records_its_training_and_is_fine_tuned(toy_data: Path, tmp_path: Path) -> None:
    first, further = tmp_path / "first", tmp_path / "further"
    run("vqgan", "--data", toy_data, "--out", first, "--runs", first, *QUICK, "--seed", "4")
    start = first / "vqgan.safetensors"
    training = checkpoints.read_header(start).training
    assert (training["steps"], training["seed"], training["sets"]) == (1, 4, ["toy"])
    assert training["settings"]["batch"] == 2
    code, output = run("vqgan", "--data", toy_data, "--out", further, "--runs", further, *QUICK, "--from", start)
    assert code == 0, output
    assert "commitment" in output
    assert checkpoints.read_header(further / "vqgan.safetensors").training["before"]["steps"] == 1


def test_only_a_vqgan_can_be_fine_tuned_as_one(toy_data: Path, tmp_path: Path) -> None:
    encoder = store.locate(manifest.part("mini-wav2clip"))
    code, output = run("vqgan", "--data", toy_data, "--runs", tmp_path, "--from", encoder)
    assert code == 1
    assert "not a vqgan" in output


def test_the_sound_encoder_is_distilled_from_videos(toy_videos: Path, untrained_clip: Path, tmp_path: Path) -> None:
    where = ("--out", tmp_path / "mini", "--runs", tmp_path, "--perceptor", untrained_clip)
    small = ("--steps", "2", "--batch", "4", "--parts", "2", "--width", "2", "--loss", "clip_loss", "--device", "cpu")
    code, output = run("wav2clip", "--videos", toy_videos, *where, *small)
    assert code == 0, output
    assert "note: --parts is deprecated, use --micro-batches" in output
    assert "10/10 clips embedded, 0 skipped" in output
    assert "projected sound-image" in output
    assert "sound-projected image" not in output  # clip_loss has one projection only
    training = checkpoints.read_header(tmp_path / "mini" / "wav2clip.safetensors").training
    assert training["settings"]["micro_batches"] == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((), "nothing to train on was given"),
        ((), "either --data"),
        (("--data", "a", "--videos", "b"), "--data and --videos contradict each other"),
        (("--data", "a", "--loss", "clip_loss"), "--loss needs --videos"),
        (("--videos", "b", "--mixing", "1"), "--mixing needs --data"),
        (("--videos", "nowhere", "--perceptor", "nowhere.safetensors"), "no such weights file"),
    ],
)
def test_options_that_contradict_each_other_are_errors(tmp_path: Path, options: tuple[str, ...], message: str) -> None:
    code, output = run("wav2clip", *options, "--runs", tmp_path)
    assert code != 0
    assert message in " ".join(output.split())

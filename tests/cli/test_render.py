"""The bare form, as a person types it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray
from PIL import Image
from typer.testing import CliRunner, Result

from tests.cli.refusals import assert_refused
from tests.conftest import ROOT, SAMPLES, Write
from tests.interruption import interrupted
from wav2clip_gen import __version__
from wav2clip_gen.cli.render import app
from wav2clip_gen.models import manifest, registry
from wav2clip_gen.video.probe import probe

QUICK = ["--size", "64x48", "--fps", "4", "--first-steps", "1", "--steps", "1", "--cuts", "2"]


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture
def song(write_sound: Write, tone: NDArray[np.float64]) -> Path:
    return write_sound(tone)


def test_a_film_is_made_and_only_its_path_is_on_stdout(song: Path, tmp_path: Path) -> None:
    out = tmp_path / "film.mp4"
    done = run(song, "-o", out, "--seed", 7, "--progress", "plain", "-p", "a dog:0.5", *QUICK)
    assert done.exit_code == 0, done.stderr
    assert done.stdout == f"{out}\n"
    assert "frame 6/6" in done.stderr
    assert "seed 7" in done.stderr
    assert probe(out).frames == 6


def test_several_songs_one_of_which_fails(song: Path, tmp_path: Path) -> None:
    done = run(tmp_path / "none.wav", song, "-o", tmp_path / "{stem}_{seed}.mp4", "--seed", 3, *QUICK)
    assert done.exit_code == 1
    assert done.stdout == f"{tmp_path / 'song_3.mp4'}\n"
    assert "none.wav: no such file" in done.stderr


def test_two_songs_of_one_name_are_not_laid_over_each_other(song: Path, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    twin = (tmp_path / "other" / "song.wav").resolve()
    twin.write_bytes(song.read_bytes())
    done = run(song, twin, "--overwrite", "-o", tmp_path / "{stem}.mp4")
    assert (done.exit_code, "several tracks cannot all go to" in done.stderr) == (2, True)


def test_options_win_over_assignments_and_presets(song: Path, tmp_path: Path) -> None:
    done = run(
        song, "-o", tmp_path / "film.mp4", "--preset", "best", "--set", "picture.fps=3", "--progress", "none", *QUICK
    )
    assert done.exit_code == 0, done.stderr
    settings = json.loads((tmp_path / "film.json").read_text())["settings"]
    assert settings["picture"] == {"width": 64, "height": 48, "fps": 4.0, "upscale": 1, "layout": "single"}
    assert settings["painting"]["learning_rate"] == 0.2


def test_a_record_makes_the_film_again_from_another_folder(
    song: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(song, "-o", tmp_path / "film.mp4", "--upscale", 2, *QUICK).exit_code == 0
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    done = run("--from", "../film.json", "--out", "again.mp4")
    assert done.exit_code == 0, done.stderr
    first, again = tmp_path / "film.mp4", tmp_path / "elsewhere" / "again.mp4"
    assert probe(first) == probe(again)
    assert probe(again).width == 128


def test_pictures_steer_and_a_record_finds_them_again(
    song: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    moss, elsewhere = tmp_path / "moss.png", tmp_path / "elsewhere"
    Image.linear_gradient("L").convert("RGB").save(moss)
    pictures = ["--style-image", f"0:01- {moss}:0.5", "--style-image", moss, "--init-image", moss, "--init-weight", 2]
    assert run(song, "-o", tmp_path / "film.mp4", "--audio-weight", 0, *pictures, *QUICK).exit_code == 0
    content = json.loads((tmp_path / "film.json").read_text())
    assert [image["file"] for image in content["settings"]["style_images"]] == ["moss.png", "moss.png"]
    assert content["settings"]["painting"]["init_image"] == "moss.png"
    assert list(content["pictures"]) == ["moss.png"]
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    again = run("--from", "../film.json", "--out", "again.mp4")
    assert (again.exit_code, "note: " in again.stderr) == (0, False), again.stderr
    repeated = json.loads((elsewhere / "again.json").read_text())
    assert repeated["frames"] == content["frames"]
    assert list(repeated["pictures"]) == ["../moss.png"]
    Image.new("RGB", (9, 9)).save(moss)
    other = run("--from", "../film.json", "--out", "other.mp4")
    assert f"note: {Path('..') / 'moss.png'} is not what it was for film.json" in other.stderr


def test_a_storyboard_is_made_instead_of_a_film(song: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    plan = run("song.wav", "--storyboard", "--dry-run", *QUICK)
    assert (plan.exit_code, plan.stdout) == (0, ""), plan.stderr
    assert "song.storyboard.png: a picture of 64x48 for each section" in plan.stderr
    done = run("song.wav", "--storyboard", *QUICK)
    assert (done.exit_code, done.stdout) == (0, "song.storyboard.png\n"), done.stderr
    assert "section 1/1  0:00-0:02  " in done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["song.storyboard.png", "song.wav"]
    again = run("song.wav", "--storyboard", *QUICK)
    assert (again.exit_code, "song.storyboard.png exists" in again.stderr) == (1, True)
    assert run("song.wav", "--storyboard", "--overwrite", *QUICK).exit_code == 0


def test_json_progress_is_json(song: Path, tmp_path: Path) -> None:
    done = run(song, "-o", tmp_path / "film.mp4", "--progress", "json", *QUICK)
    told = [json.loads(line) for line in done.stderr.splitlines()]
    assert told[0]["event"] == "job"
    assert told[-1]["event"] == "Finished"
    assert sum(line["event"] == "FramePainted" for line in told) == 6


def test_a_dry_run_makes_nothing(song: Path, tmp_path: Path) -> None:
    done = run(song, "-o", tmp_path / "film.mp4", "--dry-run", *QUICK)
    assert done.exit_code == 0, done.stderr
    assert "about" in done.stderr
    assert done.stdout == ""
    assert sorted(path.name for path in tmp_path.iterdir()) == ["song.wav"]


def test_words_that_were_not_learned_are_told_before_the_work(song: Path, tmp_path: Path) -> None:
    prompts = ["-p", "a stormy sea", "-p", "xqzw:0.5"]
    planned = run(song, "-o", tmp_path / "film.mp4", "--dry-run", "--progress", "plain", *prompts, *QUICK)
    assert planned.stderr.splitlines()[2] == 'note: mini-clip has not learned the word "xqzw", and guesses'
    done = run(song, "-o", tmp_path / "film.mp4", "--progress", "json", *prompts, *QUICK)
    told = [json.loads(line) for line in done.stderr.splitlines()]
    assert [line["text"] for line in told if line["event"] == "note"] == [planned.stderr.splitlines()[2][6:]]
    quiet = run(song, "-o", tmp_path / "b.mp4", "--dry-run", *prompts[:2], *QUICK)
    assert "note:" not in quiet.stderr


def test_stems_are_chosen_weighted_and_told(tmp_path: Path) -> None:
    given = [f"--stem-file={name}={SAMPLES / 'song' / name}.ogg" for name in ("vocals", "drums")]
    span = ["--start", 7, "--duration", 1, "-o", tmp_path / "{stem}.mp4"]
    named = ["--stems", "vocals, drums", "--stem-weight", "drums=2.5", *given]
    done = run(SAMPLES / "song" / "mix.ogg", *named, *span, *QUICK)
    assert done.exit_code == 0, done.stderr
    assert f"stems: vocals ({SAMPLES / 'song' / 'vocals.ogg'}), drums x 2.5 (" in done.stderr
    settings = json.loads((tmp_path / "mix.json").read_text())["settings"]
    assert settings["stems"] == [{"name": "vocals", "weight": 1.0}, {"name": "drums", "weight": 2.5}]


def test_a_folder_becomes_a_film_of_each_stem_named_after_it(tmp_path: Path) -> None:
    span = ["--start", 7, "--duration", 0.5, "-o", tmp_path / "{stem}.mp4"]
    done = run(SAMPLES / "song", "--stems", "vocals,drums", "--layout", "separate", *span, *QUICK)
    assert done.exit_code == 0, done.stderr
    assert done.stdout.splitlines() == [str(tmp_path / f"song.{name}.mp4") for name in ("vocals", "drums")]
    again = run(SAMPLES / "song", "--stems", "bass,drums", "--layout", "separate", *span, *QUICK)
    assert (again.exit_code, "song.drums.mp4 exists" in again.stderr) == (1, True)
    assert not (tmp_path / "song.bass.mp4").exists()


def test_a_dry_run_tells_every_film_and_where_stems_come_from(tmp_path: Path, song: Path) -> None:
    separate = ["--stems", "vocals,drums", "--layout", "separate", "--separator", "dsp"]
    done = run(song, *separate, "-o", tmp_path / "film.mp4", "--dry-run", *QUICK)
    assert done.exit_code == 0, done.stderr
    assert "stems: vocals (dsp), drums (dsp)" in done.stderr
    assert "film.vocals.mp4: 6 frames" in done.stderr
    assert "film.drums.mp4: 6 frames" in done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["song.wav"]


def test_the_stems_of_a_record_are_not_those_of_another_song(tmp_path: Path, song: Path) -> None:
    first = ["--stems", "drums", "--start", 7, "--duration", 0.5, "-o", tmp_path / "film.mp4"]
    assert run(SAMPLES / "song", *first, *QUICK).exit_code == 0
    other = ["--from", tmp_path / "film.json", "--start", 0, "-o", tmp_path / "other.mp4"]
    assert run(song, *other).exit_code == 0
    told = json.loads((tmp_path / "other.json").read_text())["stems"]
    assert (told["drums"]["from"], told["drums"]["path"]) == ("dsp", None)


def test_the_film_of_a_folder_keeps_its_name_and_may_have_other_stems(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    made = run(SAMPLES / "song", "--stems", "drums", "--start", 7, "--duration", 0.5, *QUICK)
    assert (made.exit_code, made.stdout) == (0, "song.mp4\n"), made.stderr
    again = run("--from", "song.json", "--stems", "vocals", "--overwrite")
    assert (again.exit_code, again.stdout) == (0, "song.mp4\n"), again.stderr
    assert list(json.loads((tmp_path / "song.json").read_text())["stems"]) == ["vocals"]


def test_separating_is_told_as_it_goes_on(tmp_path: Path, song: Path) -> None:
    stems = ["--stems", "drums", "--separator", "dsp", "-o", tmp_path / "film.mp4", *QUICK]
    done = run(song, *stems, "--progress", "json")
    assert done.exit_code == 0, done.stderr
    told = [json.loads(line) for line in done.stderr.splitlines()]
    shares = [line["share"] for line in told if line["event"] == "Separated"]
    assert shares == sorted(shares)
    assert shares[-1] == 1
    assert told[0]["stems"] == {"drums": "dsp"}
    plain = run(song, *stems, "--progress", "plain", "--overwrite", "--duration", 1)
    assert "separating the stems\nseparating the stems, " in plain.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["none.wav"], 1, "no such file"),
        (["."], 1, "without a mix"),
        (["song.wav", "--stems", "vocal"], 2, "no stem is called 'vocal'"),
        (["song.wav", "--stems", "drums,drums"], 2, "named twice"),
        (["song.wav", "--stems", ""], 2, "no name of a stem"),
        (["song.wav", "--stems", "drums", "--stem-weight", "bass=2"], 2, "no stem 'bass' steers"),
        (["song.wav", "--stems", "drums", "--stem-weight", "drums=200"], 2, "weight cannot be 200"),
        (["song.wav", "--stem-weight", "drums=2"], 2, "no stem 'drums' steers"),
        (["song.wav", "--stem-file", "drums=song.wav"], 2, "no stem is named"),
        (["song.wav", "--stems", "drums", "--stem-file", "drums=none.wav"], 1, "none.wav: no such file"),
        (["song.wav", "--stems", "drums", "--stem-file", "song.wav"], 2, "which stem is it"),
        (["song.wav", "--stems", "drums", "--separator", "magic"], 2, "separator cannot be magic"),
        (["song.wav", "--layout", "grid"], 2, "made of stems"),
        (["song.wav", "--stems", "drums", "--layout", "mosaic"], 2, "layout cannot be mosaic"),
        (["song.wav", "--keep-stems", "kept"], 2, "none to keep"),
        (["song.wav", "--stems", "drums", "--audio-weight", "0", "-p", "a sea"], 2, "no stem steers"),
        (["notes.txt"], 1, "not a sound file"),
        (["empty.wav"], 1, "is empty"),
        (["nan.wav"], 1, "not numbers"),
        (["song.wav", "--start", "9"], 1, "nothing is left"),
        (["song.wav", "-o", "missing/film.mp4"], 1, "does not exist"),
        (["song.wav", "-o", "film.avi"], 1, "only mp4"),
        (["song.wav", "-o", "taken.mp4"], 1, "exists"),
        (["song.wav", "song.wav", "-o", "one.mp4"], 2, "several tracks"),
        (["song.wav", "--fps", "0"], 2, "fps cannot be 0"),
        (["song.wav", "--fps", "1000"], 2, "fps cannot be 1000"),
        (["song.wav", "--size", "100x50"], 2, "multiples of"),
        (["song.wav", "--size", "8x8"], 2, "width cannot be 8"),
        (["song.wav", "--models", "huge"], 2, "models cannot be huge"),
        (["song.wav", "--preset", "drafty"], 2, "no preset"),
        (["song.wav", "--set", "painting.stepz=3"], 2, "no setting"),
        (["song.wav", "--config", "none.yaml"], 2, "cannot be read"),
        (["song.wav", "--from", "notes.txt"], 2, "not a run record"),
        (["song.wav", "--device", "abacus"], 2, "no device"),
        (["song.wav", "-p", ""], 2, "no words"),
        (["song.wav", "--zoom", "-1"], 2, "zoom cannot be -1.0 1/s"),
        (["song.wav", "--border", "mirror"], 2, "border cannot be mirror"),
        (["song.wav", "--map", "onzet:zoom=1"], 2, "no feature is called 'onzet'"),
        (["song.wav", "--map", "drumz.onset:zoom=1"], 2, "drumz"),
        (["song.wav", "--map", "onset:prompt=1"], 2, "a prompt that is not there"),
        (["song.wav", "--style-image", "none.png"], 2, "none.png: cannot be read"),
        (["song.wav", "--style-image", ":0.5"], 2, "no file"),
        (["song.wav", "--init-image", "notes.txt"], 2, "not a picture"),
        (["song.wav", "--init-weight", "0.5"], 2, "none is given"),
        (["song.wav", "--init-image", "picture.png", "--init-weight", "-1"], 2, "init weight cannot be -1"),
        (["song.wav", "--style-image", "picture.png:1e9"], 2, "weight cannot be"),
        (["song.wav", "--style-image", "picture.png:0", "--audio-weight", "0"], 2, "nothing steers"),
        (["song.wav", "--init-image", "picture.png", "--frames-dir", ".", "--overwrite"], 2, "lies where"),
        (["song.wav", "--storyboard", "-o", "sheet.jpg"], 1, "a storyboard is a png"),
        (["song.wav", "--storyboard", "-o", "missing/sheet.png"], 1, "does not exist"),
        (["song.wav", "--storyboard", "-o", "picture.png"], 1, "exists"),
        (["song.wav", "--storyboard", "--frames-dir", "frames"], 2, "no frames to keep"),
        (["song.wav", "--storyboard", "-o", "picture.png", "--overwrite", "--init-image", "picture.png"], 2, "steers"),
        ([], 2, "no track"),
    ],
)  # fmt: skip
def test_wrong_input_gets_a_clear_line_and_nothing_is_lost(
    arguments: list[str], code: int, says: str, song: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = song.parent
    monkeypatch.chdir(folder)
    (folder / "notes.txt").write_text("la la la")
    (folder / "empty.wav").touch()
    Image.new("RGB", (9, 9)).save(folder / "picture.png")
    (folder / "taken.mp4").write_text("an old film")
    soundfile.write(folder / "nan.wav", np.array([0.0, np.nan, 0.0]), 16_000, subtype="FLOAT")
    before = {path: path.read_bytes() for path in folder.iterdir()}
    assert_refused(run(*arguments), says, code=code)
    assert {path: path.read_bytes() for path in folder.iterdir()} == before


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["song.wav", "--size", "big"], "WIDTHxHEIGHT"),
        (["song.wav", "--start", "noon"], "no time"),
        (["song.wav", "--steps", "many"], "valid integer"),
        (["song.wav", "--stem-weight", "drums"], "NAME=WEIGHT"),
        (["song.wav", "--stem-weight", "drums=loud"], "NAME=WEIGHT"),
        (["song.wav", "--progress", "loud"], "--progress"),
        (["song.wav", "--such"], "--such"),
    ],
)
def test_wrong_options_are_usage_errors(arguments: list[str], says: str) -> None:
    done = run(*arguments)
    assert done.exit_code == 2
    assert says in done.stderr


def test_missing_weights_and_ffmpeg_are_told_before_any_work(
    song: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as without:
        (tmp_path / "mini").mkdir()  # hides the family that ships
        without.setenv("W2C_WEIGHTS", str(tmp_path))
        done = run(song, "-o", tmp_path / "film.mp4")
        assert (done.exit_code, "no such weights file" in done.stderr) == (1, True)
    monkeypatch.setenv("W2C_FFMPEG", str(tmp_path / "none"))
    done = run(song, "-o", tmp_path / "film.mp4")
    assert (done.exit_code, "W2C_FFMPEG" in done.stderr) == (1, True)
    assert not (tmp_path / "film.mp4").exists()


def test_damaged_weights_are_one_clear_line(song: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    family = tmp_path / "weights" / "mini"
    family.mkdir(parents=True)
    for part in manifest.expand("mini"):
        content = registry.locate(part).read_bytes()
        cut = len(content) // 2 if part.role == "vqgan" else len(content)
        (family / f"{part.role}.safetensors").write_bytes(content[:cut])
    monkeypatch.setenv("W2C_WEIGHTS", str(tmp_path / "weights"))
    done = run(song, "-o", tmp_path / "film.mp4")
    assert done.exit_code == 1
    assert "vqgan.safetensors: not a readable safetensors file" in done.stderr
    assert "Traceback" not in done.stderr


def test_what_should_not_happen_is_told_and_debug_shows_where(
    song: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*arguments: object, **options: object) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr("wav2clip_gen.job.open_track", broken)
    done = run(song, "-o", tmp_path / "film.mp4")
    assert (done.exit_code, "this should not happen: ZeroDivisionError: a bug" in done.stderr) == (1, True)
    shown = run(song, "-o", tmp_path / "film.mp4", "--debug")
    assert (shown.exit_code, "in broken" in shown.stderr) == (1, True)
    assert run(song, "--fps", "0", "--debug").exit_code == 2


def test_help_names_every_knob_and_the_other_commands() -> None:
    text = subprocess.run(
        [sys.executable, "-m", "wav2clip_gen", "--help"], capture_output=True, text=True, check=True, cwd=ROOT,
        env={**os.environ, "COLUMNS": "120", "TERM": "dumb"},
    ).stdout  # fmt: skip
    for word in (
        "--out",
        "--steps",
        "--cuts",
        "--smoothing",
        "--from",
        "default 12",
        "w2c-gen doctor",
        "w2c-gen train",
    ):
        assert word in text
    bare = subprocess.run([sys.executable, "-m", "wav2clip_gen"], capture_output=True, text=True, check=False, cwd=ROOT)
    assert "Usage: w2c-gen" in bare.stdout


def test_the_version_is_told() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "wav2clip_gen", "--version"], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert done.stdout == f"w2c-gen {__version__}\n"


def test_ctrl_c_keeps_what_was_painted_as_a_playable_film(song: Path, tmp_path: Path) -> None:
    slow = ("--size", "64x64", "--fps", "60", "--first-steps", "1", "--steps", "20")
    code, stdout, stderr = interrupted(
        song, "-o", tmp_path / "film.mp4", *slow, when=lambda line: line["event"] == "FramePainted"
    )
    assert code == 130, stderr
    partial = tmp_path / "film.partial.mp4"
    assert stdout == f"{partial}\n"
    assert 1 <= probe(partial).frames < 90
    assert sorted(path.name for path in tmp_path.iterdir()) == ["film.partial.json", "film.partial.mp4", "song.wav"]


def test_ctrl_c_before_the_first_frame_leaves_nothing(song: Path, tmp_path: Path) -> None:
    slow = ("-o", tmp_path / "film.mp4", "--first-steps", "9999")
    code, stdout, stderr = interrupted(song, *slow, when=lambda line: line.get("name") == "paint", after=0.3)
    assert (code, stdout) == (130, "")
    assert "interrupted" in stderr
    assert [path.name for path in tmp_path.iterdir()] == ["song.wav"]

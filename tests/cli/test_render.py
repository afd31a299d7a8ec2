"""The bare form `w2c-gen song.wav`, with its options."""

from __future__ import annotations

import json
import os
import re
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
from wav2clip_gen import __version__
from wav2clip_gen.cli import options
from wav2clip_gen.cli.app import COMMANDS
from wav2clip_gen.cli.render import app
from wav2clip_gen.config import all_settings
from wav2clip_gen.models import manifest, store
from wav2clip_gen.video.verify import probe

UNKNOWN_WORD = 'mini-clip has not learned the word "xqzw", and guesses'
QUICK = ["--size", "64x48", "--fps", "4", "--first-steps", "1", "--steps", "1", "--cuts", "2"]


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture
def song(write_sound: Write, tone: NDArray[np.float64]) -> Path:
    return write_sound(tone)


@pytest.fixture(scope="module")
def image() -> Image.Image:
    return Image.linear_gradient("L").convert("RGB")


def use_deprecated_names(record: Path) -> None:
    content = json.loads(record.read_text())
    motion, painting = content["settings"]["motion"], content["settings"]["painting"]
    motion |= {"inertia": motion.pop("temporal_weight"), "blend": motion.pop("ema_half_life")}
    painting |= {"recognition": painting.pop("concept_weight"), "layout": painting.pop("layout_weight")}
    painting |= {"total_variation": painting.pop("tv_weight")}
    record.write_text(json.dumps(content))


def test_a_video_is_rendered_and_a_missing_track_does_not_stop_the_others(song: Path, tmp_path: Path) -> None:
    layers = ["--preset", "best", "--set", "picture.fps=3", "--inertia", 0.25, *QUICK]
    out = tmp_path / "{stem}_{seed}.mp4"
    done = run(tmp_path / "none.wav", song, "-o", out, "--seed", 3, "--progress", "plain", "-p", "a dog:0.5", *layers)
    assert done.exit_code == 1
    assert done.stdout == f"{tmp_path / 'song_3.mp4'}\n", "stdout has only the paths of videos"
    assert "none.wav: no such file" in done.stderr
    assert "frame 6/6" in done.stderr
    assert "seed 3" in done.stderr
    assert done.stderr.count("note: --inertia is deprecated; use --temporal-weight") == 1
    assert probe(tmp_path / "song_3.mp4").frames == 6
    settings = json.loads((tmp_path / "song_3.json").read_text())["settings"]
    assert settings["picture"] == {
        "width": 64,
        "height": 48,
        "fps": 4.0,
        "painted_fps": 24.0,
        "upscale": 1,
        "layout": "single",
    }
    assert settings["painting"]["learning_rate"] == 0.2  # of the preset
    assert settings["motion"]["temporal_weight"] == 0.25


def test_two_tracks_with_the_same_name_are_refused(song: Path, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    twin = (tmp_path / "other" / "song.wav").resolve()
    twin.write_bytes(song.read_bytes())
    done = run(song, twin, "--overwrite", "-o", tmp_path / "{stem}.mp4")
    assert (done.exit_code, "several tracks cannot all go to" in done.stderr) == (2, True)


def test_a_record_with_images_is_replayed_from_another_folder(
    song: Path, image: Image.Image, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    moss, elsewhere = tmp_path / "moss.png", tmp_path / "elsewhere"
    image.save(moss)
    images = ["--style-image", f"0:01- {moss}:0.5", "--style-image", moss, "--init-image", moss, "--init-weight", 2]
    prompts = ["-p", "xqzw:0.5", "--audio-weight", 0, "--upscale", 2, "--preset", "dream"]
    done = run(song, "-o", tmp_path / "film.mp4", "--progress", "json", *images, *prompts, *QUICK)
    assert done.exit_code == 0, done.stderr
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    assert (lines[0]["event"], lines[-1]["event"]) == ("job", "film")
    assert [line["done"] for line in lines if line.get("stage") == "optimize"] == [0, 1, 2, 3, 4, 5, 6]
    assert [line["text"] for line in lines if line["event"] == "note"] == [UNKNOWN_WORD]
    content = json.loads((tmp_path / "film.json").read_text())
    assert [one["file"] for one in content["settings"]["style_images"]] == ["moss.png", "moss.png"]
    assert content["settings"]["painting"]["init_image"] == "moss.png"
    assert list(content["pictures"]) == ["moss.png"]

    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    use_deprecated_names(tmp_path / "film.json")  # as in records of version 0.1, which cause no further notes
    again = run("--from", "../film.json", "--out", "again.mp4")
    assert (again.exit_code, f"note: {UNKNOWN_WORD}" in again.stderr) == (0, True), again.stderr
    assert again.stderr.count("note: ") == 1
    replayed = json.loads((elsewhere / "again.json").read_text())
    assert replayed["frames"] == content["frames"]
    assert list(replayed["pictures"]) == ["../moss.png"]
    assert probe(tmp_path / "film.mp4") == probe(elsewhere / "again.mp4")
    assert probe(elsewhere / "again.mp4").width == 128

    Image.new("RGB", (9, 9)).save(moss)
    other = run("--from", "../film.json", "--out", "other.mp4", "--dry-run")
    assert f"note: {Path('..') / 'moss.png'} has changed since film.json" in other.stderr


def test_a_storyboard_is_made_instead_of_a_video(song: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    plan = run("song.wav", "--storyboard", "--dry-run", *QUICK)
    assert (plan.exit_code, plan.stdout) == (0, ""), plan.stderr
    assert "song.storyboard.png: one picture of 64x48 per section" in plan.stderr
    (tmp_path / "song.storyboard.png").touch()
    refused = run("song.wav", "--storyboard", *QUICK)
    assert (refused.exit_code, "song.storyboard.png exists" in refused.stderr) == (1, True)
    done = run("song.wav", "--storyboard", "--overwrite", *QUICK)
    assert (done.exit_code, done.stdout) == (0, "song.storyboard.png\n"), done.stderr
    assert "section 1/1  0:00-0:02  " in done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["song.storyboard.png", "song.wav"]


def test_a_dry_run_writes_nothing_and_reports_unknown_words(song: Path, tmp_path: Path) -> None:
    plan = ["-o", tmp_path / "film.mp4", "--dry-run", "--progress", "plain", *QUICK]
    done = run(song, *plan, "-p", "a stormy sea", "-p", "xqzw:0.5")
    assert (done.exit_code, done.stdout) == (0, ""), done.stderr
    assert "about" in done.stderr
    assert done.stderr.splitlines()[2] == f"note: {UNKNOWN_WORD}"
    assert "note:" not in run(song, *plan, "-p", "a stormy sea").stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["song.wav"]


def test_stems_are_chosen_and_weighted(tmp_path: Path) -> None:
    given = [f"--stem-file={name}={SAMPLES / 'song' / name}.ogg" for name in ("vocals", "drums")]
    span = ["--start", 7, "--duration", 0.5, "-o", tmp_path / "{stem}.mp4"]
    named = ["--stems", "vocals, drums", "--stem-weight", "drums=2.5", *given]
    done = run(SAMPLES / "song" / "mix.ogg", *named, *span, *QUICK)
    assert done.exit_code == 0, done.stderr
    assert f"stems: vocals ({SAMPLES / 'song' / 'vocals.ogg'}), drums x 2.5 (" in done.stderr
    settings = json.loads((tmp_path / "mix.json").read_text())["settings"]
    assert settings["stems"] == [{"name": "vocals", "weight": 1.0}, {"name": "drums", "weight": 2.5}]


def test_a_folder_becomes_a_video_of_each_stem_named_after_it(tmp_path: Path) -> None:
    span = ["--start", 7, "--duration", 0.5, "-o", tmp_path / "{stem}.mp4"]
    done = run(SAMPLES / "song", "--stems", "vocals,drums", "--layout", "separate", *span, *QUICK)
    assert done.exit_code == 0, done.stderr
    assert done.stdout.splitlines() == [str(tmp_path / f"song.{name}.mp4") for name in ("vocals", "drums")]
    again = run(SAMPLES / "song", "--stems", "bass,drums", "--layout", "separate", *span, *QUICK)
    assert (again.exit_code, "song.drums.mp4 exists" in again.stderr) == (1, True)
    assert not (tmp_path / "song.bass.mp4").exists()


def test_a_dry_run_reports_every_video_and_the_origin_of_stems(tmp_path: Path, song: Path) -> None:
    separate = ["--stems", "vocals,drums", "--layout", "separate", "--separator", "dsp"]
    done = run(song, *separate, "-o", tmp_path / "film.mp4", "--dry-run", *QUICK)
    assert done.exit_code == 0, done.stderr
    assert "stems: vocals (dsp), drums (dsp)" in done.stderr
    assert "film.vocals.mp4: 6 frames" in done.stderr
    assert "film.drums.mp4: 6 frames" in done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["song.wav"]


def test_a_record_of_a_folder_is_replayed_with_other_stems_or_another_song(
    tmp_path: Path, song: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    made = run(SAMPLES / "song", "--stems", "drums", "--start", 7, "--duration", 0.5, *QUICK)
    assert (made.exit_code, made.stdout) == (0, "song.mp4\n"), made.stderr
    other = run("--from", "song.json", song, "--start", 0, "--out", "other.mp4", "--dry-run")
    assert (other.exit_code, "stems: drums (dsp)" in other.stderr) == (0, True), other.stderr
    again = run("--from", "song.json", "--stems", "vocals", "--overwrite")
    assert (again.exit_code, again.stdout) == (0, "song.mp4\n"), again.stderr
    assert list(json.loads((tmp_path / "song.json").read_text())["stems"]) == ["vocals"]


def test_progress_of_the_separation_is_reported(tmp_path: Path, song: Path) -> None:
    stems = ["--stems", "drums", "--separator", "dsp", "-o", tmp_path / "film.mp4", *QUICK]
    done = run(song, *stems, "--progress", "json")
    assert done.exit_code == 0, done.stderr
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    percents = [line["done"] for line in lines if line.get("stage") == "separate"]
    assert percents == sorted(percents)
    assert percents[-1] == 100
    assert lines[0]["stems"] == {"drums": "dsp"}
    plain = run(song, *stems, "--progress", "plain", "--overwrite", "--duration", 1)
    assert "separating the stems\nseparating the stems, " in plain.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "what"),
    [
        (["none.wav"], 1, "no such file"),
        (["."], 1, "without a mix"),
        (["song.wav", "--stems", "vocal"], 2, "no stem is called 'vocal'"),
        (["song.wav", "--stems", "drums,drums"], 2, "named twice"),
        (["song.wav", "--stems", ""], 2, "a stem has no name"),
        (["song.wav", "--stems", "drums", "--stem-weight", "bass=2"], 2, "'bass' is not among the stems"),
        (["song.wav", "--stems", "drums", "--stem-weight", "drums=200"], 2, "weight cannot be 200"),
        (["song.wav", "--stem-weight", "drums=2"], 2, "'drums' is not among the stems"),
        (["song.wav", "--stem-file", "drums=song.wav"], 2, "no stem is named"),
        (["song.wav", "--stems", "drums", "--stem-file", "drums=none.wav"], 1, "none.wav: no such file"),
        (["song.wav", "--stems", "drums", "--stem-file", "song.wav"], 2, "which stem is it"),
        (["song.wav", "--stems", "drums", "--separator", "magic"], 2, "separator cannot be magic"),
        (["song.wav", "--layout", "grid"], 2, "needs stems"),
        (["song.wav", "--stems", "drums", "--layout", "mosaic"], 2, "layout cannot be mosaic"),
        (["song.wav", "--keep-stems", "kept"], 2, "none to keep"),
        (["song.wav", "--stems", "drums", "--audio-weight", "0", "-p", "a sea"], 2, "the stems have no effect"),
        (["notes.txt"], 1, "not a sound file"),
        (["empty.wav"], 1, "is empty"),
        (["nan.wav"], 1, "not numbers"),
        (["song.wav", "--start", "9"], 1, "nothing is left"),
        (["song.wav", "-o", "missing/film.mp4"], 1, "does not exist"),
        (["song.wav", "-o", "film.avi"], 1, "films are mp4"),
        (["song.wav", "-o", "taken.mp4"], 1, "exists"),
        (["song.wav", "song.wav", "-o", "one.mp4"], 2, "several tracks"),
        (["song.wav", "--fps", "0"], 2, "fps cannot be 0"),
        (["song.wav", "--fps", "1000"], 2, "fps cannot be 1000"),
        (["song.wav", "--size", "100x50"], 2, "multiples of"),
        (["song.wav", "--size", "8x8"], 2, "width cannot be 8"),
        (["song.wav", "--models", "huge"], 2, "models cannot be huge"),
        (["song.wav", "--preset", "drafty"], 2, "no preset"),
        (["song.wav", "--set", "painting.stepz=3"], 2, "no setting"),
        (["song.wav", "--config", "none.yaml"], 2, "none.yaml: cannot be read"),
        (["song.wav", "--from", "notes.txt"], 2, "not a run record"),
        (["song.wav", "--device", "abacus"], 2, "no device"),
        (["song.wav", "-p", ""], 2, "a prompt has no text"),
        (["song.wav", "--zoom", "-1"], 2, "zoom cannot be -1 1/s"),
        (["song.wav", "--border", "mirror"], 2, "border cannot be mirror"),
        (["song.wav", "--map", "onzet:zoom=1"], 2, "no feature is called 'onzet'"),
        (["song.wav", "--map", "drumz.onset:zoom=1"], 2, "drumz"),
        (["song.wav", "--map", "onset:prompt=1"], 2, "a prompt that does not exist"),
        (["song.wav", "--style-image", "none.png"], 2, "none.png: cannot be read"),
        (["song.wav", "--style-image", ":0.5"], 2, "no file"),
        (["song.wav", "--init-image", "notes.txt"], 2, "not a readable image"),
        (["song.wav", "--init-weight", "0.5"], 2, "none is given"),
        (["song.wav", "--init-image", "picture.png", "--init-weight", "-1"], 2, "init weight cannot be -1"),
        (["song.wav", "--style-image", "picture.png:1e9"], 2, "weight cannot be"),
        (["song.wav", "--style-image", "picture.png:0", "--audio-weight", "0"], 2, "nothing guides"),
        (["song.wav", "--init-image", "picture.png", "--frames-dir", ".", "--overwrite"], 2, "folder for the frames"),
        (["song.wav", "--storyboard", "-o", "sheet.jpg"], 1, "a storyboard is a png"),
        (["song.wav", "--storyboard", "-o", "missing/sheet.png"], 1, "does not exist"),
        (["song.wav", "--storyboard", "-o", "picture.png"], 1, "exists"),
        (["song.wav", "--storyboard", "--frames-dir", "frames"], 2, "no frames to keep"),
        (["song.wav", "--storyboard", "-o", "picture.png", "--overwrite", "--init-image", "picture.png"], 2, "input"),
        ([], 2, "no track"),
    ],
)  # fmt: skip
def test_invalid_input_gives_a_clear_error_and_changes_no_file(
    arguments: list[str], code: int, what: str, song: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = song.parent
    monkeypatch.chdir(folder)
    (folder / "notes.txt").write_text("la la la")
    (folder / "empty.wav").touch()
    Image.new("RGB", (9, 9)).save(folder / "picture.png")
    (folder / "taken.mp4").write_text("an old film")
    soundfile.write(folder / "nan.wav", np.array([0.0, np.nan, 0.0]), 16_000, subtype="FLOAT")
    before = {path: path.read_bytes() for path in folder.iterdir()}
    assert_refused(run(*arguments), what, code=code)
    assert {path: path.read_bytes() for path in folder.iterdir()} == before


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (["song.wav", "--size", "big"], "WIDTHxHEIGHT"),
        (["song.wav", "--start", "noon"], "not a time"),
        (["song.wav", "--steps", "many"], "valid integer"),
        (["song.wav", "--stem-weight", "drums"], "NAME=WEIGHT"),
        (["song.wav", "--stem-weight", "drums=loud"], "NAME=WEIGHT"),
        (["song.wav", "--progress", "loud"], "--progress"),
        (["song.wav", "--such"], "--such"),
    ],
)
def test_wrong_options_are_usage_errors(arguments: list[str], what: str) -> None:
    done = run(*arguments)
    assert done.exit_code == 2
    assert what in done.stderr


def test_missing_weights_and_ffmpeg_are_reported_first(
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


def test_damaged_weights_give_one_clear_line(song: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    family = tmp_path / "weights" / "mini"
    family.mkdir(parents=True)
    for part in manifest.expand("mini"):
        content = store.locate(part).read_bytes()
        cut = len(content) // 2 if part.role == "vqgan" else len(content)
        (family / f"{part.role}.safetensors").write_bytes(content[:cut])
    monkeypatch.setenv("W2C_WEIGHTS", str(tmp_path / "weights"))
    done = run(song, "-o", tmp_path / "film.mp4")
    assert done.exit_code == 1
    assert "vqgan.safetensors: not a readable safetensors file" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_bug_is_reported_and_debug_shows_the_traceback(
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


def help_text(flag: str) -> str:
    environment = {**os.environ, "COLUMNS": "120", "TERM": "dumb"}
    command = [sys.executable, "-m", "wav2clip_gen", *([flag] if flag else [])]
    return subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT, env=environment).stdout


def test_help_shows_everyday_options_and_the_other_commands() -> None:
    text = help_text("--help")
    for words in ("--out", "--steps", "--cuts", "--smoothing", "--from", "default: 24", *COMMANDS):
        assert words in text
    shown = set(re.findall(r"^│ (--[a-z-]+)", text, re.MULTILINE))
    assert 25 <= len(shown) <= 36
    assert "--temporal-weight" not in text
    assert "Usage: w2c-gen" in help_text("")


def test_help_all_shows_every_option_except_deprecated_ones() -> None:
    text = help_text("--help-all")
    shown = set(re.findall(r"^│ (--[a-z-]+)", text, re.MULTILINE))
    assert {option.flags[0].partition("/")[0] for option in options.OPTIONS.values()} <= shown
    assert not {f"--{name}" for name in options.DEPRECATED} & shown


def test_every_setting_has_an_option() -> None:
    without = set(all_settings()) - {option.key for option in options.SETTINGS}
    assert without == {"picture.width", "picture.height"}, "which --size sets"


@pytest.mark.parametrize(
    ("line", "completions"),
    [
        ("w2c-gen --temp", {"--temporal-weight"}),
        ("w2c-gen song.wav --ov", {"--overwrite"}),
        ("w2c-gen --preset d", {"draft", "dream"}),
        ("w2c-gen --scenes s", {"sections"}),
        ("w2c-gen wei", {"weights"}),
        ("w2c-gen song.wav wei", set()),
        ("w2c-gen weights fe", {"fetch"}),
        ("w2c-gen analyze --dem", {"--demucs-repo"}),
    ],
)
def test_bash_completes_commands_options_and_values(line: str, completions: set[str]) -> None:
    words = line.split()
    request = {"_W2C_GEN_COMPLETE": "complete_bash", "COMP_WORDS": "\n".join(words), "COMP_CWORD": str(len(words) - 1)}
    command = [sys.executable, "-m", "wav2clip_gen"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT, env={**os.environ, **request})
    assert set(done.stdout.split()) == completions


def test_show_completion_prints_a_script_for_bash() -> None:
    environment = {**os.environ, "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}
    command = [sys.executable, "-m", "wav2clip_gen", "--show-completion", "bash"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT, env=environment)
    assert "_W2C_GEN_COMPLETE=complete_bash" in done.stdout
    assert "complete -o default -F _w2c_gen_completion w2c-gen" in done.stdout


def test_version() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "wav2clip_gen", "--version"], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert done.stdout == f"w2c-gen {__version__}\n"

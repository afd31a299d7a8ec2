"""Several songs in one command: checked before the first is painted, skipped, failed, interrupted."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from tests.cli.refusals import assert_refused
from tests.conftest import SAMPLES, Write
from tests.interruption import interrupted
from wav2clip_gen import job
from wav2clip_gen.audio.track import Track
from wav2clip_gen.cli import analyze
from wav2clip_gen.cli.batch import Batch
from wav2clip_gen.cli.render import app
from wav2clip_gen.config import Settings
from wav2clip_gen.video.verify import probe

QUICK = ["--size", "32x32", "--fps", "4", "--first-steps", "1", "--steps", "1", "--cuts", "2", "--workers", "1"]


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [*QUICK, *map(str, arguments)])


def run_plain(*arguments: object) -> Result:
    return CliRunner().invoke(app, [*map(str, arguments), "--progress", "plain"])


def test_a_typo_is_told_before_the_first_film_and_in_the_last_line(songs: Path) -> None:
    done = run("a.wav", "typo.wav", "b.wav", "--progress", "plain")
    assert (done.exit_code, done.stdout) == (1, "a.mp4\nb.mp4\n"), done.stderr
    lines = done.stderr.splitlines()
    assert lines[0] == "error: typo.wav: no such file"
    assert [line for line in lines if line.startswith(("1/", "2/", "3/"))] == [
        "1/2 a.wav: 1.50 s, 16000 Hz, 1 channel",
        "2/2 b.wav: 1.50 s, 16000 Hz, 1 channel",
    ]
    assert lines[-1] == "2 of 3 films made; failed: typo.wav"


def test_films_that_exist_are_skipped_with_their_records(songs: Path) -> None:
    for name in ("a.mp4", "a.json"):
        (songs / name).write_text("old")
    done = run("a.wav", "b.wav", "--skip-existing", "--progress", "json")
    assert (done.exit_code, done.stdout) == (0, "b.mp4\n"), done.stderr
    events = [json.loads(line) for line in done.stderr.splitlines()]
    assert (events[0]["event"], events[0]["track"], events[0]["place"]) == ("job", "b.wav", "1/1")
    assert events[-1] == {
        "event": "batch", "text": "1 of 1 films made; 1 skipped", "made": ["b.wav"], "skipped": ["a.wav"], "failed": [],
        "interrupted": None,
    }  # fmt: skip
    assert ((songs / "a.mp4").read_text(), (songs / "a.json").read_text()) == ("old", "old")
    again = run("a.wav", "b.wav", "--skip-existing", "--progress", "plain")
    assert (again.exit_code, again.stdout, again.stderr) == (0, "", "2 skipped\n")


def test_a_storyboard_that_exists_is_skipped_and_a_film_of_that_name_is_not(songs: Path) -> None:
    (songs / "a.storyboard.png").touch()
    (songs / "b.mp4").touch()
    done = run("a.wav", "b.wav", "--skip-existing", "--storyboard", "--progress", "plain")
    assert (done.exit_code, done.stdout) == (0, "b.storyboard.png\n"), done.stderr
    assert done.stderr.splitlines()[-1] == "1 of 1 storyboards made; 1 skipped"


def test_of_separate_films_only_the_missing_ones_are_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "song.vocals.mp4").write_text("old")
    files = [f"--stem-file={name}={SAMPLES / 'song' / name}.ogg" for name in ("vocals", "drums")]
    song = [SAMPLES / "song", "--stems", "vocals,drums", "--layout", "separate", *files, "--duration", 0.5]
    done = run(*song, "--skip-existing")
    assert (done.exit_code, done.stdout) == (0, "song.drums.mp4\n"), done.stderr
    assert list(json.loads((tmp_path / "song.drums.json").read_text())["stems"]) == ["drums"]
    assert (tmp_path / "song.vocals.mp4").read_text() == "old"
    assert run(*song, "--skip-existing").stderr == "1 skipped\n"


def test_separate_films_of_two_songs_may_not_have_one_name(songs: Path) -> None:
    shutil.copy(songs / "a.wav", songs / "a.drums.wav")
    separate = ["--stems", "drums", "--layout", "separate", "--separator", "dsp", "--dry-run"]
    done = run("a.wav", "a.drums.wav", *separate, "-o", "{stem}.mp4", "--progress", "plain")
    assert done.exit_code == 0, "a.drums.mp4 and a.drums.drums.mp4"
    assert done.stderr.splitlines()[-1] == "2 of 2 tracks checked"
    stems = {"a": (songs / "a.x.mp4",), "b": (songs / "a.x.mp4",)}
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(job, "_film_paths", lambda out, settings: list(stems[out.stem]))
        clash = run("a.wav", "b.wav", *separate, "--progress", "plain")
    assert clash.exit_code == 2
    assert f"error: two films would be {songs / 'a.x.mp4'}" in clash.stderr


@pytest.mark.parametrize(
    ("options", "what"),
    [
        (["--skip-existing", "--overwrite"], "--skip-existing and --overwrite contradict each other"),
        (["--skip-existing", "-o", "{stem}_{seed}.mp4"], "named after a new seed"),
    ],
)
def test_skipping_that_cannot_be_meant_is_refused(songs: Path, options: list[str], what: str) -> None:
    assert_refused(run("a.wav", "b.wav", *options), what, code=2)


def test_a_named_seed_can_be_skipped(songs: Path) -> None:
    (songs / "a_7.mp4").touch()
    done = run("a.wav", "-o", "{stem}_{seed}.mp4", "--seed", 7, "--skip-existing")
    assert (done.exit_code, done.stderr) == (0, "1 skipped\n")


def test_what_is_wrong_with_all_songs_is_told_once(songs: Path) -> None:
    done = run("a.wav", "b.wav", "--style-image", "none.png", "--progress", "plain")
    assert done.exit_code == 2
    assert done.stderr.count("none.png: cannot be read") == 1
    assert done.stderr.splitlines()[-1] == "0 of 2 films made; failed: a.wav, b.wav"


def test_a_song_that_fails_while_it_is_painted_stops_no_other(songs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check = job.prepare

    def prepare_and_cut(source: Path, *arguments: Any, **options: Any) -> job.Job:
        made = check(source, *arguments, **options)
        if source.name == "a.wav":
            os.truncate(source, 4000)
        return made

    monkeypatch.setattr(job, "prepare", prepare_and_cut)
    done = run("a.wav", "b.wav", "--progress", "none")
    assert (done.exit_code, done.stdout) == (1, "b.mp4\n"), done.stderr
    assert done.stderr.splitlines()[-1] == "1 of 2 films made; failed: a.wav"


def test_no_song_is_decoded_again_for_being_checked_first(songs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded: list[str] = []
    decode = Track.decode

    def count(track: Track, *arguments: Any) -> Any:
        decoded.append(track.path.name)
        return decode(track, *arguments)

    job.prepare("a.wav")  # tries the encoding of the sound, once for all songs
    monkeypatch.setattr(Track, "decode", count)
    assert run("a.wav", "-o", "alone.mp4").exit_code == 0
    alone = decoded.count("a.wav")
    decoded.clear()
    assert run("a.wav", "b.wav").exit_code == 0
    assert (decoded.count("a.wav"), decoded.count("b.wav")) == (alone, alone)


def test_an_interrupted_batch_tells_where(songs: Path) -> None:
    slow = ("--size", "64x64", "--fps", "60", "--first-steps", "1", "--steps", "20")
    out = ("-o", songs / "{stem}.mp4")
    code, stdout, stderr = interrupted(
        songs / "a.wav", songs / "b.wav", *out, *slow,
        when=lambda line: line.get("stage") == "optimize" and line["done"] > 0,
    )  # fmt: skip
    assert (code != 0, stdout) == (True, f"{songs / 'a.partial.mp4'}\n")
    last = json.loads(stderr.splitlines()[-1])
    assert (last["event"], last["interrupted"]) == ("batch", str(songs / "a.wav"))
    assert last["text"] == f"0 of 2 films made; interrupted at {songs / 'a.wav'}"
    assert not (songs / "b.mp4").exists()


@pytest.mark.slow
@pytest.mark.more
def test_all_interrupted_films_are_resumed_where_existing_ones_are_skipped(tmp_path: Path, write_sound: Write) -> None:
    t = np.arange(8 * 16_000) / 16_000
    song = write_sound(0.4 * np.sin(2 * np.pi * 330 * t) * (t % 1))
    songs = [shutil.copy(song, tmp_path / f"{name}.wav") for name in "ab"]
    work = [tmp_path / f"{name}.w2c" for name in "ab"]
    options = ["--size", "32x32", "--fps", "8", "--painted-fps", "4", "--cuts", "2", "--first-steps", "2"]
    options += ["--steps", "10", "--segments", "4", "--seed", "7"]  # two segments of two chunks each

    def both_have_chunks(line: dict[str, Any]) -> bool:
        return all(any(folder.glob("chunk-*.json")) for folder in work)

    code, _, stderr = interrupted(
        *songs, *options, "-o", tmp_path / "{stem}.mp4", "--workers", "3", when=both_have_chunks
    )
    assert code != 0, stderr
    assert all(folder.exists() for folder in work)
    done = run_plain(*songs, *options, "-o", tmp_path / "{stem}.mp4", "--workers", "1", "--skip-existing")
    assert done.exit_code == 0, done.stderr
    assert done.stderr.count("resuming at 0:0") == 2
    (tmp_path / "whole").mkdir()
    assert run_plain(*songs, *options, "-o", tmp_path / "whole" / "{stem}.mp4", "--workers", "1").exit_code == 0
    for name in ("a.mp4", "b.mp4"):
        assert (tmp_path / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


@pytest.mark.parametrize(
    ("skipped", "failed", "made", "line"),
    [
        ("", "", "a", ""),  # one song needs no last line
        ("", "a", "", ""),
        ("a", "", "", "1 skipped"),
        ("", "", "ab", "2 of 2 films made"),
        ("a", "", "b", "1 of 1 films made; 1 skipped"),
        ("ab", "c", "de", "2 of 3 films made; 2 skipped; failed: c"),
    ],
)
def test_the_last_line(skipped: str, failed: str, made: str, line: str) -> None:
    batch = Batch([*map(Path, skipped + failed + made)])
    batch.skipped, batch.failed, batch.made = [*map(Path, skipped)], [*map(Path, failed)], [*map(Path, made)]
    assert batch.summary() == line


def test_analyze_has_a_last_line_too(songs: Path) -> None:
    done = CliRunner().invoke(analyze.app, ["a.wav", "typo.wav", "--no-labels", "--json"])
    assert (done.exit_code, done.stdout) == (1, "a.analysis.json\n"), done.stderr
    assert done.stderr.splitlines()[-1] == "1 of 2 tracks analyzed; failed: typo.wav"


@pytest.mark.parametrize("name", ["-8dB.wav", "-o8.wav", "-progress.wav", "--out"])
def test_a_file_that_looks_like_an_option_is_named_with_its_folder(songs: Path, name: str) -> None:
    shutil.copy(songs / "a.wav", songs / name)
    refused = run("a.wav", name)
    assert_refused(refused, f"{name} begins with a dash", code=2)
    assert refused.stderr.splitlines()[-1] == f"hint: write ./{name}"
    assert "begins with a dash" in CliRunner().invoke(analyze.app, [name]).stderr


def test_a_value_that_begins_with_a_dash_is_no_song(songs: Path) -> None:
    (songs / "-8.mp4").touch()
    shutil.copy(songs / "a.wav", songs / "-8dB.wav")
    done = run("-o", "-8.mp4", "--overwrite", "--dry-run", "--", "-8dB.wav")
    assert (done.exit_code, "-8.mp4: 6 frames" in done.stderr) == (0, True), done.stderr


@pytest.mark.parametrize("name", ["{Album} 1", "%d", "50%", "{stem}", "}{", "two\nlines", "x" * 240])
def test_names_of_songs_are_no_templates(songs: Path, name: str) -> None:
    (songs / "a.wav").rename(songs / f"{name}.wav")
    done = run(f"{name}.wav", "--duration", 0.5, "--frames-dir", "frames/{stem}")
    assert (done.exit_code, done.stdout) == (0, f"{name}.mp4\n"), done.stderr
    assert probe(songs / f"{name}.mp4").frames == 2
    assert json.loads((songs / f"{name}.json").read_text())["track"]["path"] == f"{name}.wav"
    assert len(list((songs / "frames" / name).iterdir())) == 2


@pytest.mark.parametrize(
    ("template", "doubled"),
    [
        ("{Album}/x.mp4", "{{Album}}/x.mp4"),
        ("{}.mp4", "{{}}.mp4"),
        ("{stem}}.mp4", "{stem}}}.mp4"),
        ("{{a}}{b}{seed:04}.mp4", "{{a}}{{b}}{seed:04}.mp4"),
    ],
)
def test_braces_of_a_template_that_are_no_field_get_a_hint(songs: Path, template: str, doubled: str) -> None:
    refused = run("a.wav", "-o", template)
    assert_refused(refused, f"{template}: only {{stem}} and {{seed}} are replaced", code=2)
    assert refused.stderr.splitlines()[-1] == f"hint: double the braces that belong to a name: {doubled}"
    assert job.fill(doubled, Path("a.wav"), Settings().merged({"run": {"seed": 5}})).suffix == ".mp4"

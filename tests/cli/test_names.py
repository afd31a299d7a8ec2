"""Names of files that are not UTF-8, and terminals that are not: a film, its record, and the path as its bytes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from typer.testing import CliRunner, Result

from tests.conftest import ROOT, Write
from wav2clip_gen import ffmpeg, record
from wav2clip_gen.cli import analyze
from wav2clip_gen.cli.render import app
from wav2clip_gen.environment import readable
from wav2clip_gen.video.verify import probe

QUICK = ["--size", "32x32", "--fps", "4", "--first-steps", "1", "--steps", "1", "--cuts", "2"]
CAFE = os.fsdecode(b"caf\xe9")  # as of an old disk in Latin-1

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such names")


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [*QUICK, *map(str, arguments)])


@pytest.fixture
def folder(write_sound: Write, tone: NDArray[np.float64], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with a song."""
    song = write_sound(tone).rename(tmp_path / f"{CAFE}.wav")
    monkeypatch.chdir(song.parent)
    return song.parent


def title_of(film: Path) -> str | None:
    return ffmpeg.read_title(film)


@pytest.mark.parametrize("suffix", ["wav", "mp3", "flac"])
def test_a_name_that_is_not_utf8_gives_film_record_and_its_bytes(folder: Path, suffix: str) -> None:
    if suffix != "wav":
        ffmpeg.run(["-i", f"file:{CAFE}.wav", f"file:{CAFE}.{suffix}"], purpose="make a song")
    done = run(f"{CAFE}.{suffix}", "--progress", "json")
    assert (done.exit_code, done.stdout_bytes) == (0, b"caf\xe9.mp4\n"), done.stderr
    assert json.loads(done.stderr.splitlines()[0])["track"] == f"{CAFE}.{suffix}"
    assert probe(folder / f"{CAFE}.mp4").frames >= 6
    assert title_of(folder / f"{CAFE}.mp4") == "caf\N{REPLACEMENT CHARACTER}"
    written = (folder / f"{CAFE}.json").read_bytes()
    assert rb'"path": "caf\udce9.' in written
    assert written.decode().isascii(), "any JSON reader takes it"
    replay = record.read(folder / f"{CAFE}.json")
    assert (replay.source.samefile(f"{CAFE}.{suffix}"), replay.differences) == (True, ())
    assert run("--from", f"{CAFE}.json", "--dry-run", "-o", "again.mp4").exit_code == 0


@pytest.mark.parametrize("suffix", ["flac", "wav"])
def test_a_title_that_is_not_utf8_is_shown_as_far_as_it_is(folder: Path, suffix: str) -> None:
    tagged = ["-i", f"file:{CAFE}.wav", "-metadata", f"title={CAFE}", f"tagged.{suffix}"]
    ffmpeg.run(tagged, purpose="make a song")
    done = run(f"tagged.{suffix}", "-p", f"a {CAFE}")  # as typed in a terminal that is not UTF-8
    assert done.exit_code == 0, done.stderr
    assert title_of(folder / "tagged.mp4") == "caf\N{REPLACEMENT CHARACTER}"
    assert json.loads((folder / "tagged.json").read_text())["settings"]["prompts"][0]["text"] == f"a {CAFE}"


def test_every_file_and_folder_may_have_such_a_name(folder: Path) -> None:
    for name in ("song", "films"):
        (folder / f"{CAFE}-{name}").mkdir()
    for name in ("mix", CAFE):
        shutil.copy(f"{CAFE}.wav", folder / f"{CAFE}-song" / f"{name}.wav")
    (folder / f"{CAFE}.srt").write_text("1\n00:00:00,000 --> 00:00:01,000\nred sky\n")
    Image.new("RGB", (9, 9)).save(folder / f"{CAFE}.png")
    images = ["--style-image", f"{CAFE}.png", "--init-image", f"{CAFE}.png", "--prompts", f"{CAFE}.srt"]
    stems = ["--stems", "drums,bass", f"--stem-file=drums={CAFE}-song/{CAFE}.wav", "--separator", "dsp"]
    kept = ["--keep-stems", f"{CAFE}-stems", "--frames-dir", f"{CAFE}-frames/{{stem}}"]
    done = run(f"{CAFE}-song", *images, *stems, *kept, "-o", f"{CAFE}-films/{{stem}}.mp4")
    assert (done.exit_code, done.stdout_bytes) == (0, b"caf\xe9-films/caf\xe9-song.mp4\n"), done.stderr
    assert len(list((folder / f"{CAFE}-frames" / f"{CAFE}-song").iterdir())) == 6
    assert sorted(path.name for path in (folder / f"{CAFE}-stems").iterdir())[0] == "bass.flac"
    replay = record.read(folder / f"{CAFE}-films" / f"{CAFE}-song.json")
    assert replay.source.samefile(f"{CAFE}-song")
    assert Path(replay.settings.style_images[0].file).samefile(f"{CAFE}.png")
    assert replay.settings.stem_files[0].startswith("drums=")


def test_stems_are_cached_in_such_a_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("W2C_CACHE", str(folder / f"{CAFE}-cache"))
    for _ in range(2):  # separated, then from the cache
        done = run(f"{CAFE}.wav", "--stems", "drums", "--separator", "dsp", "--overwrite")
        assert done.exit_code == 0, done.stderr


def test_storyboards_and_analyses_of_such_songs(folder: Path) -> None:
    done = run(f"{CAFE}.wav", "--storyboard")
    assert (done.exit_code, done.stdout_bytes) == (0, b"caf\xe9.storyboard.png\n"), done.stderr
    done = CliRunner().invoke(analyze.app, [f"{CAFE}.wav", "--no-labels", "--json", "--csv", "--plot"])
    paths = [b"caf\xe9.analysis." + suffix for suffix in (b"json", b"csv", b"png")]
    assert (done.exit_code, sorted(done.stdout_bytes.split())) == (0, sorted(paths)), done.stderr
    found = json.loads((folder / f"{CAFE}.analysis.json").read_text())
    assert Path(found["track"]["path"]).samefile(f"{CAFE}.wav")


@pytest.mark.slow
@pytest.mark.more
def test_no_character_is_too_much_for_a_terminal_in_ascii(folder: Path) -> None:
    """A process, 4 s: encodings are fixed when Python starts; here for the names of files too."""
    (folder / f"{CAFE}.wav").rename(folder / "é海.wav")
    variables = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONPATH": str(ROOT)}
    variables["PYTHONIOENCODING"] = "ascii"
    command = [sys.executable, "-m", "wav2clip_gen", "é海.wav", *QUICK, "-p", "a sea"]
    done = subprocess.run(command, capture_output=True, check=False, env={**os.environ, **variables})
    assert (done.returncode, done.stdout) == (0, "é海.mp4\n".encode()), done.stderr
    assert title_of(folder / "é海.mp4") == "é海"
    assert record.read(folder / "é海.json").source.samefile("é海.wav")


@pytest.mark.parametrize(
    ("name", "text"),
    [(b"song", "song"), ("é海".encode(), "é海"), (b"caf\xe9", "caf\N{REPLACEMENT CHARACTER}")],
)
def test_a_name_becomes_text(name: bytes, text: str) -> None:
    assert readable(os.fsdecode(name)) == text

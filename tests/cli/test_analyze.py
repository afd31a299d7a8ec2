"""`w2c-gen analyze`, as a person types it."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from tests.cli.refusals import assert_refused
from tests.conftest import SAMPLES, Write, write_stem_file
from wav2clip_gen.audio.decode import FEATURE_RATE, decode
from wav2clip_gen.audio.features import measure
from wav2clip_gen.audio.timeline import Timeline
from wav2clip_gen.audio.track import open_track
from wav2clip_gen.cli.analyze import app

MIX = SAMPLES / "song" / "mix.ogg"


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_report_and_a_plot_are_written_and_sections_are_labelled(here: Path) -> None:
    done = run(MIX)
    assert done.exit_code == 0, done.stderr
    assert done.stdout == "mix.analysis.json\nmix.analysis.png\n"
    assert sorted(path.name for path in here.iterdir()) == done.stdout.split()
    found = json.loads((here / "mix.analysis.json").read_text())
    assert found["tempo"] == pytest.approx(120, rel=0.02)
    assert found["frames"] == 16 * 24 == len(found["curves"]["loudness"]["values"]) == len(found["chroma"]["C#"])
    assert (found["sections"][0]["start"], found["sections"][-1]["stop"]) == (0, 16)
    assert found["words"]["models"] == "mini"
    lines = done.stderr.splitlines()
    assert lines[0].startswith("mix.ogg: 0:16, ")
    assert len(lines) == 1 + len(found["sections"])
    for line, section in zip(lines[1:], found["sections"], strict=True):
        assert section["words"][0]["text"] in line
        assert line.endswith("uncertain") == section["guessing"]
    with Image.open(here / "mix.analysis.png") as picture:
        assert picture.width == 1600
        small = picture.convert("RGB").resize((80, 50))
        assert len(np.unique(np.asarray(small).reshape(-1, 3), axis=0)) > 200


def test_the_csv_has_a_row_for_each_frame(here: Path) -> None:
    done = run(SAMPLES / "africa.ogg", "--csv", "--no-words", "--fps", "23.976", "--start", "1", "--duration", "10")
    assert (done.exit_code, done.stdout) == (0, "africa.analysis.csv\n"), done.stderr
    with (here / "africa.analysis.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 240
    assert float(rows[24]["time"]) == pytest.approx(24 * 1001 / 24000, abs=1e-4)
    assert all(0 <= float(row[name]) <= 1 for row in rows for name in ("loudness", "onset", "centroid", "G#"))
    assert sum(int(row["onsets"]) for row in rows) > 20


def test_labels_come_from_a_file(here: Path) -> None:
    (here / "labels.txt").write_text("a dog\n\na cat\n" + "\n".join(f"a {n} horse" for n in range(12)))
    done = run(MIX, "--json", "--duration", "3", "--labels", "labels.txt", "--out-dir", here)
    assert done.exit_code == 0, done.stderr
    found = json.loads((here / "mix.analysis.json").read_text())
    assert found["words"]["vocabulary"] == 14
    assert len(found["sections"][0]["words"]) == 3


def test_silence_is_reported(here: Path, write_sound: Write) -> None:
    write_sound(np.zeros(16_000 * 3))
    done = run("song.wav")
    assert done.exit_code == 0, done.stderr
    assert done.stderr.splitlines()[1] == "0:00-0:03  silent"
    assert json.loads((here / "song.analysis.json").read_text())["sections"][0]["words"] == []


def test_one_sample_is_enough(here: Path, write_sound: Write) -> None:
    write_sound(np.ones(1))
    done = run("song.wav", "--csv", "--json", "--plot")
    assert done.exit_code == 0, done.stderr
    assert len(list(here.glob("song.analysis.*"))) == 3


def test_stems_are_labelled_each_by_itself(here: Path) -> None:
    done = run(SAMPLES / "song", "--stems", "vocals,drums", "--duration", "8", "--json", "--plot")
    assert done.exit_code == 0, done.stderr
    assert done.stdout == "song.analysis.json\nsong.analysis.png\n"
    found = json.loads((here / "song.analysis.json").read_text())
    assert list(found["stems"]) == ["vocals", "drums"]
    assert found["stems"]["drums"]["from"].endswith("song/drums.ogg")
    lines = done.stderr.splitlines()
    assert lines[1].startswith("stems: vocals (")
    rows = iter(lines[2:])
    for number, section in enumerate(found["sections"]):
        for name, found_in in (
            ("mix", section),
            *((name, s["sections"][number]) for name, s in found["stems"].items()),
        ):
            row = next(rows)
            assert row.split("  ")[1] == name
            assert (found_in["start"], found_in["stop"]) == (section["start"], section["stop"])
            assert row.endswith("silent") == (found_in["level"] is None) == (found_in["words"] == [])
            assert row.endswith("uncertain") == (found_in["guessing"] and found_in["words"] != [])
            assert all(word["text"] in row and f"{word['margin']:+.1f} sd" in row for word in found_in["words"])
    assert next(rows, None) is None
    assert "0:00-0:04  drums  silent" in lines
    with Image.open(here / "song.analysis.png") as stems:
        assert run(MIX, "--duration", "1", "--plot", "--no-words").exit_code == 0
        with Image.open(here / "mix.analysis.png") as alone:
            assert stems.height == alone.height + 2 * 100


def test_the_curves_of_a_stem_are_those_of_its_file(here: Path) -> None:
    order = ("mix", "drums", "bass", "other", "vocals")
    song = write_stem_file([SAMPLES / "song" / f"{name}.ogg" for name in order], here / "tune.stem.mp4")
    done = run(song, "--stems", "drums", "--csv", "--no-words", "--start", "3", "--duration", "2")
    assert (done.exit_code, done.stdout) == (0, "tune.analysis.csv\n"), done.stderr
    with (here / "tune.analysis.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    drums = open_track(SAMPLES / "song" / "drums.ogg", start=3, duration=2)
    timeline = Timeline.of(drums, fps=24)
    expected = measure(decode(drums, timeline, [FEATURE_RATE]), timeline)
    for name in ("onset", "loudness"):
        column = [float(row[f"drums.{name}"]) for row in rows]
        assert column == pytest.approx(expected.curves[name].values, abs=2e-4)
    assert [row["onset"] for row in rows] != [row["drums.onset"] for row in rows]
    assert sum(int(row["drums.onsets"]) for row in rows) == len(expected.onsets) > 2


def test_stems_are_separated_where_none_are_given(here: Path) -> None:
    (here / "tune.ogg").write_bytes(MIX.read_bytes())
    done = run("tune.ogg", "--stems", "bass", "--separator", "dsp", "--json", "--no-words", "--duration", "3")
    assert done.exit_code == 0, done.stderr
    bass = json.loads((here / "tune.analysis.json").read_text())["stems"]["bass"]
    assert bass["from"] == "dsp"
    assert "stems: bass (dsp)" in done.stderr
    assert max(bass["curves"]["low"]["values"]) == 1


def test_noise_far_below_the_song_counts_as_silence(here: Path, write_sound: Write) -> None:
    rng = np.random.default_rng(0)
    write_sound(0.3 * rng.standard_normal(32_000))
    write_sound(1e-5 * rng.standard_normal(32_000), "hiss.wav")
    done = run("song.wav", "--stems", "hiss", "--stem-file", "hiss=hiss.wav", "--json")
    assert done.exit_code == 0, done.stderr
    assert done.stderr.splitlines()[-1] == "0:00-0:02  hiss  silent"
    assert json.loads((here / "song.analysis.json").read_text())["stems"]["hiss"]["sections"][0]["words"] == []


def test_without_matplotlib_the_default_is_the_report_alone(
    here: Path, write_sound: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    write_sound(np.ones(1))
    done = run("song.wav", "--no-labels")
    assert (done.exit_code, done.stdout) == (0, "song.analysis.json\n"), done.stderr
    assert "wav2clip-gen[plot]" in done.stderr
    assert_refused(run("song.wav", "--plot", "--overwrite"), "matplotlib", code=1)


def test_several_songs_one_of_which_fails(here: Path, write_sound: Write) -> None:
    write_sound(0.1 * np.sin(np.arange(16_000)))
    done = run("none.wav", "song.wav", "--json", "--no-words")
    assert (done.exit_code, done.stdout) == (1, "song.analysis.json\n")
    assert "none.wav: no such file" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        ([], 2, "no track"),
        (["none.wav"], 1, "no such file"),
        (["notes.txt"], 1, "not a sound file"),
        (["song.wav", "--start", "9"], 1, "nothing is left"),
        (["song.wav", "--out-dir", "missing"], 1, "does not exist"),
        (["song.wav", "--json"], 1, "song.analysis.json exists"),
        (["song.wav", "other/song.wav"], 2, "several tracks"),
        (["song.wav", "--fps", "0"], 2, "fps cannot be 0"),
        (["song.wav", "--models", "huge"], 2, "models cannot be huge"),
        (["song.wav", "--models", "full", "--weights-dir", "nowhere"], 1, "no such weights file"),
        (["song.wav", "--labels", "none.txt"], 2, "cannot be read"),
        (["song.wav", "--words", "notes.txt"], 2, "too few"),
        (["song.wav", "--words", "notes.txt", "--no-labels"], 2, "contradict"),
        (["other"], 1, "a folder without a mix"),
        (["song.wav", "--stems", "drumz", "--no-words", "--csv"], 2, "no stem is called 'drumz'"),
        (["song.wav", "--stems", "drums,drums"], 2, "named twice"),
        (["song.wav", "--stems", "", "--csv"], 2, "a stem has no name"),
        (["song.wav", "--stems", "mix", "--csv"], 2, "mix is the song"),
        (["song.wav", "--stem-file", "drums=song.wav"], 2, "no stem is named"),
        (["song.wav", "--stems", "drums", "--stem-file", "drums=none.wav", "--csv"], 1, "none.wav: no such file"),
        (["song.wav", "--stems", "drums", "--stem-file", "bass=song.wav", "--csv"], 2, "the stem bass, which is not"),
        (["song.wav", "--stems", "drums", "--separator", "magic"], 2, "separator cannot be magic"),
        (
            ["song.wav", "--stems", "drums", "--separator", "demucs", "--demucs-repo", "no", "--csv"],
            1,
            "no: no such folder",
        ),
    ],
)
def test_wrong_input_is_refused_and_no_file_is_changed(
    arguments: list[str], code: int, says: str, here: Path, write_sound: Write
) -> None:
    write_sound(0.1 * np.sin(np.arange(16_000)))
    (here / "other").mkdir()
    (here / "notes.txt").write_text("la la la")
    (here / "song.analysis.json").write_text("an older one")
    before = {path: path.read_bytes() for path in here.rglob("*.*")}
    assert_refused(run(*arguments), says, code=code)
    assert {path: path.read_bytes() for path in here.rglob("*.*")} == before
    if "exists" in says:
        assert run(*arguments, "--overwrite", "--no-words").exit_code == 0


def test_notes_about_the_sound_come_before_the_work(here: Path, write_sound: Write) -> None:
    tone = 0.1 * np.sin(np.arange(16_000))[:, None]
    write_sound(np.hstack([tone, -tone]), "song.wav")
    write_sound(0.1 * np.sin(np.arange(64_000)), "drums.wav")
    done = run("song.wav", "--stem-file", "drums=drums.wav", "--stems", "drums", "--no-words", "--csv")
    assert (done.exit_code, [path.name for path in here.glob("*.csv")]) == (0, ["song.analysis.csv"])
    assert done.stderr.startswith(
        "note: drums.wav lasts 4.000 s, but the song song.wav is used up to 1.000 s: the rest is left out\n"
        "note: the channels of song.wav cancel each other: channel 2 is inverted in the analysis; "
    )

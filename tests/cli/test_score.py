"""`w2c-gen score`, as a person types it."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from typer.testing import CliRunner, Result

from tests.cli.refusals import assert_refused
from wav2clip_gen import ffmpeg
from wav2clip_gen.cli.score import app
from wav2clip_gen.video.writer import FilmWriter

RATE, FPS, FRAMES = 22_050, 12, 96
BEATS = 4 + np.cumsum(np.random.default_rng(1).integers(4, 12, 11))


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def scored(*arguments: object) -> dict[str, Any]:
    done = run(*arguments, "--json")
    assert done.exit_code == 0, done.output
    content: dict[str, Any] = json.loads(done.stdout)
    return content


def cut(out: Path, *arguments: object) -> Path:
    """A film of another program."""
    ffmpeg.run([*map(str, arguments), "-y", str(out)], purpose=f"make {out}")
    return out


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a song of clicks, a film whose light switches at each, without sound, and the same with sound."""
    folder = tmp_path_factory.mktemp("made")
    random = np.random.default_rng(2)
    sound = 0.003 * random.standard_normal(FRAMES * RATE // FPS)
    for beat in BEATS:
        first = round((beat + 0.4) * RATE / FPS)
        sound[first : first + 600] += 0.3 * random.standard_normal(600) * np.exp(-np.arange(600) / 100)
    soundfile.write(folder / "song.wav", np.concatenate([sound, sound]).clip(-1, 1), RATE)
    switched = np.isin(np.arange(FRAMES), BEATS).cumsum() % 2
    with FilmWriter(folder / "mute.mp4", size=(32, 32), fps=Fraction(FPS)) as writer:
        for on in switched:
            writer.write(np.full((32, 32, 3), 60 + 120 * on, np.uint8))
    inputs = ("-i", folder / "mute.mp4", "-i", folder / "song.wav", "-c:v", "copy", "-t", FRAMES / FPS)
    cut(folder / "film.mp4", *inputs)
    return folder


@pytest.fixture
def here(made: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(made)
    return made


@pytest.mark.usefixtures("here")
def test_a_film_is_scored_against_its_song() -> None:
    """The song is longer."""
    found = scored("film.mp4", "song.wav")
    assert (found["frames"], found["fps"], found["seconds"]) == (96, 12, 8)
    assert found["offsets"] == pytest.approx([0, 0, 0], abs=0.001)
    for measure in ("correlation", "alignment"):
        assert found["reactivity"][measure]["value"] > 0.9
        assert found["reactivity"][measure]["chance_99"] < 0.7
    assert found["flicker"] == pytest.approx(len(BEATS) / (FRAMES - 1) * 120 / 255, rel=0.03)
    assert found["notes"] == ["compared with 8.00 s of song.wav, from 0.00 s on"]


@pytest.mark.usefixtures("here")
def test_people_get_a_table() -> None:
    done = run("film.mp4")
    assert done.exit_code == 0, done.output
    title, _, header, _, *rows = done.stdout.splitlines()
    assert (title, header) == ("## film.mp4 against its own sound", "| measure | figure | chance (95 %, 99 %) |")
    film, offset, correlation, alignment, flicker = (row.split(" | ")[1] for row in rows[:5])
    assert (film, offset) == ("96 frames, 12 fps, 8.00 s", "no song to compare with")
    assert float(correlation) > 0.9
    assert float(alignment) > 0.9
    assert flicker == "5.45 % of full range"


@pytest.mark.usefixtures("here")
def test_a_part_of_a_song_is_named_by_its_start(tmp_path: Path) -> None:
    part = cut(tmp_path / "part.mp4", "-ss", 2, "-i", "film.mp4", "-t", 4)
    found = scored(part, "song.wav", "--start", "0:02")
    assert found["offsets"] == pytest.approx([0, 0, 0], abs=0.03)
    assert found["reactivity"]["alignment"]["value"] > 0.9
    done = run(part, "song.wav")
    assert_refused(done, "is not that of song.wav")
    assert "with --start where in it the film begins" in done.stderr


@pytest.mark.usefixtures("here")
def test_late_sound_and_a_mute_film_are_measured(tmp_path: Path) -> None:
    late = cut(tmp_path / "late.mp4", "-i", "mute.mp4", "-itsoffset", 0.25, "-i", "film.mp4", "-map", 0, "-map", "1:a")
    assert scored(late, "song.wav")["offsets"] == pytest.approx([0.25] * 3, abs=0.03)
    heard, mute = (scored(late)["reactivity"]["alignment"], scored("mute.mp4", "song.wav"))
    assert heard["value"] < heard["chance_99"]
    assert mute["offsets"] is None
    assert mute["reactivity"]["correlation"]["value"] > 0.9
    assert mute["notes"][0] == "the film has no sound; its picture is compared with song.wav"


@pytest.mark.usefixtures("here")
def test_a_short_song_and_mono_sound_of_another_rate_are_compared(tmp_path: Path) -> None:
    found = scored("film.mp4", cut(tmp_path / "short.wav", "-i", "song.wav", "-t", 5))
    assert found["notes"] == ["only the first 5.00 s have picture and sound"]
    assert found["reactivity"]["alignment"]["value"] > 0.8
    stereo = cut(tmp_path / "stereo.wav", "-i", "song.wav", "-ac", 2, "-ar", 44_100)
    assert scored("film.mp4", stereo)["offsets"] == pytest.approx([0, 0, 0], abs=0.002)


@pytest.mark.usefixtures("here")
def test_frames_of_different_lengths_are_named(tmp_path: Path) -> None:
    chosen = "select=not(eq(mod(n\\,5)\\,3))"
    film = cut(tmp_path / "uneven.mkv", "-i", "film.mp4", "-vf", chosen, "-fps_mode", "vfr", "-c:a", "copy")
    found = scored(film)
    assert (found["frames"], found["fps"]) == (77, pytest.approx(9.6, abs=0.1))
    assert found["notes"][0].startswith("the frames are shown for different times; they are compared at 9.")
    assert found["reactivity"]["correlation"]["value"] > found["reactivity"]["correlation"]["chance_99"]


@pytest.mark.usefixtures("here")
def test_what_has_no_figure_says_so(tmp_path: Path) -> None:
    one = cut(tmp_path / "one.png", "-i", "film.mp4", "-frames:v", 1)
    still = cut(tmp_path / "still.mp4", "-loop", 1, "-i", one, "-i", "song.wav", "-t", 3)
    inputs = ("-f", "lavfi", "-i", "anullsrc", "-i", "film.mp4")
    silent = cut(tmp_path / "silent.mp4", *inputs, "-map", "1:v", "-map", "0:a", "-t", 8)
    for arguments, reason in (
        ((one, "song.wav"), "the film is shorter than 8 frames"),
        ((still,), "the picture stands still"),
        ((silent,), "the sound has no onsets"),
    ):
        done = run(*arguments)
        assert done.exit_code == 0, done.output
        assert done.stdout.count(f"| cannot be measured: {reason} |") == 2
    assert scored(one, "song.wav")["flicker"] is None
    assert scored(still)["flicker"] == pytest.approx(0, abs=1e-4)
    assert "nan" not in run(silent, "--json").stdout.casefold()


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (("none.mp4",), "none.mp4: no such file"),
        ((".",), ".: a folder"),
        (("song.wav",), "song.wav has no picture"),
        (("mute.mp4",), "mute.mp4 has no sound"),
        (("film.mp4", "none.wav"), "none.wav: no such file"),
        (("film.mp4", "mute.mp4"), "mute.mp4 holds no sound"),
        (("film.mp4", "song.wav", "--start", "99"), "nothing is left after 99 s"),
    ],
)
@pytest.mark.usefixtures("here")
def test_what_cannot_be_scored_is_refused(arguments: tuple[str, ...], what: str) -> None:
    assert_refused(run(*arguments), what)


@pytest.mark.usefixtures("here")
def test_a_start_is_a_time() -> None:
    assert_refused(run("film.mp4", "song.wav", "--start", "soon"), "'soon' is not a time", code=2)


@pytest.mark.usefixtures("here")
def test_another_song_is_refused(tmp_path: Path) -> None:
    other = tmp_path / "other.wav"
    soundfile.write(other, 0.1 * np.random.default_rng(9).standard_normal(8 * RATE), RATE)
    assert_refused(run("film.mp4", other), f"is not that of {other}")

"""The page of a film: what it shows, of films with and without record, song and sound; and that no text is code."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
from pathlib import Path
from typing import Any
from urllib.parse import unquote_to_bytes

import numpy as np
import pytest

from tests import reports
from tests.conftest import Write
from wav2clip_gen import ffmpeg
from wav2clip_gen.errors import OutputError, SettingsError, VideoError, WeightsError
from wav2clip_gen.job import prepare
from wav2clip_gen.models.registry import Models
from wav2clip_gen.pipeline import analyze_audio, load_stems
from wav2clip_gen.progress import Progress, StageClock, ignore
from wav2clip_gen.report import Shown, find_film, gather, index_path, of_every_frame, write_index, write_report
from wav2clip_gen.report_page import (
    LEVELS,
    command,
    pack,
    quantise,
    relative_url,
    render_page,
    shell_word,
    thin,
)
from wav2clip_gen.synthesis.modulation import modulate


@pytest.fixture(scope="module")
def film(mini: Models, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A film that tests must not change."""
    return reports.make_film(tmp_path_factory.mktemp("film"), mini)


def page_of(film: Path, **options: Any) -> str:
    return write_report(film, **options).read_text()


def data_of(page: str) -> dict[str, Any]:
    """What the page hands to its script."""
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    assert found
    return dict(json.loads(found[1]))


def notes_of(film: Path, **options: Any) -> list[str]:
    return [*gather(film, **options).notes]


def test_the_page_shows_what_the_film_was_made_with(film: Path, mini: Models, tmp_path: Path) -> None:
    copy = reports.moved(film, tmp_path)
    found = gather(copy, load=lambda *_, **__: mini)
    assert found.notes == ()
    assert (found.frames, found.fps, found.duration, found.size) == (16, 4.0, 4.0, (32, 32))
    recorded = json.loads(copy.with_suffix(".json").read_text())
    np.testing.assert_allclose(found.similarity[""], recorded["frames"]["similarity"])
    assert [(one.content, one.weight, one.start, one.stop) for one in found.guidance] == [
        ("a quiet lake", 1.0, 0.0, 4.0),
        ("a burning forest", 0.5, 1.0, 3.0),  # seconds 2 to 4 of the song
    ]
    assert found.analysis
    assert list(found.analysis.stems) == ["drums"]
    assert found.analysis.mix.sections[0].labels

    job = prepare(copy.with_name("song.wav"), tmp_path / "other.mp4", found.settings)
    features = analyze_audio(job, load_stems(job, StageClock(ignore)), mini).features
    expected = modulate(job.settings, features, job.timeline).curves
    assert [one.name for one in found.parameters] == ["zoom", "brightness"]
    for one in found.parameters:
        np.testing.assert_array_equal(one.values, expected[one.name])


def test_the_waveform_has_the_extremes_of_the_song(film: Path) -> None:
    found = gather(film)
    assert found.waveform
    low, high = found.waveform
    mono = np.concatenate([*found.analysis.track.mono_blocks()]) if found.analysis else np.zeros(0)
    assert (low.min(), high.max()) == (mono.min(), mono.max())
    assert len(low) == 2400
    assert (low <= high).all()


def test_the_page_has_all_curves_over_one_time(film: Path, tmp_path: Path) -> None:
    page = page_of(film, out=tmp_path / "page.html")
    names = re.findall(r'<span class="name">([^<]+?) <', page)
    assert names == ["waveform", "onsets, beats", "drums loudness", "zoom", "brightness", "similarity"]
    rows = list(data_of(page)["rows"].values())
    assert data_of(page)["duration"] == 4.0
    assert [len(row["top"]) for row in rows] == [2400, 16, 16, 16, 16, 16]
    assert rows[1]["onsets"] == pytest.approx(np.arange(0, 4, 0.5), abs=0.05)
    zoom = rows[3]["low"] + np.array(rows[3]["top"]) / LEVELS * (rows[3]["high"] - rows[3]["low"])
    np.testing.assert_allclose(zoom, gather(film).parameters[0].values, atol=1e-4)
    assert 'style="left:25.000%;width:50.000%" title="a burning forest"' in page
    assert "never shown" not in page


def test_the_foot_has_settings_hashes_versions_and_reactivity(film: Path, tmp_path: Path) -> None:
    copy = reports.moved(film, tmp_path)
    measured = {
        "correlation": {"value": 0.61, "chance": 0.09, "chance_99": 0.13},
        "alignment": {"value": None},
        "reason": "it stands still",
    }
    reports.change_record(copy, reactivity=measured)
    page = page_of(copy)
    recorded = json.loads(copy.with_suffix(".json").read_text())
    for text in (*recorded["family"]["sha256"].values(), recorded["versions"]["torch"], "drums.loudness:zoom=0.1"):
        assert text in page
    assert '<dt>run.seed</dt><dd dir="auto">7</dd>' in page
    assert ">0.61, by chance up to 0.09 (95 %), 0.13 (99 %)<" in page
    assert ">cannot be measured: it stands still<" in page
    assert 'value="w2c-gen --from film.json --out film.again.mp4"' in page


def test_the_page_lacks_reactivity_where_it_was_not_measured(film: Path, tmp_path: Path) -> None:
    """As in films of older versions."""
    assert "by chance" in page_of(film)
    copy = reports.moved(film, tmp_path)
    path = copy.with_suffix(".json")
    content = json.loads(path.read_text())
    del content["reactivity"]
    path.write_text(json.dumps(content))
    assert "by chance" not in page_of(copy)


def test_the_page_needs_nothing_else_than_the_film(film: Path, tmp_path: Path) -> None:
    page = page_of(film, out=tmp_path / "page.html")
    assert re.findall(r'(?:src|href)="([^"]*)"', page) == [relative_url(film, tmp_path)]
    assert not re.search(r"https?:|@import|url\(", page)
    script = page.rpartition("<script>")[2].partition("</script>")[0]
    assert base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() in page.partition("</head>")[0]


def test_the_film_can_be_embedded(film: Path, tmp_path: Path) -> None:
    page = page_of(film, out=tmp_path / "page.html", embed=True)
    found = re.search(r'src="data:video/mp4;base64,([^"]+)"', page)
    assert found
    assert base64.b64decode(found[1]) == film.read_bytes()


def test_titles_prompts_and_labels_are_never_code(film: Path, tmp_path: Path) -> None:
    copy = reports.moved(film, tmp_path, title=reports.HOSTILE)
    settings = json.loads(copy.with_suffix(".json").read_text())["settings"]
    settings["prompts"] = [{"text": reports.HOSTILE}]
    settings["maps"] = []
    reports.change_record(copy, settings=settings, versions={reports.HOSTILE: reports.HOSTILE})
    page = page_of(copy)
    assert page.count("<script") == 2
    assert page.count("</script>") == 2
    assert "<img" not in page
    assert "🎬 &amp;amp;" in page


@pytest.mark.parametrize("name", ["a #1 50% & <b>\"'.mp4", "x:y.mp4", "-o.mp4", os.fsdecode(b"caf\xe9.mp4"), "ж🎬.mp4"])
def test_any_file_name_works(name: str, film: Path, tmp_path: Path) -> None:
    copy = reports.moved(film, tmp_path, name)
    page = write_report(copy)
    assert page == copy.with_suffix(".html")
    url = relative_url(copy, tmp_path)
    assert url.startswith("./")
    assert unquote_to_bytes(url) == b"./" + os.fsencode(name)
    assert f'src="{url}"' in page.read_text()


@pytest.mark.parametrize(
    ("name", "word"),
    [
        ("film.json", "film.json"),
        ("a b.json", "'a b.json'"),
        (os.fsdecode(b"caf\xe9"), r"$'caf\xe9'"),
        ("a\nb", r"$'a\x0ab'"),
    ],
)
def test_names_in_the_command_are_quoted(name: str, word: str) -> None:
    assert shell_word(name) == word


def test_the_command_names_files_from_the_folder_of_the_page(film: Path) -> None:
    found = gather(film)
    assert command(found, film.parent.parent) == (
        f"w2c-gen --from {film.parent.name}/film.json --out {film.parent.name}/film.again.mp4"
    )


def test_the_command_keeps_braces_and_dashes(film: Path, tmp_path: Path) -> None:
    found = gather(reports.moved(film, tmp_path, "-{seed}.mp4"))
    assert command(found, tmp_path) == "w2c-gen --from './-{seed}.json' --out './-{{seed}}.again.mp4'"


def test_a_film_without_record_shows_what_can_be_measured(film: Path, tmp_path: Path) -> None:
    copy = reports.moved(film, tmp_path)
    copy.with_suffix(".json").unlink()
    found = gather(copy)
    assert found.notes == ("there is no run record film.json: settings, prompts and similarity are not known",)
    assert (found.frames, found.fps, found.size, found.similarity, found.guidance) == (16, 4.0, (32, 32), {}, ())
    assert found.analysis
    assert found.analysis.mix.features.onsets == pytest.approx(np.arange(0, 4, 0.5), abs=0.05)
    page = page_of(copy)
    assert "Make it again" not in page
    assert "onsets, beats" in page


def test_another_file_of_the_name_is_no_record(film: Path, tmp_path: Path) -> None:
    copy = reports.moved(film, tmp_path)
    copy.with_suffix(".json").write_text('{"my": "notes"}')
    assert "film.json is no run record of w2c-gen" in notes_of(copy)[0]


def test_a_damaged_record_is_refused(film: Path, tmp_path: Path) -> None:
    copy = reports.moved(film, tmp_path)
    reports.change_record(copy, sync=None)
    with pytest.raises(SettingsError, match=r"film\.json: not a run record"):
        write_report(copy)
    assert not copy.with_suffix(".html").exists()


def test_a_record_without_its_film_is_refused(film: Path, tmp_path: Path) -> None:
    copy = reports.moved(film, tmp_path)
    copy.unlink()
    for path in (copy, copy.with_suffix(".json")):
        with pytest.raises(VideoError, match=r"film\.mp4 is missing; only its record is there") as caught:
            write_report(path)
        assert "w2c-gen --from" in caught.value.hint


def test_a_record_stands_for_its_film(film: Path) -> None:
    assert find_film(film.with_suffix(".json")) == film


def test_a_missing_film_is_refused(tmp_path: Path) -> None:
    with pytest.raises(VideoError, match=r"film\.mp4: no such film"):
        write_report(tmp_path / "film.mp4")


def test_what_is_no_film_is_refused(write_sound: Write) -> None:
    with pytest.raises(VideoError, match="has no picture"):
        write_report(write_sound(np.zeros(16_000) + 0.1))


def test_of_a_moved_song_the_sound_of_the_film_is_measured(film: Path, tmp_path: Path) -> None:
    copy = reports.moved(film, tmp_path, song=False)
    found = gather(copy)
    assert found.notes == (
        f"{tmp_path / 'song.wav'} is missing: the sound of the film itself is measured",
        "no stems are shown: they belong to the song",
        "no curve without its stem: zoom",
    )
    assert [one.name for one in found.parameters] == ["brightness"]
    assert found.analysis
    assert found.analysis.mix.features.onsets == pytest.approx(np.arange(0, 4, 0.5), abs=0.05)


def test_a_changed_song_is_not_taken_for_the_one_of_the_film(film: Path, tmp_path: Path, write_sound: Write) -> None:
    copy = reports.moved(film, tmp_path)
    write_sound(np.zeros(80_000))
    assert "has changed since the film was made: the sound of the film itself" in notes_of(copy)[0]


def test_a_missing_stem_is_noted(film: Path, tmp_path: Path) -> None:
    copy = reports.moved(film, tmp_path)
    (tmp_path / "drums.wav").unlink()
    first, second = notes_of(copy)
    assert first.startswith("no stems are shown: ")
    assert second == "no curve without its stem: zoom"


def test_a_film_without_sound_has_a_page(film: Path, tmp_path: Path) -> None:
    silent = tmp_path / "silent.mp4"
    ffmpeg.run(["-i", ffmpeg.file_url(film), "-an", "-c", "copy", ffmpeg.file_url(silent)], purpose="take the sound")
    assert notes_of(silent)[1:] == ["the film has no sound, so nothing of it is measured"]
    assert data_of(page_of(silent)) == {"duration": 4.0, "rows": {}}


@pytest.mark.parametrize("seconds", [1.0, 6.0])
def test_sound_of_another_length_keeps_its_place(seconds: float, film: Path, tmp_path: Path) -> None:
    copy = tmp_path / "film.mp4"
    sounds = ["-i", ffmpeg.file_url(film), "-stream_loop", "1", "-t", str(seconds), "-i", ffmpeg.file_url(film)]
    ffmpeg.run([*sounds, "-map", "0:v", "-map", "1:a", "-c", "copy", ffmpeg.file_url(copy)], purpose="change its sound")
    wave, onset = data_of(page_of(copy))["rows"].values()
    assert (len(wave["top"]), len(onset["top"])) == (2400, 16)
    sound = np.array(wave["top"]) - np.array(wave["bottom"])
    assert np.flatnonzero(sound > 100)[-1] == pytest.approx(2400 * min(seconds, 4) / 4, abs=60)
    assert onset["top"].count(None) == pytest.approx(max(0, 4 - seconds) * 4, abs=1)


def test_missing_weights_leave_the_labels_out(film: Path, tmp_path: Path) -> None:
    def refuse(*_: Any, **__: Any) -> Models:
        raise WeightsError("clip is missing", hint="")

    assert gather(reports.moved(film, tmp_path), load=refuse).notes == ("no labels: clip is missing",)


def test_an_existing_page_is_only_replaced_if_asked(film: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    page.write_text("mine")
    with pytest.raises(OutputError, match=r"page\.html exists"):
        write_report(film, page)
    assert page.read_text() == "mine"
    write_report(film, page, overwrite=True)
    assert page.read_text().startswith("<!doctype html>")


def test_progress_tells_stages_and_notes(film: Path, tmp_path: Path) -> None:
    copy, told = reports.moved(film, tmp_path, song=False), list[Progress]()
    write_report(copy, on_progress=told.append)
    assert [one.message.partition(" ")[0] for one in told] == ["", "note:", "note:", "note:"]
    assert {one.stage for one in told} == {"analyze"}


def test_the_page_of_an_hour_is_small() -> None:
    page = render_page(reports.hour_long(), Path("film.html"))
    assert len(page.encode()) < 3_000_000
    assert len(data_of(page)["rows"]) == 1 + 1 + 4 + 8 + 1


def test_thinning_keeps_peaks_and_gaps() -> None:
    values = np.zeros(1000)
    values[[123, 777]] = 5, -5
    values[400:500] = np.nan
    low, high = thin(values, 10)
    assert high.tolist()[:4] == [0, 5, 0, 0]
    assert low[7] == -5
    assert np.isnan(high[4])
    assert thin(values[:10], 10)[1].tolist() == [0] * 10


def test_values_are_written_as_whole_numbers() -> None:
    assert quantise(np.array([-1, 0, 0.5, 1, np.nan]), 0, 1) == [0, 0, 500, 999, None]


def test_prompts_that_overlap_get_lanes_of_their_own() -> None:
    spans = [Shown(name, 1, start, stop) for name, start, stop in (("a", 0, 9), ("c", 4, 6), ("b", 1, 4))]
    assert [[one.content for one in lane] for lane in pack(spans)] == [["a"], ["b", "c"]]


def test_an_index_leads_to_the_pages_of_several_films(film: Path, tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    films = [reports.moved(film, tmp_path, "a #.mp4"), reports.moved(film, tmp_path / "b", title="<b>Two</b>")]
    index = index_path(films)
    assert index == tmp_path / "index.html"
    write_index(films, index)
    page = index.read_text()
    assert re.findall(r'(?:href|src)="([^"]+)"', page) == [
        "./a%20%23.html", "./a%20%23.mp4", "./b/film.html", "./b/film.mp4",
    ]  # fmt: skip
    assert "&lt;b&gt;Two&lt;/b&gt;" in page
    write_index(films[:1], index)  # an older index is replaced


def test_an_index_replaces_nothing_else(film: Path, tmp_path: Path) -> None:
    index = tmp_path / "index.html"
    index.write_text("my pages")
    with pytest.raises(OutputError, match="is no index of films"):
        write_index([film], index)
    with pytest.raises(OutputError, match="would be the page of a film and the index"):
        write_index([tmp_path / "index.mp4"], index)
    assert index.read_text() == "my pages"


def test_the_similarity_of_frames_between_optimised_ones_is_interpolated() -> None:
    np.testing.assert_allclose(of_every_frame([0.1, None, None, 0.4, None]), [0.1, 0.2, 0.3, 0.4, 0.4])
    assert np.isnan(of_every_frame([None, None])).all()

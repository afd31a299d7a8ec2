"""A storyboard: one picture for each section of a song, with its times and what steers it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from PIL import Image
from wav2clip_gen.estimate import estimate
from wav2clip_gen.events import Event, SectionPainted, SheetFinished, Silent
from wav2clip_gen.storyboard import paint_section, storyboarding
from wav2clip_gen.synthesis.trajectory import Trajectory, mean_target

from tests.conftest import Write
from tests.interruption import interrupted
from wav2clip_gen.analysis import Label, Section
from wav2clip_gen.config import Settings
from wav2clip_gen.contact_sheet import MARGIN, Panel, draw
from wav2clip_gen.drawing import clock, font, wrap
from wav2clip_gen.errors import OutputError
from wav2clip_gen.job import Job, prepare
from wav2clip_gen.models.registry import Models
from wav2clip_gen.pipeline import hear, pull_curves

Make = Callable[..., Job]


@pytest.fixture
def song(write_sound: Write) -> Path:
    """Eight seconds of noise, then eight of a tone: two sections."""
    rng, t = np.random.default_rng(0), np.arange(16_000 * 8) / 16_000
    return write_sound(np.concatenate([0.3 * rng.standard_normal(len(t)), 0.3 * np.sin(2 * np.pi * 440 * t)]))


@pytest.fixture
def job(song: Path, tiny: Settings, tmp_path: Path) -> Make:
    def made(**changes: object) -> Job:
        return prepare(song, tmp_path / "{stem}.png", tiny.merged(changes), storyboard=True)

    return made


def board(job: Job, family: Models) -> list[Event]:
    return list(storyboarding(job, load=lambda *_, **__: family))


def test_each_section_is_painted_once_onto_one_sheet(job: Make, mini: Models, tmp_path: Path) -> None:
    events = board(job(), mini)
    sections = [event for event in events if isinstance(event, SectionPainted)]
    assert [event.index for event in sections] == [0, 1]
    assert (sections[0].start, sections[-1].stop) == (0, 16)
    assert sections[0].stop == sections[1].start == pytest.approx(8, abs=0.5)
    assert sections[0].words != sections[1].words
    assert events[-1] == SheetFinished(tmp_path / "song.png", 2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["song.png", "song.wav"]
    with Image.open(tmp_path / "song.png") as sheet:
        pixels = np.asarray(sheet)
    left, right = (pixels[150:300, x : x + 300] for x in (60, 500))  # inside the two pictures
    assert left.std() > 5
    assert np.abs(left.astype(int) - right).mean() > 5


def test_the_seed_decides_the_sheet(job: Make, mini: Models, tmp_path: Path) -> None:
    def content(seed: int) -> bytes:
        board(job(run={"seed": seed}), mini)
        written = (tmp_path / "song.png").read_bytes()
        (tmp_path / "song.png").unlink()
        return written

    assert content(7) == content(7) != content(8)


def test_a_section_is_painted_after_its_own_targets_and_names_what_pulls(
    job: Make, mini: Models, tmp_path: Path
) -> None:
    Image.linear_gradient("L").save(tmp_path / "moss.png")
    made = job(prompts=["0:08- a boat"], style_images=[f"0:04- {tmp_path / 'moss.png'}:0.5"])
    trajectory = hear(made, mini)
    sections = (Section(0, 8, -10.0, None), Section(8, 16, -10.0, None))
    curves = pull_curves(made)
    (first, _), (second, _) = (paint_section(made, mini, section, trajectory, curves) for section in sections)
    named = [dict(panel.guidance) for panel in (first, second)]
    assert named[0]["moss.png"] == pytest.approx(0.25, abs=0.02)
    assert named[0].get("a boat", 0) < 0.05
    assert named[1] == {"a boat": pytest.approx(1, abs=0.05), "moss.png": 0.5}
    plain, _ = paint_section(job(), mini, sections[0], hear(job(), mini), pull_curves(job()))
    assert not np.array_equal(plain.picture, first.picture)


def test_the_mean_of_targets_is_a_direction_and_loud_ones_say_more() -> None:
    east, north = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])
    trajectory = Trajectory(torch.stack([east, north, -east]), torch.tensor([1.0, 0.0, 1.0]), 1.0)
    mean = mean_target(trajectory, slice(0, 2))
    assert mean.norm() == pytest.approx(1)
    assert mean[0] > 10 * mean[1] > 0
    still = replace(trajectory, loudness=torch.zeros(3))
    assert mean_target(still, slice(0, 2)).tolist() == pytest.approx([0.5**0.5] * 2)
    opposed = Trajectory(torch.stack([east, -east]), torch.ones(2), 1.0)
    assert torch.equal(mean_target(opposed, slice(0, 2)), east)


def test_words_alone_can_steer_it_and_a_start_in_the_song_moves_its_times(job: Make, mini: Models) -> None:
    made = job(sound={"weight": 0, "start": 4}, prompts=["a boat"])
    sections = [event for event in board(made, mini) if isinstance(event, SectionPainted)]
    assert (sections[0].start, sections[-1].stop) == (4, 16)
    assert sections[0].words  # what is heard is told even where it does not steer


def test_silence_and_a_single_sample_are_songs_too(
    write_sound: Write, tiny: Settings, mini: Models, tmp_path: Path
) -> None:
    for sound in (np.zeros(16_000 * 3), np.ones(1)):
        made = prepare(write_sound(sound), tmp_path / "{stem}.png", tiny, storyboard=True, overwrite=True)
        assert board(made, mini)[-1] == SheetFinished(made.out, 1)


def test_a_perceptor_from_another_space_is_not_asked_what_it_hears(job: Make, mini: Models) -> None:
    made = job(sound={"weight": 0}, prompts=["a boat"])
    stranger = replace(made.networks.components["clip"], name="vit-l-14")
    made = replace(made, networks=replace(made.networks, components={**made.networks.components, "clip": stranger}))
    sections = [event for event in board(made, mini) if isinstance(event, SectionPainted)]
    assert [event.words for event in sections] == [(), ()]


def test_words_that_only_the_sound_gives_a_weight_are_named(
    job: Make, mini: Models, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[Panel] = []

    def look(panels: list[Panel], **about: str) -> Image.Image:
        drawn.extend(panels)
        return Image.new("RGB", (1, 1))

    monkeypatch.setattr("wav2clip_gen.storyboard.draw", look)
    board(job(prompts=["a boat:0"], maps=["loudness:prompt.1=0.5"]), mini)
    weights = [dict(panel.guidance)["a boat"] for panel in drawn]
    assert weights == [pytest.approx(0.5, abs=0.05), pytest.approx(0.35, abs=0.05)]  # as loud as noise and tone are


def test_stems_steer_it_as_they_steer_a_film(song: Path, tiny: Settings, mini: Models, tmp_path: Path) -> None:
    sound, rate = soundfile.read(song)
    half = len(sound) // 2
    for name, heard in (("drums", sound * (np.arange(len(sound)) < half)), ("bass", 0 * sound)):
        soundfile.write(tmp_path / f"{name}.wav", heard, rate, subtype="FLOAT")
    files = [f"{name}={tmp_path / name}.wav" for name in ("drums", "bass")]

    def pictures(*stems: str) -> tuple[list[Event], Image.Image]:
        settings = tiny.merged({"stems": list(stems), "stem_files": files if stems else []})
        job = prepare(song, tmp_path / f"{len(stems)}.png", settings, storyboard=True)
        events = board(job, mini)
        return events, Image.open(job.out)

    events, sheet = pictures("drums", "bass")
    assert [event for event in events if isinstance(event, Silent)] == [Silent(("bass",))]
    _, whole = pictures()
    first, second = (
        float(np.abs(np.asarray(sheet, int) - np.asarray(whole, int))[120:400, left : left + 400].mean())
        for left in (MARGIN, sheet.width - MARGIN - 400)
    )
    assert first < 0.5 * second  # until the drums cease, song and drums are one


def panel(number: int, shape: tuple[int, int] = (48, 64)) -> Panel:
    labels = tuple(Label(f"a very long word number {number}", 0.1, 1.0) for _ in range(3))
    picture = np.full((*shape, 3), 40 + number, np.uint8)
    pulls = (("a stormy sea at night " * 9, 0.5), ("moss.png", -0.25))
    return Panel(Section(0, 1, None, labels), 10.0 * number, 10.0 * number + 10, pulls, picture)


@pytest.mark.parametrize(("count", "columns"), [(1, 1), (2, 2), (4, 2), (5, 3), (36, 6), (150, 6)])
def test_a_long_song_makes_a_long_sheet_with_every_picture_as_readable(count: int, columns: int) -> None:
    sheet = draw([panel(number) for number in range(count)], title="T" * 500, facts="a song, " * 100)
    pixels = np.asarray(sheet)
    assert sheet.width <= 1800
    rows = -(-count // columns)
    grey = pixels[:, MARGIN + 5]
    heights = [int((grey == 40 + number).all(axis=1).sum()) for number in range(0, count, columns)]
    assert len(heights) == rows
    assert min(heights) == max(heights) >= 190
    for margin in (pixels[:, : MARGIN - 1], pixels[:, -MARGIN + 1 :], pixels[-8:]):
        assert (margin == pixels[0, 0]).all()


def test_tall_and_wide_pictures_keep_their_shape() -> None:
    for shape in ((90, 160), (160, 90)):
        pixels = np.asarray(draw([panel(0, shape)], title="", facts=""))
        rows, columns = np.where((pixels == 40).all(axis=2))
        assert np.ptp(columns) / np.ptp(rows) == pytest.approx(shape[1] / shape[0], rel=0.01)


def test_lines_are_broken_between_words_and_dots_stand_for_the_rest() -> None:
    lines = wrap("one two three four five six seven", 60, 13, lines=2)
    assert len(lines) == 2
    assert lines[1].endswith(" ...")
    assert all(font(13).getlength(line) <= 60 for line in lines)
    assert wrap("one two", 600, 13, lines=2) == ["one two"]
    assert wrap("", 60, 13, lines=2) == []
    assert font(13).getlength(wrap("x" * 400, 60, 13, lines=1)[0]) <= 60
    assert [clock(59.6), clock(3599.4), clock(3600)] == ["1:00", "59:59", "1:00:00"]


def test_an_estimate_counts_the_sections(job: Make, mini: Models, song: Path, tiny: Settings, tmp_path: Path) -> None:
    film = prepare(song, tmp_path / "song.mp4", tiny.merged({"painting": {"first_steps": 40, "steps": 40}}))
    sheet = job(painting={"first_steps": 40, "steps": 40})
    assert estimate(sheet, family=mini).per_song_second < 0.5 * estimate(film, family=mini).per_song_second
    assert not sheet.out.exists()


def test_a_disk_that_refuses_leaves_the_old_sheet(
    job: Make, mini: Models, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: object, **options: object) -> None:
        raise OSError(28, "No space left on device")

    made = job()
    made.out.write_text("an old sheet")
    monkeypatch.setattr(Image.Image, "save", full)
    with pytest.raises(OutputError, match="No space left on device"):
        board(made, mini)
    assert made.out.read_text() == "an old sheet"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["song.png", "song.wav"]


def test_ctrl_c_leaves_nothing(song: Path, tmp_path: Path) -> None:
    slow = ("--first-steps", "150", "--size", "64x48")
    code, stdout, stderr = interrupted(
        song, "--storyboard", "-o", tmp_path / "b.png", *slow, when=lambda line: line["event"] == "SectionPainted"
    )
    assert (code, stdout) == (130, "")
    assert "interrupted" in stderr
    assert [path.name for path in tmp_path.iterdir()] == ["song.wav"]

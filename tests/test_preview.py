"""Previews: a storyboard with one picture per section of a song, and an estimate of the cost."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import soundfile
from PIL import Image

from tests.conftest import SAMPLES, Write, condition_job
from tests.interruption import interrupted
from wav2clip_gen import pace, preview
from wav2clip_gen.analysis import Section
from wav2clip_gen.config import Settings
from wav2clip_gen.contact_sheet import MARGIN, Panel, draw
from wav2clip_gen.errors import OutputError
from wav2clip_gen.job import Job, pictures, prepare
from wav2clip_gen.models.registry import Models
from wav2clip_gen.pipeline import analyze_audio, encode_job_guidance, load_stems
from wav2clip_gen.preview import estimate, make_storyboard, optimize_section
from wav2clip_gen.progress import Estimate, Progress, StageClock, Storyboard, ignore
from wav2clip_gen.synthesis.modulation import modulate
from wav2clip_gen.video.writer import FilmWriter

Make = Callable[..., Job]
SONG = SAMPLES / "song"


@dataclass(frozen=True)
class Made:
    """A finished storyboard and how it was made."""

    storyboard: Storyboard
    panels: list[Panel]
    progress: list[Progress]

    @property
    def pixels(self) -> np.ndarray[Any, np.dtype[np.int64]]:
        """The sheet (H, W, 3)."""
        with Image.open(self.storyboard.path) as sheet:
            return np.asarray(sheet, np.int64)


def draw_storyboard(job: Job, models: Models) -> Made:
    """Make a storyboard, and record its panels and progress."""
    panels, progress = list[Panel](), list[Progress]()

    def recorded(made: list[Panel], **options: str) -> Image.Image:
        panels.extend(made)
        return draw(made, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(preview, "draw", recorded)
        storyboard = make_storyboard(job, load=lambda *_, **__: models, on_progress=progress.append)
    return Made(storyboard, panels, progress)


@pytest.fixture(scope="module")
def song(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight seconds of noise, then eight of a tone: two sections."""
    rng, t = np.random.default_rng(0), np.arange(16_000 * 8) / 16_000
    sound = np.concatenate([0.3 * rng.standard_normal(len(t)), 0.3 * np.sin(2 * np.pi * 440 * t)])
    path = tmp_path_factory.mktemp("song") / "song.wav"
    soundfile.write(path, sound, 16_000, subtype="FLOAT")
    return path


@pytest.fixture(scope="module")
def coarse(small: Settings) -> Settings:
    """Fewer windows."""
    return small.merged({"sound": {"hop": 0.25}, "painting": {"first_steps": 5}})


@pytest.fixture
def job(song: Path, coarse: Settings, tmp_path: Path) -> Make:
    """A storyboard of the song, to be made in the test's folder."""

    def prepared(**changes: object) -> Job:
        return prepare(song, tmp_path / "{stem}.png", coarse.merged(changes), storyboard=True)

    return prepared


@pytest.fixture(scope="module")
def made(song: Path, coarse: Settings, mini: Models, tmp_path_factory: pytest.TempPathFactory) -> Made:
    """A storyboard that is made once; a map gives a prompt its weight."""
    changes = {"prompts": ["a boat:0"], "maps": ["loudness:prompt.1=0.5"]}
    out = tmp_path_factory.mktemp("sheet") / "{stem}.png"
    return draw_storyboard(prepare(song, out, coarse.merged(changes), storyboard=True), mini)


# Storyboards


def test_each_section_has_a_picture_with_times_and_labels(made: Made) -> None:
    first, second = made.panels
    assert (first.start, second.stop) == (0, 16)
    assert first.stop == second.start == pytest.approx(8, abs=0.5)
    assert first.section.labels
    assert second.section.labels
    assert first.section.labels != second.section.labels
    assert made.storyboard.sections == 2
    assert [path.name for path in made.storyboard.path.parent.iterdir()] == ["song.png"]
    left, right = (made.pixels[150:300, x : x + 300] for x in (60, 500))  # inside the two pictures
    assert left.std() > 5
    assert np.abs(left - right).mean() > 5


def test_the_progress_of_a_storyboard_describes_each_section(made: Made) -> None:
    stages = list(dict.fromkeys(progress.stage for progress in made.progress))
    assert stages == ["load", "analyze", "draw"]
    sections = [progress for progress in made.progress if progress.stage == "draw" and progress.done]
    assert [(one.done, one.total) for one in sections] == [(1, 2), (2, 2)]
    assert all(one.similarity is not None for one in sections)
    for one, panel in zip(sections, made.panels, strict=True):
        assert one.message.startswith(f"section {one.done}/2  0:0")
        assert panel.section.labels
        assert panel.section.labels[0].text in one.message


def test_a_prompt_that_only_a_map_gives_a_weight_is_named(made: Made) -> None:
    weights = [dict(panel.guidance)["a boat"] for panel in made.panels]
    assert weights == [pytest.approx(0.5, abs=0.05), pytest.approx(0.35, abs=0.05)]  # the levels of noise and tone


def test_the_seed_decides_the_sheet(song: Path, coarse: Settings, mini: Models, tmp_path: Path) -> None:
    def content(number: int, seed: int) -> bytes:
        changes = {"run": {"seed": seed}, "sound": {"start": 6, "duration": 2}}
        made = prepare(song, tmp_path / f"{number}.png", coarse.merged(changes), storyboard=True)
        return draw_storyboard(made, mini).storyboard.path.read_bytes()

    first, again, other = content(0, 7), content(1, 7), content(2, 8)
    assert first == again != other


def test_a_section_is_optimized_towards_its_own_target_and_names_its_guidance(
    job: Make, mini: Models, tmp_path: Path
) -> None:
    Image.linear_gradient("L").save(tmp_path / "moss.png")
    sections = (Section(0, 8, -10.0, None), Section(8, 16, -10.0, None))

    def panels(prepared: Job, count: int) -> list[Panel]:
        audio = analyze_audio(prepared, load_stems(prepared, StageClock(ignore)), mini)
        guidance = encode_job_guidance(prepared, mini, modulate(prepared.settings, audio.features, prepared.timeline))
        conditioning = condition_job(prepared, mini)
        return [optimize_section(prepared, mini, one, conditioning, guidance)[0] for one in sections[:count]]

    first, second = panels(job(prompts=["0:08- a boat"], style_images=[f"0:04- {tmp_path / 'moss.png'}:0.5"]), 2)
    assert dict(first.guidance)["moss.png"] == pytest.approx(0.25, abs=0.02)
    assert dict(first.guidance).get("a boat", 0) < 0.05
    assert dict(second.guidance) == {"a boat": pytest.approx(1, abs=0.05), "moss.png": 0.5}
    (plain,) = panels(job(), 1)
    assert not np.array_equal(plain.picture, first.picture)


def test_prompts_alone_can_condition_it_and_a_start_moves_its_times(job: Make, mini: Models) -> None:
    panels = draw_storyboard(job(sound={"weight": 0, "start": 4}, prompts=["a boat"]), mini).panels
    assert (panels[0].start, panels[-1].stop) == (4, 16)
    assert panels[0].section.labels  # sections are labelled even where the audio does not condition


def test_silence_and_a_single_sample_are_songs_too(
    write_sound: Write, coarse: Settings, mini: Models, tmp_path: Path
) -> None:
    for sound in (np.zeros(16_000 * 2), np.ones(1)):
        silent = prepare(write_sound(sound), tmp_path / "{stem}.png", coarse, storyboard=True, overwrite=True)
        assert draw_storyboard(silent, mini).storyboard == Storyboard(path=silent.out, sections=1)


def test_a_perceptor_without_audio_embeddings_does_not_label_sections(job: Make, mini: Models) -> None:
    prepared = job(sound={"weight": 0}, prompts=["a boat"])
    selection = prepared.selection
    clip = replace(selection.components["clip"], name="vit-l-14")
    selection = replace(selection, components={**selection.components, "clip": clip})
    made = draw_storyboard(replace(prepared, selection=selection), mini)
    assert [panel.section.labels for panel in made.panels] == [None, None]


def test_stems_condition_a_storyboard_as_they_condition_a_film(
    song: Path, coarse: Settings, mini: Models, tmp_path: Path
) -> None:
    sound, rate = soundfile.read(song)
    half = len(sound) // 2
    for name, stem in (("drums", sound * (np.arange(len(sound)) < half)), ("bass", 0 * sound)):
        soundfile.write(tmp_path / f"{name}.wav", stem, rate, subtype="FLOAT")
    files = [f"{name}={tmp_path / name}.wav" for name in ("drums", "bass")]

    def storyboard(*stems: str) -> Made:
        settings = coarse.merged({"stems": list(stems), "stem_files": files if stems else []})
        return draw_storyboard(prepare(song, tmp_path / f"{len(stems)}.png", settings, storyboard=True), mini)

    made, whole = storyboard("drums", "bass"), storyboard()
    notes = [progress.message for progress in made.progress if progress.message.startswith("note: ")]
    assert notes == ["note: silent from start to end: bass"]
    width = made.pixels.shape[1]
    first, second = (
        float(np.abs(made.pixels - whole.pixels)[120:400, left : left + 400].mean())
        for left in (MARGIN, width - MARGIN - 400)
    )
    assert first < 0.6 * second  # as long as the drums play, song and drums are the same


def test_a_full_disk_leaves_the_old_sheet(
    write_sound: Write, tone: np.ndarray[Any, Any], coarse: Settings, mini: Models, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    def full(*arguments: object, **options: object) -> None:
        raise OSError(28, "No space left on device")

    prepared = prepare(write_sound(tone), tmp_path / "{stem}.png", coarse, storyboard=True, overwrite=True)
    prepared.out.write_text("an old sheet")
    monkeypatch.setattr(Image.Image, "save", full)
    with pytest.raises(OutputError, match="No space left on device"):
        draw_storyboard(prepared, mini)
    assert prepared.out.read_text() == "an old sheet"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["song.png", "song.wav"]


def test_ctrl_c_leaves_no_sheet(song: Path, tmp_path: Path) -> None:
    def drawing(line: dict[str, Any]) -> bool:
        return line.get("stage") == "draw"

    slow = ("--duration", 2, "--first-steps", 1000, "--size", "32x32", "--cuts", 2)
    code, stdout, stderr = interrupted(song, "--storyboard", "-o", tmp_path / "b.png", *slow, when=drawing)
    assert (code, stdout) == (-signal.SIGINT, "")
    assert "interrupted" in stderr
    assert list(tmp_path.iterdir()) == []


# Estimates


@pytest.fixture
def timed(mini: Models, monkeypatch: pytest.MonkeyPatch) -> None:
    """An optimiser step takes 10 s, a frame 100 s, to write and join a film 7 s."""
    monkeypatch.setattr(preview, "load_job_models", lambda *_: mini)
    monkeypatch.setattr(preview, "_time_frames", lambda *_: (10.0, 100.0, np.zeros((32, 32, 3), np.uint8)))
    monkeypatch.setattr(preview, "_time_film", lambda *_: 7.0)


@pytest.fixture
def tune(tmp_path: Path, tiny: Settings, mini: Models) -> Callable[..., Job]:
    """A film of 1.5 s of the song with stems that have to be separated."""
    path = Path(shutil.copy(SONG / "mix.ogg", tmp_path / "tune.ogg"))

    def prepared(**changes: Any) -> Job:
        settings = tiny.merged({"sound": {"start": 7, "duration": 1.5}, "stems": ["vocals", "drums"], **changes})
        return prepare(path, tmp_path / "film.mp4", settings, selection=mini.selection)

    return prepared


def test_an_estimate_makes_nothing(mini: Models, coarse: Settings, song: Path, tmp_path: Path) -> None:
    cost = estimate(prepare(song, tmp_path / "film.mp4", coarse.merged({"sound": {"duration": 1}})))
    assert (cost.family, cost.device) == (mini.name, str(mini.device))
    assert cost.seconds > 0
    assert cost.per_song_second > 0
    assert cost.memory
    assert 2e8 < cost.memory < 2e10
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("timed")
def test_an_estimate_of_a_storyboard_counts_sections(job: Make, song: Path, coarse: Settings, tmp_path: Path) -> None:
    sheet, film = job(), prepare(song, tmp_path / "song.mp4", coarse)
    first = 10 * coarse.painting.first_steps
    assert estimate(sheet).per_song_second == pytest.approx(2 * first / 16)
    assert estimate(sheet).seconds == pytest.approx(2 * first, abs=30)
    assert estimate(film).per_song_second == pytest.approx(100 * coarse.picture.fps)
    assert not sheet.out.exists()


@pytest.mark.usefixtures("timed")
def test_an_estimate_counts_pictures_and_films_and_separates_nothing(
    tune: Callable[..., Job], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("W2C_CACHE", str(tmp_path / "cache"))

    def cost(layout: str) -> Estimate:
        return estimate(tune(picture={"layout": layout}))

    for layout, count in (("single", 1), ("grid", 3), ("separate", 2)):
        found = cost(layout)
        assert found.per_song_second == pytest.approx(count * 100 * 4)  # at 4 frames per second
        films = 2 if layout == "separate" else 1
        seconds = count * (3 * 10 + 5 * 100) + films * 7  # 3 first steps, 5 more frames
        assert found.seconds == pytest.approx(seconds, rel=0.05)
    assert not (tmp_path / "cache").exists()


@pytest.mark.usefixtures("timed")
def test_an_estimate_counts_preparation_once_and_knows_cached_stems(
    tune: Callable[..., Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter(np.arange(0, 1e6, 500))  # each reading is 500 s after the one before
    monkeypatch.setattr(preview, "_time_frames", lambda *_: (0.0, 0.0, None))
    monkeypatch.setattr(preview, "_time_film", lambda *_: 0.0)
    monkeypatch.setattr(preview, "SEPARATION_COST", {"dsp": 1000.0})
    monkeypatch.setattr(preview, "time", SimpleNamespace(perf_counter=lambda: float(next(clock))))
    prepared = tune(picture={"layout": "grid"}, sound={"start": 7, "duration": 1.5, "separator": "dsp"})
    prepared = replace(prepared, seconds=0.0)
    analysis = 500 * len(pictures(prepared.settings))  # of each picture's audio
    assert estimate(prepared).seconds == pytest.approx(1500 + 500 + analysis)
    load_stems(prepared, StageClock(ignore))
    assert estimate(prepared).seconds == pytest.approx(500 + analysis)


class Clock:
    """Time that passes only where a test lets it."""

    def __init__(self) -> None:
        self.now = 0.0

    def perf_counter(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """In place of the time that is measured."""
    clock = Clock()
    for module in (preview, pace):
        monkeypatch.setattr(module, "time", clock)
    return clock


class TimedOptimizer:
    """Takes a time of its own for a step and for a frame, instead of optimising."""

    def __init__(self, clock: Clock, step: float, decode: float) -> None:
        self.clock, self.step, self.decode = clock, step, decode
        self.settings, self.taken, self.steps = Settings(), list[int](), 0

    def optimize(self, target: object, *, steps: int, temporal_weight: float) -> None:
        self.steps += steps
        self.clock.now += steps * self.step

    def decode_bytes(self) -> np.ndarray[Any, Any]:
        self.clock.now += self.decode
        return np.zeros((4, 4, 3), np.uint8)

    def frames(self, index: int, target: object, parameters: Any, *, after: int) -> Iterator[Any]:
        self.taken.append(index)
        self.optimize(target, steps=parameters.steps(index), temporal_weight=1)
        for _ in range(after, index):
            yield SimpleNamespace(picture=self.decode_bytes())


@pytest.mark.parametrize(("step", "decode"), [(0.001, 0.02), (0.1, 0.1), (3.0, 0.5)])
@pytest.mark.parametrize(("frames", "painted"), [(1, [0]), (2, [0, 1]), (401, range(401)), (401, range(0, 401, 4))])
def test_steps_and_frames_are_timed(
    step: float, decode: float, frames: int, painted: Sequence[int], clock: Clock
) -> None:
    optimizer = TimedOptimizer(clock, step, decode)
    count = [3 + index % 5 for index in range(frames)]  # steps of each frame
    parameters = SimpleNamespace(steps=lambda index: count[index])
    targets: Any = [np.zeros(2)] * frames
    timed: Any = optimizer
    per_step, per_frame, picture = preview._time_frames(timed, targets, cast("Any", parameters), list(painted))
    assert per_step == pytest.approx(step)
    steps = np.mean([count[index] for index in painted[1:] or painted])
    assert per_frame == pytest.approx(step * steps + decode * frames / len(painted), rel=0.02)
    assert picture.shape == (4, 4, 3)
    assert clock.now < 30
    assert 0 not in optimizer.taken  # the first has more steps


@pytest.mark.parametrize("copied", [False, True])
def test_a_film_is_timed_by_two_short_ones(
    copied: bool, song: Path, small: Settings, clock: Clock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lengths = []

    def write(self: object, picture: np.ndarray[Any, Any]) -> None:
        clock.now += 0.01

    def join(*_: object, **options: Any) -> None:
        clock.now += 5 if "metadata" in options else 0.02 * options["frames"] + 0.5
        lengths.append(options.get("frames"))

    for name in ("mux", "verify_film"):
        monkeypatch.setattr(preview, name, join)
    monkeypatch.setattr(preview, "visual_change", lambda _: None)
    monkeypatch.setattr(FilmWriter, "write", write)
    monkeypatch.setattr(FilmWriter, "__exit__", lambda *_: None)
    monkeypatch.setattr(preview, "TIMED_FILM", 5.0)
    job = prepare(song, tmp_path / "film.mp4", small)
    job = replace(job, sound=replace(job.sound, copied=copied))
    taken = preview._time_film(job, np.zeros((32, 32, 3), np.uint8))
    assert [length for length in lengths if length] == [5, 20]  # at 4 frames per second
    assert taken == pytest.approx(64 * 0.03 + 0.5 + (0 if copied else 5))


def test_a_short_film_is_written_whole(song: Path, small: Settings, tmp_path: Path) -> None:
    job = prepare(song, tmp_path / "film.mp4", small.merged({"sound": {"duration": 1}}))
    assert 0 < preview._time_film(job, np.zeros((32, 32, 3), np.uint8)) < 60
    assert list(tmp_path.iterdir()) == []

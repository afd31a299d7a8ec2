"""A song goes in, a film comes out: the whole pipeline with the mini family."""

from __future__ import annotations

import gc
import json
import shutil
import weakref
from collections import Counter
from collections.abc import Callable, Generator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from numpy.typing import NDArray
from PIL import Image

from tests.conftest import SAMPLES, Write, condition_job
from wav2clip_gen import ffmpeg, record
from wav2clip_gen.audio.decode import DecodedTrack, decode
from wav2clip_gen.audio.features import Features, measure
from wav2clip_gen.audio.track import Samples, Track, open_track
from wav2clip_gen.config import Settings
from wav2clip_gen.errors import OutputError, SettingsError, VideoError, W2CError
from wav2clip_gen.job import prepare
from wav2clip_gen.models.registry import Models
from wav2clip_gen.pipeline import render, render_job
from wav2clip_gen.progress import STAGES, Film, Progress
from wav2clip_gen.video.verify import FilmFacts, probe

Tone = NDArray[np.float64]
RECORD = Path(__file__).with_name("data") / "record-0.1.json"


@dataclass(frozen=True)
class Made:
    """A film of the tone with its frames, made once for many tests, which must not change it."""

    film: Film
    song: Path
    frames_dir: Path
    progress: list[Progress]
    facts: FilmFacts

    def copied(self, folder: Path) -> tuple[Path, Path]:
        """A copy of song and film with its record."""
        for path in (self.song, self.film.path, self.film.record):
            shutil.copy(path, folder)
        return folder / self.song.name, folder / self.film.path.name


@pytest.fixture(scope="module")
def quick(tiny: Settings) -> Settings:
    """As `tiny`, with fewer steps."""
    return tiny.merged({"painting": {"first_steps": 2, "steps": 1}})


@pytest.fixture(scope="module")
def made(mini: Models, quick: Settings, tone: Tone, tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder, progress = tmp_path_factory.mktemp("made"), list[Progress]()
    song = folder / "song.wav"
    soundfile.write(song, tone, 16_000, subtype="FLOAT")
    frames_dir = folder / "frames"
    film = render(song, folder / "film.mp4", quick, family=mini, frames_dir=frames_dir, on_progress=progress.append)
    return Made(film, song, frames_dir, progress, probe(film.path))


@pytest.fixture
def render_tone(mini: Models, quick: Settings, made: Made, tmp_path: Path) -> Callable[..., Film]:
    """Render the tone to `NAME.mp4`."""

    def run(name: str, **changes: Any) -> Film:
        return render(made.song, tmp_path / f"{name}.mp4", quick.merged(changes), family=mini)

    return run


def frame_hashes(film: Film) -> list[str]:
    """A hash of each decoded frame."""
    arguments = ["-i", ffmpeg.file_url(film.path), "-map", "0:v", "-f", "framemd5", "pipe:1"]
    listing = ffmpeg.run(arguments, purpose="hash the frames").decode()
    return [line.rpartition(",")[2].strip() for line in listing.splitlines() if not line.startswith("#")]


def frame_values(film: Film) -> dict[str, Any]:
    """The values of the frames in a film's record."""
    return json.loads(film.record.read_text())["frames"]


# The film and its record


def test_a_film_is_as_long_as_its_song(made: Made, tone: Tone) -> None:
    facts = made.facts
    assert (facts.frames, facts.width, facts.height) == (6, 64, 48)
    assert facts.picture_codec == "h264"
    assert abs(facts.picture_seconds - len(tone) / 16_000) <= 1 / 4
    assert abs(facts.picture_seconds - facts.sound_seconds) <= 1 / 4
    assert facts.sound_seconds == pytest.approx(1.5, abs=0.05)
    assert not made.film.partial


def test_the_record_holds_what_was_done_and_measured(made: Made) -> None:
    content = json.loads(made.film.record.read_text())
    assert content["settings"]["run"]["seed"] == 7
    assert content["family"]["name"] == "mini"
    assert set(content["family"]["sha256"]) == {"wav2clip", "clip", "vqgan", "prior"}
    assert len(content["frames"]["loss"]) == len(content["frames"]["similarity"]) == made.film.frames == 6
    assert content["sync"]["frames"] == 6
    assert abs(content["sync"]["offset_seconds"]) < 0.005
    nothing = {"value": None, "chance": None, "chance_99": None}
    reason = "the film is shorter than 8 frames"
    assert content["reactivity"] == {"correlation": nothing, "alignment": nothing, "reason": reason}
    assert set(content["seconds"]) == {"load", "analyze", "optimize", "mux", "verify", "film"}
    assert content["track"]["path"] == "song.wav"


def test_progress_is_reported_in_the_order_of_the_stages(made: Made) -> None:
    stages = [progress.stage for progress in made.progress]
    assert stages == ["load", "load", "analyze", "optimize", *["optimize"] * 6, "mux", "verify"]
    assert set(stages) < set(STAGES)
    assert made.progress[1].message.startswith("models mini on cpu; needs about 1.")
    frames = made.progress[4:10]
    assert [(frame.done, frame.total) for frame in frames] == [(number, 6) for number in range(1, 7)]
    assert [frame.loss for frame in frames] == pytest.approx(frame_values(made.film)["loss"], abs=1e-6)
    assert [frame.similarity for frame in frames] == pytest.approx(frame_values(made.film)["similarity"], abs=1e-6)


def test_the_seed_decides_the_film(made: Made, render_tone: Callable[..., Film]) -> None:
    again, other = render_tone("again"), render_tone("other", run={"seed": 8})
    assert frame_hashes(again) == frame_hashes(made.film)
    assert frame_values(again) == frame_values(made.film)
    assert frame_hashes(other) != frame_hashes(made.film)


def test_a_replay_makes_the_same_film_and_notices_another_song(
    mini: Models, quick: Settings, made: Made, tmp_path: Path
) -> None:
    settings = quick.merged({"prompts": ["a dog:0.5"], "run": {"seed": None}})
    song = Path(shutil.copy(made.song, tmp_path))
    film = render(song, tmp_path / "film.mp4", settings, family=mini)
    assert frame_values(film)["similarity"] != frame_values(made.film)["similarity"]
    replay = record.read(film.record)
    assert (replay.source, replay.settings.run.seed, replay.differences) == (song, film.seed, ())
    again = render(replay.source, tmp_path / "again.mp4", replay.settings, family=mini)
    assert frame_hashes(again) == frame_hashes(film)
    song.write_bytes(b"another song")
    assert record.read(film.record).differences == (f"{song} has changed since film.json",)


def test_a_record_of_version_0_1_is_replayed(mini: Models, tmp_path: Path) -> None:
    """It has the old names of settings; its film was made by that version, with the weights of its time."""
    path, song = (Path(shutil.copy(file, tmp_path)) for file in (RECORD, SAMPLES / "africa.ogg"))
    content = json.loads(path.read_text())
    old, replay = content["settings"], record.read(path)
    changed = {f"{path} has changed since {RECORD.name}" for path in mini.files.values()}
    assert replay.source == song
    assert set(replay.differences) == changed  # those weights were replaced since
    motion, painting = replay.settings.motion, replay.settings.painting
    assert (motion.temporal_weight, motion.ema_half_life) == (old["motion"]["inertia"], old["motion"]["blend"])
    assert painting.concept_weight == old["painting"]["recognition"]
    assert painting.layout_weight == old["painting"]["layout"]
    assert painting.tv_weight == old["painting"]["total_variation"]
    new = replay.settings.to_dict()
    renamed = {"inertia", "blend", "recognition", "layout", "total_variation"}
    for group in ("sound", "picture", "painting", "motion", "run"):
        kept = {name: value for name, value in old[group].items() if group == "picture" or name not in renamed}
        assert {name: new[group][name] for name in kept} == kept
    assert (new["prompts"], new["maps"]) == (old["prompts"], old["maps"])
    film = render(replay.source, tmp_path / "again.mp4", replay.settings, family=mini)
    assert len(frame_values(film)["similarity"]) == len(content["frames"]["similarity"])


def test_a_file_that_is_no_record_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.json"
    for content in ("{}", "[1]", "no json", '{"w2c-gen": {"format": 99}}', '{"w2c-gen": 1}'):
        path.write_text(content)
        with pytest.raises(SettingsError) as caught:
            record.read(path)
        assert "\n" not in caught.value.what
    with pytest.raises(SettingsError, match="cannot be read"):
        record.read(tmp_path / "none.json")


# Sounds and settings


@pytest.mark.parametrize(
    ("sound", "rate"),
    [
        (np.zeros(12_000), 16_000),
        (np.array([0.5]), 16_000),
        (np.random.default_rng(0).uniform(-1, 1, 3_000), 16_000),
        (0.1 * np.random.default_rng(0).standard_normal((6_000, 8)), 8_000),
    ],
    ids=["silence", "one sample", "shorter than a window", "7.1 at 8 kHz"],
)
def test_unusual_sounds_give_finite_losses(
    sound: Tone, rate: int, mini: Models, quick: Settings, tmp_path: Path, write_sound: Write
) -> None:
    film = render(write_sound(sound, rate=rate), tmp_path / "film.mp4", quick, family=mini)
    assert film.frames == max(1, -(-len(sound) * 4 // rate))
    assert np.isfinite(frame_values(film)["loss"]).all()


def test_frames_of_two_different_sounds_are_nearer_to_their_own_targets(mini: Models, tmp_path: Path) -> None:
    """The track is a djembe, then a choir."""
    halves = [
        np.concatenate(list(track.mono_blocks()))
        for track in (
            open_track(SAMPLES / "africa.ogg", duration=3),
            open_track(SAMPLES / "song" / "vocals.ogg", start=9, duration=3),
        )
    ]
    soundfile.write(tmp_path / "halves.wav", np.concatenate([half / np.abs(half).max() for half in halves]), 16_000)
    settings = Settings().merged(
        {
            "picture": {"width": 64, "height": 64, "fps": 1},
            "painting": {"first_steps": 24, "steps": 20},
            "run": {"seed": 7},
        }
    )
    job = prepare(tmp_path / "halves.wav", tmp_path / "film.mp4", settings, frames_dir=tmp_path / "frames")
    targets = condition_job(job, mini).targets
    first, second = targets[:2].mean(dim=0), targets[4:].mean(dim=0)
    assert (first @ second / (first.norm() * second.norm())).item() < 0.97

    next(render_job(job, load=lambda *_, **__: mini))
    files = sorted((tmp_path / "frames").glob("*.png"))
    pictures = torch.stack([torch.tensor(np.array(Image.open(file))).permute(2, 0, 1) / 255 for file in files])
    seen = mini.clip.encode_images(pictures)  # (F, D)
    own = (seen * targets).sum(dim=1)
    other = (seen * targets.roll(len(targets) // 2, dims=0)).sum(dim=1)
    for half in (range(2), range(4, 6)):  # away from the change
        assert (own - other)[list(half)].mean() > 0


def test_prompts_change_the_film_and_no_steps_still_make_one(made: Made, render_tone: Callable[..., Film]) -> None:
    assert frame_hashes(render_tone("a", prompts=["a boat"])) != frame_hashes(made.film)
    still = render_tone("b", painting={"first_steps": 0, "steps": 0})
    assert frame_values(still)["loss"] == [None] * 6


def test_a_film_that_onsets_move_follows_the_beat(mini: Models, small: Settings, tmp_path: Path) -> None:
    """Also as far as it got when it is stopped."""
    quick = {"picture": {"fps": 12}, "painting": {"steps": 0}, "sound": {"duration": 6}}
    films = list[Film]()
    for maps, frames in ((["onset:zoom=0.5"], 72), (["onset:zoom=0.5"], 40), ([], 72)):
        job = prepare(SAMPLES / "africa.ogg", tmp_path / f"{len(films)}.mp4", small.merged({**quick, "maps": maps}))
        done = list[Progress]()
        films += render_job(
            job, load=lambda *_, **__: mini, on_progress=done.append,
            stop=lambda: sum(one.stage == "optimize" for one in done) > frames,  # noqa: B023 - called before the next
        )  # fmt: skip
    moved, stopped, still = films
    assert (moved.frames, stopped.frames, stopped.partial) == (72, 40, True)
    for film in (moved, stopped):
        found = film.reactivity.correlation
        assert found.value
        assert found.chance_99
        assert found.value > 0.45
        assert 0.1 < found.chance_99 < found.value
        assert json.loads(film.record.read_text())["reactivity"] == asdict(film.reactivity)
    assert still.reactivity.reason == "the picture stands still"


# Decoding


@pytest.fixture
def decodes(monkeypatch: pytest.MonkeyPatch) -> Counter[Path]:
    """How many samples of each file were decoded."""
    counts = Counter[Path]()
    original = Track._read

    def read(self: Track, *arguments: Any, **options: Any) -> Generator[Samples, None, None]:
        for block in original(self, *arguments, **options):
            counts[self.path] += block.shape[1]
            yield block

    monkeypatch.setattr(Track, "_read", read)
    return counts


@pytest.mark.parametrize(
    ("changes", "most"),
    [({}, 4), ({"motion": {"scenes": "sections"}, "maps": ["onset:zoom=0.1"]}, 5)],
    ids=["default", "sections and a map"],
)
def test_a_song_is_decoded_a_few_times_only(
    changes: dict[str, Any], most: int, mini: Models, quick: Settings, tmp_path: Path, write_sound: Write,
    decodes: Counter[Path],
) -> None:  # fmt: skip
    """To count its samples, to analyze it, to encode it and to verify the film; a second to try the sound."""
    song = write_sound(0.1 * np.random.default_rng(0).standard_normal(8_000 * 25), rate=8_000)
    still = {"sound": {"hop": 1}, "picture": {"fps": 1}, "painting": {"first_steps": 0, "steps": 0}}
    render(song, tmp_path / "film.mp4", quick.merged(still).merged(changes), family=mini)
    assert 3 < decodes[song] / (8_000 * 25) <= most + 1 / 25


# Where films and frames go


def test_a_stopped_film_is_kept_as_far_as_it_got(mini: Models, quick: Settings, made: Made, tmp_path: Path) -> None:
    job = prepare(made.song, tmp_path / "film.mp4", quick)
    frames = list[Progress]()

    def follow(progress: Progress) -> None:
        if progress.stage == "optimize" and progress.done:
            frames.append(progress)

    (film,) = render_job(job, load=lambda *_, **__: mini, stop=lambda: len(frames) == 3, on_progress=follow)
    assert film.partial
    assert film.path == tmp_path / "film.partial.mp4"
    assert probe(film.path).frames == 3
    assert not job.out.exists()
    assert json.loads(film.record.read_text())["partial"] is True
    assert frame_values(film)["loss"] == frame_values(made.film)["loss"][:3]


def test_frames_are_kept_and_never_mixed_with_those_of_an_older_film(
    mini: Models, quick: Settings, made: Made, tmp_path: Path
) -> None:
    assert len(list(made.frames_dir.glob("*.png"))) == 6
    folder = tmp_path / "frames"
    shutil.copytree(made.frames_dir, folder)
    with pytest.raises(OutputError, match=r"holds 0000\d\d\.png"):
        prepare(made.song, tmp_path / "other.mp4", quick, frames_dir=folder)
    short = quick.merged({"sound": {"duration": 0.5}})
    job = prepare(made.song, tmp_path / "film.mp4", short, frames_dir=folder, overwrite=True)
    assert len(list(folder.glob("*.png"))) == 6  # checking alone removes nothing
    odd = prepare(
        made.song,
        tmp_path / "odd.mp4",
        short.merged({"picture": {"width": 50}}),
        frames_dir=folder,
        overwrite=True,
    )
    with pytest.raises(SettingsError, match="multiples of"):
        next(render_job(odd, load=lambda *_, **__: mini))
    assert len(list(folder.glob("*.png"))) == 6  # nor does a size that the models cannot make
    next(render_job(job, load=lambda *_, **__: mini))
    assert sorted(path.name for path in folder.iterdir()) == ["000000.png", "000001.png"]
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="cannot write into"):
        prepare(made.song, tmp_path / "third.mp4", quick, frames_dir=tmp_path / "file" / "frames")


def test_nothing_is_overwritten_unless_requested(mini: Models, quick: Settings, made: Made, tmp_path: Path) -> None:
    song, path = made.copied(tmp_path)
    old = path.read_bytes()
    with pytest.raises(OutputError, match="exists"):
        render(song, path, quick, family=mini)
    assert path.read_bytes() == old
    changes = {"run": {"seed": 9}, "sound": {"duration": 0.5}}
    assert render(song, path, quick.merged(changes), family=mini, overwrite=True).seed == 9
    assert path.read_bytes() != old


@pytest.mark.parametrize(
    ("out", "problem"),
    [
        ("missing/film.mp4", "does not exist"),
        ("song.wav/film.mp4", "is a file"),
        ("film.avi", "films are mp4"),
        ("film", "films are mp4"),
        ("{name}.mp4", "only {stem} and {seed} are replaced"),
    ],
)
def test_a_wrong_name_is_refused_before_any_work(
    out: str, problem: str, quick: Settings, tmp_path: Path, write_sound: Write, tone: Tone
) -> None:
    with pytest.raises(W2CError, match=problem):
        prepare(write_sound(tone), tmp_path / out, quick)


def test_a_film_never_replaces_its_own_track(made: Made, quick: Settings) -> None:
    with pytest.raises(VideoError, match="is the track itself"):
        prepare(made.film.path, made.film.path, quick, overwrite=True)


# Memory


def test_no_decoded_audio_is_held_while_frames_are_optimized(
    mini: Models, quick: Settings, made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded: list[weakref.ref[DecodedTrack | Features]] = []

    def remembering(function: Callable[..., DecodedTrack | Features]) -> Callable[..., DecodedTrack | Features]:
        def remembered(*arguments: Any) -> DecodedTrack | Features:
            found = function(*arguments)
            decoded.append(weakref.ref(found))
            return found

        return remembered

    monkeypatch.setattr("wav2clip_gen.pipeline.decode", remembering(decode))
    monkeypatch.setattr("wav2clip_gen.pipeline.measure", remembering(measure))
    alive: list[int] = []

    def follow(progress: Progress) -> None:
        if progress.stage == "optimize":
            gc.collect()
            alive.append(sum(signal() is not None for signal in decoded))

    mapped = quick.merged({"maps": ["onset:zoom=0.1"]})
    render(made.song, tmp_path / "film.mp4", mapped, family=mini, on_progress=follow)
    assert len(decoded) == 2
    assert set(alive) == {0}

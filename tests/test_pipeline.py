"""A song goes in, a film comes out: the whole chain with the small family."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from wav2clip_gen.estimate import estimate
from wav2clip_gen.events import Event, Film, Finished, FramePainted

from tests.conftest import SAMPLES, Write
from wav2clip_gen import record
from wav2clip_gen.config import Settings
from wav2clip_gen.errors import OutputError, SettingsError, VideoError, W2CError
from wav2clip_gen.job import prepare
from wav2clip_gen.models.registry import Models
from wav2clip_gen.pipeline import hear, render, rendering
from wav2clip_gen.video.probe import probe

Tone = NDArray[np.float64]


@pytest.fixture
def film(mini: Models, tiny: Settings, tmp_path: Path, write_sound: Write, tone: Tone) -> Callable[..., Film]:
    """Render the tone, or another sound, to `NAME.mp4`."""

    def make(name: str = "film", sound: Tone = tone, **changes: Any) -> Film:
        return render(write_sound(sound), tmp_path / f"{name}.mp4", tiny.merged(changes), family=mini)

    return make


def frames(film: Film) -> list[str]:
    """A hash of each decoded frame."""
    from wav2clip_gen import ffmpeg

    arguments = ["-i", ffmpeg.file_url(film.path), "-map", "0:v", "-f", "framemd5", "pipe:1"]
    listing = ffmpeg.run(arguments, purpose="hash the frames").decode()
    return [line.rpartition(",")[2].strip() for line in listing.splitlines() if not line.startswith("#")]


def test_a_song_becomes_a_film_of_its_own_length(film: Callable[..., Film], tone: Tone) -> None:
    made = film()
    facts = probe(made.path)
    assert (facts.frames, facts.width, facts.height) == (6, 64, 48)
    assert facts.picture_codec == "h264"
    assert abs(facts.picture_seconds - len(tone) / 16_000) <= 1 / 4
    assert abs(facts.picture_seconds - facts.sound_seconds) <= 1 / 4
    assert facts.sound_seconds == pytest.approx(1.5, abs=0.05)
    assert not made.partial


def test_the_same_seed_makes_the_same_film_and_another_does_not(film: Callable[..., Film]) -> None:
    first, again, other = film("a"), film("b"), film("c", run={"seed": 8})
    assert frames(first) == frames(again)
    assert frames(first) != frames(other)


def test_the_record_remakes_the_film(film: Callable[..., Film], mini: Models, tmp_path: Path) -> None:
    made = film(prompts=["a dog:0.5"], run={"seed": None})
    again = record.read(made.record)
    assert again.settings.run.seed == made.seed
    assert again.differences == ()
    assert frames(render(again.track, tmp_path / "again.mp4", again.settings, family=mini)) == frames(made)
    again.track.write_bytes(b"another song")
    assert record.read(made.record).differences == (f"{again.track} is not what it was for film.json",)


def test_the_record_holds_what_was_done_and_measured(film: Callable[..., Film]) -> None:
    made = film()
    content = json.loads(made.record.read_text())
    assert content["settings"]["run"]["seed"] == 7
    assert content["family"]["name"] == "mini"
    assert set(content["family"]["sha256"]) == {"wav2clip", "clip", "vqgan", "prior"}
    assert len(content["frames"]["loss"]) == len(content["frames"]["similarity"]) == made.frames == 6
    assert content["sync"]["frames"] == 6
    assert abs(content["sync"]["offset_seconds"]) < 0.005
    assert set(content["seconds"]) == {"load", "hear", "paint", "join", "check", "film"}
    assert content["track"]["path"] == "song.wav"


def test_a_record_of_something_else_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.json"
    for content in ("{}", "[1]", "no json", '{"w2c-gen": {"format": 99}}', '{"w2c-gen": 1}'):
        path.write_text(content)
        with pytest.raises(SettingsError) as caught:
            record.read(path)
        assert "\n" not in caught.value.what
    with pytest.raises(SettingsError, match="cannot be read"):
        record.read(tmp_path / "none.json")


@pytest.mark.parametrize(
    ("sound", "rate"),
    [
        (np.zeros(24_000), 16_000),
        (np.array([0.5]), 16_000),
        (np.random.default_rng(0).uniform(-1, 1, 3_000), 16_000),
        (0.1 * np.random.default_rng(0).standard_normal((12_000, 8)), 8_000),
    ],
    ids=["silence", "one sample", "shorter than a window", "7.1 at 8 kHz"],
)
def test_odd_sounds_render_without_a_nan(
    sound: Tone, rate: int, mini: Models, tiny: Settings, tmp_path: Path, write_sound: Write
) -> None:
    made = render(write_sound(sound, rate=rate), tmp_path / "film.mp4", tiny, family=mini)
    losses = json.loads(made.record.read_text())["frames"]["loss"]
    assert made.frames == max(1, -(-len(sound) * 4 // rate))
    assert np.isfinite(losses).all()


def test_two_halves_with_different_sounds_get_their_own_targets_and_pictures(mini: Models, tmp_path: Path) -> None:
    """On a track that is a djembe, then a choir: frames look like their own half more than like the other."""
    from wav2clip_gen.audio.track import open_track

    track = tmp_path / "halves.wav"
    _write_halves(
        open_track(SAMPLES / "africa.ogg", duration=3),
        open_track(SAMPLES / "song" / "vocals.ogg", start=9, duration=3),
        track,
    )
    settings = Settings().merged(
        {
            "picture": {"width": 64, "height": 64, "fps": 4},
            "painting": {"first_steps": 40, "steps": 12},
            "run": {"seed": 7},
        }
    )
    job = prepare(track, tmp_path / "film.mp4", settings)
    targets = hear(job, mini).targets
    first, second = targets[2:10].mean(dim=0), targets[14:22].mean(dim=0)
    assert (first @ second / (first.norm() * second.norm())).item() < 0.97

    pictures = _pictures(job, mini)
    seen = mini.clip.encode_images(pictures)  # (F, D)
    own = (seen * targets).sum(dim=1)
    other = (seen * targets.roll(len(targets) // 2, dims=0)).sum(dim=1)
    for half in (range(2, 10), range(14, 22)):  # away from the change
        assert (own - other)[list(half)].mean() > 0


def _write_halves(first: Any, second: Any, path: Path) -> None:
    import soundfile

    halves = [np.concatenate(list(part.mono_blocks())) for part in (first, second)]
    soundfile.write(path, np.concatenate([half / np.abs(half).max() for half in halves]), 16_000)


def _pictures(job: Any, mini: Models) -> Any:
    """The frames of a job at the perceptor's size, (F, 3, 64, 64)."""
    import torch
    from PIL import Image

    render(job.track.path, job.out, job.settings, family=mini, frames_dir=job.out.parent / "frames")
    files = sorted((job.out.parent / "frames").glob("*.png"))
    return torch.stack([torch.tensor(np.array(Image.open(file))).permute(2, 0, 1) / 255 for file in files])


def test_prompts_change_the_film_and_steps_zero_still_makes_one(film: Callable[..., Film]) -> None:
    assert frames(film("a")) != frames(film("b", prompts=["a boat"]))
    still = film("c", painting={"first_steps": 0, "steps": 0})
    assert json.loads(still.record.read_text())["frames"]["loss"] == [None] * 6


def test_events_come_in_the_order_of_the_story(
    mini: Models, tiny: Settings, tmp_path: Path, write_sound: Write, tone: Tone
) -> None:
    told: list[Event] = []
    render(write_sound(tone), tmp_path / "film.mp4", tiny, family=mini, on_event=told.append)
    names = [getattr(event, "name", type(event).__name__) for event in told]
    assert names == ["load", "Ready", "hear", "paint", *["FramePainted"] * 6, "join", "check", "Finished"]


def test_a_stopped_film_is_kept_as_far_as_it_came(
    mini: Models, tiny: Settings, tmp_path: Path, write_sound: Write, tone: Tone
) -> None:
    job = prepare(write_sound(tone), tmp_path / "film.mp4", tiny)
    painted: list[int] = []

    def stop() -> bool:
        return len(painted) == 3

    for event in rendering(job, load=lambda *_, **__: mini, stop=stop):
        if isinstance(event, FramePainted):
            painted.append(event.index)
        if isinstance(event, Finished):
            made = event.film
    assert made.partial
    assert made.path == tmp_path / "film.partial.mp4"
    assert probe(made.path).frames == 3
    assert not job.out.exists()
    assert json.loads(made.record.read_text())["partial"] is True


def test_pictures_are_kept_and_those_of_an_older_film_do_not_stay_among_them(
    mini: Models, tiny: Settings, tmp_path: Path, write_sound: Write, tone: Tone
) -> None:
    song, out, folder = write_sound(tone), tmp_path / "film.mp4", tmp_path / "frames"
    render(song, out, tiny, family=mini, frames_dir=folder)
    assert len(list(folder.glob("*.png"))) == 6
    with pytest.raises(OutputError, match=r"holds 0000\d\d\.png"):
        render(song, tmp_path / "other.mp4", tiny, family=mini, frames_dir=folder)
    short = tiny.merged({"sound": {"duration": 0.5}})
    prepare(song, out, short, frames_dir=folder, overwrite=True)
    assert len(list(folder.glob("*.png"))) == 6  # who only checks removes nothing
    render(song, out, short, family=mini, frames_dir=folder, overwrite=True)
    assert sorted(path.name for path in folder.iterdir()) == ["000000.png", "000001.png"]
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="cannot write into"):
        prepare(song, tmp_path / "third.mp4", tiny, frames_dir=tmp_path / "file" / "frames")


def test_nothing_is_overwritten_unless_asked(film: Callable[..., Film], mini: Models, tiny: Settings) -> None:
    made = film()
    old = made.path.read_bytes()
    with pytest.raises(OutputError, match="exists"):
        film()
    assert made.path.read_bytes() == old
    song = made.path.with_name("song.wav")
    assert render(song, made.path, tiny.merged({"run": {"seed": 9}}), family=mini, overwrite=True).seed == 9
    assert made.path.read_bytes() != old


@pytest.mark.parametrize(
    ("out", "says"),
    [
        ("missing/film.mp4", "does not exist"),
        ("song.wav/film.mp4", "is a file"),
        ("film.avi", "only mp4"),
        ("film", "only mp4"),
        ("{name}.mp4", "not a name"),
    ],
)
def test_a_wrong_name_is_told_before_any_work(
    out: str, says: str, tiny: Settings, tmp_path: Path, write_sound: Write, tone: Tone
) -> None:
    with pytest.raises(W2CError, match=says):
        prepare(write_sound(tone), tmp_path / out, tiny)


def test_a_film_never_replaces_its_own_track(film: Callable[..., Film], tiny: Settings) -> None:
    made = film()
    with pytest.raises(VideoError, match="is the track itself"):
        prepare(made.path, made.path, tiny, overwrite=True)


def test_a_failing_disk_leaves_the_old_film_and_no_parts(
    film: Callable[..., Film], mini: Models, tiny: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = film()
    old, before = made.path.read_bytes(), set(tmp_path.iterdir())
    from wav2clip_gen.ffmpeg import find_ffmpeg

    broken = tmp_path.parent / "broken-ffmpeg"
    broken.write_text(
        f'#!/bin/sh\ncase "$*" in *rawvideo*rgb24*) head -c 1000 >/dev/null'
        'echo "No space left on device" >&2; exit 1;; esac\n'
        f'exec "{find_ffmpeg()}" "$@"\n'
    )
    broken.chmod(0o755)
    monkeypatch.setenv("W2C_FFMPEG", str(broken))
    with pytest.raises(VideoError, match="No space left") as caught:
        render(tmp_path / "song.wav", made.path, tiny, family=mini, overwrite=True)
    assert "disk" in caught.value.hint
    assert made.path.read_bytes() == old
    assert set(tmp_path.iterdir()) == before


def test_an_estimate_costs_nothing_but_time(
    mini: Models, tiny: Settings, tmp_path: Path, write_sound: Write, tone: Tone
) -> None:
    cost = estimate(prepare(write_sound(tone), tmp_path / "film.mp4", tiny), family=mini)
    assert cost.seconds > 0
    assert cost.per_song_second > 0
    assert not (tmp_path / "film.mp4").exists()

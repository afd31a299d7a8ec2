"""What a prompt loses on its way into a film is noted before the film is made."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.conftest import Write
from wav2clip_gen.config import Settings
from wav2clip_gen.job import Job, prepare
from wav2clip_gen.models.registry import Models
from wav2clip_gen.pipeline import condition_films, load_stems, render
from wav2clip_gen.progress import Progress, StageClock

END = "and heavy rain"
LONG = f"a stormy sea at night with a red sky and blue waves and a tall ship and white birds and a lighthouse {END}"


@pytest.fixture
def song(write_sound: Write) -> Path:
    """Two seconds, of which a film may be a part."""
    return write_sound(0.1 * np.sin(np.arange(32_000) / 6))


def job_of(song: Path, settings: Settings, **changes: object) -> Job:
    return prepare(song, song.with_name("film.mp4"), settings.merged(changes))


@pytest.mark.parametrize(
    ("changes", "notes"),
    [
        ({"prompts": ["a sea:0.5", "0:01- a dog"]}, []),
        ({"prompts": ["a sea:0", "a dog:0.00"]}, ['no effect, as the weight is 0: "a sea", "a dog"']),
        ({"prompts": ["a sea:0", "a dog:0"], "maps": ["onset:prompt.2=1"]}, ['no effect, as the weight is 0: "a sea"']),
        ({"prompts": ["a sea:0", "a dog:0"], "maps": ["onset:prompt=1"]}, []),
        ({"prompts": ["a sea:0"], "maps": ["onset:prompt=0"]}, ['no effect, as the weight is 0: "a sea"']),
        (
            {"prompts": ["0:05- a sea", "-0:00.4 a dog"], "sound": {"start": 1}, "motion": {"crossfade": 0}},
            ['no effect, as the times are not in the film (1 s to 1.75 s of the track): "a sea", "a dog"'],
        ),
        (
            {"prompts": ["0:01.01-0:01.24 a sea"], "motion": {"crossfade": 0}},
            ['no effect, as the times are not in the film (0 s to 1.75 s of the track): "a sea"'],
        ),
        ({"prompts": ["0:02.2- a sea"]}, []),  # it begins to crossfade in the film
        ({"prompts": ["an ox"]}, ['mini-clip has not learned the words "an", "ox", and guesses']),
        (
            {"prompts": [f"0:{second}- a sea" for second in range(10, 20)]},
            [
                "no effect, as the times are not in the film (0 s to 1.75 s of the track): "
                + ", ".join(['"a sea"'] * 5)
                + " and 5 more"
            ],
        ),
    ],
)
def test_a_prompt_without_effect_is_noted(
    changes: dict[str, object], notes: list[str], song: Path, small: Settings
) -> None:
    assert list(job_of(song, small, **changes).notes) == notes


def test_a_style_image_without_weight_is_noted(song: Path, small: Settings, tmp_path: Path) -> None:
    from PIL import Image

    Image.new("RGB", (9, 9)).save(tmp_path / "moss.png")
    images = [f"{tmp_path / 'moss.png'}:0", f"0:09- {tmp_path / 'moss.png'}"]
    first, second = job_of(song, small, style_images=images, maps=["onset:prompt=1"], prompts=["a sea"]).notes
    assert first.startswith("no effect, as the weight is 0: ")
    assert second.startswith("no effect, as the times are not in the film")


def messages_of(job: Job, models: Models) -> list[str]:
    """The notes while the song is analyzed."""
    found: list[Progress] = []
    stages = StageClock(found.append)
    condition_films(job, load_stems(job, stages), models, stages)
    return [one.message for one in found if one.message]


def test_the_end_of_a_long_prompt_is_noted(song: Path, small: Settings, mini: Models) -> None:
    (note,) = messages_of(job_of(song, small, prompts=[LONG, "a sea"]), mini)
    assert note.startswith(f'note: too long for mini-clip, not read: "{END}" at the end of "a stormy sea at night ')
    (note,) = messages_of(job_of(song, small, prompts=[LONG] * 9), mini)
    assert note.endswith("; and 4 more prompts are cut")
    assert note.count(END) == 10  # the words, and the end of the prompt that is shown


def test_a_prompt_to_which_maps_give_no_weight_is_noted(write_sound: Write, small: Settings, mini: Models) -> None:
    job = job_of(write_sound(np.zeros(32_000)), small, prompts=["a sea:0", "a dog"], maps=["loudness:prompt.1=1"])
    assert not job.notes
    assert messages_of(job, mini)[1:] == ['note: no effect, as the maps give them no weight: "a sea"']


def test_a_program_gets_the_notes_as_progress(song: Path, small: Settings, mini: Models) -> None:
    found: list[Progress] = []
    settings = small.merged({"prompts": ["a sea:0", LONG], "sound": {"duration": 0.25}})
    render(song, song.with_name("film.mp4"), settings, family=mini, on_progress=found.append)
    notes = [one.message for one in found if one.message.startswith("note: ")]
    assert notes[0] == 'note: no effect, as the weight is 0: "a sea"'
    assert notes[1].startswith("note: too long for mini-clip")
    assert len(notes) == 2

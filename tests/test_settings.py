"""Settings: one home for each default, and a clear word for each mistake."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wav2clip_gen.config import (
    SECTIONS,
    AudioMap,
    Prompt,
    Settings,
    StemWeight,
    StyleImage,
    describe_range,
    knobs,
    preset_names,
    settings_from,
)
from wav2clip_gen.errors import SettingsError


def test_what_comes_later_wins(tmp_path: Path) -> None:
    config = tmp_path / "mine.yaml"
    config.write_text("painting: {steps: 9, cuts: 3}\nprompts: ['a stormy sea:0.5', 'night']\n")
    settings = settings_from(preset="draft", config=config, assignments=("painting.cuts=5", "run.seed=0"))
    assert (settings.painting.steps, settings.painting.cuts, settings.run.seed) == (9, 5, 0)
    assert settings.picture.fps == 8  # from the preset
    assert settings.prompts == (Prompt(text="a stormy sea", weight=0.5), Prompt(text="night"))


def test_stems_are_named_in_a_settings_file(tmp_path: Path) -> None:
    config = tmp_path / "mine.yaml"
    config.write_text("stems: [vocals, {name: drums, weight: 2}]\nstem_files: [drums=d.wav, song/]\n")
    settings = settings_from(config=config)
    assert settings.stems == (StemWeight(name="vocals"), StemWeight(name="drums", weight=2.0))
    assert settings.stem_files == ("drums=d.wav", "song/")
    assert settings.with_stem_weights({"vocals": 0.5}).stems[0] == StemWeight(name="vocals", weight=0.5)
    assert Settings().merged(settings.to_dict()) == settings


def test_settings_survive_the_run_record() -> None:
    settings = settings_from(assignments=("picture.fps=23.976", "sound.duration=3", "prompts.x=1")[:2])
    settings = settings.merged({"prompts": ["a sea:0.25"], "style_images": ["0:12- moss.png:2"]})
    assert Settings().merged(settings.to_dict()) == settings


@pytest.mark.parametrize("name", preset_names())
def test_every_preset_can_be_used(name: str) -> None:
    assert settings_from(preset=name).picture.fps >= 1


@pytest.mark.parametrize(
    ("assignment", "says", "helps"),
    [
        ("painting.stepz=4", "painting.stepz", "did you mean steps"),
        ("paint.steps=4", "'paint'", "painting"),
        ("painting.steps=many", "must be int", "steps"),
        ("painting.steps=1.5", "must be int", "steps"),
        ("painting.steps=true", "must be int", "steps"),
        ("painting.steps=-1", "cannot be -1", "from 0"),
        ("painting=4", "not a setting", "--set"),
        ("picture.fps=0", "fps cannot be 0", "from 1 to 120"),
        ("picture.fps=1000", "fps cannot be 1000", "from 1 to 120"),
        ("picture.upscale=3", "upscale cannot be 3", "1, 2, 4"),
        ("motion.smoothing=.nan", "cannot be nan", "half-life"),
        ("sound.duration=0", "cannot be 0 s", "above 0"),
        ("run.models=huge", "cannot be huge", "mini"),
        ("picture.width=${", "--set", ""),
    ],
)
def test_a_wrong_assignment_is_a_usage_error(assignment: str, says: str, helps: str) -> None:
    with pytest.raises(SettingsError) as caught:
        settings_from(assignments=(assignment,))
    assert says in caught.value.what
    assert helps in caught.value.hint
    assert "\n" not in caught.value.what
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    "content",
    [
        "painting: [",
        "- 4",
        "painting: 4",
        "prompts: [4]",
        "prompts: [{weight: 2}]",
        "style_images: [4]",
        "style_images: ['']",
        "no: such",
        "${x}: 1",
        "\x00",
    ],
)
def test_a_wrong_file_is_a_usage_error(content: str, tmp_path: Path) -> None:
    config = tmp_path / "mine.yaml"
    config.write_text(content)
    with pytest.raises(SettingsError) as caught:
        settings_from(config=config)
    assert "\n" not in caught.value.what


def test_a_missing_file_or_preset_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"none\.yaml: cannot be read"):
        settings_from(config=tmp_path / "none.yaml")
    with pytest.raises(SettingsError, match="no preset is called 'drafty'") as caught:
        settings_from(preset="drafty")
    assert caught.value.hint == "did you mean draft?"


@pytest.mark.parametrize(
    ("written", "text", "weight"),
    [
        ("a stormy sea", "a stormy sea", 1.0),
        ("a stormy sea:0.5", "a stormy sea", 0.5),
        ("Dune: part two", "Dune: part two", 1.0),
        ("Dune: part two: 2", "Dune: part two", 2.0),
        ("12:30", "12", 30.0),
        ("a crowd:-0.5", "a crowd", -0.5),
        ("jean-luc", "jean-luc", 1.0),
        ("- a sea", "- a sea", 1.0),
    ],
)
def test_prompts_carry_a_weight_behind_the_last_colon(written: str, text: str, weight: float) -> None:
    assert Prompt.parse(written) == Prompt(text=text, weight=weight)


@pytest.mark.parametrize(
    ("written", "start", "end"),
    [
        ("0:12-0:30 a burning city:0.7", 12.0, 30.0),
        ("12.5 - 1:00:30 a burning city:0.7", 12.5, 3630.0),
        ("0:12- a burning city:0.7", 12.0, None),
        ("-.5 a burning city:0.7", None, 0.5),
    ],
)
def test_prompts_may_say_when_they_pull(written: str, start: float | None, end: float | None) -> None:
    assert Prompt.parse(written) == Prompt(text="a burning city", weight=0.7, start=start, end=end)


@pytest.mark.parametrize("written", ["", "  ", ":0.5", "sea:-101", "0:30-0:12 a sea", "0:12-0:12 a sea", "0:12- :2"])
def test_prompts_without_words_or_sense_are_refused(written: str) -> None:
    with pytest.raises(SettingsError):
        Prompt.parse(written)


@given(st.text())
def test_no_prompt_crashes(written: str) -> None:
    with contextlib.suppress(SettingsError):
        assert Prompt.parse(written).text


def test_every_knob_tells_its_meaning_and_range() -> None:
    for group in SECTIONS.values():
        for name, item in knobs(group).items():
            assert item.metadata["meaning"], name
            assert isinstance(describe_range(item), str)


def test_something_must_steer() -> None:
    silent = settings_from(assignments=("sound.weight=0",))
    with pytest.raises(SettingsError, match="nothing steers"):
        silent.require_guidance()
    silent.merged({"prompts": ["a dog"]}).require_guidance()
    mute = silent.merged({"prompts": ["a dog:0"]})
    with pytest.raises(SettingsError, match="nothing steers"):
        mute.require_guidance()
    for one in ("loudness:prompt.1=5", "loudness:prompt=0,offset=1"):
        mute.merged({"maps": one}).require_guidance()
    for one in ("loudness:prompt.1=0", "loudness:zoom=1"):
        with pytest.raises(SettingsError, match="nothing steers"):
            mute.merged({"maps": one}).require_guidance()


def test_a_style_image_is_written_as_a_prompt_is() -> None:
    parsed = StyleImage.parse("0:12-0:30 my pictures/moss.png:0.5")
    assert parsed == StyleImage(file="my pictures/moss.png", weight=0.5, start=12, end=30)
    assert StyleImage.parse("C:\\moss.png") == StyleImage(file="C:\\moss.png")
    assert Settings().merged({"style_images": "moss.png", "sound": {"weight": 0}}).guidance == (
        StyleImage(file="moss.png"),
    )
    with pytest.raises(SettingsError, match=r"style image .* ends at 12 s, before it begins"):
        StyleImage.parse("0:30-0:12 moss.png")
    with pytest.raises(SettingsError, match="a style image has no file"):
        StyleImage.parse(":0.5")
    with pytest.raises(SettingsError, match="nothing steers"):
        Settings().merged({"style_images": "moss.png:0", "sound": {"weight": 0}}).require_guidance()


@pytest.mark.parametrize(
    ("written", "drive"),
    [
        ("onset:zoom=0.04", AudioMap(source="onset", to="zoom", scale=0.04)),
        (
            "drums.onset:pan-x-speed=-1e-2, offset=.5,attack=0.02,decay=0.2",
            AudioMap(source="drums.onset", to="pan-x-speed", scale=-0.01, offset=0.5, attack=0.02, decay=0.2),
        ),
        ("mix.C#:prompt.2=1", AudioMap(source="mix.C#", to="prompt.2", scale=1.0)),
    ],
)
def test_a_map_is_read_as_it_is_written(written: str, drive: AudioMap) -> None:
    assert AudioMap.parse(written) == drive


def test_maps_come_from_files_and_survive_the_record(tmp_path: Path) -> None:
    config = tmp_path / "mine.yaml"
    config.write_text("maps: ['onset:zoom=0.04', {source: drums.low, to: steps, scale: 3, decay: 0.5}]\n")
    settings = settings_from(config=config)
    assert [(one.stem, one.feature, one.to) for one in settings.maps] == [
        (None, "onset", "zoom"),
        ("drums", "low", "steps"),
    ]
    assert settings.required_stems == ("drums",)
    assert settings.stems == ()
    assert Settings().merged(settings.to_dict()) == settings


@pytest.mark.parametrize(
    ("written", "says", "helps"),
    [
        ("", "is no map", "write drums.onset:zoom=0.04"),
        ("onset", "is no map", "write drums.onset:zoom=0.04"),
        ("onset:zoom", "is no map", "write drums.onset:zoom=0.04"),
        ("onset:=1", "is no map", "write drums.onset:zoom=0.04"),
        ("onset:zoom=0.04,decay", "is no map", "write drums.onset:zoom=0.04"),
        ("onset:zoom=near", "'near' is no number", "write drums.onset:zoom=0.04"),
        ("onset:zoom=nan", "scale cannot be nan", "from -10000"),
        ("onset:zoom=99999", "scale cannot be 99999", "to 10000"),
        ("onset:zoom=1,decay=-1", "decay cannot be -1", "from 0 to 60 s"),
        ("onset:zoom=1,decay=1,decay=2", "says twice what decay is", "write drums.onset"),
        ("onset:zoom=1,zoom=2", "says twice what zoom is", "write drums.onset"),
        ("onset:zoom=1,rotate=2", "'rotate' is none of", "give another"),
        ("onset:zoom=1,delay=2", "'delay' is none of", "write drums.onset"),
        ("onzet:zoom=1", "no feature is called 'onzet'", "did you mean onset?"),
        ("onset.drums:zoom=1", "no feature is called 'drums'", "choose from: loudness"),
        (".onset:zoom=1", "names no stem", "write drums.onset"),
        ("onset:zooom=1", "called 'zooom'", "did you mean zoom?"),
        ("onset:prompt.0=1", "called 'prompt.0'", "did you mean prompt"),
    ],
)
def test_a_malformed_map_says_what_a_right_one_looks_like(written: str, says: str, helps: str) -> None:
    with pytest.raises(SettingsError) as caught:
        AudioMap.parse(written)
    assert says in caught.value.what
    assert helps in caught.value.hint
    assert "\n" not in caught.value.what + caught.value.hint


@pytest.mark.parametrize(
    "item", [4, {"source": "onset"}, {"source": 4, "to": "zoom"}, {"source": "onset", "to": "zoom", "x": 1}]
)
def test_a_map_that_is_none_is_a_usage_error(item: object) -> None:
    with pytest.raises(SettingsError):
        Settings().merged({"maps": [item]})


def test_a_driven_prompt_must_be_there() -> None:
    driven = Settings().merged({"maps": ["onset:prompt.2=1"], "prompts": ["a sea"]})
    with pytest.raises(SettingsError, match=r"prompt that is not there; 1 prompt is given"):
        driven.require_prompts()
    driven.merged({"prompts": ["a sea", "a city"]}).require_prompts()
    with pytest.raises(SettingsError, match="0 prompts are given"):
        Settings().merged({"maps": ["onset:prompt=1"]}).require_prompts()


@given(st.text())
def test_no_map_crashes(written: str) -> None:
    with contextlib.suppress(SettingsError):
        assert AudioMap.parse(written).feature

"""Settings: sources and their order, validation, and error messages."""

from __future__ import annotations

import contextlib
import re
from dataclasses import fields
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wav2clip_gen.config import (
    SECTIONS,
    AudioMap,
    DeprecatedNameWarning,
    Prompt,
    PromptNote,
    Settings,
    StemWeight,
    StyleImage,
    describe_range,
    preset_names,
    settings_from,
)
from wav2clip_gen.errors import SettingsError


def test_later_sources_win(tmp_path: Path) -> None:
    config = tmp_path / "mine.yaml"
    config.write_text("painting: {steps: 9, cuts: 3}\nprompts: ['a stormy sea:0.5', 'night']\n")
    settings = settings_from(preset="draft", config=config, assignments=("painting.cuts=5", "run.seed=0"))
    assert (settings.painting.steps, settings.painting.cuts, settings.run.seed) == (9, 5, 0)
    assert settings.picture.fps == 12  # from the preset
    assert settings.prompts == (Prompt(text="a stormy sea", weight=0.5), Prompt(text="night"))


def test_stems_in_a_settings_file(tmp_path: Path) -> None:
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
    ("assignment", "what", "hint"),
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
def test_a_wrong_assignment_is_a_usage_error(assignment: str, what: str, hint: str) -> None:
    with pytest.raises(SettingsError) as caught:
        settings_from(assignments=(assignment,))
    assert what in caught.value.what
    assert hint in caught.value.hint
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


def test_errors_name_their_source(tmp_path: Path) -> None:
    config = tmp_path / "mine.yaml"
    config.write_text("painting: {stepz: 4}\n")
    with pytest.raises(SettingsError, match=r"mine\.yaml: no setting is called painting\.stepz"):
        settings_from(config=config)
    with pytest.raises(SettingsError, match=r"--set painting\.steps=-1: steps cannot be -1"):
        settings_from(assignments=("picture.fps=3", "painting.steps=-1"))


def test_deprecated_names_are_accepted_with_a_warning(tmp_path: Path) -> None:
    config = tmp_path / "mine.yaml"
    config.write_text("motion: {inertia: 0.5}\npainting: {recognition: 1, layout: 2}\n")
    with pytest.warns(DeprecatedNameWarning) as caught:
        settings = settings_from(config=config, assignments=("motion.blend=0.25", "painting.total_variation=3"))
    assert (settings.motion.temporal_weight, settings.motion.ema_half_life) == (0.5, 0.25)
    assert (settings.painting.concept_weight, settings.painting.layout_weight) == (1, 2)
    assert settings.painting.tv_weight == 3
    messages = [str(one.message) for one in caught]
    assert len(messages) == 5
    assert messages[0] == "motion.inertia is deprecated; use motion.temporal_weight"
    old = {"motion": {"inertia": 0.5}, "picture": {"layout": "grid"}}
    assert Settings.from_record(old).motion.temporal_weight == 0.5, "without a warning"


def test_values_are_converted_and_references_resolved(tmp_path: Path) -> None:
    config = tmp_path / "mine.yaml"
    config.write_text("picture: {width: '64', height: '${picture.width}', fps: 5}\nsound: {start: '1:15.5'}\n")
    settings = settings_from(config=config)
    picture = settings.picture
    assert settings.sound.start == 75.5
    assert (picture.width, picture.height, picture.fps) == (64, 64, 5.0)
    plain = Settings().merged({"prompts": ["${HOME} at night"], "painting": {"init_image": "${x}.png"}})
    assert (plain.prompts[0].text, plain.painting.init_image) == ("${HOME} at night", "${x}.png")


@pytest.mark.parametrize("text", ["${HOME} at night", "???", "a ${b"])
def test_special_texts_of_omegaconf_survive_merging_and_the_record(text: str) -> None:
    settings = Settings().merged({"prompts": [text], "painting": {"init_image": text}})
    again = Settings.from_record(settings.to_dict()).merged({"painting": {"steps": 2}})
    assert (again.prompts[0].text, again.painting.init_image) == (text, text)


def test_a_current_name_wins_over_its_deprecated_one() -> None:
    both = {"temporal_weight": 0.1, "inertia": 0.3}
    for values in (both, dict(reversed(both.items()))):
        with pytest.warns(DeprecatedNameWarning):
            assert Settings().merged({"motion": values}).motion.temporal_weight == 0.1


def test_a_misspelt_deprecated_name_suggests_the_current_one() -> None:
    with pytest.raises(SettingsError) as caught:
        Settings().merged({"painting": {"recogniton": 5}})
    assert caught.value.hint == "did you mean concept_weight?"


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
        ("Dune: part two:2", "Dune: part two", 2.0),
        ("a sea: 0.5", "a sea", 0.5),
        ("blade runner 2049:0.5", "blade runner 2049", 0.5),
        ("the sea, 16:9.0", "the sea, 16", 9.0),
        ("GPT4:2", "GPT4", 2.0),
        ("a crowd:−0.5", "a crowd", -0.5),
        ("at 7:30 pm", "at 7:30 pm", 1.0),
        ("a crowd:-0.5", "a crowd", -0.5),
        ("jean-luc", "jean-luc", 1.0),
        ("- a sea", "- a sea", 1.0),
    ],
)
def test_prompts_have_a_weight_after_the_last_colon(written: str, text: str, weight: float) -> None:
    assert Prompt.parse(written) == Prompt(text=text, weight=weight)


@pytest.mark.parametrize(
    ("written", "start", "end"),
    [
        ("0:12-0:30 a burning city:0.7", 12.0, 30.0),
        ("12.5 - 1:00:30 a burning city:0.7", 12.5, 3630.0),
        ("0:12- a burning city:0.7", 12.0, None),
        ("-.5 a burning city:0.7", None, 0.5),
        ("0:12–0:30 a burning city:0.7", 12.0, 30.0),
        ("12-0:30 a burning city:0.7", 12.0, 30.0),
    ],
)
def test_prompts_may_have_times(written: str, start: float | None, end: float | None) -> None:
    assert Prompt.parse(written) == Prompt(text="a burning city", weight=0.7, start=start, end=end)


@pytest.mark.parametrize(
    ("written", "other"),
    [
        ("the clock strikes 12:00", 'for a weight write "the clock strikes 12:0.0"'),
        ("the sea, 16:9", 'for a weight write "the sea, 16:9.0"'),
        ("12:30", 'for a weight write "12:30.0"'),
        ("a screen of 2.39:1", 'for a weight write "a screen of 2.39:1.0"'),
        ("Area: 51", 'for a weight write "Area:51.0"'),
        ("Fahrenheit:451", "a weight is at most 100"),
        ("a sea:0,5", 'for a weight write "a sea:0.5"'),
        ("3-5 people walking", 'for times write "0:03-0:05 people walking"'),
        ("50-60 year old man", 'for times write "0:50-1:00 year old man"'),
        ("20- to 30-year-olds", 'for times write "0:20- to 30-year-olds"'),
        ("-5 degrees", 'for times write "-0:05 degrees"'),
        ("7:30 in the morning", 'for a start write "7:30- in the morning"'),
    ],
)
def test_what_may_be_words_is_words_and_a_note_tells_how_to_write_the_other(written: str, other: str) -> None:
    note = re.escape(f'"{written}" is read as words; {other}')
    with pytest.warns(PromptNote, match=f"^{note}$"):
        assert Prompt.parse(written) == Prompt(text=written)
    with pytest.warns(PromptNote, match=f"^{note}$"):
        assert StyleImage.parse(written) == StyleImage(file=written)
    with pytest.warns(PromptNote, match=f"^{note}$"):
        assert Settings().merged({"prompts": [written]}).prompts == (Prompt(text=written),)
    if " write " in other:
        meant = Prompt.parse(other.partition('"')[2].rstrip('"'))  # without a note
        assert meant.text != written


def test_times_and_weight_are_read_each_for_itself() -> None:
    with pytest.warns(PromptNote, match=r'^"the sea, 16:9" is read as words'):
        assert Prompt.parse("0:12-0:30 the sea, 16:9") == Prompt(text="the sea, 16:9", start=12, end=30)
    with pytest.warns(PromptNote, match=r'^"3-5 people:0.5" is read as words'):
        assert Prompt.parse("3-5 people:0.5") == Prompt(text="3-5 people", weight=0.5)


@pytest.mark.parametrize("written", ["", "  ", ":0.5", "sea:-101", "0:30-0:12 a sea", "0:12-0:12 a sea", "0:12- :2"])
def test_invalid_prompts_are_refused(written: str) -> None:
    with pytest.raises(SettingsError):
        Prompt.parse(written)


@given(st.text())
def test_no_prompt_crashes(written: str) -> None:
    with contextlib.suppress(SettingsError):
        assert Prompt.interpret(written)[0].text


def test_every_setting_describes_its_meaning_and_range() -> None:
    for group in SECTIONS.values():
        for name, item in ((item.name, item) for item in fields(group)):
            assert item.metadata["meaning"], name
            assert isinstance(describe_range(item), str)


def test_something_must_guide_the_picture() -> None:
    silent = settings_from(assignments=("sound.weight=0",))
    with pytest.raises(SettingsError, match="nothing guides"):
        silent.require_guidance()
    silent.merged({"prompts": ["a dog"]}).require_guidance()
    mute = silent.merged({"prompts": ["a dog:0"]})
    with pytest.raises(SettingsError, match="nothing guides"):
        mute.require_guidance()
    for one in ("loudness:prompt.1=5", "loudness:prompt=0,offset=1"):
        mute.merged({"maps": one}).require_guidance()
    for one in ("loudness:prompt.1=0", "loudness:zoom=1"):
        with pytest.raises(SettingsError, match="nothing guides"):
            mute.merged({"maps": one}).require_guidance()


def test_style_images_are_written_like_prompts() -> None:
    parsed = StyleImage.parse("0:12-0:30 my pictures/moss.png:0.5")
    assert parsed == StyleImage(file="my pictures/moss.png", weight=0.5, start=12, end=30)
    assert StyleImage.parse("C:\\moss.png") == StyleImage(file="C:\\moss.png")
    assert Settings().merged({"style_images": "moss.png", "sound": {"weight": 0}}).guidance == (
        StyleImage(file="moss.png"),
    )
    with pytest.raises(SettingsError, match=r"style image .* ends at 12 s, before it starts"):
        StyleImage.parse("0:30-0:12 moss.png")
    with pytest.raises(SettingsError, match="a style image has no file"):
        StyleImage.parse(":0.5")
    with pytest.raises(SettingsError, match="nothing guides"):
        Settings().merged({"style_images": "moss.png:0", "sound": {"weight": 0}}).require_guidance()


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("onset:zoom=0.04", AudioMap(source="onset", to="zoom", scale=0.04)),
        (
            "drums.onset:pan-x-speed=-1e-2, offset=.5,attack=0.02,decay=0.2",
            AudioMap(source="drums.onset", to="pan-x-speed", scale=-0.01, offset=0.5, attack=0.02, decay=0.2),
        ),
        ("mix.C#:prompt.2=1", AudioMap(source="mix.C#", to="prompt.2", scale=1.0)),
    ],
)
def test_maps_are_parsed(written: str, expected: AudioMap) -> None:
    assert AudioMap.parse(written) == expected


def test_maps_survive_files_and_records(tmp_path: Path) -> None:
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
    ("written", "what", "hint"),
    [
        ("", "is not a map", "write drums.onset:zoom=0.04"),
        ("onset", "is not a map", "write drums.onset:zoom=0.04"),
        ("onset:zoom", "is not a map", "write drums.onset:zoom=0.04"),
        ("onset:=1", "is not a map", "write drums.onset:zoom=0.04"),
        ("onset:zoom=0.04,decay", "is not a map", "write drums.onset:zoom=0.04"),
        ("onset:zoom=near", "'near' is not a number", "write drums.onset:zoom=0.04"),
        ("onset:zoom=nan", "scale cannot be nan", "from -10000"),
        ("onset:zoom=99999", "scale cannot be 99999", "to 10000"),
        ("onset:zoom=1,decay=-1", "decay cannot be -1", "from 0 to 60 s"),
        ("onset:zoom=1,decay=1,decay=2", "sets decay twice", "write drums.onset"),
        ("onset:zoom=1,zoom=2", "sets zoom twice", "write drums.onset"),
        ("onset:zoom=1,rotate=2", "'rotate' is not one of", "add another"),
        ("onset:zoom=1,delay=2", "'delay' is not one of", "write drums.onset"),
        ("onzet:zoom=1", "no feature is called 'onzet'", "did you mean onset?"),
        ("onset.drums:zoom=1", "no feature is called 'drums'", "choose from: loudness"),
        (".onset:zoom=1", "names no stem", "write drums.onset"),
        ("onset:zooom=1", "cannot modulate 'zooom'", "did you mean zoom?"),
        ("onset:prompt.0=1", "cannot modulate 'prompt.0'", "did you mean prompt"),
    ],
)
def test_the_error_for_a_malformed_map_shows_a_valid_one(written: str, what: str, hint: str) -> None:
    with pytest.raises(SettingsError) as caught:
        AudioMap.parse(written)
    assert what in caught.value.what
    assert hint in caught.value.hint
    assert "\n" not in caught.value.what + caught.value.hint


@pytest.mark.parametrize(
    "item", [4, {"source": "onset"}, {"source": 4, "to": "zoom"}, {"source": "onset", "to": "zoom", "x": 1}]
)
def test_an_invalid_item_of_maps_is_a_usage_error(item: object) -> None:
    with pytest.raises(SettingsError):
        Settings().merged({"maps": [item]})


def test_a_modulated_prompt_must_exist() -> None:
    driven = Settings().merged({"maps": ["onset:prompt.2=1"], "prompts": ["a sea"]})
    with pytest.raises(SettingsError, match=r"prompt that does not exist; 1 prompt is given"):
        driven.require_prompts()
    driven.merged({"prompts": ["a sea", "a city"]}).require_prompts()
    with pytest.raises(SettingsError, match="0 prompts are given"):
        Settings().merged({"maps": ["onset:prompt=1"]}).require_prompts()


@given(st.text())
def test_no_map_crashes(written: str) -> None:
    with contextlib.suppress(SettingsError):
        assert AudioMap.parse(written).feature

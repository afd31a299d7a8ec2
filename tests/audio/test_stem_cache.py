from __future__ import annotations

import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from filelock import FileLock

from tests.audio.conftest import Save, noise
from wav2clip_gen.audio import stem_cache
from wav2clip_gen.audio.separation import DspSeparator
from wav2clip_gen.audio.stem_cache import cache_folder
from wav2clip_gen.audio.stems import STEMS, plan_stems
from wav2clip_gen.audio.track import Track, open_track
from wav2clip_gen.errors import OutputError, SoundError

RATE = 8_000


@pytest.fixture
def song(save: Save) -> Track:
    return open_track(save("song.wav", noise(3.0, RATE), RATE))


@pytest.fixture
def count(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How long the blocks were that were separated."""
    separate, lengths = DspSeparator.separate, []

    def counted(self: DspSeparator, block: np.ndarray, rate: int) -> np.ndarray:
        lengths.append(block.shape[1])
        return separate(self, block, rate)

    monkeypatch.setattr(DspSeparator, "separate", counted)
    return lengths


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the cached stems."""
    monkeypatch.setenv("W2C_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "stems"


def separated(song: Track, names: tuple[str, ...] = STEMS, **options: Any) -> dict[str, Track]:
    return plan_stems(song, names, separator="dsp").load(**options)


def sum_of(tracks: dict[str, Track]) -> np.ndarray:
    return np.sum([track.read() for track in tracks.values()], axis=0)


def test_separated_stems_fit_the_song_and_add_up_to_it(song: Track) -> None:
    tracks = separated(song, ("drums", "other", "vocals", "bass"))
    assert list(tracks) == ["drums", "other", "vocals", "bass"]
    for track in tracks.values():
        assert (track.samples, track.sample_rate, track.channels) == (song.samples, song.sample_rate, 2)
    np.testing.assert_allclose(sum_of(tracks), song.read(), atol=1e-4)


def test_a_song_is_separated_once(song: Track, count: list[int]) -> None:
    progress: list[float] = []
    first = {name: track.read() for name, track in separated(song, on_progress=progress.append).items()}
    assert progress == sorted(progress)
    assert progress[-1] == 1
    again = separated(song, on_progress=progress.append)
    assert len(count) == 1
    for name, track in again.items():
        np.testing.assert_array_equal(track.read(), first[name])


def test_the_content_decides_and_not_the_name(song: Track, save: Save, count: list[int]) -> None:
    separated(song)
    separated(open_track(Path(shutil.copy(song.path, song.path.with_name("copy.wav")))))
    assert len(count) == 1
    separated(open_track(song.path, start=0.5))
    separated(open_track(song.path, duration=1.0))
    separated(open_track(save("song.wav", noise(3.0, RATE, seed=1), RATE)))
    assert len(count) == 4


def test_another_version_of_the_separator_separates_again(
    song: Track, count: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    separated(song)
    monkeypatch.setattr(DspSeparator, "version", "next")
    separated(song)
    assert len(count) == 2


@pytest.mark.parametrize("peak", [1.0, 3.0, 500.0, 1e20])
def test_samples_beyond_full_scale_survive(peak: float, save: Save) -> None:
    sound = noise(3.0, RATE)
    song = open_track(save("loud.wav", sound * np.float32(peak / np.abs(sound).max()), RATE))
    np.testing.assert_allclose(sum_of(separated(song)), song.read(), atol=1e-4 * peak)


def test_a_span_begins_where_it_begins(song: Track) -> None:
    span = open_track(song.path, start=0.7, duration=1.1)
    np.testing.assert_allclose(sum_of(separated(span)), span.read(), atol=1e-4)


def test_given_and_separated_stems_go_together(song: Track, save: Save) -> None:
    drums = 0.1 * noise(3.0, RATE, channels=1)
    plan = plan_stems(song, ["bass", "drums"], given=[f"drums={save('d.wav', drums, RATE)}"])
    assert plan.origins["bass"] == plan.separator == "dsp"
    tracks = plan.load()
    assert list(tracks) == ["bass", "drums"]
    np.testing.assert_array_equal(tracks["drums"].read()[0], drums[:, 0])


def test_the_cache_folder_can_be_chosen(song: Track, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert separated(song)["drums"].path.is_relative_to(tmp_path / "cache" / "stems")
    monkeypatch.delenv("W2C_CACHE")
    assert cache_folder() == Path(os.environ["XDG_CACHE_HOME"]) / "w2c-gen"


@pytest.mark.parametrize("damage", ["missing", "no audio", "cut"])
def test_an_incomplete_entry_does_not_count(damage: str, song: Track, count: list[int]) -> None:
    drums = separated(song)["drums"].path
    match damage:
        case "missing":
            drums.unlink()
        case "no audio":
            drums.write_bytes(bytes(drums.stat().st_size))
        case "cut":
            drums.write_bytes(drums.read_bytes()[:-1000])  # its header is whole
    np.testing.assert_allclose(sum_of(separated(song)), song.read(), atol=1e-4)
    assert len(count) == 2


def test_an_interruption_leaves_no_stems(song: Track, cache: Path) -> None:
    def interrupt(share: float) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        separated(song, on_progress=interrupt)
    assert list(cache.iterdir()) == []


def test_what_a_killed_run_left_is_cleared(song: Track, cache: Path) -> None:
    folder = separated(song)["drums"].path.parent
    (folder / "bass.wav").unlink()
    (folder / ".w2c-0123456789ab.wav").write_text("half a stem")
    (folder / "drums.flac").write_text("of version 0.1")
    folder.with_suffix(".part").mkdir()
    (folder.with_suffix(".part") / "drums.wav").write_text("half a stem")
    separated(song)
    assert {path.name for path in folder.iterdir()} == {f"{name}.wav" for name in STEMS}
    assert list(cache.iterdir()) == [folder]


def test_only_own_files_are_removed_from_the_cache(
    song: Track, save: Save, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    others = [
        cache / "demos" / "drums.flac",
        cache / ("ab" * 16) / "drums.mp3",
        cache / ("cd" * 16) / "more" / "a.flac",
    ]
    for path in others:
        path.parent.mkdir(parents=True)
        path.write_text("mine")
    old = separated(song)["drums"].path.parent
    monkeypatch.setattr(stem_cache, "LIMIT", 1)
    new = separated(open_track(save("2.wav", noise(1.0, RATE, seed=2), RATE)))["drums"].path.parent
    assert (old.exists(), new.exists(), [path.read_text() for path in others]) == (False, True, ["mine"] * 3)


def test_an_entry_that_is_being_filled_stays(
    song: Track, save: Save, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    filling = separated(song)["drums"].path.parent
    monkeypatch.setattr(stem_cache, "LIMIT", 1)
    with FileLock(f"{filling}.lock"):
        separated(open_track(save("2.wav", noise(1.0, RATE, seed=2), RATE)))
    assert len(list(filling.iterdir())) == 4


def test_two_that_want_the_same_stems_separate_once(song: Track, count: list[int]) -> None:
    with ThreadPoolExecutor(2) as pool:
        both = list(pool.map(lambda _: separated(song), range(2)))
    assert len(count) == 1
    for tracks in both:
        np.testing.assert_allclose(sum_of(tracks), song.read(), atol=1e-4)


@pytest.mark.parametrize("fault", ["huge", "infinite", "nan"])
def test_samples_that_are_too_large_are_a_clear_error(
    fault: str, save: Save, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sound = noise(1.0, RATE)
    peak = 3e38 if fault == "huge" else 1
    song = open_track(save("loud.wav", sound / np.abs(sound).max() * np.float32(peak), RATE))
    if fault != "huge":
        worst = {"infinite": np.inf, "nan": np.nan}[fault]
        monkeypatch.setattr(DspSeparator, "separate", lambda _, block, rate: np.full((4, *block.shape), worst))
    with pytest.raises(SoundError, match=r"loud.wav cannot be separated") as caught:
        separated(song)
    assert "usual level" in caught.value.hint
    assert list(cache.iterdir()) == []


def test_a_loud_song_is_separated_once(save: Save, count: list[int]) -> None:
    song = open_track(save("loud.wav", np.float32(1e6) * noise(1.0, RATE), RATE))
    np.testing.assert_allclose(sum_of(separated(song)), song.read(), atol=1)
    assert len(count) == 1


def test_what_was_not_used_for_longest_goes_first(save: Save, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    songs = [open_track(save(f"{seed}.wav", noise(1.0, RATE, seed=seed), RATE)) for seed in range(4)]
    folders = []
    for age, song in enumerate(songs[:3]):
        folders.append(separated(song)["drums"].path.parent)
        os.utime(folders[-1], (age, age))
    separated(songs[0])  # used again
    size = sum(path.stat().st_size for path in folders[0].iterdir())
    monkeypatch.setattr(stem_cache, "LIMIT", 3.5 * size)
    separated(songs[3])
    assert [folder.exists() for folder in folders] == [True, False, True]
    monkeypatch.setattr(stem_cache, "LIMIT", 1)
    separated(open_track(save("5.wav", noise(1.0, RATE, seed=5), RATE)))
    assert len(list(cache.iterdir())) == 1


def test_stems_are_kept_unchanged(song: Track, tmp_path: Path) -> None:
    separated(song, ("drums",), keep=tmp_path / "kept")
    kept = {path.name: open_track(path) for path in (tmp_path / "kept").iterdir()}
    assert set(kept) == {f"{name}.flac" for name in STEMS}
    np.testing.assert_allclose(sum_of(kept), song.read(), atol=1e-4)
    assert {soundfile.info(track.path).subtype for track in kept.values()} == {"PCM_24"}


def test_loud_stems_are_kept_quieter_by_one_factor(save: Save, tmp_path: Path) -> None:
    song = open_track(save("loud.wav", 4 * noise(3.0, RATE), RATE))
    stems = separated(song, keep=tmp_path / "kept")
    loudest = max(np.abs(track.read()).max() for track in stems.values())
    for name, track in stems.items():
        kept = open_track(tmp_path / "kept" / f"{name}.flac").read()
        np.testing.assert_allclose(kept * loudest, track.read(), atol=1e-5)


def test_kept_stems_are_not_overwritten(song: Track, tmp_path: Path, count: list[int]) -> None:
    old = tmp_path / "kept" / "bass.flac"
    old.parent.mkdir()
    old.write_text("mine")
    plan = plan_stems(song, STEMS, separator="dsp")
    for check in (lambda: plan.check_places(keep=old.parent), lambda: plan.load(keep=old.parent)):
        with pytest.raises(OutputError, match=r"bass.flac exists") as caught:
            check()
        assert "--overwrite" in caught.value.hint
    assert (old.read_text(), count) == ("mine", [])
    separated(song, keep=old.parent, overwrite=True)
    assert open_track(old).samples == song.samples


@pytest.mark.parametrize("which", ["given", "song"])
def test_files_in_use_are_not_replaced_by_kept_stems(which: str, save: Save, tmp_path: Path) -> None:
    song = open_track(save("song.wav", noise(3.0, RATE), RATE))
    drums = save("drums.flac", 0.1 * noise(3.0, RATE), RATE)
    if which == "song":
        song = open_track(drums)
    old = drums.read_bytes()
    plan = plan_stems(song, ["drums", "vocals"], given=[f"drums={drums}"] if which == "given" else [], separator="dsp")
    with pytest.raises(OutputError, match=r"drums.flac is used in this film") as caught:
        plan.load(keep=tmp_path, overwrite=True)
    assert "--keep-stems" in caught.value.hint
    assert drums.read_bytes() == old


def test_stems_of_a_span_are_not_kept_next_to_the_song(save: Save, tmp_path: Path) -> None:
    path = save("mix.wav", noise(3.0, RATE), RATE)
    with pytest.raises(OutputError, match=r"stems of a part of .*mix.wav would be stored next to it") as caught:
        separated(open_track(path, start=1.0), keep=tmp_path)
    assert "--keep-stems" in caught.value.hint
    separated(open_track(path, start=1.0), keep=tmp_path / "part")
    separated(open_track(path), keep=tmp_path)
    assert open_track(tmp_path / "drums.flac").duration == 3


def test_a_cache_that_cannot_be_written_to_is_reported_before_any_work(
    song: Track, cache: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    plan = plan_stems(song, STEMS, separator="dsp")
    plan.check_places()
    assert not cache.exists()
    (tmp_path / "file").write_text("a file, not a folder")
    monkeypatch.setenv("W2C_CACHE", str(tmp_path / "file"))
    with pytest.raises(OutputError, match=r"cannot be written into .*file") as caught:
        plan.check_places()
    assert "W2C_CACHE" in caught.value.hint


def test_a_cache_that_may_only_be_read_gives_what_is_in_it(song: Track, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OutputError("read-only")

    separated(song)
    monkeypatch.setattr(stem_cache, "check_cache", refuse)
    np.testing.assert_allclose(sum_of(separated(song)), song.read(), atol=1e-4)
    with pytest.raises(OutputError, match="read-only"):
        separated(open_track(song.path, start=1.0))


@pytest.mark.parametrize("option", ["--keep-stems", "W2C_CACHE"])
def test_a_folder_that_cannot_be_made_is_a_clear_error(
    option: str, song: Track, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("a file, not a folder")
    if option == "W2C_CACHE":
        monkeypatch.setenv(option, str(tmp_path / "file"))
    with pytest.raises(OutputError, match=r"cannot be written into .*file") as caught:
        separated(song, keep=tmp_path / "file" if option == "--keep-stems" else None)
    assert option in caught.value.hint


def test_a_full_disk_is_a_clear_error(song: Track, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(soundfile.SoundFile, "write", full)
    with pytest.raises(OutputError, match="No space left on device"):
        separated(song)


def test_too_many_channels_are_clear_errors(save: Save) -> None:
    with pytest.raises(SoundError, match="9 channels, at most 8") as caught:
        plan_stems(open_track(save("wide.wav", noise(0.5, RATE, channels=9), RATE)), STEMS)
    assert "--stem-file" in caught.value.hint


def test_a_song_that_shrinks_meanwhile_leaves_no_stems(song: Track, save: Save, cache: Path) -> None:
    plan = plan_stems(song, STEMS, separator="dsp")
    save("song.wav", noise(2.0, RATE), RATE)
    with pytest.raises(SoundError, match="samples earlier"):
        plan.load()
    assert [path for path in cache.rglob("*") if path.is_file()] == []

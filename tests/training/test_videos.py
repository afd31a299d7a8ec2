from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from tests.training.conftest import write_video
from wav2clip_gen.errors import OutputError, TrainingError, VideoError
from wav2clip_gen.models import checkpoints
from wav2clip_gen.models.clip import Perceptor
from wav2clip_gen.training.videos import VideoClip, VideoDataset, decode_clip, find_clips, split_clips

CPU = torch.device("cpu")


def test_a_folder_gives_all_videos_below_it(toy_videos: Path) -> None:
    clips = find_clips(toy_videos)
    assert len(clips) == 10
    assert clips == find_clips(toy_videos)
    train, held_out = split_clips(clips)
    assert (len(train), len(held_out)) == (8, 2)


def test_a_table_gives_starts_and_splits(tmp_path: Path) -> None:
    table = tmp_path / "clips.csv"
    table.write_text("path,start,split\na.mp4,0,train\na.mp4,12.5,train\nb.mp4,,test\nc/d.mp4,3,val\n")
    clips = find_clips(table)
    assert [clip.start for clip in clips] == [0, 12.5, 0, 3]
    assert clips[3].path == tmp_path / "c" / "d.mp4"
    train, held_out = split_clips(clips)
    assert [clip.path.name for clip in held_out] == ["b.mp4", "d.mp4"]
    assert len(train) == 2


def test_vggsounds_own_table_is_read(tmp_path: Path) -> None:
    (tmp_path / "all").mkdir()
    (tmp_path / "all" / "--x_000040.mp4").touch()
    table = tmp_path / "vggsound.csv"
    table.write_text('--x,40,"people, marching",train\ny0,110,playing harp,test\n')
    first, second = find_clips(table)
    assert (first.path, first.split, first.video) == (tmp_path / "all" / "--x_000040.mp4", "train", "--x")
    assert (second.path.name, second.split) == ("y0_000110.mp4", "held out")


def test_clips_of_one_video_are_on_one_side() -> None:
    clips = [VideoClip(path=Path(f"{v}_{s:06d}.mp4"), video=str(v)) for v in range(40) for s in (0, 10)]
    train, held_out = split_clips(clips)
    assert not {clip.video for clip in train} & {clip.video for clip in held_out}
    assert len(held_out) == 4


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "not a table of videos"),
        ("path\n", "there is no video"),
        ("name,label\na,b\n", "not a table of videos"),
        ("path,split\na.mp4,maybe\n", "line 2: 'maybe' is no split"),
        ("path,start\na.mp4,soon\n", "line 2: needs a path"),
        ("id,1,harp,nowhere\n", "line 1: 'nowhere' is no split"),
    ],
)
def test_an_invalid_table_is_an_error(tmp_path: Path, content: str, message: str) -> None:
    table = tmp_path / "clips.csv"
    table.write_text(content)
    with pytest.raises(TrainingError) as caught:
        find_clips(table)
    assert message in caught.value.what


def test_a_missing_source_is_an_error_that_names_the_option(tmp_path: Path) -> None:
    for source in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(TrainingError) as caught:
            find_clips(source)
        assert "--videos" in caught.value.hint


def test_one_clip_is_too_few_for_a_contrast() -> None:
    with pytest.raises(TrainingError, match="too few"):
        split_clips([VideoClip(path=Path("a.mp4"), video="a")])


def test_a_clip_decodes_to_its_sound_and_square_frames(tmp_path: Path) -> None:
    path = tmp_path / "red.mp4"
    write_video(path, colour="red", pitch=400, seconds=3)
    sound, frames = decode_clip(VideoClip(path=path, video="red"), 32)
    assert abs(len(sound) - 48_000) < 2_000
    assert frames.shape == (3, 32, 32, 3)
    assert frames[..., 0].mean() > frames[..., 1:].mean() + 150
    assert np.abs(np.fft.rfft(sound[:16_000])).argmax() == 400
    later, _ = decode_clip(VideoClip(path=path, start=1.0, video="red"), 32)
    assert abs(len(sound) - len(later) - 16_000) < 2_000


def test_unreadable_clips_are_skipped_and_named(toy_videos: Path, untrained_clip: Path, tmp_path: Path) -> None:
    folder = tmp_path / "videos"
    shutil.copytree(toy_videos, folder)
    (folder / "damaged.mp4").write_bytes(b"no video")
    shutil.copyfile(next(toy_videos.rglob("*.mp4")), folder / "cut.mp4")
    content = (folder / "cut.mp4").read_bytes()
    (folder / "cut.mp4").write_bytes(content[: len(content) // 3])
    write_video(folder / "short.mp4", colour="red", pitch=300, seconds=0.5)
    videos = VideoDataset(folder, untrained_clip, tmp_path / "cache")
    events = list(videos.prepare(CPU))
    assert events[-1].message == "13/13 clips embedded, 3 skipped"
    train, held_out, skipped = videos.split()
    assert sorted(skipped) == ["cut.mp4", "damaged.mp4", "short.mp4"]
    assert len(train) + len(held_out) == 10
    assert all(clip.target.norm().item() == pytest.approx(1, abs=1e-6) for clip in train)
    assert train[0].read_sound(0, 8000).abs().max() > 0.05


def test_clips_are_embedded_once(toy_videos: Path, untrained_clip: Path, tmp_path: Path) -> None:
    videos = VideoDataset(toy_videos, untrained_clip, tmp_path)
    assert list(videos.prepare(CPU))[-1].step == 10
    assert list(videos.prepare(CPU)) == []
    damaged = next(tmp_path.rglob("*.safetensors"))
    damaged.write_bytes(damaged.read_bytes()[:100])
    assert list(videos.prepare(CPU))[-1].step == 1
    other = tmp_path / "other.safetensors"
    checkpoints.save(Perceptor("w2c-mini"), other)
    assert list(VideoDataset(toy_videos, other, tmp_path).prepare(CPU))[-1].step == 10  # other embeddings


def test_nothing_readable_is_an_error(untrained_clip: Path, tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"no video")
    videos = VideoDataset(tmp_path, untrained_clip, tmp_path / "cache")
    list(videos.prepare(CPU))
    with pytest.raises(TrainingError, match=r"none of its 1 clips can be read, not even a\.mp4"):
        videos.split()


def test_a_full_disk_is_an_error_before_decoding(
    toy_videos: Path, untrained_clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=1e6))
    with pytest.raises(OutputError, match=r"1 MB are free, and the decoded clips may take \d+ MB") as caught:
        list(VideoDataset(toy_videos, untrained_clip, tmp_path).prepare(CPU))
    assert "--runs" in caught.value.hint


def test_without_ffmpeg_no_clip_is_skipped(
    toy_videos: Path, untrained_clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("W2C_FFMPEG", str(tmp_path / "nowhere"))
    with pytest.raises(VideoError):
        list(VideoDataset(toy_videos, untrained_clip, tmp_path).prepare(CPU))

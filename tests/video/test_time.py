"""Whatever the time stamps of a song are, its sound is in the film where they put it: random files, found there."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from random import Random

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.audio.conftest import noise
from tests.video.conftest import write_film
from wav2clip_gen import ffmpeg
from wav2clip_gen.audio.timeline import Timeline
from wav2clip_gen.audio.track import open_track
from wav2clip_gen.video.mux import mux, plan_sound
from wav2clip_gen.video.verify import verify_film

RATE = 44_100
LENGTH = 6.0  # s
BURST = 0.15  # s, of each mark
MARKS = tuple(0.4 + 0.7 * number for number in range(8))  # s; each mark is a noise of its own
AUDIBLE = 0.1  # correlation from which a mark is found: its neighbors correlate by less
Played = dict[int, float]  # the times at which marks are played
Case = tuple[Path, Played, float]  # a file, its marks, and where the film starts in it
ANYWHERE = range(2, 6)  # the marks that damage in the middle may silence

CODECS = {
    "wav": "pcm_s16le", "flac": "flac", "ogg": "libvorbis", "opus": "libopus", "mp3": "libmp3lame", "m4a": "aac",
    "aac": "aac", "mkv": "aac", "mka": "libmp3lame", "flv": "aac", "ts": "aac", "mov": "alac", "webm": "libopus",
}  # fmt: skip
PRIMING = {"aac": 1024 / RATE, "ts": 1024 / RATE, "flv": 0.0}  # s, where a player does not skip it


def burst(mark: int) -> NDArray[np.float32]:
    return noise(BURST, RATE, 1, seed=mark)


def run(*arguments: str | Path) -> None:
    words = [ffmpeg.file_url(word) if isinstance(word, Path) else word for word in arguments]
    ffmpeg.run([*words[:-1], "-y", words[-1]], purpose="make a song")


@pytest.fixture(scope="session")
def song(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """The marked song in a container, at a sample rate."""
    folder = tmp_path_factory.mktemp("songs")
    samples = np.zeros((round(LENGTH * RATE), 1), np.float32)
    for mark, start in enumerate(MARKS):
        samples[round(start * RATE) :][: round(BURST * RATE)] = burst(mark)

    def encode(kind: str, rate: int = RATE) -> Path:
        path, wav = folder / f"song{rate}.{kind}", folder / "marks.f32"
        samples.tofile(wav)
        if not path.exists():
            resampled = ["-ar", "48000" if CODECS[kind] == "libopus" else str(rate)]
            raw = ["-f", "f32le", "-ar", str(RATE), "-ac", "1", "-i"]
            run(*raw, wav, "-c:a", CODECS[kind], *resampled, path)
        return path

    return encode


def everywhere(delay: float = 0.0) -> Played:
    return {mark: start + delay for mark, start in enumerate(MARKS)}


def plain(random: Random, song: Callable[..., Path], folder: Path) -> Case:
    """Every container; a span of it."""
    kind, start = random.choice([*CODECS]), random.choice([0.0, 0.0, random.uniform(0.1, 2)])
    return song(kind), everywhere(PRIMING.get(kind, 0)), start


def late(random: Random, song: Callable[..., Path], folder: Path) -> Case:
    """A video whose sound starts late."""
    kind, delay = random.choice(["mp4", "mov", "mkv", "ts", "flv"]), random.uniform(0.02, 5)
    codec = {"mkv": "libopus", "mov": "alac", "flv": "libmp3lame"}.get(kind, "aac")
    picture = ["-f", "lavfi", "-i", f"color=s=32x32:r={random.choice(['25', '24000/1001'])}:d=3"]
    coded = ["-c:v", "flv1" if kind == "flv" else "mpeg4", "-bf", "0", "-c:a", codec]
    path = folder / f"late.{kind}"
    run(*picture, "-itsoffset", str(delay), "-i", song("wav"), "-map", "0:v", "-map", "1:a", *coded, path)
    return path, everywhere(delay), 0.0


def moved(random: Random, song: Callable[..., Path], folder: Path) -> Case:
    """Stamps that jump ahead (a hole) or back (an overlap) somewhere."""
    kind, target = random.choice([("m4a", "m4a"), ("m4a", "mkv"), ("mp3", "mka"), ("opus", "mka"), ("flv", "flv")])
    place, jump = random.uniform(1.2, 4), random.choice([1, 1, -1]) * random.uniform(0.05, 0.9)
    moving = f"if(gte({{0}}*TB,{place}),{{0}}+({jump})/TB,{{0}})"
    stamps = f"setts=pts='{moving.format('PTS')}':dts='{moving.format('DTS')}'"
    path = folder / f"moved.{target}"
    run("-i", song(kind), "-c", "copy", "-bsf:a", stamps, path)
    edges = (place - BURST - 0.1, place + max(0.0, -jump) + 0.1)  # marks within are cut
    played = {m: t + (jump if t > place else 0) for m, t in enumerate(MARKS) if not edges[0] < t < edges[1]}
    return path, played, random.choice([0.0, 0.3])


def lost(random: Random, song: Callable[..., Path], folder: Path) -> Case:
    """Packets that are missing in the middle."""
    kind, target = random.choice([("m4a", "m4a"), ("m4a", "ts"), ("mp3", "mka"), ("flv", "flv"), ("opus", "webm")])
    place, length = random.uniform(1, 3), random.uniform(0.05, 2)
    path = folder / f"lost.{target}"
    dropped = f"noise=amount=0:drop='between(pts*tb,{place},{place + length})'"
    run("-i", song(kind), "-c", "copy", "-bsf:a", dropped, path)
    delay = 0.0 if target == "ts" else PRIMING.get(target, 0)
    played = {m: t + delay for m, t in enumerate(MARKS) if not place - BURST - 0.1 < t < place + length + 0.1}
    return path, played, 0.0


def joined(random: Random, song: Callable[..., Path], folder: Path) -> Case:
    """Two files in one, bare streams with two sample rates among them."""
    kind = random.choice(["mp3", "aac", "ogg", "opus", "ts"])
    rate = random.choice([RATE, 48_000, 22_050, 32_000]) if kind in ("mp3", "aac") else RATE
    path = folder / f"joined.{kind}"
    path.write_bytes(song(kind).read_bytes() + song(kind, rate).read_bytes())
    packets = ffmpeg.read_sound(song(kind), copied=True, whole=True).packets
    frame = {"mp3": 1152 if rate >= 32_000 else 576}.get(kind, 1024)
    first, second = {  # the length of the first, and what precedes the second
        "mp3": ((packets * 1152 - 1105) / RATE, (frame + 1105) / rate),  # LAME's own frame, and its delay
        "aac": (packets * 1024 / RATE, 1024 / rate),
        "ts": (packets * 1024 / RATE, 1024 / RATE),
    }.get(kind, (LENGTH, 0.0))
    played = everywhere(PRIMING.get(kind, 0))
    again = {mark + len(MARKS): start + first + second for mark, start in enumerate(MARKS)}
    return path, played | again, random.choice([0.0, 0.3])


def cut(random: Random, song: Callable[..., Path], folder: Path) -> Case:
    """A file that was cut without encoding it: an edit list hides what precedes the cut."""
    kind, start = random.choice(["m4a", "mov"]), random.uniform(0.1, 3)
    path = folder / f"cut.{kind}"
    run("-ss", str(start), "-i", song(kind), "-c", "copy", path)
    return path, {mark: time - start for mark, time in enumerate(MARKS) if time > start + 0.1}, 0.0


def damaged(random: Random, song: Callable[..., Path], folder: Path) -> Case:
    """Bytes that were overwritten in the middle, as by a bad disk."""
    kind = random.choice(["m4a", "ts", "mka", "ogg", "flac", "opus"])
    content = bytearray(song(kind).read_bytes())
    place, length = round(random.uniform(0.4, 0.6) * len(content)), random.choice([20, 200, 2000])
    content[place : place + length] = random.randbytes(length)
    path = folder / f"damaged.{kind}"
    path.write_bytes(content)
    delay = PRIMING.get(kind, 0)
    return path, {m: t + delay for m, t in enumerate(MARKS) if m not in ANYWHERE}, 0.0


KINDS = (plain, late, moved, lost, joined, cut, damaged)


def film_of(case: Case, fps: float, folder: Path) -> Path:
    path, _, start = case
    track = open_track(path, start=start)
    timeline, plan = Timeline.of(track, fps=fps), plan_sound(track)
    picture, out = write_film(folder / "picture.mp4", timeline.frames, timeline.fps), folder / "film.mp4"
    mux(picture, track, out, plan=plan, metadata={})
    verify_film(out, frames=timeline.frames, fps=timeline.fps, duration=track.duration, sound=track)
    return out


def play(film: Path) -> NDArray[np.float32]:
    """The sound of a film by its stamps, as ffmpeg puts it there."""
    filled = f"aresample={RATE}:async=1:min_hard_comp=0.001:first_pts=0"
    raw = ["-map", "0:a:0", "-ac", "1", "-af", filled, "-f", "f32le", "-c:a", "pcm_f32le", "pipe:1"]
    return np.frombuffer(ffmpeg.run(["-i", ffmpeg.file_url(film), *raw], purpose="play"), "<f4")


def find(mark: int, near: float, sound: NDArray[np.float32]) -> float:
    """The time at which a mark is played, or infinity."""
    wanted = burst(mark % len(MARKS))[:, 0]
    start = max(0, round((near - 0.3) * RATE))
    window = sound[start : round((near + 0.3 + BURST) * RATE)]
    if len(window) < len(wanted):
        return float("inf")
    fit = np.correlate(window, wanted, "valid")
    best = int(fit.argmax())
    power = float(np.linalg.norm(wanted) * np.linalg.norm(window[best : best + len(wanted)]))
    return (start + best) / RATE if power and fit[best] > 0.5 * power else float("inf")


def is_silent(sound: NDArray[np.float32], start: float) -> bool:
    return not (np.abs(sound[round(start * RATE) :][: round(BURST * RATE)]) > 0.01).any()


def check(seed: int, song: Callable[..., Path], folder: Path) -> None:
    random = Random(seed)
    make, fps = KINDS[seed % len(KINDS)], random.choice([12, 23.976, 24, 25])
    case = make(random, song, folder)
    sound = play(film_of(case, fps, folder))
    _, played, start = case
    wanted = {mark: time - start for mark, time in played.items() if time >= start}
    assert len(wanted) >= 3
    found = {mark: find(mark, time, sound) for mark, time in wanted.items()}
    if make is damaged:  # whole pages may be lost
        found |= {mark: time for mark, time in wanted.items() if is_silent(sound, time)}
    off = {mark: round(found[mark] - time, 4) for mark, time in wanted.items()}
    assert max(map(abs, off.values())) <= 1 / fps, f"{case[0].name}, {make.__name__}: {off}"


@pytest.mark.parametrize("seed", range(len(KINDS)))
def test_a_sound_is_where_its_stamps_put_it(seed: int, song: Callable[..., Path], tmp_path: Path) -> None:
    check(seed, song, tmp_path)


FIRST = len(KINDS)
CASES = [
    *range(FIRST, FIRST + 21),
    *(pytest.param(one, marks=pytest.mark.more) for one in range(FIRST + 21, FIRST + 200)),
]


@pytest.mark.slow
@pytest.mark.parametrize("seed", CASES)
def test_a_sound_is_where_its_stamps_put_it_in_200_files(seed: int, song: Callable[..., Path], tmp_path: Path) -> None:
    check(seed, song, tmp_path)

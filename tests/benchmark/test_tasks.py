"""Zero-shot, retrieval and figures with an encoder whose space is known, and the command that runs all tasks."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from typer.testing import CliRunner, Result

from tests.benchmark import sets
from tests.cli.refusals import assert_refused
from wav2clip_gen import ffmpeg
from wav2clip_gen.benchmark import encoders
from wav2clip_gen.benchmark.clips import Clip
from wav2clip_gen.benchmark.datasets import open_dataset
from wav2clip_gen.benchmark.encoders import Encoded, LogMelEncoder
from wav2clip_gen.benchmark.features import Features, embed
from wav2clip_gen.benchmark.retrieval import measures, middle_picture, random_measures, retrieve
from wav2clip_gen.benchmark.zero_shot import zero_shot
from wav2clip_gen.cli.benchmark import app
from wav2clip_gen.errors import SettingsError, W2CError

NOISE, TONE, CHORD = torch.eye(3)
WORDS = {"dog bark": NOISE, "siren": TONE, "street music": CHORD, "dog": NOISE, "wails": TONE, "music": CHORD}


class Ideal(LogMelEncoder):
    """Knows the three classes: the vector of a sound or a text is the class's own."""

    name, identity = "ideal", "ideal"

    def encode(self, sound: Tensor, hop: float) -> Encoded:
        spectrum = torch.fft.rfft(sound * torch.hann_window(len(sound))).abs()
        peak = spectrum.argmax() * self.rate / len(sound)
        noisy = spectrum.median() > 0.01 * spectrum.amax()
        vector = NOISE if noisy else TONE if peak > 1000 else CHORD
        return Encoded(vector[None], vector)

    def encode_texts(self, texts: Sequence[str]) -> Tensor:
        found = [next((vector for word, vector in WORDS.items() if word in text), torch.ones(3)) for text in texts]
        return F.normalize(torch.stack(found), dim=1)

    def encode_images(self, images: Tensor) -> Tensor:
        return F.normalize(images.mean(dim=(2, 3)), dim=1)  # their color


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(one) for one in arguments], catch_exceptions=False)


def test_zero_shot_names_what_it_knows(tmp_path: Path) -> None:
    dataset = open_dataset(sets.urbansound8k(tmp_path / "set"))
    features = embed(dataset.clips, Ideal(), cache=tmp_path / "cache")
    result = zero_shot(dataset, features, Ideal())
    names = ("NAME", "the sound of NAME", "all templates")
    assert [result.figures[f"top-1, {name}"] for name in names] == [1, 1, 1]
    assert result.figures["mean of classes, NAME"] == 1
    assert result.chance["top-1, NAME"] == 0.1
    assert result.predictions[0] == {
        "key": "1000-0-0-0.wav", "labels": ("dog_bark",), "{}": "dog_bark", "the sound of {}": "dog_bark",
        "all templates": "dog_bark",
    }  # fmt: skip
    with pytest.raises(SettingsError, match=r"has no \{\}"):
        zero_shot(dataset, features, Ideal(), templates=["a sound"])
    with pytest.raises(SettingsError, match="log-mel has no text encoder"):
        zero_shot(dataset, features, LogMelEncoder())


def test_retrieval_by_captions_and_by_classes(tmp_path: Path) -> None:
    clotho = open_dataset(sets.clotho(tmp_path / "clotho"))
    result = retrieve(clotho, embed(clotho.clips, Ideal(), cache=tmp_path / "cache"), Ideal())
    assert result.figures["text to sound: R@10"] == 1
    assert result.figures["text to sound: median rank"] == 4  # four sounds of each class are alike
    assert result.notes[-1] == "12 sounds, 60 captions."
    folder = open_dataset(sets.class_folders(tmp_path / "folders"))
    result = retrieve(folder, embed(folder.clips, Ideal(), cache=tmp_path / "cache"), Ideal())
    assert result.figures["text to sound: MRR"] == 1
    assert 0.4 < result.chance["text to sound: MRR"] < 0.7
    assert result.notes[-1] == "24 sounds, 3 names of classes."


def test_ranks_are_those_of_the_best_relevant_one() -> None:
    similarity = torch.tensor([[0.9, 0.5, 0.1], [0.2, 0.8, 0.3]])
    relevant = torch.tensor([[False, True, True], [True, False, False]])
    assert measures(similarity, relevant) == pytest.approx(
        {"MRR": (1 / 2 + 1 / 3) / 2, "R@1": 0, "R@5": 1, "R@10": 1, "median rank": 2.5}
    )
    assert measures(torch.ones(2, 3), relevant)["R@1"] == 0  # equal vectors gain nothing
    assert random_measures(torch.eye(10, dtype=torch.bool))["R@1"] == pytest.approx(0.1, abs=0.02)


def test_sounds_and_pictures_of_videos_find_each_other(tmp_path: Path) -> None:
    clips = []
    for number, (label, color) in enumerate(zip(sets.CLASSES, ("red", "lime", "blue"), strict=True)):
        sets.write(tmp_path / "sound.wav", label, number)
        path = tmp_path / f"{label}.mp4"
        picture = ["-f", "lavfi", "-i", f"color={color}:size=64x48:duration=0.4:rate=10"]
        sound = ["-i", str(tmp_path / "sound.wav")]
        ffmpeg.run([*picture, *sound, "-pix_fmt", "yuv420p", str(path)], purpose="make a video")
        clips.append(Clip(key=label, path=path, labels=(label,)))
    assert middle_picture(clips[0]).shape == (3, 224, 224)
    assert middle_picture(clips[0]).mean(dim=(1, 2)).tolist() == pytest.approx([1, 0, 0], abs=0.05)
    dataset = open_dataset(sets.class_folders(tmp_path / "folders"))
    features = embed(clips, Ideal(), cache=tmp_path / "cache")
    result = retrieve(dataset, features, Ideal())
    assert result.figures["sound to picture: R@1"] == 1
    assert result.figures["picture to sound: MRR"] == 1
    assert result.chance["picture to sound: MRR"] == pytest.approx((1 + 1 / 2 + 1 / 3) / 3, abs=0.1)
    sets.write(tmp_path / "no picture.wav", "siren", 0)
    with pytest.raises(W2CError, match="no picture"):
        middle_picture(Clip(key="x", path=tmp_path / "no picture.wav"))


def test_retrieval_needs_texts(tmp_path: Path) -> None:
    dataset = open_dataset(sets.class_folders(tmp_path / "set"))
    clips = [Clip(key="x", path=dataset.clips[0].path)]
    with pytest.raises(W2CError, match="neither captions nor labels"):
        retrieve(dataset, Features(clips, [Encoded(torch.ones(1, 3), torch.ones(3))], []), Ideal())


@pytest.fixture
def two_encoders(monkeypatch: pytest.MonkeyPatch) -> None:
    load = encoders.load_encoder
    monkeypatch.setattr(
        encoders, "load_encoder", lambda name, **more: Ideal() if name == "ideal" else load(name, **more)
    )


@pytest.mark.usefixtures("two_encoders")
def test_the_command_compares_encoders(tmp_path: Path) -> None:
    data, out = sets.urbansound8k(tmp_path / "set"), tmp_path / "out"
    first = run("probe", "--data", data, "--encoder", "log-mel", "--out", out, "--seeds", "1")
    assert first.exit_code == 0, first.stderr
    assert "| measure | log-mel | chance |" in first.stdout
    assert "log-mel, clips embedded: 27/27" in first.stderr
    second = run("probe", "--data", data, "--encoder", "ideal", "--out", out, "--seeds", "1")
    assert "| measure | ideal | log-mel | chance |" in second.stdout
    assert (out / "probe-urbansound8k.md").read_text().strip() == second.stdout.strip()
    stored = json.loads((out / "probe-urbansound8k-ideal.json").read_text())
    assert stored["figures"]["accuracy"] == [1, 0]
    assert len(stored["predictions"]) == 27
    assert stored["settings"]["hidden"] == [1024]
    other = sets.class_folders(tmp_path / "urbansound8k-2", splits=("train", "val", "test"))
    run("probe", "--data", other, "--encoder", "ideal", "--out", out, "--seeds", "1")
    third = run("probe", "--data", data, "--encoder", "log-mel", "--out", out, "--seeds", "1")
    assert third.stdout == second.stdout  # a set whose name begins alike is another set
    again = run("probe", "--data", data, "--encoder", "ideal", "--out", tmp_path / "again", "--seeds", "1")
    assert again.exit_code == 0
    name = "probe-urbansound8k-ideal.json"
    assert (tmp_path / "again" / name).read_bytes() == (out / name).read_bytes()


@pytest.mark.usefixtures("two_encoders")
def test_the_command_plots_few_shot(tmp_path: Path) -> None:
    data = sets.class_folders(tmp_path / "set", splits=("train", "val", "test"))
    done = run("few-shot", "--data", data, "--encoder", "ideal", "--out", tmp_path, "--seeds", "1")
    assert done.exit_code == 0, done.stderr
    assert "accuracy, 100 % | 1.000 ± 0.000" in done.stdout
    assert (tmp_path / "few-shot-set.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.usefixtures("two_encoders")
def test_the_command_runs_on_some_splits(tmp_path: Path) -> None:
    data = sets.urbansound8k(tmp_path / "set")
    done = run("zero-shot", "--data", data, "--encoder", "ideal", "--out", tmp_path, "--split", "3", "--template", "{}")
    assert done.exit_code == 0, done.stderr
    assert "9 clips of 10 classes." in done.stdout
    assert_refused(
        run("zero-shot", "--data", data, "--encoder", "ideal", "--out", tmp_path, "--split", "9"),
        "no clips in '9'",
        code=2,
    )


def test_figures_of_classes_and_of_stems(tmp_path: Path) -> None:
    from PIL import Image

    urban, songs = sets.urbansound8k(tmp_path / "urban"), sets.musdb18(tmp_path / "songs", songs=1)
    for data, more, size in (
        (urban, [], (594, 358)),
        (urban, ["--classes", "siren,dog_bark"], (428, 358)),
        (songs, [], (926, 192)),
    ):
        given = ("--data", data, "--out", tmp_path, "--steps", "1", "--cache", tmp_path / "cache")
        done = run("figure", *given, *more)
        assert done.exit_code == 0, done.stderr
        assert list((tmp_path / "cache").rglob("*.safetensors"))
        path = Path(done.stderr.splitlines()[-1].removeprefix("wrote "))
        with Image.open(path) as page:
            assert page.size == size
    assert path.name == "figure-musdb18-mini.png"


def test_captions_are_learned_and_scored(tmp_path: Path) -> None:
    data, decoder = sets.clotho(tmp_path / "set"), tmp_path / "decoder.safetensors"
    done = run("caption", "--data", data, "--encoder", "log-mel", "--out", tmp_path, "--save", decoder)
    assert done.exit_code == 0, done.stderr
    assert "BLEU-1" in done.stdout
    assert decoder.is_file()


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (("prob",), "there is no task 'prob'"),
        (("probe", "--encoder", "openl4"), "there is no encoder 'openl4'"),
        (("probe", "--layout", "esc"), "there is no layout 'esc'"),
        (("probe", "--protocol", "mine"), "there is no protocol 'mine'"),
        (("zero-shot", "--encoder", "log-mel"), "log-mel has no text encoder"),
        (("figure", "--encoder", "log-mel"), "log-mel cannot steer pictures"),
        (("probe", "--split", "3"), "--split has no meaning in probe"),
        (("probe", "--classes", "siren"), "--classes has no meaning in probe"),
        (("figure", "--classes", "siren,horn"), "urbansound8k has no clips of 'horn'"),
        (("figure", "--classes", ",".join(11 * ["siren"])), "11 classes are too many for a figure"),
        (("caption", "--mode", "guess"), "there is no mode 'guess'"),
    ],
)
def test_bad_requests_are_refused(arguments: tuple[str, ...], what: str, tmp_path: Path) -> None:
    data = sets.urbansound8k(tmp_path / "set")
    assert_refused(run(*arguments, "--data", data, "--out", tmp_path / "out"), what, code=2)


def test_a_folder_of_results_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file")
    assert_refused(run("probe", "--data", tmp_path, "--out", tmp_path / "out" / "x"), "cannot make the folder")


def test_a_result_of_another_program_is_refused(tmp_path: Path) -> None:
    data = sets.urbansound8k(tmp_path / "set")
    (tmp_path / "probe-urbansound8k-mine.json").write_text("{}")
    done = run("probe", "--data", data, "--encoder", "log-mel", "--out", tmp_path, "--seeds", "1")
    assert_refused(done, "no result of `w2c-gen benchmark`")

"""Decoders of captions: trained on sounds or from text alone, searched, saved, scored."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import get_args

import pytest
import torch
from safetensors.torch import save_file

from tests.benchmark.captions import CAPTIONS, SIZE, TINY, WordEncoder, clip
from tests.conftest import ROOT
from wav2clip_gen.benchmark import caption_training, captioning
from wav2clip_gen.benchmark.caption_decoder import (
    END,
    START,
    CaptionDecoder,
    Vocabulary,
    load_decoder,
    save_decoder,
    spell,
)
from wav2clip_gen.benchmark.caption_scores import tokenize
from wav2clip_gen.benchmark.caption_texts import texts_of
from wav2clip_gen.benchmark.caption_training import Captioned, CaptionProtocol, Mode, cluster, divide, read_protocol
from wav2clip_gen.benchmark.clips import Dataset
from wav2clip_gen.benchmark.encoders import Encoded, LogMelEncoder, SoundEncoder
from wav2clip_gen.errors import SettingsError, W2CError, WeightsError

ENCODER = WordEncoder()
SOUNDS = [ENCODER.hear(text) for text in CAPTIONS]
CENTER = torch.stack([one.vector for one in SOUNDS]).mean(dim=0)


def train(mode: Mode, protocol: CaptionProtocol = TINY, seed: int = 0) -> CaptionDecoder:
    """A decoder that has learnt all captions, with the same ones as validation."""
    clips = [
        Captioned(made, texts_of(made), sound)
        for split in ("train", "val")
        for made, sound in zip([clip(text, text, split=split) for text in CAPTIONS], SOUNDS, strict=True)
    ]
    return caption_training.train(
        clips, ENCODER, mode=mode, center=CENTER, seed=seed, protocol=protocol, show=lambda what, done, total: None
    )


@pytest.fixture(scope="module")
def trained() -> dict[Mode, CaptionDecoder]:
    return {mode: train(mode) for mode in get_args(Mode)}


@pytest.mark.parametrize("mode", get_args(Mode))
def test_an_overfitted_decoder_reproduces_its_captions(trained: dict[Mode, CaptionDecoder], mode: Mode) -> None:
    protocols = (replace(TINY, beam=1), replace(TINY, beam=4), replace(TINY, beam=3, length_penalty=0.0))
    for protocol in protocols:
        captions = [spell(captioning.write(trained[mode], sound, protocol)) for sound in SOUNDS]
        assert captions == [*CAPTIONS]


def test_the_same_seed_trains_the_same_decoder(trained: dict[Mode, CaptionDecoder]) -> None:
    torch.rand(7)  # what was drawn before does not matter
    short = replace(TINY, epochs=2, dropout=0.2)
    first, again, other = (train("text", short, seed).state_dict() for seed in (3, 3, 4))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["embedding.weight"], other["embedding.weight"])


def test_training_stops_early_and_keeps_the_best_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    losses, kept = iter([3.0, 2.0, 2.5, 2.4, 1.0]), []

    def evaluate(decoder: CaptionDecoder, *given: object, **named: object) -> float:
        kept.append(decoder.embedding.weight.clone())
        return next(losses)

    monkeypatch.setattr(caption_training, "_evaluate", evaluate)
    decoder = train("text", replace(TINY, patience=2))
    assert len(kept) == 4
    assert torch.equal(decoder.embedding.weight, kept[1])


def test_the_search_repeats_no_three_words_and_ends() -> None:
    decoder = small_decoder(words=("la", "li", "lo"), longest=9).eval()
    with torch.no_grad():  # the first word is the likeliest, the end is not
        decoder.get_parameter("decoder.norm.weight").zero_()
        decoder.get_parameter("decoder.norm.bias").fill_(1.0)
        decoder.embedding.weight.zero_()[4] = 0.1
        decoder.embedding.weight[END] = -1.0
    words = decoder.write(torch.zeros(1, SIZE), beam=3)
    assert len(words) == 9
    triples = list(zip(words, words[1:], words[2:], strict=False))
    assert len(triples) == len(set(triples))
    assert decoder.write(torch.zeros(1, SIZE), beam=1, no_repeat=0) == ["la"] * 9


def small_decoder(words: tuple[str, ...] = ("a", "dog"), longest: int = 5, memory: int = 0) -> CaptionDecoder:
    return CaptionDecoder(
        words=words, features=SIZE, of_frames=False, longest=longest, width=8, heads=2, feedforward=8, memory=memory,
        temperature=0.05,
    )  # fmt: skip


def test_a_vocabulary_has_the_words_of_enough_captions() -> None:
    vocabulary = Vocabulary.of([["a", "dog", "a"], ["a", "cat"], ["dog"]], 2)
    assert vocabulary.words == ("a", "dog")
    numbers = vocabulary.encode(["a", "cat", "dog", "barks"], longest=3)
    assert numbers.tolist() == [START, 4, 3, 5, END]
    assert vocabulary.decode(numbers.tolist()) == ["a", "<unk>", "dog"]
    assert spell(tokenize("The dogs' owner doesn't hear it's raining.")) == "the dogs owner doesn't hear it's raining"


def test_a_sound_is_interpolated_between_captions() -> None:
    decoder = small_decoder(memory=2)
    decoder.memory = torch.eye(SIZE)[:2]
    sound = ENCODER.hear("rain")
    sound = sound._replace(vector=torch.eye(SIZE)[1] + 0.3 * torch.eye(SIZE)[5])
    assert decoder.prepare(sound)[0] == pytest.approx(torch.eye(SIZE)[1], abs=1e-6)


def test_clusters_are_directions_of_similar_vectors() -> None:
    near = torch.nn.functional.normalize(torch.eye(3).repeat(4, 1) + 0.1 * torch.rand(12, 3), dim=-1)
    found = cluster(near, 3, seed=1)
    assert found.shape == (3, 3)
    assert found.norm(dim=1) == pytest.approx(torch.ones(3))
    assert len(cluster(near, 99, seed=1)) == 12


def test_a_share_of_the_recordings_is_held_out_for_validation() -> None:
    clips = [
        Captioned(replace(clip(str(number), "rain"), recording=str(number // 2)), [["rain"]], None)
        for number in range(20)
    ]
    training, validation = divide(clips, share=0.2, seed=0)
    assert (len(training), len(validation)) == (16, 4)
    assert not {one.clip.recording for one in training} & {one.clip.recording for one in validation}


# --- the task


def made_up_set() -> Dataset:
    training = [clip(text, text, "Rain falls.", split="train") for text in CAPTIONS]
    return Dataset(
        name="made-up", clips=(*training, clip("test.wav", "A dog barks", "people talk and a dog barks", split="test"))
    )


def test_the_task_scores_captions_of_the_test_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda name: None)
    dataset, protocol = made_up_set(), replace(TINY, epochs=3)
    shown: list[str] = []
    result = captioning.caption(
        dataset, ENCODER, [*[None] * 6, SOUNDS[0]], mode="text", seed=5, protocol=protocol,
        save=tmp_path / "decoder.safetensors", show=lambda what, done, total: shown.append(f"{what} {done}/{total}"),
    )  # fmt: skip
    assert (result.task, result.dataset, result.encoder, result.identity) == (
        "caption-text",
        "made-up",
        "words",
        "words-1",
    )
    assert set(result.figures) == {"BLEU-1", "BLEU-2", "BLEU-3", "BLEU-4", "ROUGE-L", "CIDEr-D"}
    assert result.settings["mode"] == "text"
    assert result.settings["beam"] == 2
    (prediction,) = result.predictions
    assert prediction["clip"] == "test.wav"
    assert prediction["references"] == ["A dog barks", "people talk and a dog barks"]
    assert prediction["scores"]["BLEU-1"] == pytest.approx(result.figures["BLEU-1"])
    assert "is that of 1 sounds" in result.notes[0]
    assert shown[0].startswith("epochs 1/")
    assert shown[-1] == "captions written 1/1"
    decoder, training = load_decoder(tmp_path / "decoder.safetensors")
    assert (training["encoder"], training["dataset"], training["seed"]) == ("words", "made-up", 5)
    assert spell(captioning.write(decoder, SOUNDS[0], protocol)) == prediction["caption"]


def test_chance_is_the_score_of_other_clips_captions() -> None:
    captions = [["a", "dog"], ["some", "rain"], ["one", "bird"]]
    assert captioning.shuffled_scores(captions, [[one] for one in captions], seed=0)["ROUGE-L"] == 0
    same = [["a", "dog"]] * 2
    assert captioning.shuffled_scores(same, [[one] for one in same], seed=0)["BLEU-2"] == pytest.approx(1)


def test_training_clips_that_are_in_the_test_part_are_left_out() -> None:
    dataset = made_up_set()
    leak = clip("another name.wav", "a DOG barks", "people talk and a dog barks", split="train")
    result = captioning.caption(
        replace(dataset, clips=(leak, *dataset.clips)), ENCODER, [SOUNDS[0], *SOUNDS, SOUNDS[0]], mode="supervised",
        protocol=replace(TINY, epochs=1),
    )  # fmt: skip
    assert result.notes[0] == "1 training clips are left out: their sounds are in the test part."


def test_too_little_to_train_or_to_test_is_refused() -> None:
    dataset = made_up_set()

    def run(
        encoded: Sequence[Encoded | None],
        mode: Mode,
        protocol: CaptionProtocol = TINY,
        encoder: SoundEncoder = ENCODER,
        dataset: Dataset = dataset,
    ) -> None:
        captioning.caption(dataset, encoder, encoded, mode=mode, protocol=protocol)

    tested = [*[None] * 6, SOUNDS[0]]
    with pytest.raises(SettingsError, match="made-up: no captions to compare with"):
        run([None] * 7, "text")
    with pytest.raises(SettingsError, match="too few sounds with captions to train on"):
        run(tested, "supervised")
    with pytest.raises(SettingsError, match="no word occurs in 99 captions"):
        run(tested, "text", replace(TINY, minimum_count=99))
    with pytest.raises(SettingsError, match="log-mel has no text encoder"):
        run(tested, "text", encoder=LogMelEncoder())
    with pytest.raises(SettingsError, match=r"empty\.wav: its captions have no words"):
        run([*tested, None], "text", dataset=replace(dataset, clips=(*dataset.clips, clip("empty.wav", " ..."))))


def test_a_protocol_with_other_settings_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(caption_training.PROTOCOL.read_text().replace("beam:", "beams:"))
    with pytest.raises(SettingsError, match="missing or unknown: beam, beams"):
        read_protocol(path)


# --- files of decoders


def test_a_damaged_or_foreign_decoder_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "decoder.safetensors"
    for content, what in ((None, "no such weights file"), (b"{}", "not a readable safetensors file")):
        if content:
            path.write_bytes(content)
        assert_refused(path, what)
    save_file({"x": torch.zeros(1)}, path)
    assert_refused(path, "not a weights file of w2c-gen")
    decoder = small_decoder()
    save_decoder(decoder, path, training={})
    whole = path.read_bytes()
    path.write_bytes(whole[:-9])
    assert_refused(path, "not a readable safetensors file")
    decoder.config["words"] = ["a"]
    save_decoder(decoder, path, training={})
    assert_refused(path, "embedding.weight is (6, 8), not (5, 8)")
    decoder.config["heads"] = 3
    save_decoder(decoder, path, training={})
    assert_refused(path, "its configuration builds no decoder of captions")
    assert_refused(ROOT / "weights" / "mini" / "prior.safetensors", "holds a prior, not a decoder of captions")


def test_a_decoder_for_another_space_is_refused() -> None:
    sound = SOUNDS[0]._replace(vector=torch.zeros(SIZE + 1))
    with pytest.raises(WeightsError, match="made for features of 24 dimensions, not 25"):
        small_decoder().prepare(sound)


def assert_refused(path: Path, what: str) -> None:
    with pytest.raises(W2CError) as caught:
        load_decoder(path)
    assert what in caught.value.what
    assert "\n" not in caught.value.what
    assert caught.value.hint.startswith("train one: ")

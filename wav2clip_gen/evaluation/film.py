"""Films of held-out sounds, classified by an independent network: does it see what the sound is of?"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Callable, Hashable, Iterable
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from wav2clip_gen.audio.track import ENCODER_RATE
from wav2clip_gen.config import Settings
from wav2clip_gen.errors import W2CError
from wav2clip_gen.evaluation.held_out import (
    HeldOut,
    embed_sound_names,
    embed_sounds,
    encode_images,
    encode_texts,
    supervision,
)
from wav2clip_gen.evaluation.judge import (
    CLASSES,
    class_of,
    class_probabilities,
    class_prompts,
    evaluate_judge,
    load_judge,
)
from wav2clip_gen.evaluation.ranking import Classification, classify
from wav2clip_gen.evaluation.tables import Row, Table, format_share, percent
from wav2clip_gen.models.registry import Models
from wav2clip_gen.pipeline import render
from wav2clip_gen.training.sounds import Sound

SECONDS = 2.0  # of film for each sound
JUDGED = 1.0  # seconds at the film's end that are classified
STEP = 0.1  # seconds between the places where the loudest stretch may begin


def measure(family: Models, held_out: HeldOut, *, on_progress: Callable[[int, int], None]) -> Table:
    """Render films of held-out sounds as `w2c-gen` does, and classify them with the judge.

    Raises:
        W2CError: The `evaluate` extra is not installed, or there is no sound of a class that the judge has.
    """
    judge = load_judge(family.device)
    known = [piece for piece in held_out.all_sounds if class_of(piece.label)]
    pieces = balanced(known)[: held_out.limit]
    if not pieces:
        raise W2CError("no held-out sound is of a class that the judge has", hint="leave film out with --only")
    settings, prompts = Settings(), encode_texts(family, class_prompts())
    judged: list[Tensor] = []
    by_tower: list[Tensor] = []
    flickers: list[float] = []
    offsets: list[float] = []
    for number, piece in enumerate(pieces):
        frames, offset = render_sound(family, piece, settings, seed=held_out.seed + number)
        last = frames[-round(JUDGED * settings.picture.fps) :].to(family.device)
        judged.append(class_probabilities(judge(last)).mean(dim=0).cpu())
        by_tower.append((encode_images(family, last) @ prompts.T).mean(dim=0))
        flickers.append(frames.diff(dim=0).abs().mean().item() if len(frames) > 1 else 0.0)
        offsets += [] if offset is None else [abs(offset)]
        on_progress(number + 1, len(pieces))
    true_classes = [class_of(piece.label) or "" for piece in pieces]
    truth = torch.tensor([CLASSES.index(name) for name in true_classes])
    probabilities = torch.stack(judged)  # (films, classes)
    relative = relative_to_mean(probabilities.clamp(min=1e-12).log())
    pairs = list(zip(true_classes, [CLASSES[choice] for choice in relative.argmax(dim=1).tolist()], strict=True))

    def classified(scores: Tensor) -> Classification:
        return classify(scores, truth, generator=held_out.generator(-6))

    return _table(
        films=len(pieces),
        held_out=len(known),  # sounds of the judge's classes
        classes=len(CLASSES),
        classes_present=len(set(true_classes)),
        settings=_describe(settings),
        summed=classified(probabilities),
        relative=classified(relative),
        audio_encoder=classified(relative_to_mean(embed_sounds(family, pieces) @ embed_sound_names(family, CLASSES).T)),
        image_tower=classified(relative_to_mean(torch.stack(by_tower))),
        chosen={name: dict(Counter(choice for true, choice in pairs if true == name)) for name, _ in pairs},
        judge=evaluate_judge(judge, family, held_out),
        flicker=sum(flickers) / len(flickers),  # mean |difference| of neighbouring frames, of the full range
        offset=max(offsets, default=None),  # largest |seconds| between picture and sound; None: not measurable
        supervision=supervision(family),
    )


def _table(**figures: Any) -> Table:
    films, classes, offset = figures["films"], figures["classes"], figures["offset"]
    chance = percent(1 / classes)
    rows: list[Row] = []
    for name, found in (("summed", figures["summed"]), ("relative to the mean film", figures["relative"])):
        shuffled = f"{percent(found.shuffled)}, as good as this one in {percent(found.p_value)} of shuffles"
        rows += [
            (f"judge's choice, {name}: top-1", format_share(found.right, films), chance),
            (f"judge's choice, {name}: top-5", format_share(found.top5, films), percent(5 / classes)),
            (f"judge's choice, {name}: targets shuffled between the sounds", shuffled, ""),
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
        *figures["judge"].rows(),
    ]
    chosen = sorted(figures["chosen"].items())
    by_class = ", ".join(f"{name} {found.get(name, 0)}/{sum(found.values())}" for name, found in chosen)
    notes = [
        f"{films} of {figures['held_out']} held-out sounds, from {figures['classes_present']} classes, a film of the"
        f" loudest {SECONDS:g} s of each ({figures['settings']}). EfficientNet-Lite0, which took no part in training"
        f" the family, chooses among {classes} classes of ESC-50 that ImageNet has, from the last {JUDGED:g} s of"
        f" frames. The sound encoder: {figures['supervision']}.",
        "Summed: the probabilities of all ImageNet labels of a class, which favours classes of many labels (dog: 118)."
        " Relative: each class relative to its own mean log probability over all films, which uses no labels of the"
        " sounds. Shuffled: films and sounds paired in random orders.",
        "The family's own networks choose by the names of the classes, relative too. The films were optimized for the"
        " image tower: its choice tells at which stage a class is lost, not how good the films are.",
        f"Right by class, by the judge, relative: {by_class}.",
    ]
    return Table(title="Films of sounds, classified by an independent judge", rows=rows, notes=notes, figures=figures)


def render_sound(family: Models, piece: Sound, settings: Settings, *, seed: int) -> tuple[Tensor, float | None]:
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


def balanced(pieces: Iterable[Sound]) -> list[Sound]:
    """The pieces in an order that alternates between classes, and between the recordings of each."""
    return _alternating(_alternating(pieces, lambda piece: piece.group), lambda piece: class_of(piece.label))


def _alternating(pieces: Iterable[Sound], key: Callable[[Sound], Hashable]) -> list[Sound]:
    """First a piece of each key, then a second of each, and so on."""
    groups: dict[Hashable, list[Sound]] = {}
    for piece in pieces:
        groups.setdefault(key(piece), []).append(piece)
    return [piece for row in zip_longest(*groups.values()) for piece in row if piece is not None]


def relative_to_mean(scores: Tensor) -> Tensor:
    """Scores (films, classes) minus each class's mean over the films: what a film has more of than others."""
    return scores - scores.mean(dim=0)


def _describe(settings: Settings) -> str:
    picture, painting = settings.picture, settings.painting
    return (
        f"default settings: {picture.width}x{picture.height} px, {picture.fps:g} fps, {painting.first_steps} steps for"
        f" the first frame, {painting.steps} for each other, {painting.cuts} cuts"
    )

"""Sound to film to judge: does an independent network see in the film what was heard?"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

import numpy as np
import soundfile
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from wav2clip_gen.audio.track import ENCODER_RATE
from wav2clip_gen.config import Settings
from wav2clip_gen.errors import W2CError
from wav2clip_gen.evaluation.classes import in_words
from wav2clip_gen.evaluation.held_out import HeldOut, embed_sounds, embed_words, supervision
from wav2clip_gen.evaluation.judge import SEEN_AS, class_of, class_probabilities, class_words, load_judge
from wav2clip_gen.evaluation.judging import Choices, JudgeFigures, judge_pictures, weigh
from wav2clip_gen.evaluation.parts import OnProgress
from wav2clip_gen.evaluation.tables import Table, counted, percent
from wav2clip_gen.models.families import Family
from wav2clip_gen.pipeline import render
from wav2clip_gen.training.sounds import Sound

SECONDS = 2.0  # of film for each sound
JUDGED = 1.0  # seconds at the film's end that the judge looks at
STEP = 0.1  # seconds between the places where the loudest stretch may begin


@dataclass(frozen=True, kw_only=True)
class FilmFigures:
    """What the judge chose, and how steady the films are."""

    films: int
    held_out: int  # sounds of these classes that there are
    classes: int  # that the judge chooses from
    classes_heard: int  # that there are sounds of
    settings: str
    summed: Choices  # by the sum of the probabilities of a class's ImageNet labels
    relative: Choices  # by how much more of a class there is than in the mean film
    by_ear: Choices  # of the family's own sound encoder, from the sounds
    by_eye: Choices  # of the family's own image tower, from the films
    chosen: dict[str, dict[str, int]]  # class heard -> class chosen, relative -> films
    judge: JudgeFigures
    flicker: float  # mean |difference| of neighbouring frames, as a share of the full range
    offset: float | None  # largest |seconds| between picture and sound; None where no film tells
    supervision: str

    def table(self) -> Table:
        """The figures, for people."""
        chance = percent(1 / self.classes)
        rows: list[tuple[str, str, str]] = []
        for name, choices in (("summed", self.summed), ("relative to the mean film", self.relative)):
            rows += [
                (f"judge's choice, {name}: top-1", counted(choices.right, self.films), chance),
                (f"judge's choice, {name}: top-5", counted(choices.top5, self.films), percent(5 / self.classes)),
                (
                    f"judge's choice, {name}: targets shuffled between the sounds",
                    f"{percent(choices.shuffled)}, as good as this one in {percent(choices.luck)} of shuffles",
                    "",
                ),
            ]
        rows += [
            ("the family's own sound encoder, from the sounds: top-1", counted(self.by_ear.right, self.films), chance),
            ("the family's own image tower, from the films: top-1", counted(self.by_eye.right, self.films), chance),
        ]
        offset = "not measurable" if self.offset is None else f"{1000 * self.offset:.1f} ms"
        rows += [
            ("flicker: mean difference of neighbouring frames", f"{100 * self.flicker:.2f} % of full range", ""),
            ("largest offset between picture and sound", offset, ""),
            *self.judge.rows(),
        ]
        right = ", ".join(
            f"{heard} {found.get(heard, 0)}/{sum(found.values())}" for heard, found in sorted(self.chosen.items())
        )
        return Table(
            title="Sound to film to judge",
            rows=tuple(rows),
            notes=(
                f"{self.films} of {self.held_out} held-out sounds, from {self.classes_heard} classes, each filmed for"
                f" its loudest {SECONDS:g} s ({self.settings}). EfficientNet-Lite0, which no part of the family was"
                f" trained with, chooses among {self.classes} classes of ESC-50 that ImageNet knows, from the last"
                f" {JUDGED:g} s of frames. The sound encoder: {self.supervision}.",
                "Summed: the probabilities of all ImageNet labels of a class, which favours classes of many labels"
                " (dog: 118). Relative: each class against its own mean log probability over all films, which uses no"
                " labels of the sounds. Shuffled: the films set against the sounds in random orders.",
                "The family's own networks choose by the classes' names, relative too. The films were painted to please"
                " the image tower: its choice tells where on the way a class is lost, not how good the films are.",
                f"Right by class, by the judge, relative: {right}.",
            ),
        )


def measure_film(family: Family, held_out: HeldOut, *, on_progress: OnProgress) -> FilmFigures:
    """Film held-out sounds by the path that `w2c-gen` takes, and let the judge look.

    Raises:
        W2CError: The `evaluate` extra is not installed, or there is no sound of a class that the judge knows.
    """
    judge = load_judge(family.device)
    known = [piece for piece in held_out.all_sounds if class_of(piece.label)]
    pieces = evenly(known)[: held_out.limit]
    if not pieces:
        raise W2CError("no held-out sound is of a class that the judge knows", hint="leave film out with --only")
    settings, names = Settings(), list(SEEN_AS)
    words = embed_words(family, class_words())
    seen, by_eye, flickers, offsets = [], [], [], []
    for number, piece in enumerate(pieces):
        frames, offset = film(family, piece, settings, seed=held_out.seed + number)
        last = frames[-round(JUDGED * settings.picture.fps) :].to(family.device)
        seen.append(class_probabilities(judge(last)).mean(dim=0).cpu())
        by_eye.append((_look(family, last) @ words.T).mean(dim=0))
        flickers.append(frames.diff(dim=0).abs().mean().item() if len(frames) > 1 else 0.0)
        offsets.append(offset)
        on_progress(number + 1, len(pieces))
    probabilities = torch.stack(seen)  # (films, classes)
    heard = [class_of(piece.label) or "" for piece in pieces]
    truth = torch.tensor([names.index(name) for name in heard])
    against_mean = from_mean(probabilities.clamp(min=1e-12).log())
    by_ear = embed_sounds(family, tuple(pieces)) @ embed_words(family, [in_words(name) for name in names]).T
    measured = [abs(offset) for offset in offsets if offset is not None]
    return FilmFigures(
        films=len(pieces),
        held_out=len(known),
        classes=len(names),
        classes_heard=len(set(heard)),
        settings=_in_words(settings),
        summed=weigh(probabilities, truth, seed=held_out.seed),
        relative=weigh(against_mean, truth, seed=held_out.seed),
        by_ear=weigh(from_mean(by_ear), truth, seed=held_out.seed),
        by_eye=weigh(from_mean(torch.stack(by_eye)), truth, seed=held_out.seed),
        chosen=_counted(heard, [names[at] for at in against_mean.argmax(dim=1).tolist()]),
        judge=judge_pictures(judge, family, held_out),
        flicker=sum(flickers) / len(flickers),
        offset=max(measured) if measured else None,
        supervision=supervision(family),
    )


def film(family: Family, piece: Sound, settings: Settings, *, seed: int) -> tuple[Tensor, float | None]:
    """Film the loudest place of a piece: frames (F, 3, H, W) in [0, 1], and the seconds its sound is late."""
    sound = {"start": loudest(piece.samples), "duration": SECONDS}
    settings = settings.merged({"sound": sound, "run": {"seed": seed}})
    with tempfile.TemporaryDirectory(prefix="w2c-") as name:
        folder = Path(name)
        soundfile.write(folder / "sound.wav", piece.samples, ENCODER_RATE, subtype="PCM_16")
        made = render(folder / "sound.wav", folder / "film.mp4", settings, family=family, frames_dir=folder / "frames")
        pictures = [np.array(Image.open(path)) for path in sorted((folder / "frames").glob("*.png"))]
    frames = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float() / 255
    return frames, made.sync.offset_seconds


def loudest(samples: np.ndarray) -> float:
    """Where, in seconds, the loudest `SECONDS` of int16 samples begin; 0 where there are fewer."""
    energy = np.concatenate([[0.0], np.cumsum(np.square(samples, dtype=np.float64))])
    length = round(SECONDS * ENCODER_RATE)
    starts = np.arange(0, max(len(samples) - length, 0) + 1, round(STEP * ENCODER_RATE))
    ends = np.minimum(starts + length, len(samples))
    return float(starts[np.argmax(energy[ends] - energy[starts])] / ENCODER_RATE)


def evenly(pieces: list[Sound]) -> list[Sound]:
    """The pieces in an order whose beginning has all classes alike, and each recording before any comes twice."""
    queues: dict[str, list[Sound]] = {}
    for piece in pieces:
        queues.setdefault(class_of(piece.label) or "", []).append(piece)
    rounds = zip_longest(*(_recordings_first(queue) for queue in queues.values()))
    return [piece for these in rounds for piece in these if piece is not None]


def _recordings_first(pieces: list[Sound]) -> Iterator[Sound]:
    """First one piece of each recording, then a second of each, and so on."""
    by_recording: dict[str, list[Sound]] = {}
    for piece in pieces:
        by_recording.setdefault(piece.group, []).append(piece)
    for these in zip_longest(*by_recording.values()):
        yield from (piece for piece in these if piece is not None)


def from_mean(scores: Tensor) -> Tensor:
    """Scores (films, classes), each class from its mean over the films: what this film has more of than others."""
    return scores - scores.mean(dim=0)


@torch.no_grad()
def _look(family: Family, frames: Tensor) -> Tensor:
    """What the family's image tower sees in frames (F, 3, H, W): unit vectors (F, D), on the CPU."""
    size = family.clip.size
    return family.clip.encode_images(F.interpolate(frames, size=(size, size), mode="area")).cpu()


def _counted(heard: list[str], chosen: list[str]) -> dict[str, dict[str, int]]:
    counts: dict[str, dict[str, int]] = {}
    for name, choice in zip(heard, chosen, strict=True):
        found = counts.setdefault(name, {})
        found[choice] = found.get(choice, 0) + 1
    return counts


def _in_words(settings: Settings) -> str:
    picture, painting = settings.picture, settings.painting
    return (
        f"default settings: {picture.width}x{picture.height} px, {picture.fps:g} fps, {painting.first_steps} steps for"
        f" the first frame, {painting.steps} for each other, {painting.cuts} cuts"
    )

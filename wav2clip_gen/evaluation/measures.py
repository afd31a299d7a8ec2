"""The measures of a family's networks: reconstruction, classification of pictures and of sounds, retrieval."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from wav2clip_gen.errors import W2CError
from wav2clip_gen.evaluation import held_out as data
from wav2clip_gen.evaluation.held_out import AUDIOSET, ESC_50, URBAN, HeldOut
from wav2clip_gen.evaluation.suite import Row, Table, format_share, percent
from wav2clip_gen.models import checkpoints
from wav2clip_gen.models.registry import Models
from wav2clip_gen.training.mini.clip import PerceptualFeatures, adversarial_step, concept_loss
from wav2clip_gen.training.mini.concepts import LabeledImages, data_notes, image_concepts, load_concepts
from wav2clip_gen.training.mini.vqgan import perplexity, psnr

OnProgress = Callable[[int, int], None]  # examples done, and their total

BATCH = 64  # examples at a time
WITHIN = (1, 5, 10)  # k of the recalls
RECONSTRUCTIONS = 8  # at a time
KINDS = {"natural": "photographs", "tiny": "Tiny-ImageNet"}
RADIUS, RADIUS_SIZE = 2.0, 64  # of the adversary if the weights file has none: L2 over a picture of 64 px in [-1, 1]


@dataclass(frozen=True, kw_only=True)
class Ranking:
    """Ranks of the first right candidate, over a number of queries."""

    questions: int
    candidates: int
    hits: dict[int, int]  # k -> queries with a right candidate among the first k: recall@k, or top-k accuracy
    chances: dict[int, float]  # k -> expected share of hits in random orders
    median: float  # rank of the first right candidate, from 1
    chance_median: float  # the same in random orders

    def rows(self, name: str, *, metric: str = "top-{}") -> tuple[Row, ...]:
        """A row of a table for each k."""
        return tuple(
            (f"{name}: {metric.format(k)}", format_share(hits, self.questions), percent(self.chances[k]))
            for k, hits in self.hits.items()
        )


def rank(scores: Tensor, right: Tensor, *, within: tuple[int, ...] = (1, 5)) -> Ranking:
    """Order candidates by score, and find the first right one.

    Args:
        scores: (Q, N), higher is better.
        right: (Q, N) bool; each query has a right candidate.
        within: The k of the hits.
    """
    ranks = first_right(scores, right)
    counts, candidates = right.sum(dim=1).tolist(), scores.shape[1]
    return Ranking(
        questions=len(ranks),
        candidates=candidates,
        hits={k: int((ranks <= k).sum()) for k in within},
        chances={k: sum(chance_within(count, candidates, k) for count in counts) / len(counts) for k in within},
        median=float(torch.quantile(ranks.double(), 0.5)),
        chance_median=float(chance_median(counts, candidates)),
    )


def first_right(scores: Tensor, right: Tensor) -> Tensor:
    """Rank (Q,), from 1, of each query's best right candidate.

    Ties count for the wrong candidates, so that a network with constant output scores nothing.
    """
    best = scores.masked_fill(~right, -math.inf).amax(dim=1, keepdim=True)
    return 1 + ((scores >= best) & ~right).sum(dim=1)


def chance_within(right: int, candidates: int, k: int) -> float:
    """Probability that one of `right` candidates is among the first `k` in a random order."""
    return 1 - math.comb(candidates - right, k) / math.comb(candidates, k) if k <= candidates else 1.0


def chance_median(right: list[int], candidates: int) -> int:
    """Median over queries and random orders of the rank of the first of each query's right candidates."""
    later = [1.0] * len(right)  # probability that a query's first right candidate comes after the ranks seen so far
    for seen in range(candidates):
        left = candidates - seen
        later = [share * max(left - count, 0) / left for share, count in zip(later, right, strict=True)]
        if sum(later) <= len(later) / 2:
            return seen + 1
    return candidates


@torch.no_grad()
def measure_vqgan(family: Models, held_out: HeldOut, *, on_progress: OnProgress) -> Table:
    """Encode, quantize and decode the validation photographs, and compare them with the originals."""
    vqgan, pictures = family.in_precision("auto").vqgan, held_out.photographs
    has_stages = hasattr(getattr(family.clip.model.visual, "trunk", None), "forward_intermediates")
    features = PerceptualFeatures(family.files["clip"]).to(family.device) if has_stages else None
    decibels: list[Tensor] = []
    distances: list[Tensor] = []
    steps = torch.zeros(2, vqgan.stride, dtype=torch.float64)  # of reconstructions and originals, by place in a cell
    counts = torch.zeros(vqgan.config.n_embed, device=family.device)
    done = 0
    for batch in pictures.batches(RECONSTRUCTIONS, device=family.device):
        indices = vqgan.quantize.nearest(vqgan.encode(batch))
        counts += torch.bincount(indices.flatten(), minlength=len(counts))
        decoded = vqgan.decode(vqgan.quantize.look_up(indices)).clamp(0, 1)
        decibels.append(psnr(decoded, batch))
        steps += len(batch) * torch.stack([mean_steps(decoded, vqgan.stride), mean_steps(batch, vqgan.stride)])
        if features is not None:
            distances.append(features.distance(decoded, batch) * len(batch))
        done += len(batch)
        on_progress(done, len(pictures))
    lattice, original = (steps.amax(dim=1) / steps.amin(dim=1).clamp(min=1e-12)).tolist()
    figures = {
        "pictures": len(pictures),
        "size": pictures.size,
        "psnr": torch.cat(decibels).mean().item(),
        "distance": torch.stack(distances).sum().item() / len(pictures) if distances else None,
        "codes": len(counts),
        "codes_used": int((counts > 0).sum()),
        "perplexity": perplexity(counts),
        "lattice": lattice,
        "lattice_of_pictures": original,
    }
    rows: list[Row] = [
        ("PSNR", f"{figures['psnr']:.2f} dB", ""),
        *([("LPIPS-like distance", f"{figures['distance']:.3f}", "")] if distances else []),
        ("codes in use", format_share(figures["codes_used"], len(counts)), ""),
        ("perplexity of the codes", f"{figures['perplexity']:,.0f} of {len(counts):,}", ""),
        (
            "lattice: mean steps between pixels by their place in a cell, largest over smallest",
            f"{lattice:.3f} (originals: {original:.3f})",
            "",
        ),
    ]
    return replace(Table.of("vqgan", rows, figures), header=("measure", "figure", ""))


def mean_steps(pictures: Tensor, stride: int) -> Tensor:
    """Mean |difference| (stride,) of neighbouring pixels, by their place in a cell of the latent."""
    by_axis = []
    for differences in (pictures.diff(dim=-1), pictures.diff(dim=-2).transpose(-1, -2)):
        columns = differences.abs().mean(dim=(0, 1, 2))  # (S - 1,)
        by_axis.append(torch.stack([columns[place::stride].mean() for place in range(stride)]))
    return torch.stack(by_axis).mean(dim=0).double().cpu()


def measure_clip(family: Models, held_out: HeldOut, *, on_progress: OnProgress) -> Table:
    """Rank the concepts that validation pictures show among all concepts that training pictures show.

    Raises:
        W2CError: No validation picture shows such a concept.
    """
    concepts, encoder = load_concepts(held_out.data)
    train, pictures = (LabeledImages(held_out.data, split, concepts) for split in ("train", "val"))
    remarks = data_notes(train.skipped + pictures.skipped, has_encoder=encoder is not None)
    columns = {row: column for column, row in enumerate(train.used)}
    anchors = concepts.vectors[train.used].to(family.device)
    training = checkpoints.read_header(family.files["clip"]).training  # of one tower, or of both
    tower_radius = training.get("image", training).get("settings", {}).get("radius")
    radius = (RADIUS if tower_radius is None else tower_radius) * family.clip.size / RADIUS_SIZE
    examples = {}
    for number, kind in enumerate(KINDS):
        known = pictures.with_any(number, columns)
        chosen = [known[index] for index in held_out.sample(len(known))]
        if chosen:
            examples[kind] = pictures.subset(number, chosen), pictures.targets(chosen, columns)
    if not examples:
        raise W2CError(
            "no validation picture shows a trained concept", hint="fetch the data again, or give another folder"
        )
    generator = held_out.generator(-2)
    done, total = 0, sum(len(sample) for sample, _ in examples.values())
    clean: dict[str, Ranking] = {}
    robust: dict[str, Ranking] = {}
    for kind, (sample, targets) in examples.items():
        embedded: list[Tensor] = []
        attacked: list[Tensor] = []
        batches = sample.batches(BATCH, device=family.device, size=family.clip.size)
        for batch, shares in zip(batches, targets.to(family.device).split(BATCH), strict=True):
            loss = concept_loss(family.clip, shares, anchors)
            # the radius is that of pictures in [-1, 1], these are in [0, 1]
            changed = adversarial_step(loss, batch, radius=radius / 2, generator=generator) if radius else batch
            embedded.append(data.encode_images(family, batch))
            attacked.append(data.encode_images(family, changed))
            done += len(batch)
            on_progress(done, total)
        clean[kind], robust[kind] = (
            rank(torch.cat(found) @ anchors.T.cpu(), targets > 0) for found in (embedded, attacked)
        )
    own = "the one the tower was trained against"
    adversary = own if tower_radius is not None else f"not {own}"
    rows: list[Row] = []
    for kind, ranking in clean.items():
        rows += ranking.rows(KINDS[kind])
        rows += robust[kind].rows(f"{KINDS[kind]}, adversarial")
    figures = {"clean": clean, "robust": robust, "radius": radius, "adversary": adversary, "remarks": remarks}
    return Table.of("clip", rows, figures, *remarks, concepts=len(train.used))


@dataclass(frozen=True, kw_only=True)
class Naming:
    """Ranks of the right names of sounds, as `the sound of NAME` and as the plain name."""

    ranking: Ranking
    plain: Ranking
    mean_of_classes: float  # top-1 of `ranking`, mean over the classes with sounds
    classes: int  # with sounds

    def rows(self, name: str) -> tuple[Row, ...]:
        """The rows of a table."""
        mean = f"the same, top-1, mean over the {self.classes} classes with clips"
        return (
            *self.ranking.rows(name),
            (mean, percent(self.mean_of_classes), percent(self.ranking.chances[1])),
            *self.plain.rows("the same by plain names"),
        )


def rank_names(
    family: Models, sounds: Tensor, labels: Sequence[str], names: Sequence[str], *, within: tuple[int, ...] = (1, 5)
) -> Naming:
    """Rank the own names (N,) of sounds (N, D) among names."""
    truth = torch.tensor([names.index(label) for label in labels])
    right = F.one_hot(truth, len(names)).bool()
    scores, plain = (
        sounds @ data.embed_sound_names(family, names, template=template).T for template in ("the sound of {}", "{}")
    )
    is_top, classes = (scores.argmax(dim=1) == truth).double(), truth.unique()
    return Naming(
        ranking=rank(scores, right, within=within),
        plain=rank(plain, right, within=within[:1]),
        mean_of_classes=torch.stack([is_top[truth == one].mean() for one in classes]).mean().item(),
        classes=len(classes),
    )


def measure_wav2clip(family: Models, held_out: HeldOut, *, on_progress: OnProgress) -> Table:
    """Rank a sound's own name among ESC-50's and AudioSet's names, and zero-shot among UrbanSound8K's.

    Raises:
        W2CError: No held-out sound is of a class of ESC-50, or the data's list of AudioSet names is another one.
    """
    pieces = tuple(piece for piece in held_out.sounds if piece.label in ESC_50)
    is_esc = torch.tensor([piece.set == "esc" for piece in pieces], dtype=torch.bool)
    is_audioset = torch.tensor([bool(AUDIOSET[piece.label]) for piece in pieces], dtype=torch.bool)
    if not (is_esc & is_audioset).any():
        raise W2CError("none of the held-out sounds is a clip of ESC-50", hint="raise --limit, or leave wav2clip out")
    clips = held_out.zero_shot_sounds
    total = len(pieces) + len(clips)
    on_progress(0, total)
    sounds = data.embed_sounds(family, pieces)
    on_progress(len(pieces), total)
    urban = None
    if clips:
        labels = [clip.label for clip in clips]
        urban = rank_names(family, data.embed_sounds(family, clips), labels, URBAN, within=(1,))
    on_progress(total, total)

    names = held_out.audioset_names()
    columns = {name: number for number, name in enumerate(names)}
    if unknown := {name for theirs in AUDIOSET.values() for name in theirs} - columns.keys():
        raise W2CError(
            f"the data's AudioSet names lack {min(unknown)!r}", hint="put YAMNet's own list of classes there"
        )
    audioset_right = torch.zeros(len(pieces), len(names), dtype=torch.bool)
    for line, piece in enumerate(pieces):
        audioset_right[line, [columns[name] for name in AUDIOSET[piece.label]]] = True
    audioset_scores = sounds @ data.embed_sound_names(family, names).T

    labels = [piece.label for piece in pieces]
    esc50 = rank_names(family, sounds[is_esc], [piece.label for piece in pieces if piece.set == "esc"], ESC_50)
    joined = rank_names(family, sounds, labels, ESC_50).ranking
    audioset = rank(audioset_scores[is_audioset], audioset_right[is_audioset])
    rows = [
        *esc50.rows("ESC-50 clips over its 50 class names"),
        *joined.rows("and pieces of other sets of the same classes"),
        *audioset.rows(f"the same pieces over {len(names)} AudioSet names"),
        *(urban.rows("UrbanSound8K's fold 3, zero-shot, over its 10 class names") if urban else ()),
    ]
    figures = {
        "esc50": esc50,
        "joined": joined,
        "audioset": audioset,
        "urbansound8k": urban,
        "supervision": data.supervision(family),
    }
    note = "" if urban else "UrbanSound8K's fold 3 is not in the data folder (`urbansound8k`), so it was not measured."
    return Table.of("wav2clip", rows, figures, *filter(None, [note]))


def measure_retrieval(family: Models, held_out: HeldOut, *, on_progress: OnProgress) -> Table:
    """Rank the sounds of a label, and the photographs of what is visible where a sound occurs.

    Raises:
        W2CError: No photograph shows what is visible where one of the sounds occurs.
    """
    pieces, photographs = held_out.sounds, held_out.photographs
    labels = sorted({piece.label for piece in pieces})
    done, total = len(pieces), len(pieces) + len(photographs)
    sounds = data.embed_sounds(family, pieces)
    on_progress(done, total)
    pictures = []
    for batch in photographs.batches(BATCH, device=family.device):
        pictures.append(data.encode_images(family, batch))
        done += len(batch)
        on_progress(done, total)

    same_label = torch.tensor([[piece.label == label for piece in pieces] for label in labels])
    shown = [set(rows) for rows in image_concepts(held_out.data, photographs.info, held_out.concept_names)]
    shows_source = torch.tensor([[bool(rows & theirs) for theirs in shown] for rows in held_out.visible(pieces)])
    known = shows_source.any(dim=1)
    if not known.any():
        raise W2CError("no photograph shows what one of the sounds comes from", hint="raise --limit")
    by_text = rank(data.embed_sound_names(family, labels) @ sounds.T, same_label, within=WITHIN)
    by_sound = rank((sounds @ torch.cat(pictures).T)[known], shows_source[known], within=WITHIN)

    rows: list[Row] = []
    for name, ranking in (("text to sound", by_text), ("sound to image", by_sound)):
        rows += ranking.rows(name, metric="recall@{}")
        median = f"{ranking.median:g} of {ranking.candidates:,}"
        rows.append((f"{name}: median rank of the first right one", median, f"{ranking.chance_median:g}"))
    supervision = data.supervision(family)
    figures = {"text_to_sound": by_text, "sound_to_image": by_sound, "supervision": supervision}
    return Table.of("retrieval", rows, figures)

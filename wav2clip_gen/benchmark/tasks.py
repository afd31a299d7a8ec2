"""The tasks by name, and running one on a data set with one encoder. Imports torch only when a task runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from wav2clip_gen.errors import SettingsError

if TYPE_CHECKING:
    import torch

    from wav2clip_gen.benchmark.clips import Dataset
    from wav2clip_gen.benchmark.encoders import SoundEncoder
    from wav2clip_gen.benchmark.features import Features
    from wav2clip_gen.benchmark.results import Result

TASKS = {
    "probe": "a classifier on frozen features, by the folds of the set",
    "few-shot": "the same with 1 to 100 % of the training clips, and a plot",
    "zero-shot": "sounds named by the texts of their classes",
    "retrieval": "sounds found by texts; with videos, sounds and pictures by each other",
    "caption": "a sentence for each sound, by a small decoder",
    "figure": "pictures of classes by text and by sound, or of the stems of songs",
}
SPLIT_TASKS = ("zero-shot", "retrieval")  # which may be run on some folds or splits alone
Show = Callable[[str, int, int], None]


@dataclass(frozen=True, kw_only=True)
class Options:
    """What a user chooses of a task."""

    protocol: str = "hear"
    seeds: int = 5
    seed: int = 0  # of tasks that run once
    templates: Sequence[str] = ()
    steps: int = 200  # of a picture
    classes: Sequence[str] = ()  # that a figure shows
    most_missing: float = 0.05
    keep_trained: bool = False  # also test on recordings that the encoder was trained on
    cache: Path | None = None
    split: str = ""  # only these folds or splits are classified or ranked, separated by commas
    mode: str = "supervised"  # of captions
    captions: Path | None = None  # table that the decoder of captions is trained on
    save: Path | None = None  # the decoder


def run_task(
    task: str,
    dataset: Dataset,
    encoder: SoundEncoder,
    options: Options,
    *,
    device: torch.device,
    show: Show = lambda what, done, total: None,
) -> Result:
    """Run a task that gives figures.

    Raises:
        SettingsError: There is no such task, or it cannot be run as it is asked for.
        W2CError: The data cannot be used.
    """
    from wav2clip_gen.benchmark.features import leave_out_trained
    from wav2clip_gen.benchmark.retrieval import retrieve
    from wav2clip_gen.benchmark.zero_shot import TEMPLATES, zero_shot

    clips, notes = leave_out_trained(dataset, encoder, keep=options.keep_trained)
    dataset = replace(dataset, clips=tuple(clips), notes=[*dataset.notes, *notes])
    if task in ("probe", "few-shot"):
        return _probe(task, dataset, encoder, options, device=device, show=show)
    if task == "caption":
        return _caption(dataset, encoder, options, show)
    if task not in SPLIT_TASKS:
        raise SettingsError(f"the task {task!r} gives no figures", hint="choose one of TASKS but figure")
    dataset = only(dataset, options.split)
    features = _embed(dataset, encoder, options, show)
    if task == "zero-shot":
        return zero_shot(dataset, features, encoder, templates=options.templates or TEMPLATES)
    return retrieve(dataset, features, encoder, template=(*options.templates, "{}")[0])


def only(dataset: Dataset, splits: str) -> Dataset:
    """The set with some of its splits alone; all, if none is named.

    Raises:
        SettingsError: It has no clips in one of them.
    """
    if not splits:
        return dataset
    names = [name.strip() for name in splits.split(",")]
    for name in names:
        if name not in dataset.splits:
            what = f"{dataset.name} has no clips in {name!r}"
            raise SettingsError(what, hint=f"choose from: {', '.join(dataset.splits)}")
    return replace(dataset, clips=tuple(dataset.split(*names)))


def _embed(
    dataset: Dataset, encoder: SoundEncoder, options: Options, show: Show, *, hop: float = 0.5, frames: bool = False
) -> Features:
    from wav2clip_gen.benchmark.features import embed

    return embed(
        dataset.clips, encoder, hop=hop, frames=frames, cache=options.cache, most_damaged=options.most_missing,
        on_progress=lambda done, total: show("clips embedded", done, total),
    )  # fmt: skip


def _probe(
    task: str, dataset: Dataset, encoder: SoundEncoder, options: Options, *, device: torch.device, show: Show
) -> Result:
    from wav2clip_gen.benchmark.probe import FRACTIONS, folds_of, load_protocol, probe

    protocol = load_protocol(options.protocol)
    folds_of(dataset, dataset.clips)  # a set that cannot be divided is refused before anything is embedded
    features = _embed(dataset, encoder, options, show, hop=protocol.hop, frames=protocol.level == "frames")
    return probe(
        dataset, features, protocol, encoder=encoder.name, identity=encoder.identity, seeds=options.seeds,
        device=device, fractions=FRACTIONS if task == "few-shot" else None,
        on_progress=lambda done, total: show("probes trained", done, total),
    )  # fmt: skip


def _caption(dataset: Dataset, encoder: SoundEncoder, options: Options, show: Show) -> Result:
    from wav2clip_gen.benchmark.caption_texts import read_texts
    from wav2clip_gen.benchmark.caption_training import read_protocol
    from wav2clip_gen.benchmark.captioning import caption
    from wav2clip_gen.benchmark.encoders import Encoded

    if options.mode not in ("supervised", "text"):
        raise SettingsError(f"there is no mode {options.mode!r}", hint="choose from: supervised, text")
    hop = read_protocol().hop  # which the decoder's file names
    features = _embed(dataset, encoder, options, show, hop=hop, frames=options.mode == "supervised")
    texts = read_texts(options.captions) if options.captions else []
    whole = replace(dataset, clips=(*features.clips, *texts))
    encoded = [*(Encoded(*(part.float() for part in one)) for one in features.encoded), *(None for _ in texts)]
    result = caption(whole, encoder, encoded, mode=options.mode, seed=options.seed, save=options.save, show=show)  # type: ignore[arg-type]
    return replace(result, notes=[*dataset.notes, *features.notes, *result.notes])

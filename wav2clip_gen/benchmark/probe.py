"""Probe: a small classifier on frozen features, by the folds of the data set and the protocol of a published source."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
import yaml
from numpy.typing import NDArray
from torch import Tensor, nn

from wav2clip_gen.benchmark.clips import Clip, Dataset, shared_recordings
from wav2clip_gen.benchmark.features import Features
from wav2clip_gen.benchmark.results import Figure, Result
from wav2clip_gen.config import suggestion
from wav2clip_gen.errors import SettingsError, W2CError
from wav2clip_gen.training.schedule import seeded

Array = NDArray[Any]
PROTOCOLS = {path.stem: path for path in sorted((Path(__file__).parent / "protocols").glob("*.yaml"))}
VALIDATED = 0.1  # share of the training recordings that stand in for a validation split where a set has none
FRACTIONS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)  # of the training data


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """How a probe is trained."""

    source: str
    level: str  # "frames" or "clip"
    hop: float  # seconds
    hidden: tuple[int, ...]
    batch_norm: bool
    dropout: float
    weight_decay: float
    learning_rate: float
    batch: int
    epochs: int
    check_every: int  # epochs
    patience: int  # checks
    select: str  # "loss" or "score"


@dataclass(frozen=True)
class Fold:
    """Which clips train, validate and test, as indices into the features."""

    name: str
    train: Array
    val: Array
    test: Array


def load_protocol(name: str) -> Protocol:
    """Read `protocols/NAME.yaml`.

    Raises:
        SettingsError: There is none of that name.
    """
    if name not in PROTOCOLS:
        raise SettingsError(f"there is no protocol {name!r}", hint=suggestion(name, list(PROTOCOLS)))
    values = yaml.safe_load(PROTOCOLS[name].read_text(encoding="utf-8"))
    return Protocol(**{**values, "hidden": tuple(values["hidden"])})


def folds_of(dataset: Dataset, clips: Sequence[Clip]) -> list[Fold]:
    """The official folds, each tested once and validated on the one before it; or the one division of a set.

    Raises:
        W2CError: There are fewer than three folds, a split or a second class is missing, or recordings are shared.
    """
    splits = np.array([clip.split for clip in clips])
    if dataset.folds:
        names = sorted(set(splits), key=int)
        if len(names) < 3:
            what = f"{dataset.name}: {len(names)} folds have clips; training, validation and test need three"
            raise W2CError(what, hint="fetch the other folds")
        folds = []
        for number, name in enumerate(names):
            val, test = splits == names[number - 1], splits == name
            folds.append(Fold(name, *(np.flatnonzero(part) for part in (~(val | test), val, test))))
    else:
        train, val, test = (np.flatnonzero(splits == name) for name in ("train", "val", "test"))
        if not len(val):
            validated = np.array([_share_of(clip.recording) < VALIDATED for clip in clips], bool)
            train, val = train[~validated[train]], train[validated[train]]
        folds = [Fold("test", train, val, test)]
    for fold in folds:
        _check(dataset, clips, fold)
    return folds


def _share_of(recording: str) -> float:
    """A number in [0, 1) that depends on the recording alone."""
    return hashlib.sha1(recording.encode(), usedforsecurity=False).digest()[0] / 256


def _check(dataset: Dataset, clips: Sequence[Clip], fold: Fold) -> None:
    parts = [[clips[index] for index in part] for part in (fold.train, fold.val, fold.test)]
    for name, part in zip(("training", "validation", "test"), parts, strict=True):
        if not part:
            raise W2CError(f"{dataset.name}: no clip is for {name}", hint="fetch the whole set")
    if len({label for clip in parts[0] for label in clip.labels}) < 2:
        what = f"{dataset.name}: the training clips for test {fold.name} have fewer than two classes"
        raise W2CError(what, hint="fetch the whole set")
    if shared := sorted(shared_recordings(parts)):
        what = f"{dataset.name}: the recording {shared[0]} is in more than one of training, validation and test"
        raise W2CError(what, hint=f"{len(shared)} recordings are shared: give all clips of each one fold")


def targets_of(dataset: Dataset, clips: Sequence[Clip]) -> Tensor:
    """Which classes each clip has, as (N, K) zeros and ones."""
    column = {name: number for number, name in enumerate(dataset.classes)}
    targets = torch.zeros(len(clips), len(dataset.classes))
    for row, clip in enumerate(clips):
        for label in clip.labels:
            targets[row, column[label]] = 1
    return targets


class Probe:
    """A classifier on the features of one fold's training clips."""

    def __init__(self, protocol: Protocol, dataset: Dataset, features: Features, *, device: torch.device) -> None:
        self.protocol, self.many = protocol, dataset.many_labels
        self.targets = targets_of(dataset, features.clips).to(device)
        clips = [one.frames.float() for one in features.encoded]
        if protocol.level == "clip":
            clips = [frames.mean(dim=0, keepdim=True) for frames in clips]
        self.rows = torch.cat(clips)  # (R, D)
        self.owner = torch.repeat_interleave(torch.tensor([len(frames) for frames in clips]))  # (R,) clip of each row
        self.device = device

    def run(self, fold: Fold, *, seed: int) -> Tensor:
        """Train on a fold, and give the probabilities (N, K) of its test clips."""
        from sklearn.preprocessing import StandardScaler

        with seeded(seed):
            parts = [torch.isin(self.owner, torch.from_numpy(part)) for part in (fold.train, fold.val, fold.test)]
            scaler = StandardScaler().fit(self.rows[parts[0]].numpy())
            scaled = [
                torch.from_numpy(scaler.transform(self.rows[part].numpy())).float().to(self.device) for part in parts
            ]
            owners = [self.owner[part].to(self.device) for part in parts]
            network = self._train(scaled[:2], owners[:2], fold)
            return self._predict(network, scaled[2], owners[2], fold.test)

    def _train(self, scaled: list[Tensor], owners: list[Tensor], fold: Fold) -> nn.Module:
        protocol = self.protocol
        network = make_mlp(scaled[0].shape[1], self.targets.shape[1], protocol).to(self.device)
        optimizer = torch.optim.Adam(
            network.parameters(), lr=protocol.learning_rate, weight_decay=protocol.weight_decay, fused=True
        )
        best, kept, waited = -float("inf"), {}, 0
        for epoch in range(protocol.epochs):
            network.train()
            for chosen in torch.randperm(len(scaled[0])).split(protocol.batch):
                if len(chosen) > 1 or not protocol.batch_norm:  # batch norm cannot learn from one row
                    optimizer.zero_grad()
                    self._loss(network(scaled[0][chosen]), self.targets[owners[0][chosen]]).backward()
                    optimizer.step()
            if epoch % protocol.check_every:
                continue
            network.eval()
            score = self._validate(network, scaled[1], owners[1], fold.val)
            if score > best:
                best, waited = score, 0
                kept = {name: value.clone() for name, value in network.state_dict().items()}
            elif (waited := waited + 1) >= protocol.patience:
                break
        network.load_state_dict(kept)
        return network.eval()

    @torch.no_grad()
    def _validate(self, network: nn.Module, rows: Tensor, owners: Tensor, clips: Array) -> float:
        if self.protocol.select == "loss":
            return -float(self._loss(network(rows), self.targets[owners]))
        probabilities, targets = self._predict(network, rows, owners, clips), self.targets[clips]
        return mean_precision(probabilities, targets) if self.many else accuracy(probabilities, targets)

    def _loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        if self.many:
            return F.binary_cross_entropy_with_logits(outputs, targets)
        return F.cross_entropy(outputs, targets.argmax(dim=1))

    @torch.no_grad()
    def _predict(self, network: nn.Module, rows: Tensor, owners: Tensor, clips: Array) -> Tensor:
        """Probabilities (N, K) of clips, each the mean over its rows."""
        outputs = network(rows)
        probabilities = outputs.sigmoid() if self.many else outputs.softmax(dim=1)
        sums = torch.zeros_like(self.targets).index_add_(0, owners, probabilities)
        return (sums / torch.bincount(owners, minlength=len(sums)).clamp(min=1)[:, None])[clips]


def make_mlp(features: int, classes: int, protocol: Protocol) -> nn.Sequential:
    """The classifier: hidden layers with a ReLU each, then a linear one."""
    layers: list[nn.Module] = []
    for width in protocol.hidden:
        layers += [nn.Linear(features, width), *([nn.BatchNorm1d(width)] if protocol.batch_norm else []), nn.ReLU()]
        layers += [nn.Dropout(protocol.dropout)] if protocol.dropout else []
        features = width
    return nn.Sequential(*layers, nn.Linear(features, classes))


def score(probabilities: Tensor, targets: Tensor, *, many: bool) -> dict[str, float]:
    """Accuracy (if each clip has one label) and mAP."""
    found = {} if many else {"accuracy": accuracy(probabilities, targets)}
    return {**found, "mAP": mean_precision(probabilities, targets)}


def accuracy(probabilities: Tensor, targets: Tensor) -> float:
    """The share of clips whose likeliest class (N, K) is their own."""
    return (probabilities.argmax(1) == targets.argmax(1)).float().mean().item()


def mean_precision(probabilities: Tensor, targets: Tensor) -> float:
    """The mean average precision (N, K) over classes that occur."""
    from sklearn.metrics import average_precision_score

    probabilities, targets = probabilities.cpu(), targets.cpu()
    occurring = targets.sum(dim=0) > 0
    return float(average_precision_score(targets[:, occurring].numpy(), probabilities[:, occurring].numpy()))


def probe(
    dataset: Dataset,
    features: Features,
    protocol: Protocol,
    *,
    encoder: str,
    identity: str,
    seeds: int = 5,
    device: torch.device | None = None,
    fractions: Sequence[float] | None = None,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> Result:
    """Probe features over all folds and several seeds.

    Args:
        dataset: Gives the classes and the folds.
        features: Of its clips.
        protocol: How the classifier is trained.
        encoder: Name of the encoder, for the result.
        identity: Of its weights.
        seeds: Number of runs; figures are their mean and deviation, each run's a mean over the folds.
        device: Where the classifier is trained; the CPU by default.
        fractions: Shares of the training clips (`few-shot`), drawn anew for each seed; None for all (`probe`).
        on_progress: Called with the runs done and their total.

    Raises:
        W2CError: The set cannot be divided; see `folds_of`.
    """
    folds = folds_of(dataset, features.clips)
    network = Probe(protocol, dataset, features, device=device or torch.device("cpu"))
    runs = [(fraction, seed, fold) for fraction in fractions or (1.0,) for seed in range(seeds) for fold in folds]
    scores: dict[float, dict[str, list[float]]] = {}  # fraction -> measure -> one for each seed and fold
    predictions = []
    for number, (fraction, seed, fold) in enumerate(runs):
        train = fold.train if fraction == 1 else subset(network.targets, fold.train, fraction, seed)
        found = network.run(replace(fold, train=train), seed=seed)
        for name, value in score(found, network.targets[fold.test], many=dataset.many_labels).items():
            scores.setdefault(fraction, {}).setdefault(name, []).append(value)
        tested = [features.clips[index] for index in fold.test]
        predictions += [
            {"key": clip.key, "fold": fold.name, "seed": seed, "fraction": fraction, **_prediction(dataset, clip, row)}
            for clip, row in zip(tested, found, strict=True)
        ]
        on_progress(number + 1, len(runs))
    figures: dict[str, Figure] = {}
    for fraction, measures in scores.items():
        for name, values in measures.items():
            means = np.reshape(values, (seeds, len(folds))).mean(axis=1)
            label = name if fractions is None else f"{name}, {100 * fraction:g} %"
            figures[label] = means.mean().item(), means.std().item()
    prevalence = network.targets.mean(dim=0)
    of_chance = {"mAP": float(prevalence[prevalence > 0].mean()), "accuracy": float(prevalence.max())}
    chance = {label: of_chance[label.partition(",")[0]] for label in figures}
    return Result(
        task="probe" if fractions is None else "few-shot", dataset=dataset.name, encoder=encoder, identity=identity,
        figures=figures, chance=chance, predictions=predictions,
        settings={**asdict(protocol), "seeds": seeds, "folds": [fold.name for fold in folds]},
        notes=[
            *dataset.notes, *features.notes,
            f"{len(features.clips)} clips. Protocol: {protocol.source}. Mean and deviation over {seeds} seeds.",
        ],
    )  # fmt: skip


def _prediction(dataset: Dataset, clip: Clip, probabilities: Tensor) -> dict[str, Any]:
    best = int(probabilities.argmax())
    probability = round(float(probabilities[best]), 4)
    return {"labels": clip.labels, "predicted": dataset.classes[best], "probability": probability}


def subset(targets: Tensor, train: Array, fraction: float, seed: int) -> Array:
    """A share of the training clips, at least one of each class, so that every class can be learned."""
    generator = np.random.default_rng(seed)
    chosen: set[int] = set()
    for column in targets[train].T.cpu().numpy():
        own = generator.permutation(train[column > 0])
        chosen.update(own[: max(round(fraction * len(own)), 1)].tolist())
    return np.array(sorted(chosen))

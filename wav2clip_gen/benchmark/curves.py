"""The few-shot curve of all encoders on a data set: mean and deviation over seeds, by the share of training data."""

from __future__ import annotations

import re
from pathlib import Path

from wav2clip_gen.benchmark.results import Result, read_results
from wav2clip_gen.files import written
from wav2clip_gen.plot import require_matplotlib

SHARE = re.compile(r"(.+), ([\d.]+) %")


def curve_of(result: Result) -> tuple[str, list[float], list[float], list[float]]:
    """The first measure's name, and its shares (%), means and deviations."""
    measure, shares, means, deviations = "", [], [], []
    for name, figure in result.figures.items():
        match = SHARE.fullmatch(name)
        if match and match[1] == (measure := measure or match[1]) and not isinstance(figure, float):
            shares.append(float(match[2]))
            means.append(figure[0])
            deviations.append(figure[1])
    return measure, shares, means, deviations


def plot_few_shot(folder: Path, dataset: str) -> Path:
    """Plot the results of `few-shot` that lie in a folder into `few-shot-DATASET.png`, and give its path.

    Raises:
        W2CError: matplotlib is not installed.
        OutputError: A result is damaged, or the plot cannot be written.
    """
    require_matplotlib()
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    chance: float | None = None
    for result in read_results(folder, "few-shot", dataset):
        measure, shares, means, deviations = curve_of(result)
        chance = result.chance.get(next(iter(result.figures)), chance)
        (line,) = axes.plot(shares, means, marker="o", label=result.encoder)
        low, high = ([mean + sign * one for mean, one in zip(means, deviations, strict=True)] for sign in (-1, 1))
        axes.fill_between(shares, low, high, alpha=0.2, color=line.get_color())
        axes.set_ylabel(measure)
    if chance is not None:
        axes.axhline(chance, color="gray", linestyle=":", label="chance")
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.set_xlabel("training clips (%)")
    axes.set_title(dataset)
    axes.legend()
    path = folder / f"few-shot-{dataset}.png"
    with written(path) as part:
        figure.savefig(part, format="png", dpi=120)
    return path

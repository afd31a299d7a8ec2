"""`w2c-gen benchmark TASK`: the paper's experiments on data sets as they are downloaded."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from wav2clip_gen.benchmark.tasks import SPLIT_TASKS, TASKS, Options, Show, run_task
from wav2clip_gen.cli import options
from wav2clip_gen.cli.app import TYPER
from wav2clip_gen.config import suggestion
from wav2clip_gen.errors import OutputError, SettingsError

if TYPE_CHECKING:
    from wav2clip_gen.benchmark.clips import Dataset
    from wav2clip_gen.benchmark.encoders import SoundEncoder

app = typer.Typer(**TYPER)

TASK_HELP = "; ".join(f"{name}: {what}" for name, what in TASKS.items()) + "."
LAYOUT_HELP = "Layout of the data, such as urbansound8k or folder; auto knows a set by its table."
OUT_HELP = "Folder for the tables (Markdown) and results (JSON), which are compared over encoders."
PROTOCOL_HELP = "How a probe is trained: hear or openl3."
TEMPLATE_HELP = 'Text around the name of a class, such as "the sound of {}"; may be given several times.'
CLASSES_HELP = "Classes that a figure shows, at most ten; without it the first ten."
CACHE_HELP = "Folder of cached embeddings [dim](default: W2C_CACHE or the user's cache)[/]"


@app.command(cls=options.Command)
def benchmark(
    task: Annotated[str, typer.Argument(metavar="TASK", help=TASK_HELP)],
    *,
    data: Annotated[Path, typer.Option(metavar="DIR", help="The data set's folder, as it is unpacked, or one shard.")],
    encoder: Annotated[str, typer.Option(metavar="NAME[,NAME...]", help="Sound encoders to compare.")] = "mini",
    out: Annotated[Path, typer.Option(metavar="DIR", help=OUT_HELP)] = Path("benchmarks"),
    layout: Annotated[str, typer.Option(metavar="NAME", help=LAYOUT_HELP)] = "auto",
    split: Annotated[
        str, typer.Option(metavar="NAMES", help="Only these folds or splits, in zero-shot and retrieval.")
    ] = "",
    protocol: Annotated[str, typer.Option(metavar="NAME", help=PROTOCOL_HELP)] = "hear",
    seeds: Annotated[int, typer.Option(min=1, help="Runs of a probe, over which mean and deviation are taken.")] = 5,
    seed: Annotated[int, typer.Option(min=0, help="Seed of captions and figures.")] = 0,
    template: Annotated[list[str] | None, typer.Option(metavar="TEXT", help=TEMPLATE_HELP, show_default=False)] = None,
    steps: Annotated[int, typer.Option(min=1, help="Optimisation steps of each picture of a figure.")] = 200,
    classes: Annotated[str, typer.Option(metavar="NAME[,NAME...]", help=CLASSES_HELP)] = "",
    mode: Annotated[str, typer.Option(help="Captions are learned supervised, or from text.")] = "supervised",
    captions: Annotated[
        Path | None, typer.Option(metavar="FILE", help="More captions to learn from: CSV or lines of text.")
    ] = None,
    test_captions: Annotated[
        Path | None, typer.Option(metavar="FILE", help="CSV of captions for the data's sounds, by their keys.")
    ] = None,
    save: Annotated[Path | None, typer.Option(metavar="FILE", help="Also write the decoder of captions.")] = None,
    allow_missing: Annotated[
        float, typer.Option(min=0, max=1, help="Share of the clips that may be missing or damaged.")
    ] = 0.05,
    keep_trained: Annotated[
        bool, typer.Option("--keep-trained", help="Also use clips of recordings that the encoder was trained on.")
    ] = False,
    cache: Annotated[Path | None, typer.Option(metavar="DIR", help=CACHE_HELP, show_default=False)] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads.", show_default="one per core")] = None,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Measure frozen sound embeddings on a data set: tables on stdout, progress on stderr.

    Embeddings are computed once and cached. The same seed gives the same numbers.
    """
    from wav2clip_gen.cli import console

    with console.errors_shown(debug=debug):
        if task not in TASKS:
            raise SettingsError(f"there is no task {task!r}", hint=suggestion(task, list(TASKS)))
        for option, value, tasks in (("--split", split, SPLIT_TASKS), ("--classes", classes, ("figure",))):
            if value and task not in tasks:
                raise SettingsError(f"{option} has no meaning in {task}", hint=f"it is for {', '.join(tasks)}")
        _make_folder(out)
        chosen = Options(
            protocol=protocol, seeds=seeds, seed=seed, templates=template or (), steps=steps, split=split,
            classes=[name.strip() for name in classes.split(",") if name],
            most_missing=allow_missing, keep_trained=keep_trained, cache=cache, mode=mode, captions=captions, save=save,
        )  # fmt: skip
        import torch

        from wav2clip_gen.benchmark.datasets import open_dataset
        from wav2clip_gen.benchmark.encoders import load_encoder
        from wav2clip_gen.devices import choose_device

        if threads:
            torch.set_num_threads(threads)
        dataset = open_dataset(data, layout, most_missing=allow_missing)
        if test_captions:
            from wav2clip_gen.benchmark.caption_texts import add_captions

            dataset = add_captions(dataset, test_captions)
        where = choose_device(device, on_note=partial(typer.echo, err=True))
        encoders = [load_encoder(name.strip(), device=where) for name in encoder.split(",")]
        trained_on = frozenset().union(*(one.trained_on for one in encoders))
        for one in encoders:
            one.trained_on = trained_on  # all encoders are compared on the same clips
            _run(task, dataset, one, chosen, out=out, device=where)


def _run(task: str, dataset: Dataset, encoder: SoundEncoder, chosen: Options, *, out: Path, device: Any) -> None:
    from wav2clip_gen.benchmark.results import save_result
    from wav2clip_gen.cli.console import TaskProgress

    progress = TaskProgress()

    def show(part: str, done: int, total: int) -> None:
        progress(f"{encoder.name}, {part}", done, total)

    if task == "figure":
        _draw(dataset, encoder, chosen, out, show)
        return
    result = run_task(task, dataset, encoder, chosen, device=device, show=show)
    table = save_result(result, out)
    typer.echo(table.read_text(encoding="utf-8"))
    typer.echo(f"wrote {table}", err=True)
    if task == "few-shot":
        from wav2clip_gen.benchmark.curves import plot_few_shot

        typer.echo(f"wrote {plot_few_shot(out, dataset.name)}", err=True)


def _draw(dataset: Dataset, encoder: SoundEncoder, chosen: Options, out: Path, show: Show) -> None:
    from wav2clip_gen.benchmark.figure import draw_figure
    from wav2clip_gen.files import written

    page = draw_figure(dataset, encoder, chosen, show=show)
    path = out / f"figure-{dataset.name}-{encoder.name}.png"
    with written(path) as part:
        page.save(part, format="png")
    typer.echo(f"wrote {path}", err=True)


def _make_folder(out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot make the folder {out}: {error.strerror}", hint="choose another with --out") from None

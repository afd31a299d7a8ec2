"""`w2c-gen report film.mp4`: a page for a finished film."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from wav2clip_gen.cli import options
from wav2clip_gen.cli.app import TYPER
from wav2clip_gen.cli.batch import Batch
from wav2clip_gen.errors import SettingsError

if TYPE_CHECKING:
    from wav2clip_gen.cli.console import Listener
    from wav2clip_gen.job import Job
    from wav2clip_gen.progress import Film, OnProgress

app = typer.Typer(**TYPER, rich_markup_mode="rich")

FILMS = typer.Argument(metavar="FILM", help="Films, or their run records.")
OUT_HELP = "The page [dim](default: the film's name, as .html)[/]"
PANEL = {"rich_help_panel": "Output"}


@app.command(cls=options.Command)
@options.with_options("embed", "overwrite", "weights_dir", "device", "debug", inputs=FILMS)
def report(
    *,
    out: Annotated[Path | None, typer.Option("--out", "-o", metavar="FILE", help=OUT_HELP, **PANEL)] = None,
    no_labels: Annotated[
        bool, typer.Option("--no-labels", help="Do not label sections, which needs the networks.", **PANEL)
    ] = False,
    **shared: Any,
) -> None:
    """Write a page for a finished film: picture, waveform, onsets, sections, labels, prompts and settings over time.

    The page is one file that needs no network. It shows what the run record next to the film tells, and measures the
    song again; without a record it shows what can be measured.
    """
    from wav2clip_gen.cli import console
    from wav2clip_gen.cli.render import ModelLoader
    from wav2clip_gen.report import write_report

    films: list[Path] = shared["inputs"] or []
    with console.errors_shown(debug=shared["debug"]):
        if not films:
            raise SettingsError("no film was given", hint="w2c-gen report film.mp4, or w2c-gen report --help")
        if out and len(films) > 1:
            raise SettingsError(f"several pages cannot all go to {out}", hint="leave out --out")
    listener, loader = console.PlainListener(), ModelLoader()
    batch = Batch(films, "pages written", shared["debug"])
    for film in films:
        with batch.attempt(film):
            page = write_report(
                film,
                out,
                embed=shared["embed"],
                overwrite=shared["overwrite"],
                load=None if no_labels else loader,
                weights_dir=shared["weights_dir"],
                device=shared["device"] or "auto",
                on_progress=listener.show,
            )
            console.print_path(page)
            batch.made.append(film)
        if batch.interrupted:
            break
    listener.show_batch(batch)
    raise typer.Exit(batch.code)


@dataclass(frozen=True)
class Pages:
    """The pages that a render writes with `--report`: one for each film, and for several songs an index."""

    given: Mapping[str, Any]  # the options
    films: list[Path] = field(default_factory=list)  # that have a page

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> Pages:
        """The pages that options ask for.

        Raises:
            SettingsError: They contradict each other.
        """
        if given["embed"] and not given["report"]:
            raise SettingsError("--embed concerns the page of a film", hint="add --report, or leave it out")
        if given["report"] and given["storyboard"]:
            raise SettingsError("a storyboard has no page", hint="leave out --report or --storyboard")
        return cls(given)

    def check(self, jobs: Iterable[Job], existing: Iterable[Path]) -> None:
        """Check the index of several films; `existing`: those that are not made because they exist.

        Raises:
            OutputError: It cannot be written.
        """
        from wav2clip_gen.job import films
        from wav2clip_gen.report import check_index, index_path, page_path

        if not self.given["report"]:
            return
        self.films.extend(film for film in existing if film.is_file() and page_path(film).is_file())
        outs = [*self.films, *(film.out for job in jobs for film in films(job))]
        if len(outs) > 1:
            check_index(index_path(outs), outs)

    def check_job(self, job: Job) -> None:
        """Check that the pages of a job can be written. Errors are those of `check_output`."""
        from wav2clip_gen.files import check_output
        from wav2clip_gen.job import films
        from wav2clip_gen.report import page_path

        for film in films(job) if self.given["report"] else ():
            check_output(page_path(film.out), overwrite=self.given["overwrite"])

    def write(self, film: Film, job: Job, load: Callable[..., Any], listener: Listener, show: OnProgress) -> None:
        """Write the page of a film that was made to its end."""
        from wav2clip_gen.report import write_report

        if not self.given["report"] or film.partial:
            return
        page = write_report(
            film.path, embed=self.given["embed"], overwrite=self.given["overwrite"], load=load,
            weights_dir=self.given["weights_dir"], device=job.settings.run.device, on_progress=show,
        )  # fmt: skip
        self.films.append(film.path)
        listener.show_page(page)

    def write_index(self, listener: Listener) -> None:
        """Write the index, if there are several films."""
        from wav2clip_gen.report import index_path, write_index

        if len(self.films) > 1:
            path = index_path(self.films)
            write_index(self.films, path)
            listener.show_page(path)

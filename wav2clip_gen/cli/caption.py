"""`w2c-gen caption song.wav`: a sentence for each sound, by a decoder of `w2c-gen benchmark caption`."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from wav2clip_gen.cli import options
from wav2clip_gen.cli.app import TYPER
from wav2clip_gen.cli.batch import Batch

if TYPE_CHECKING:
    from wav2clip_gen.benchmark.captioning import Captioner

app = typer.Typer(**TYPER, rich_markup_mode="rich")

DECODER_HELP = "Decoder of captions, from `w2c-gen benchmark caption` [dim](default: the one that ships, for mini)[/]"
INPUT_HELP = "Sounds: wav, flac, ogg, mp3, m4a, mp4, webm, mkv."
BEAM_HELP = (
    "Captions that are followed at a time; 1 takes the likeliest word each time [dim](default: the decoder's)[/]"
)


@app.command(cls=options.Command)
def caption(
    inputs: Annotated[list[Path], typer.Argument(metavar="INPUT...", help=INPUT_HELP)],
    *,
    decoder: Annotated[Path | None, typer.Option(metavar="FILE", help=DECODER_HELP, show_default=False)] = None,
    beam: Annotated[int | None, typer.Option(min=1, help=BEAM_HELP, show_default=False)] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads.", show_default="one per core")] = None,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Describe sounds in a sentence each: a line on stdout, the path, a tab and the caption.

    The decoder knows the words of its training captions, and the encoder the sounds of its own training: short sounds
    of everyday life are described better than music.
    """
    from wav2clip_gen.cli import console

    note = partial(typer.echo, err=True)
    with console.errors_shown(debug=debug):
        import torch

        from wav2clip_gen.benchmark.captioning import load_captioner
        from wav2clip_gen.devices import choose_device

        if threads:
            torch.set_num_threads(threads)
        captioner = load_captioner(decoder, device=choose_device(device, on_note=note), beam=beam)
        if captioner.note:
            note(f"note: {captioner.note}")
    batch = Batch(inputs, "sounds described", debug)
    for path in inputs:
        with batch.attempt(path):
            _describe(captioner, path)
            batch.made.append(path)
        if batch.interrupted:
            break
    console.PlainListener().show_batch(batch)
    raise typer.Exit(batch.code)


def _describe(captioner: Captioner, path: Path) -> None:
    text = captioner.describe(path)
    typer.echo(os.fsencode(path) + f"\t{text}".encode())

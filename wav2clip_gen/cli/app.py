"""Where the command `w2c-gen` begins: a known word runs that command, anything else is rendered.

Nothing here or in the files beside it imports torch before there is work for it, so that `--help` is quick.
"""

from __future__ import annotations

import sys
from importlib import import_module

INTERRUPTED = 130  # exit code after Ctrl-C, as shells have it
COMMANDS = {
    "analyze": "what is in a track: curves, beats, sections, words",
    "doctor": "what is installed, and whether it works",
    "evaluate": "measure a family on data it was not trained on",
    "train": "train the small family: vqgan, clip, wav2clip",
    "weights": "the published models: list, fetch, verify, remove",
}


def main() -> None:
    """Run `w2c-gen` with the arguments of this process."""
    arguments = sys.argv[1:]
    word = arguments[0] if arguments and arguments[0] in COMMANDS else "render"
    name = f"w2c-gen {word}" if word in COMMANDS else "w2c-gen"
    app = import_module(f"wav2clip_gen.cli.{word}").app
    app(arguments[1:] if word in COMMANDS else arguments or ["--help"], prog_name=name)

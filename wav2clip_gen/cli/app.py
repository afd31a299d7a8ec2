"""Entry point of `w2c-gen`: the first word selects a command; without one, the arguments are those of a render.

Nothing here or in the modules of the commands imports torch before there is work for it, so that `--help` is fast.
"""

from __future__ import annotations

import os
import re
import sys
from importlib import import_module
from io import TextIOWrapper
from typing import Any

INTERRUPTED = 130  # exit code after Ctrl-C, as in shells
TYPER: dict[str, Any] = {  # of every command but the bare form
    "add_completion": False,
    "pretty_exceptions_enable": False,
    "context_settings": {"help_option_names": ["-h", "--help"]},
}
COMMANDS = {
    "analyze": "analyze a track: curves, beats, sections, nearest words",
    "benchmark": "repeat the paper's experiments: probe, few-shot, zero-shot, retrieval, caption, figure",
    "caption": "describe sounds in a sentence each",
    "doctor": "check the installation",
    "evaluate": "evaluate a family of models on held-out data",
    "report": "write a page for a finished film: picture, sound and settings over time",
    "score": "measure how a film follows its song: sync, beat, flicker",
    "train": "train the models of the small family: vqgan, clip, wav2clip",
    "weights": "list, download, verify and remove published weights",
}
COMPLETE = "_W2C_GEN_COMPLETE"  # set by the shell while it completes a line


def main() -> None:
    """Run `w2c-gen` with the arguments of this process."""
    from wav2clip_gen.cli import interrupt, streams

    interrupt.death.arm()
    streams.keep_streams_open()
    arguments = sys.argv[1:]
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # as stderr: no character ends a command
    word = _command_to_complete() if COMPLETE in os.environ else arguments[0] if arguments else ""
    if word in COMMANDS:
        app = import_module(f"wav2clip_gen.cli.{word}").app
        app(arguments[1:], prog_name=f"w2c-gen {word}", complete_var=COMPLETE)
    else:
        app = import_module("wav2clip_gen.cli.render").app
        app(arguments or ["--help"], prog_name="w2c-gen", complete_var=COMPLETE)


def _command_to_complete() -> str:
    """The command in the line that the shell completes; its word is removed there, as from the arguments in `main`."""
    from typer.main import get_command

    get_command(import_module("wav2clip_gen.cli.render").app)  # registers the shells that Typer knows
    name = "COMP_WORDS" if "COMP_WORDS" in os.environ else "_TYPER_COMPLETE_ARGS"
    line = os.environ.get(name, "")
    match = re.match(rf"(\S+)\s+({'|'.join(COMMANDS)})(?=\s)", line)
    if not match:
        return ""
    os.environ[name] = match[1] + line[match.end() :]
    if name == "COMP_WORDS":
        os.environ["COMP_CWORD"] = str(int(os.environ["COMP_CWORD"]) - 1)
    return match[2]

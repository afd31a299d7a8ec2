"""What can be evaluated, and what is told while that goes on. Knows no torch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from wav2clip_gen.config import suggestion
from wav2clip_gen.errors import SettingsError
from wav2clip_gen.evaluation.tables import Figures

PARTS = {
    "vqgan": "how well the painter draws pictures again, and with how many codes",
    "clip": "what the image tower sees, also when an adversary has changed the picture",
    "wav2clip": "what the sound encoder hears, asked in words",
    "retrieval": "sounds found by words, pictures found by sounds",
    "film": "what an independent network sees in films of sounds",
}

OnProgress = Callable[[int, int], None]  # how many are done, and of how many


@dataclass(frozen=True)
class Began:
    """An evaluation begins."""

    part: str


@dataclass(frozen=True)
class Advanced:
    """So much of an evaluation is done."""

    part: str
    done: int
    total: int


@dataclass(frozen=True)
class Measured:
    """An evaluation is finished."""

    part: str
    figures: Figures
    seconds: float  # that it took


Event = Began | Advanced | Measured


def chosen_parts(written: str | None) -> tuple[str, ...]:
    """Read `vqgan,film` as the parts meant, in the order of `PARTS`; None is all of them.

    Raises:
        SettingsError: There is no such part.
    """
    if written is None:
        return tuple(PARTS)
    names = [name.strip() for name in written.split(",")]
    for name in names:
        if name not in PARTS:
            raise SettingsError(f"no evaluation is called {name!r}", hint=suggestion(name, list(PARTS)))
    return tuple(name for name in PARTS if name in names)

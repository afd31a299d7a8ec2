"""Decoded pictures and sounds: by several threads, in memory as far as they fit there, decoded again beyond that."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import repeat
from typing import Any

from numpy.typing import NDArray

from wav2clip_gen.errors import TrainingError
from wav2clip_gen.training.shards import Example, Place

Array = NDArray[Any]
Decode = Callable[[bytes], Array | None]  # None where it cannot be decoded

MEMORY = 2_000_000_000  # bytes; what `weights/README.md` describes takes 1.7 GB of pictures or 0.3 GB of sounds
PORTION = 64  # examples for each worker at a time


@dataclass
class Reading:
    """How the data of one run is read, and what of it is kept. Neither changes what is learned."""

    memory: int = MEMORY  # bytes of decoded pictures and sounds, at most
    workers: int = min(os.cpu_count() or 1, 8)  # threads that decode
    kept: int = 0  # bytes so far
    decoded: int = 0  # bytes that keeping all would take

    def room_for(self, array: Array) -> bool:
        """Whether an array may be kept; counts it."""
        self.decoded += array.nbytes
        if self.kept + array.nbytes > self.memory:
            return False
        self.kept += array.nbytes
        return True

    def notes(self) -> tuple[str, ...]:
        """What a person should know, if not all is kept."""
        if self.kept == self.decoded:
            return ()
        held, whole = (f"{size / 1e9:.3g}" for size in (self.kept, self.decoded))
        return (f"{held} of {whole} GB of decoded data fit into --memory; the rest is decoded at each use",)


class Decoded:
    """The arrays of some examples, all of which could be decoded once."""

    def __init__(self, examples: Sequence[Example], decode: Decode, reading: Reading) -> None:
        """Decode all; those that cannot be are left out and named in `skipped`."""
        self.examples: list[Example] = []
        self.skipped: list[str] = []
        self._decode, self._reading = decode, reading
        self._kept: dict[int, Array] = {}
        for example, array in zip(examples, self._stream([example.place for example in examples]), strict=True):
            if array is None:
                self.skipped.append(example.name)
                continue
            if reading.room_for(array):
                self._kept[len(self.examples)] = array
            self.examples.append(example)

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, at: int) -> Array:
        """One array."""
        return self.take([at])[0]

    def take(self, chosen: Sequence[int]) -> list[Array]:
        """The arrays of chosen examples.

        Raises:
            TrainingError: A shard has changed since it was read first.
        """
        lacking = [at for at in dict.fromkeys(chosen) if at not in self._kept]
        again = dict(zip(lacking, self._stream([self.examples[at].place for at in lacking]), strict=True))
        found = []
        for at in chosen:
            array = self._kept.get(at, again.get(at))
            if array is None:
                raise TrainingError(
                    f"{self.examples[at].place.shard}: {self.examples[at].key} can no longer be read",
                    hint="leave the data in peace while it is trained on; then the same command goes on",
                )
            found.append(array)
        return found

    def _stream(self, places: Sequence[Place]) -> Iterator[Array | None]:
        """Decode in order, a portion at a time, so that little waits to be taken."""
        workers = min(self._reading.workers, len(places))
        if workers <= 1:
            yield from map(_read, repeat(self._decode), places)
            return
        with ThreadPoolExecutor(workers) as pool:
            for start in range(0, len(places), PORTION * workers):
                yield from pool.map(_read, repeat(self._decode), places[start : start + PORTION * workers])


def _read(decode: Decode, place: Place) -> Array | None:
    try:
        return decode(place.read())
    except OSError:
        return None

"""Embeddings of the clips of a data set, computed once and cached by the sound's content and the encoder.

    features/<encoder>-<hop>/<random>.safetensors    some hundred clips: DIGEST.frames and DIGEST.vector, in float16

The cache is in `W2C_CACHE`, else the user's cache. A run that was interrupted loses at most the clips of one file.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from wav2clip_gen.audio.stem_cache import cache_folder
from wav2clip_gen.benchmark.clips import Clip, Dataset, Samples
from wav2clip_gen.benchmark.encoders import Encoded, SoundEncoder
from wav2clip_gen.benchmark.tables import MOST_MISSING, missing_note
from wav2clip_gen.errors import OutputError, SoundError, W2CError
from wav2clip_gen.files import written

LIMIT = 8 << 30  # bytes of all features in the cache; the files used longest ago are removed first
CLIPS_PER_FILE = 256
DECODERS = 4  # threads; libsndfile and soxr release the interpreter
AHEAD = 16  # decoded sounds that wait for the encoder

Progress = Callable[[int, int], None]


class Features(NamedTuple):
    """The embeddings of the clips that could be decoded."""

    clips: list[Clip]
    encoded: list[Encoded]
    notes: list[str]  # what was damaged

    @property
    def vectors(self) -> Tensor:
        """(N, E), one for each clip."""
        return torch.stack([one.vector for one in self.encoded]).float()


class FeatureCache:
    """The cached embeddings of one encoder at one hop."""

    def __init__(self, encoder: SoundEncoder, hop: float, folder: Path | None = None) -> None:
        """Look what is there; unreadable files are ignored."""
        self.folder = (folder or cache_folder() / "features") / f"{encoder.identity}-{hop:g}"
        self._where: dict[str, Path] = {}
        self._new: dict[str, Encoded] = {}
        self._open: tuple[Path, Any] | None = None
        for path in sorted(self.folder.glob("*.safetensors")):
            with suppress(SafetensorError, OSError), safe_open(path, "pt") as file:
                names = [name for name in file.keys() if name.endswith(".vector")]  # noqa: SIM118 (not a dictionary)
                self._where |= {name.removesuffix(".vector"): path for name in names}

    def __contains__(self, digest: str) -> bool:
        return digest in self._where or digest in self._new

    def get(self, digest: str) -> Encoded | None:
        """The embedding of a sound, if it is there."""
        path = self._where.get(digest)
        if path is None:
            return self._new.get(digest)
        try:
            if self._open is None or self._open[0] != path:
                path.touch()
                self._open = path, safe_open(path, "pt")
            file = self._open[1]
            return Encoded(file.get_tensor(f"{digest}.frames"), file.get_tensor(f"{digest}.vector"))
        except (SafetensorError, OSError):  # removed by another run
            self._where.pop(digest)
            return None

    def put(self, digest: str, encoded: Encoded) -> Encoded:
        """Keep an embedding, in half precision, which is returned; it is written with some hundred others."""
        self._new[digest] = Encoded(encoded.frames.half().contiguous(), encoded.vector.half().contiguous())
        if len(self._new) >= CLIPS_PER_FILE:
            self.flush()
        return self._new.get(digest) or self.get(digest) or encoded

    def flush(self) -> None:
        """Write what is new, and remove the oldest files of a full cache.

        Raises:
            OutputError: The cache cannot be written to.
        """
        if not self._new:
            return
        tensors = {f"{digest}.frames": one.frames for digest, one in self._new.items()}
        tensors |= {f"{digest}.vector": one.vector for digest, one in self._new.items()}
        path = self.folder / f"{secrets.token_hex(8)}.safetensors"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            what = f"cannot write {self.folder}: {error.strerror}"
            raise OutputError(what, hint="choose another cache with W2C_CACHE") from None
        with written(path, option="W2C_CACHE") as part:
            save_file(tensors, part)
        self._where |= dict.fromkeys(self._new, path)
        self._new = {}
        shrink(self.folder.parent)


def shrink(folder: Path, limit: int = LIMIT) -> None:
    """Remove the files of features that were used longest ago, until the others take at most `limit` bytes."""
    files = []
    for path in folder.glob("*/*.safetensors"):
        with suppress(OSError):  # another run removed it
            files.append((path.stat().st_mtime, path.stat().st_size, path))
    total = sum(size for _, size, _ in files)
    for _, size, path in sorted(files):
        if total <= limit:
            return
        with suppress(OSError):
            path.unlink()
        total -= size


def embed(
    clips: Sequence[Clip],
    encoder: SoundEncoder,
    *,
    hop: float = 0.5,
    frames: bool = True,
    cache: Path | None = None,
    most_damaged: float = MOST_MISSING,
    on_progress: Progress = lambda done, total: None,
) -> Features:
    """Encode clips, or take their embeddings from the cache; threads decode while the encoder computes.

    Args:
        clips: The sounds.
        encoder: Encodes them.
        hop: Seconds between two frames.
        frames: Whether to keep the frames; else the (1, D) mean over them, so that memory hardly grows with the clips.
        cache: Its folder, instead of the user's.
        most_damaged: Share of the clips that may be damaged; these are left out.
        on_progress: Called with the clips done and their total.

    Raises:
        W2CError: More clips are damaged.
        OutputError: The cache cannot be written to.
    """
    store = FeatureCache(encoder, hop, cache)
    found, kept, damaged = [], [], []
    try:
        for number, (clip, digest, sound) in enumerate(_read_ahead(clips, store, encoder.rate)):
            encoded = store.get(digest) if sound is None else None
            if isinstance(sound, SoundError):
                damaged.append(clip.key)
            else:
                if encoded is None:
                    samples = clip.decode(clip.read(), encoder.rate) if sound is None else sound
                    encoded = store.put(digest, encoder.encode(torch.from_numpy(samples), hop))
                kept.append(clip)
                found.append(
                    encoded if frames else encoded._replace(frames=encoded.frames.float().mean(0, keepdim=True))
                )
            on_progress(number + 1, len(clips))
    finally:
        store.flush()
    note = missing_note(damaged, len(clips), "damaged") if damaged else ""
    if len(damaged) > most_damaged * len(clips):
        raise W2CError(note, hint="fetch them again, or accept more with --allow-missing 0.5")
    return Features(kept, found, [note] if note else [])


def _read_ahead(
    clips: Sequence[Clip], store: FeatureCache, rate: int
) -> Iterator[tuple[Clip, str, Samples | SoundError | None]]:
    """Each clip with its digest and its samples, an error, or None where its embedding is in the cache."""

    def read(clip: Clip) -> tuple[Clip, str, Samples | SoundError | None]:
        try:
            content = clip.read()
            digest = clip.hash(content)
            return clip, digest, None if digest in store else clip.decode(content, rate)
        except SoundError as error:
            return clip, "", error

    rest = iter(clips)
    with ThreadPoolExecutor(DECODERS) as pool:
        waiting = [pool.submit(read, clip) for clip in islice(rest, AHEAD)]
        while waiting:
            yield waiting.pop(0).result()
            waiting += [pool.submit(read, clip) for clip in islice(rest, 1)]


def leave_out_trained(dataset: Dataset, encoder: SoundEncoder, *, keep: bool = False) -> tuple[list[Clip], list[str]]:
    """The clips of recordings that the encoder was not trained on, or with `keep` all, and a note on the others."""
    others = [clip for clip in dataset.clips if clip.recording not in encoder.trained_on]
    count = len(dataset.clips) - len(others)
    done = "kept, which flatters it" if keep else "left out"
    notes = [f"{count} clips of recordings that an encoder was trained on are {done}"] if count else []
    return list(dataset.clips) if keep else others, notes

"""An output that one run alone makes, and what is kept of it when the run ends early.

The picture grows in a hidden file next to the film, which this process has locked. It is a fragmented mp4, so that it
can be played at any moment, even after every process was killed.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from wav2clip_gen import ffmpeg
from wav2clip_gen.errors import OutputError, VideoError, W2CError
from wav2clip_gen.files import free_names, lock, publish

PARTIAL = "partial"  # a film that ends early is called NAME.partial.mp4
RECORD = ".json"
OTHER = "wait for it, or choose another --out"


@dataclass
class Claim:
    """The hidden files of one output, and what an earlier run left."""

    out: Path
    leftover: str = ""  # one line about the frames of a run that was killed

    def __post_init__(self) -> None:
        digest = hashlib.sha256(os.fsencode(self.out.name)).hexdigest()[:12]  # the name itself may be too long
        self.picture = self.out.with_name(f".w2c-{digest}{self.out.suffix}")  # without sound
        self.film = self.picture.with_suffix(f".film{self.out.suffix}")  # picture and sound
        self.record = self.picture.with_suffix(RECORD)
        self._unsaved = False

    def partial_names(self) -> Iterator[Path]:
        """Free names for a film that ends early."""
        return free_names(self.out, PARTIAL, others=(RECORD,))

    def keep(self) -> str:
        """Give the picture a visible name, and return one clause about it; empty if it has no frame."""
        self._unsaved, kept = True, self.picture
        frames = count_frames(self.picture)
        if frames:
            with suppress(OSError):  # the disk may have become read-only
                kept = next(name for name in self.partial_names() if _published(self.picture, name))
        self._unsaved = bool(frames) and kept == self.picture
        return f"the picture is kept in {kept}: {frames} frame{'s' * (frames > 1)}, no sound" if frames else ""

    @contextmanager
    def picture_kept(self, report: Callable[[str], None]) -> Iterator[None]:
        """Whatever goes wrong inside, the finished frames are kept, and the error or `report` tells where."""
        try:
            yield
        except BaseException as error:
            kept = self.keep()
            if isinstance(error, W2CError):
                error.what = self._with_visible_names(error.what) + (f"; {kept}" if kept else "")
                error.args = (error.what,)
            elif kept and isinstance(error, KeyboardInterrupt):
                raise KeyboardInterrupt(kept) from error
            elif kept:
                with suppress(Exception):  # it may be the listener that failed
                    report(kept)
            raise

    def publish(self, describe: Callable[[Path], dict[str, Any]], *, partial: bool, overwrite: bool) -> Path:
        """Give film and record their names: partial ones if it ends early, or if another film has appeared meanwhile.

        Args:
            describe: Gives the record of the film with this name.
            partial: The film ends early.
            overwrite: Replace an existing film.

        Returns:
            The film's name.

        Raises:
            OutputError: The disk does not take them.
        """
        for path in chain([] if partial else [self.out], self.partial_names()):
            record, replaced = path.with_suffix(RECORD), overwrite and path == self.out
            if not replaced and record.exists():
                continue
            try:
                content = json.dumps(describe(path), indent=1, ensure_ascii=False)
                # a name that is not UTF-8 has lone surrogates in Python; JSON escapes them in the same way, as \udce9
                self.record.write_text(f"{content}\n", encoding="utf-8", errors="backslashreplace")
                if replaced:  # never next to another film
                    record.unlink(missing_ok=True)
                publish(self.film, path, overwrite=replaced)
                self.picture.unlink(missing_ok=True)
                publish(self.record, record, overwrite=replaced)
            except FileExistsError:
                continue
            except OSError as error:
                raise OutputError(f"cannot write {path}: {error.strerror}", hint="free some disk space") from error
            return path
        raise AssertionError("there is always another name")

    def _with_visible_names(self, text: str) -> str:
        """A message in which the film's name stands for those of its hidden files."""
        for path in (self.film, self.picture, self.record):
            text = text.replace(str(path), str(self.out))
        return text

    def remove(self) -> None:
        """Remove the hidden files."""
        for path in (self.film, self.record, *(() if self._unsaved else (self.picture,))):
            with suppress(OSError):
                path.unlink(missing_ok=True)


@contextmanager
def claim(out: Path) -> Iterator[Claim]:
    """Claim an output until the end of the block; what a killed run left of it is kept under a visible name.

    Raises:
        OutputError: Another run is making it.
    """
    claimed = Claim(out)
    descriptor = _open_locked(claimed.picture, out)
    try:
        if kept := claimed.keep():
            claimed.leftover = f"an earlier run of {out} was killed: {kept}; play it, move it or delete it"
            os.close(descriptor)
            descriptor = _open_locked(claimed.picture, out)
        yield claimed
    finally:
        claimed.remove()
        os.close(descriptor)


@contextmanager
def claim_folder(folder: Path) -> Iterator[None]:
    """Claim a folder for frames until the end of the block.

    Raises:
        OutputError: Another run is writing into it.
    """
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:  # Windows cannot open folders
        yield
        return
    try:
        if not lock(descriptor):
            raise OutputError(f"another run is writing frames into {folder}", hint="choose another --frames-dir")
        yield
    finally:
        os.close(descriptor)


def count_frames(picture: Path) -> int:
    """How many frames of a film can be played; 0 if it is none."""
    try:
        if not picture.stat().st_size:
            return 0
        copied = ["-map", "0:v:0", "-c", "copy"]
        return sum(stream.packets for stream in ffmpeg.read_streams(picture, copied, purpose=f"read {picture}"))
    except (OSError, VideoError):
        return 0


def _open_locked(path: Path, out: Path) -> int:
    """Open a file that this process alone has locked, and make it where it is missing."""
    while True:
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            raise OutputError(
                f"cannot write into the folder {out.parent}: {error.strerror}", hint="choose another one with --out"
            ) from error
        if not lock(descriptor):
            os.close(descriptor)
            raise OutputError(f"another run is making {out}", hint=OTHER)
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(descriptor), path.stat()):
                return descriptor
        os.close(descriptor)  # the run that held it has just removed it


def _published(part: Path, path: Path) -> bool:
    try:
        publish(part, path, overwrite=False)
    except FileExistsError:  # in this moment
        return False
    return True

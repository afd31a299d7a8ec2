"""The work folder of a film, `NAME.w2c` next to it: what is finished of the film while it is made.

    plan.json                   what the picture depends on; a run with another plan does not continue it
    chunk-00000.mp4             the picture of about two seconds
    chunk-00000.safetensors     the state at its end; only the newest are kept, and every 16th
    chunk-00000.json            its frames, what was measured of them, and the hashes of the other two
    chunk-00007.before.*        what the frames of a seam are decoded from, by the segment before; .after.*
    lock                        held by the run that makes the film

A chunk is finished when its JSON has this name, which it gets when all else is on the disk. Imports no torch.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wav2clip_gen import ffmpeg
from wav2clip_gen.audio.timeline import Timeline
from wav2clip_gen.drawing import clock
from wav2clip_gen.errors import OutputError, W2CError
from wav2clip_gen.files import flush, hash_file, settle
from wav2clip_gen.video.claim import RECORD, locked, same_file
from wav2clip_gen.video.division import AFTER, BEFORE, Chunk
from wav2clip_gen.video.writer import timescale

if TYPE_CHECKING:
    from torch import Tensor

SUFFIX = ".w2c"
STATES = 2  # that are kept, besides ...
EVERY = 16  # ... each 16th
GROWTH = 1.1  # by which the finished part grows until it is joined again, so that all joins cost as much as ten
FRAGMENTS = ("-movflags", "frag_every_frame+empty_moov+default_base_moof+negative_cts_offsets+skip_trailer")
PLAN, LOCK, PICTURE, FINISHED = "plan.json", "lock", "picture.mp4", "finished.mp4"
OWN = re.compile(
    r"(lock|plan\.json|chunk-\d{5,}(\.(before|after))?\.\w+|film\.\w+|(picture|finished)\.mp4(\.txt)?)(\.part)?"
)
PARTS = re.compile(r"film\.\w+|(picture|finished)\.mp4.*|chunk.*\.part")  # of them, what is worthless to another run

Piece = tuple[str, int]  # the name of a film, and its number of frames


@dataclass(frozen=True)
class Finished:
    """What is known of a finished chunk."""

    chunk: Chunk
    seconds: float  # of work
    frames: list[Any]  # what was measured of each frame, as plain values
    sha256: dict[str, str]  # suffix -> hash


class WorkFolder:
    """The work folder of a film; `open_work` gives one that belongs to this run alone."""

    def __init__(self, out: Path, timeline: Timeline) -> None:
        self.out = out
        self.timeline = timeline
        self.path = out.with_suffix(SUFFIX)
        self.picture = self.path / PICTURE  # of the whole film, without sound
        self.finished_film = self.path / FINISHED  # of its beginning, without sound; see `finished_part`
        self.film = self.path / "film.mp4"  # picture and sound
        self.record = self.path / "film.json"
        self.keep_all = False  # states, and the folder of a finished film
        self.published = False  # the film has its name
        self._joined = 0  # chunks in the finished part
        self._continued = False  # a run with the same settings goes on
        self._finished: dict[str, Finished] = {}  # by the names of chunks

    def check(self) -> None:
        """Refuse what has the folder's name and is none.

        Raises:
            OutputError: It is a file, a link, or a folder with other content.
        """
        hint = "move it away, or choose another --out"
        if self.path.is_symlink() or (self.path.exists() and not self.path.is_dir()):
            raise OutputError(f"{self.path} is not a folder, and the film needs one with this name", hint=hint)
        names = [path.name for path in self.path.iterdir()] if self.path.exists() else []
        if PLAN not in names and not all(map(OWN.fullmatch, names)):
            raise OutputError(f"{self.path} is not a work folder of w2c-gen", hint=hint)

    # The plan

    @property
    def has_chunks(self) -> bool:
        """Whether anything is finished, by this run or an earlier one."""
        return any(self.path.glob("chunk-*.json"))

    def restart(self, plan: Mapping[str, Any]) -> None:
        """Begin anew, with this plan.

        Raises:
            OutputError: The disk does not take it.
        """
        self.clear()
        self._finished, self._continued = {}, True
        with self._written(PLAN) as part:
            part.write_text(json.dumps(plan, indent=1), encoding="utf-8", errors="backslashreplace")
        flush(self.path)
        flush(self.path.parent)

    def resume(self, chunks: Iterable[Chunk]) -> list[str]:
        """Continue with what is finished of these chunks; returns a note for each that is damaged, and not used."""
        notes, self._continued = [], True
        for chunk in chunks:
            found = self._read(chunk)
            if found:
                self._finished[chunk.name] = found
            elif (self.path / f"{chunk.name}.json").exists():
                (self.path / f"{chunk.name}.json").unlink()
                notes.append(f"{self.path / chunk.name} is damaged, and painted again")
        return notes

    # Chunks

    def finished(self, chunk: Chunk) -> Finished | None:
        """What is known of a chunk, if it is finished."""
        return self._finished.get(chunk.name)

    def note(self, chunk: Chunk) -> None:
        """Another process has finished a chunk."""
        found = self._read(chunk)
        if found:
            self._finished[chunk.name] = found

    def is_ready(self, seam: Chunk) -> bool:
        """Whether a seam is not finished, and can be."""
        return not self.finished(seam) and all(map(self.finished, seam.halves))

    def missing(self, chunks: Sequence[Chunk]) -> list[Chunk]:
        """The chunks of a segment that must be painted: those that are not finished, and those that lead to them.

        A half is not needed where its seam is finished.
        """
        missing: list[Chunk] = []
        for chunk in reversed(chunks):
            leads = bool(missing) and missing[-1].number == chunk.number + 1 and self.state(chunk) is None
            if leads or not (self.finished(chunk) or (chunk.half and f"chunk-{chunk.number:05}" in self._finished)):
                missing.append(chunk)
        return missing[::-1]

    def part(self, chunk: Chunk) -> Path:
        """Where the picture of a chunk is written, before it is finished."""
        return self.path / f"{chunk.name}.mp4.part"

    def finish(self, chunk: Chunk, state: Mapping[str, Tensor], frames: list[Any], *, seconds: float) -> None:
        """Keep a chunk whose picture is in `part`, or half a seam, which has none.

        Args:
            chunk: The chunk.
            state: What the next one needs, and of half a seam what its frames are decoded from; of a seam nothing.
            frames: What was measured of each frame, as plain values.
            seconds: Of work that it took.

        Raises:
            OutputError: The disk does not take it.
        """
        from safetensors.torch import save

        (self.path / f"{chunk.name}.json").unlink(missing_ok=True)
        suffixes = [".mp4"] * (not chunk.half) + [".safetensors"] * bool(state)
        for suffix in suffixes:
            with self._written(f"{chunk.name}{suffix}") as part:
                if suffix == ".safetensors":
                    part.write_bytes(save(dict(state)))
        hashes = {suffix: hash_file(self.path / f"{chunk.name}{suffix}") for suffix in suffixes}
        done = Finished(chunk, seconds, frames, hashes)
        with self._written(f"{chunk.name}.json") as part:
            part.write_text(json.dumps(asdict(done)), encoding="utf-8")
        flush(self.path)
        self._finished[chunk.name] = done
        if not self.keep_all:
            self._drop_states(chunk)

    def files(self, *chunks: Chunk) -> dict[str, bytes]:
        """The files of finished chunks by name, in the order of writing: what says that one is finished is last."""
        names = [f"{chunk.name}{suffix}" for chunk in chunks for suffix in (".mp4", ".safetensors", ".json")]
        return {name: (self.path / name).read_bytes() for name in names if (self.path / name).exists()}

    def take(self, chunk: Chunk, files: Mapping[str, bytes]) -> Finished:
        """Keep a chunk that was finished in another work folder; `files`: from there.

        Raises:
            OutputError: The disk does not take it, or it is damaged.
        """
        for name, content in files.items():
            with self._written(name) as part:
                part.write_bytes(content)
        flush(self.path)
        self.note(chunk)
        done = self.finished(chunk)
        if done is None:
            raise OutputError(f"{self.path / chunk.name} arrived damaged", hint="run the same command again")
        if not self.keep_all:
            self._drop_states(chunk)
        return done

    def _drop_states(self, chunk: Chunk) -> None:
        """Remove the states that are not needed since a chunk is finished."""
        number, ends = chunk.number, chunk.half == BEFORE  # the last of its segment: no state of it is needed
        for old in range(number - STATES, number if ends else number - STATES + 1):
            found = self._finished.get(f"chunk-{old:05}")
            if found and found.chunk.segment == chunk.segment and (old + 1) % EVERY:
                (self.path / f"chunk-{old:05}.safetensors").unlink(missing_ok=True)
        # the halves of a seam, once it is finished: but the second is where the chunk after the seam begins
        for seam, half, needed in ((number, BEFORE, number), (number, AFTER, number + 1), (number - 1, AFTER, number)):
            if all((self.path / f"chunk-{one:05}.json").exists() for one in {seam, needed}):
                for suffix in (".json", ".safetensors"):
                    (self.path / f"chunk-{seam:05}.{half}{suffix}").unlink(missing_ok=True)

    def state(self, chunk: Chunk) -> dict[str, Tensor] | None:
        """The state at the end of a chunk; None where it is damaged, or was not kept."""
        from safetensors.torch import load

        path, done = self.path / f"{chunk.name}.safetensors", self.finished(chunk)
        try:
            return load(path.read_bytes()) if done and hash_file(path) == done.sha256[path.suffix] else None
        except OSError:
            return None

    def _read(self, chunk: Chunk) -> Finished | None:
        try:
            content = json.loads((self.path / f"{chunk.name}.json").read_text(encoding="utf-8"))
            found = Finished(Chunk(**content.pop("chunk")), **content)
            whole = hash_file(self.path / f"{chunk.name}{chunk.kept}") == found.sha256[chunk.kept]
        except (OSError, ValueError, TypeError, AttributeError, KeyError):
            return None
        return found if whole and found.chunk == chunk and len(found.frames) == chunk.stop - chunk.start else None

    # The film

    def join(
        self, chunks: Sequence[Chunk], *, unfinished: int = 0, before: Sequence[Piece] = (), after: Sequence[Piece] = ()
    ) -> None:
        """Join consecutive chunks as `picture`, without encoding them again.

        Args:
            chunks: The chunks.
            unfinished: The number of frames in the part of the chunk after them, which is joined too.
            before: Other films in this folder, each with its number of frames, that are joined before the chunks.
            after: The same after them.

        Raises:
            VideoError: ffmpeg fails.
            OutputError: The disk does not take it.
        """
        pieces = [(f"{chunk.name}.mp4", chunk.stop - chunk.start) for chunk in chunks]
        if unfinished:
            number = chunks[-1].number + 1 if chunks else 0
            pieces.append((self.part(Chunk(number=number, start=0, stop=0)).name, unfinished))
        self._join([*before, *pieces, *after], PICTURE)

    def finished_part(self) -> Path:
        """Where the film is from its start as far as it is finished, without sound, if anything is: an mp4 that grows.

        It is joined again when a tenth more is finished. Any thread or process may ask, while another paints.

        Raises:
            W2CError: As `join`.
        """
        found = sorted(path for path in self.path.glob("chunk-*.json") if "." not in path.stem)
        if len(found) > GROWTH * self._joined:
            chunks = [Chunk(**json.loads(path.read_text(encoding="utf-8"))["chunk"]) for path in found]
            first = [chunk for number, chunk in enumerate(chunks) if chunk.number == number]
            if first:
                pieces = [(f"{chunk.name}.mp4", chunk.stop - chunk.start) for chunk in first]
                self._join(pieces, FINISHED, FRAGMENTS)
                self._joined = len(found)
        return self.finished_film

    def _pictures(self) -> list[Finished]:
        """What is finished of the picture."""
        return [one for one in list(self._finished.values()) if not one.chunk.half]

    def _join(self, pieces: Sequence[Piece], name: str, form: Sequence[str] = ()) -> None:
        """Join films in this folder, each with its number of frames; durations are whole microseconds, as ffmpeg's."""
        fps, lines, frames = self.timeline.fps, ["ffconcat version 1.0"], 0
        for piece, count in pieces:
            begin, frames = round(frames / fps * 10**6), frames + count
            lines += [f"file {piece}", f"duration {round(frames / fps * 10**6) - begin}us"]
        with self._written(f"{name}.txt") as part:
            part.write_text("\n".join([*lines, ""]))
        ticks, step = timescale(fps)
        # a piece of one or two frames has no delay for reordering: give all packets the delay of the first
        regular = ["-c", "copy", "-bsf:v", f"setts=pts=PTS:dts=STARTDTS+N*{step}", "-video_track_timescale", str(ticks)]
        script = ["-f", "concat", "-i", ffmpeg.file_url(self.path / f"{name}.txt"), "-map", "0:v:0"]
        with self._written(name) as part:
            target = [*form, "-f", "mp4", "-y", ffmpeg.file_url(part)]
            ffmpeg.run([*script, *regular, *target], purpose=f"join {self.out}")

    # Files

    @contextmanager
    def _written(self, name: str) -> Iterator[Path]:
        """Give the path of a part, renamed when it is on the disk."""
        part = self.path / f"{name}.part"
        try:
            yield part
            settle(part, self.path / name)
        except OSError as error:
            raise OutputError(f"cannot write {part}: {error.strerror}", hint="free some disk space") from error

    def _remove(self, wanted: Callable[[str], object]) -> None:
        """Remove files of ours, as far as that is possible."""
        with suppress(OSError):
            for path in list(self.path.iterdir()):
                if OWN.fullmatch(path.name) and wanted(path.name):
                    path.unlink()

    def clear(self) -> None:
        """Remove all that is ours, as far as that is possible; the plan first, so that nobody continues with a part."""
        plan, unwanted = self.path / PLAN, self.path / f"{PLAN}.part"
        if plan.exists():
            with suppress(OSError):
                plan.replace(unwanted)
        self._remove(lambda name: name not in (LOCK, unwanted.name))
        self._remove(unwanted.name.__eq__)

    def clear_leavings(self) -> None:
        """Remove what a run left that was killed in `clear`."""
        if (self.path / f"{PLAN}.part").exists() and not (self.path / PLAN).exists():
            self.clear()

    def tidy(self) -> None:
        """Remove what a run leaves that is of no use to another."""
        self._remove(PARTS.fullmatch)

    # Errors

    def describe(self) -> str:
        """One clause about what is finished; empty if nothing is."""
        frames = sum(one.chunk.stop - one.chunk.start for one in self._pictures())
        if not frames:  # perhaps halves of seams
            return f"what was begun is in {self.path}, and the same command resumes" if self._finished else ""
        done, total = clock(float(frames / self.timeline.fps)), clock(float(self.timeline.duration))
        return f"{done} of {total} are finished in {self.path}, and the same command resumes"

    @contextmanager
    def explained(self, report: Callable[[str], None]) -> Iterator[None]:
        """Whatever goes wrong inside, the error or `report` tells what is finished."""
        try:
            yield
        except (Exception, KeyboardInterrupt) as error:
            if self._continued and not self.path.is_dir() and not isinstance(error, KeyboardInterrupt):
                what = f"the work folder {self.path} was removed while its film was made"
                raise OutputError(what, hint="start again, and leave it there until the film is finished") from error
            done = self.describe() if self._continued and not self.published else ""
            if isinstance(error, W2CError):
                error.what = self._with_visible_names(error.what) + (f"; {done}" if done else "")
                error.args = (error.what,)
            elif done and isinstance(error, KeyboardInterrupt):
                raise KeyboardInterrupt(done) from error
            elif done:
                with suppress(Exception):  # it may be the listener that failed
                    report(done)
            raise

    def _with_visible_names(self, text: str) -> str:
        """A message in which the film's name stands for those of its parts."""
        for path in (self.film, self.picture, self.record):
            text = text.replace(str(path), str(self.out))
        return re.sub(rf"{re.escape(str(self.path))}/chunk-\d+\.mp4\.part", str(self.out).replace("\\", r"\\"), text)


def read_plan(out: Path) -> dict[str, Any] | None:
    """The plan of the run that began a film; None where there is none, or it is damaged."""
    try:
        content = json.loads((out.with_suffix(SUFFIX) / PLAN).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None


def half_published(out: Path) -> bool:
    """Whether a film, or its record, has its name only because a run was killed while it gave both their names."""
    work = out.with_suffix(SUFFIX)
    return same_file(work / "film.mp4", out) or same_file(work / "film.json", out.with_suffix(RECORD))


@contextmanager
def open_work(
    out: Path, timeline: Timeline, *, keep: bool = False, report: Callable[[str], None] = lambda text: None
) -> Iterator[WorkFolder]:
    """Claim a film and its work folder until the end of the block.

    The folder is removed where the film has its name, or nothing is finished; else it stays, and errors tell so.

    Args:
        out: The film.
        timeline: Of the film.
        keep: Keep the folder of a finished film too, with all states.
        report: Is told what is finished, where an error cannot tell it.

    Raises:
        OutputError: Another run makes the film, or the folder cannot be made.
    """
    work = WorkFolder(out, timeline)
    work.keep_all = keep
    work.check()
    try:
        with locked(work.path / LOCK, out):
            work.clear_leavings()
            for part, path in ((work.film, out), (work.record, out.with_suffix(RECORD))):
                if same_file(part, path):  # see `half_published`: it gets its name again
                    path.unlink()
            work.tidy()
            try:
                with work.explained(report):
                    yield work
            finally:
                work.tidy()
                if (work.published and not keep) or not work.has_chunks:
                    work.clear()
    finally:
        with suppress(OSError):
            work.path.rmdir()  # fails where anything is in it

"""The run record: everything that is needed to make the same film again, and what was measured. Imports no torch."""

from __future__ import annotations

import json
import platform
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wav2clip_gen import __version__, ffmpeg
from wav2clip_gen.audio.stems import separator_version
from wav2clip_gen.config import Settings
from wav2clip_gen.errors import SettingsError, SoundError
from wav2clip_gen.files import relative_path
from wav2clip_gen.job import Job
from wav2clip_gen.models.registry import select_models
from wav2clip_gen.models.store import weights_sha256
from wav2clip_gen.progress import Film

if TYPE_CHECKING:
    from wav2clip_gen.models.registry import Models

FORMAT = 1
PACKAGES = (
    "torch", "torchaudio", "torchvision", "open_clip_torch", "taming-transformers", "timm", "einops", "safetensors",
    "omegaconf", "numpy", "scipy", "soundfile", "soxr", "imageio-ffmpeg",
)  # fmt: skip


@dataclass(frozen=True)
class FrameValues:
    """What is recorded of a frame."""

    loss: float | None  # at the last step; None without steps
    similarity: float | None  # mean cosine between cutouts and target at the last step
    pictures: dict[str, tuple[float | None, float | None]]  # of each picture of a grid, the same
    cut_batch: int  # cutouts that CLIP took at a time, at the last step


def hash_inputs(job: Job, models: Models) -> dict[Path, str | None]:
    """The hashes of all files that a film is made from; call it before the frames are made, which takes long."""
    stems = [track.path for track in job.stems.given.values()] if job.stems else []
    images = map(Path, job.settings.image_files)
    return {path: hash_input(path) for path in (job.track.path, *stems, *images, *models.files.values())}


@contextmanager
def song_unchanged(path: Path, sha256: str | None) -> Iterator[None]:
    """The song is the one that was hashed, before and after the block.

    Raises:
        SoundError: It was moved or changed.
    """

    def check(cause: BaseException | None = None) -> None:
        found = hash_input(path)
        if found is None or found != sha256:
            what = f"{path} was {'changed' if found else 'moved'} while its film was made"
            raise SoundError(what, hint="leave the song in its place, and start again") from cause

    check()
    try:
        yield
    except Exception as error:
        check(error)
        raise
    check()


def describe(
    job: Job, models: Models, film: Film, frames: list[FrameValues], hashes: dict[Path, str | None]
) -> dict[str, Any]:
    """The record of a finished film as plain values; `hashes` are from `hash_inputs`."""
    track, folder = job.track, film.path.parent
    settings = job.settings.with_image_files(lambda file: _relative(Path(file), folder))
    return {
        "w2c-gen": {"format": FORMAT, "version": __version__},
        "film": film.path.name,
        "partial": film.partial,
        "segments": film.segments,
        "track": {
            "path": _relative(track.path, folder),
            "input": _relative(job.source, folder),
            "sha256": hashes[track.path],
            "sample_rate": track.sample_rate,
            "channels": track.channels,
            "mono_weights": track.mono_weights,
            "start": track.start,
            "samples": track.samples,
        },
        "settings": settings.to_dict(),
        "stems": {name: describe_stem(job, name, folder, hashes) for name in settings.required_stems},
        "demucs_repo": job.demucs_repo and _relative(job.demucs_repo, folder),
        "pictures": {_relative(Path(file), folder): hashes[Path(file)] for file in job.settings.image_files},
        "family": {
            "name": models.selection.family,
            "random": models.random,
            "device": str(models.device),
            "sha256": {role: hashes[path] for role, path in models.files.items()},
        },
        "versions": versions(),
        "sound": asdict(job.sound),
        "sync": asdict(film.sync),
        "reactivity": asdict(film.reactivity),
        "seconds": {**film.timings, "film": film.seconds},
        "cut_batch": {str(index): size for index, size in cut_batches(frames).items()},
        "frames": {
            "loss": [_short(frame.loss) for frame in frames],
            "similarity": [_short(frame.similarity) for frame in frames],
            "pictures": {name: _picture(name, frames) for name in frames[0].pictures},
        },
    }


def describe_stem(job: Job, name: str, folder: Path, hashes: Mapping[Path, str | None]) -> dict[str, Any]:
    """The origin of a stem."""
    assert job.stems
    given, separator = job.stems.given.get(name), job.stems.maker
    if given is None and separator:
        return {"from": separator.name, "version": separator.version, "path": None, "sha256": None}
    assert given
    return {"from": "given", "path": _relative(given.path, folder), "sha256": hashes[given.path]}


def cut_batches(frames: Sequence[FrameValues]) -> dict[int, int]:
    """Cutouts that CLIP took at a time: in the first frame, and in each from which on it took others."""
    sizes = [frame.cut_batch for frame in frames]
    return {index: size for index, (before, size) in enumerate(zip([0, *sizes], sizes, strict=False)) if size != before}


def _picture(name: str, frames: list[FrameValues]) -> dict[str, list[float | None]]:
    """The values of one picture of a grid."""
    losses, similarities = zip(*(frame.pictures[name] for frame in frames), strict=True)
    return {"loss": [*map(_short, losses)], "similarity": [*map(_short, similarities)]}


def summary(job: Job, models: Models) -> str:
    """One line for the film's own metadata."""
    picture, painting = job.settings.picture, job.settings.painting
    return (
        f"w2c-gen {__version__}, models {models.name}, seed {job.seed}, {picture.width}x{picture.height}, "
        f"{picture.fps:g} fps, {picture.optimized_fps:g} optimized, {painting.steps} steps, {painting.cuts} cuts"
    )


@dataclass(frozen=True)
class Replay:
    """What makes the film of a record again."""

    source: Path  # the track, or the folder of its stems if that was given
    settings: Settings  # seed included
    demucs_repo: Path | None  # folder of Demucs' weights
    differences: tuple[str, ...]  # why the film would differ here, a line each


def read(path: Path, weights_dir: Path | None = None, demucs_repo: Path | None = None) -> Replay:
    """Read the track and the settings from a run record.

    Args:
        path: The JSON next to a film.
        weights_dir: Folder of fetched weights, instead of `W2C_WEIGHTS` or the user's cache.
        demucs_repo: Folder of Demucs' weights, instead of the recorded one.

    Raises:
        SettingsError: It is no run record, or one of a later version.
    """
    with malformed_refused(path):
        return _replay(load(path), path, weights_dir, demucs_repo)


def load(path: Path) -> dict[str, Any]:
    """The content of a run record.

    Raises:
        SettingsError: It is none, or one of a later version.
    """
    with malformed_refused(path):
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["w2c-gen"]["format"] != FORMAT:
            raise SettingsError(f"{path}: written by another version of w2c-gen", hint="update w2c-gen")
        return dict(content)


@contextmanager
def malformed_refused(path: Path) -> Iterator[None]:
    """Turn what goes wrong inside, where a run record is read, into a SettingsError."""
    try:
        yield
    except OSError as error:
        raise SettingsError(f"{path}: cannot be read ({error.strerror})", hint="give the JSON next to a film") from None
    except (AttributeError, KeyError, TypeError, ValueError):
        raise SettingsError(f"{path}: not a run record of w2c-gen", hint="give the JSON next to a film") from None


def recorded_settings(content: dict[str, Any], folder: Path) -> Settings:
    """The settings in a run record in `folder`; the paths of stems and images are as seen from here."""
    files = {name: folder / stem["path"] for name, stem in content.get("stems", {}).items() if stem["path"]}
    given = {"stem_files": [f"{name}={file}" for name, file in files.items()]}
    settings = Settings.from_record(content["settings"] | given)
    return settings.with_image_files(lambda file: str(folder / file))


def _replay(content: dict[str, Any], path: Path, weights_dir: Path | None, demucs_repo: Path | None) -> Replay:
    """See `read`; content that is no record raises one of Python's own errors."""
    folder, track = path.parent, content["track"]
    stems = content.get("stems", {})
    stem_files = {name: folder / stem["path"] for name, stem in stems.items() if stem["path"]}
    settings = recorded_settings(content, folder)
    repo = content.get("demucs_repo")
    demucs_repo = demucs_repo or (folder / repo if repo else None)
    components = select_models(settings.run, weights_dir).components
    old = content["w2c-gen"]["version"].startswith("0.1.")  # then the hash of an own checkpoint is of its conversion
    inputs = [_Input(folder / track["path"], track["sha256"], "name the song itself, as in w2c-gen song.wav --from")]
    inputs += [
        _Input(file, stems[name]["sha256"], f"give another with --stem-file {name}=FILE")
        for name, file in stem_files.items()
    ]
    inputs += [
        _Input(folder / file, digest, "give another with --style-image or --init-image")
        for file, digest in content.get("pictures", {}).items()
    ]
    inputs += [
        _Input(components[role].path, digest, components[role].hint)
        for role, digest in content["family"]["sha256"].items()
        if not (old and components[role].is_checkpoint)
    ]
    once = {one.path: one for one in reversed(inputs)}  # a .stem.mp4 is both the song and its stems
    differences = [found for one in reversed(once.values()) if (found := one.difference(path.name))]
    differences += [
        f"memory ran out at frame {frame} of {path.name}, and --cut-batch was {size} from there on: rounding differs"
        for (_, before), (frame, size) in pairwise(content.get("cut_batch", {}).items())
        if size < before  # where a segment begins, it may grow again
    ]
    differences += [
        f"{path.name} tells of --range {one['range']} too, which is left out: that part is made as it was before"
        for one in content.get("ranges", [])
    ]
    for name, made in {stem["from"]: stem.get("version") for stem in stems.values() if not stem["path"]}.items():
        if separator_version(name, demucs_repo) not in (None, made):
            differences.append(f"the version of {name} differs from the one that separated the stems of {path.name}")
    return Replay(folder / track.get("input", track["path"]), settings, demucs_repo, tuple(differences))


@dataclass(frozen=True)
class _Input:
    """A file that a film was made from."""

    path: Path
    sha256: str | None  # None: it was moved away before it was hashed
    hint: str  # where it is missing

    def difference(self, record: str) -> str | None:
        """How it differs from the recorded file, if it does."""
        if not self.path.exists():
            return f"{self.path} is missing; {self.hint}"
        return f"{self.path} has changed since {record}" if self.sha256 not in (None, hash_input(self.path)) else None


def versions() -> dict[str, str]:
    """Versions of everything that can change a film."""
    tool = ffmpeg.version().removeprefix("ffmpeg version ")
    return {"python": platform.python_version(), "ffmpeg": tool, **package_versions()}


@cache
def package_versions() -> Mapping[str, str]:
    """Versions of the packages that can change a film, or "not installed"."""
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


def _relative(path: Path, folder: Path) -> str:
    """The path relative to `folder`, so that both can be moved together."""
    return relative_path(path, folder).as_posix()


def hash_input(path: Path) -> str | None:
    """The hash of a file; None if it cannot be read."""
    try:
        return weights_sha256(path)
    except OSError:
        return None


def _short(value: float | None) -> float | None:
    return None if value is None else round(value, 6)

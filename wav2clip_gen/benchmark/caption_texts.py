"""Captions from tables of their own: for sounds that a set holds without captions, or to learn from text alone."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from wav2clip_gen.benchmark.caption_scores import Words, tokenize
from wav2clip_gen.benchmark.clips import Clip, Dataset
from wav2clip_gen.errors import SettingsError

KEYS = ("key", "file_name", "audiocap_id", "ytid")  # columns that name a sound; the first that is there
SHARED = 0.5  # share of a clip's captions that, also in the test part, make it the same sound


def texts_of(clip: Clip) -> list[Words]:
    """The captions of a clip, as words; empty ones are left out.

    Raises:
        SettingsError: None of them has a word, or they were decoded with a wrong encoding.
    """
    for caption in clip.captions:
        foreign = sum("\x80" <= letter <= "\xff" for letter in caption)  # what other encodings look like in Latin-1
        if "\ufffd" in caption or foreign > 0.3 * len(caption.replace(" ", "")):
            what = f"{clip.key}: the caption {caption[:30]!r} was read in a wrong encoding"
            raise SettingsError(what, hint="convert the table to UTF-8, as in: iconv -f CP949 -t UTF-8 OLD > NEW")
    texts = [words for words in map(tokenize, clip.captions) if words]
    if not texts:
        raise SettingsError(f"{clip.key}: its captions have no words", hint="correct the table of captions")
    return texts


def read_texts(path: Path, *, split: str = "train") -> list[Clip]:
    """Clips without sounds, of a CSV file with columns `caption...` (as Clotho's), or of lines of text.

    Raises:
        SettingsError: The file cannot be read, is not UTF-8 text, has no such column, or a row has no caption.
    """
    text = _read(path)
    if path.suffix.lower() != ".csv":
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        clips = [Clip(key=f"{path.name}:{number}", path=path, captions=(line,)) for number, line in enumerate(lines, 1)]
    else:
        rows = csv.DictReader(io.StringIO(text, newline=""))
        columns = [name for name in rows.fieldnames or () if name.startswith("caption")]
        if not columns:
            found = ", ".join(rows.fieldnames or ()) or "none"
            raise SettingsError(f"{path}: no column is called caption; it has {found}", hint="name it caption_1")
        naming = next((name for name in KEYS if name in (rows.fieldnames or ())), columns[0])
        clips = []
        for row in rows:
            captions = tuple(row[name].strip() for name in columns if row[name] and row[name].strip())
            if not captions:
                what = f"{path}:{rows.line_num}: {row[naming] or 'a row'} has no caption"
                raise SettingsError(what, hint="write one, or remove the row")
            clips.append(Clip(key=row[naming], path=path, captions=captions))
    if not clips:
        raise SettingsError(f"{path}: has no captions", hint="one a line, or CSV with a column caption_1")
    return [replace(clip, split=split) for clip in clips]


def _read(path: Path) -> str:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise SettingsError(f"{path}: cannot be read ({error.strerror})", hint="check the name of the file") from None
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        from charset_normalizer import from_bytes

        line = data[: error.start].count(b"\n") + 1
        best = from_bytes(data).best()
        name = (best.encoding if best else "iso8859_1").upper()
        hint = f"convert it, as in: iconv -f {name} -t UTF-8 {path.name} > utf8.csv ({name} is a guess)"
        raise SettingsError(f"{path}:{line}: is not UTF-8 text", hint=hint) from None


def add_captions(dataset: Dataset, path: Path, *, split: str = "test") -> Dataset:
    """The set with the captions of a table whose column `key` (or `file_name`) has the clips' keys.

    These clips become the part `split`, all others lose theirs and their captions.

    Raises:
        SettingsError: As `read_texts`, or the set has none of the table's clips.
    """
    texts = {clip.key: clip.captions for clip in read_texts(path)}
    clips = [
        replace(clip, captions=texts.get(clip.key, ()), split=split if clip.key in texts else "")
        for clip in dataset.clips
    ]
    found = sum(bool(clip.captions) for clip in clips)
    if not found:
        what = f"{path}: none of its {len(texts)} sounds is in {dataset.name}"
        raise SettingsError(what, hint="its column key has the names that the set's clips have")
    notes = [*dataset.notes]
    if found < len(texts):
        notes.append(f"{len(texts) - found} of the {len(texts)} sounds with captions are not in the set.")
    return replace(dataset, clips=tuple(clips), folds=False, notes=notes)


def same_sounds(training: Sequence[Clip], tested: Sequence[Clip]) -> set[str]:
    """Keys of training clips that are in the test part too: by key, by recording, or by half of their captions."""
    keys = {name for clip in tested for name in (clip.key, clip.recording) if name}
    captions = {caption.lower() for clip in tested for caption in clip.captions}
    return {
        clip.key
        for clip in training
        if clip.key in keys
        or clip.recording in keys
        or sum(caption.lower() in captions for caption in clip.captions) >= SHARED * len(clip.captions)
    }

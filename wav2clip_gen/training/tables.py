"""Tables and arrays of the training data, read with their faults told."""

from __future__ import annotations

import csv
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wav2clip_gen.errors import TrainingError
from wav2clip_gen.training.shards import WHERE


def read_table(path: Path, *columns: str) -> list[dict[str, str]]:
    """Rows of a CSV file, which has at least these columns; what a short row lacks is empty.

    Raises:
        TrainingError: It is missing, no table, or lacks a column.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, restval="")
            rows, found = list(reader), reader.fieldnames or ()
    except (OSError, UnicodeDecodeError, csv.Error):
        raise TrainingError(f"{path}: cannot be read", hint=WHERE) from None
    lacking = [name for name in columns if name not in found]
    if lacking:
        raise TrainingError(f"{path}: has no column {', '.join(lacking)}", hint=WHERE)
    return rows


def read_arrays(path: Path, *names: str) -> list[NDArray[Any]]:
    """The arrays of these names in an npz file.

    Raises:
        TrainingError: It is missing, damaged, or lacks an array.
    """
    try:
        with path.open("rb") as file, np.load(file) as arrays:
            return [arrays[name] for name in names]
    except (OSError, KeyError, ValueError, EOFError, TypeError, zipfile.BadZipFile, zlib.error) as error:
        raise TrainingError(f"{path}: cannot be read ({error})", hint=WHERE) from None

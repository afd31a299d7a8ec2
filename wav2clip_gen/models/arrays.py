"""Named arrays of published networks that torch did not write: NumPy's npz and Keras's HDF5, plain or gzipped."""

from __future__ import annotations

import gzip
import io
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from wav2clip_gen.errors import SettingsError, WeightsError

HDF5, GZIP = b"\x89HDF\r\n\x1a\n", b"\x1f\x8b"  # what such files begin with
LARGEST = 1 << 30  # bytes of an unpacked file


def read_npz(path: Path) -> dict[str, Tensor]:
    """The arrays in a file that `numpy.savez` wrote; pickled objects are refused.

    Raises:
        WeightsError: The file is missing or damaged.
    """
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            return {name: torch.from_numpy(arrays[name]) for name in arrays.files}
    except (
        OSError,
        KeyError,
        ValueError,
        EOFError,
        TypeError,
        AttributeError,
        zipfile.BadZipFile,
        zlib.error,
    ) as error:
        raise WeightsError(f"{path}: cannot be read ({error})", hint="give an npz file of named arrays") from None


def is_hdf5(path: Path) -> bool:
    """Whether a file is HDF5, or gzipped, as OpenL3's weights are."""
    try:
        with path.open("rb") as file:
            return file.read(8).startswith((HDF5, GZIP))
    except OSError:
        return False


def read_hdf5(path: Path) -> dict[str, Tensor]:
    """The weights in an HDF5 file of Keras, by `LAYER/WEIGHT`, such as `conv2d_1/kernel`.

    Keras files a weight below its layer's name, which may hold slashes, and then below the name it had in TensorFlow's
    graph: `LAYER/LAYER/kernel:0`, perhaps below `model_weights`.

    Raises:
        SettingsError: h5py is missing.
        WeightsError: The file is missing or damaged.
    """
    try:
        import h5py
    except ImportError:
        hint = "run `pip install 'wav2clip-gen[hdf5]'`, then the same command again"
        raise SettingsError(f"{path}: an HDF5 file, which needs h5py", hint=hint) from None
    found: dict[str, Tensor] = {}

    def visit(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset):
            layer, _, weight = name.removeprefix("model_weights/").rpartition("/")
            half = len(layer) // 2
            if layer[:half] == layer[half + 1 :]:  # LAYER/LAYER
                layer = layer[:half]
            found[f"{layer}/{weight.partition(':')[0]}"] = torch.from_numpy(np.asarray(item[()]))

    try:
        content = path.read_bytes()
        if content.startswith(GZIP):
            with gzip.open(io.BytesIO(content)) as unpacked:
                content = unpacked.read(LARGEST)
        with h5py.File(io.BytesIO(content), "r") as file:
            file.visititems(visit)
    except (OSError, EOFError, KeyError, RuntimeError, TypeError, ValueError, zlib.error) as error:
        hint = "the file is damaged or incomplete: download it again"
        raise WeightsError(f"{path}: not a readable HDF5 file ({error})", hint=hint) from None
    return found

"""Read the state dict in a published PyTorch checkpoint, of which nothing is run, imported or trusted.

A `.ckpt` or `.pt` file is a pickle: a program that may do anything, and that names classes of libraries nobody has
here (lightning's callbacks, somebody's configuration). Only its tensors are wanted, so only they are read.
"""

from __future__ import annotations

import mmap
from collections import deque
from collections.abc import Iterable, Iterator
from io import BufferedReader
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import Tensor

from wav2clip_gen.errors import WeightsError
from wav2clip_gen.models.archives import Archive, TorchScriptError, read_zip, unfolded_limit
from wav2clip_gen.models.legacy import is_stream, is_tar, read_stream, read_tar
from wav2clip_gen.models.stored import StoredTensor

# where the libraries put a state dict that is not alone in its file
WRAPPERS = ("state_dict", "model_state_dict", "model", "params", "generator", "network", "net", "module", "weights")
MOST_ITEMS = 200_000  # of a state dict, with what is in it beside tensors
LONGEST_NAME = 1000  # characters
DEEPEST = 16  # dicts within dicts

_DAMAGED = "the file is damaged or incomplete: download it again"
_OTHER = "give another file, such as torch.save writes"


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """The state dict inside a checkpoint that torch.save wrote, in any of its three formats.

    If several mappings in the file hold tensors, it is the one with the most, where dotted names
    (`encoder.conv.weight`) come before plain ones, which are an optimiser's as a rule. Dicts within it flatten, with
    dots. Anything but tensors is left out, quantised, sparse and complex-conjugate tensors too.

    Args:
        path: The file. Where its format allows, tensors are views of it, read when they are touched: it must not be
            shortened or written to while they live. To write to the tensors is safe and does not change the file.

    Returns:
        Tensors on the CPU, by name, without gradients. Those that shared a storage in the file still do.

    Raises:
        WeightsError: The file is missing, damaged, dishonest about its sizes, no checkpoint, or holds no tensors.
    """
    try:
        if path.exists() and not path.is_file():
            raise WeightsError(f"{path}: not a file", hint=_OTHER)
        if path.stat().st_size == 0:
            raise WeightsError(f"{path}: empty", hint=_DAMAGED)
        with path.open("rb") as file:
            data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)  # closed by the last tensor that views it
            return _load(path, _open(path, file, data))
    except WeightsError:
        raise
    except TorchScriptError as error:
        raise WeightsError(
            f"{path}: {error}", hint="only OpenAI's CLIP is read in this form; else give the state dict"
        ) from None
    except FileNotFoundError:
        raise WeightsError(f"{path}: no such checkpoint", hint="check the spelling and the folder you are in") from None
    except PermissionError as error:
        raise WeightsError(
            f"{path}: cannot be read ({error.strerror})", hint="make it readable, or give another file"
        ) from None
    except Exception as error:  # hostile bytes provoke whatever the standard library raises
        raise WeightsError(f"{path}: not a readable checkpoint ({_in_one_line(error)})", hint=_DAMAGED) from None


def _open(path: Path, file: BufferedReader, data: mmap.mmap) -> Archive:
    """Read the checkpoint in the format that its first bytes tell."""
    if data[:4] == b"PK\x03\x04":
        return read_zip(file, data)
    if is_tar(data):
        return read_tar(file, data)
    if is_stream(data):
        return read_stream(file, data)
    raise WeightsError(f"{path}: {_kind(data[:512])}, not a checkpoint", hint=_OTHER)


def _kind(head: bytes) -> str:
    """What a file that is no checkpoint seems to be, by its first bytes."""
    if head[8:10] == b'{"':
        return "a safetensors file"
    if head[:1] == b"\x80" and head[1:2] <= b"\x05":
        return "a Python pickle that torch.save did not write"
    words = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    if words.startswith(b"<"):
        return "a web page"
    if words.decode("utf-8", errors="ignore").replace("\n", "").replace("\r", "").replace("\t", "").isprintable():
        return "text"
    return "bytes of an unknown kind"


def _in_one_line(error: Exception) -> str:
    """What an error says, fit for a terminal: it may quote the file."""
    words = " ".join(str(error).split()) or type(error).__name__
    return "".join(letter if letter.isprintable() else "?" for letter in words[:160])


def _load(path: Path, archive: Archive) -> dict[str, Tensor]:
    """Make the tensors of the archive's state dict."""
    stored = _flatten(_choose(archive.root))
    if not stored:
        raise WeightsError(f"{path}: holds no tensors", hint="save the state_dict() of a network, not the network")
    size = len(archive.data)
    if sum(tensor.nbytes for tensor in stored.values()) > unfolded_limit(size):
        raise WeightsError(f"{path}: its tensors claim to be larger than a file of {size} bytes allows", hint=_DAMAGED)
    storages = {key: archive.storage(key) for key in {tensor.storage.key for tensor in stored.values()}}
    return {name: _tensor(tensor, storages[tensor.storage.key]) for name, tensor in stored.items()}


def _tensor(stored: StoredTensor, storage: torch.UntypedStorage) -> Tensor:
    """A view of a storage; that it lies within was checked when the pickle was read."""
    start, rest = divmod(stored.storage.start, stored.dtype.itemsize)
    if rest:
        raise UnpicklingError("a tensor lies between two numbers")
    return torch.empty(0, dtype=stored.dtype).set_(storage, start + stored.offset, stored.shape, stored.stride)


def _choose(root: Any) -> dict[Any, Any]:
    """The mapping in a checkpoint that is its state dict; an empty one if none has tensors."""

    def rank(mapping: dict[Any, Any]) -> tuple[bool, int]:
        names = [name for name, value in mapping.items() if isinstance(value, StoredTensor) and isinstance(name, str)]
        return any("." in name for name in names), len(names)

    best = max(_mappings(root), key=rank, default={})  # the first of equals
    if rank(best)[0] or not isinstance(root, dict):
        return best
    whole = _unwrap(root)  # no dotted names: the dicts' own names may be parts of them
    return whole if _flatten(whole) else best


def _mappings(root: Any) -> Iterator[dict[Any, Any]]:
    """All dicts in a checkpoint, each once, the outer before the inner."""
    waiting, seen = deque([root]), {id(root)}
    while waiting:
        value = waiting.popleft()
        inside: Iterable[Any] = ()
        if isinstance(value, dict):
            yield value
            inside = value.values()
        elif isinstance(value, list | tuple):
            inside = value
        for item in inside:
            if isinstance(item, dict | list | tuple) and id(item) not in seen:
                seen.add(id(item))
                waiting.append(item)


def _unwrap(mapping: dict[Any, Any]) -> dict[Any, Any]:
    """Go down from `mapping` while what holds the tensors is clearly one dict in it."""
    for _ in range(DEEPEST):
        sizes = {name: len(_flatten(value)) for name, value in mapping.items() if isinstance(value, dict)}
        sizes = {name: size for name, size in sizes.items() if size}
        own = sum(isinstance(value, StoredTensor) for value in mapping.values())
        if named := [name for name in sizes if name in WRAPPERS]:
            inner = max(named, key=sizes.__getitem__)
        elif len(sizes) == 1 and own < max(sizes.values()):
            (inner,) = sizes
        else:
            return mapping
        mapping = mapping[inner]
    return mapping


def _flatten(mapping: dict[Any, Any]) -> dict[str, StoredTensor]:
    """The tensors of a mapping and of those within it, under dotted names.

    Raises:
        UnpicklingError: It is larger or deeper than a state dict can be, or holds two tensors of one name.
    """
    tensors: dict[str, StoredTensor] = {}
    waiting = deque([("", 0, mapping)])
    items = 0
    while waiting:
        prefix, depth, inner = waiting.popleft()
        items += len(inner)
        if depth > DEEPEST or items > MOST_ITEMS:  # as of dicts that hold themselves, or each other many times
            raise UnpicklingError("dicts within dicts without end")
        for name, value in inner.items():
            if not isinstance(name, str) or not isinstance(value, dict | StoredTensor):
                continue
            whole = f"{prefix}{name}"
            if len(whole) > LONGEST_NAME or whole in tensors:
                raise UnpicklingError(f"a tensor's name is too long or not its own: {whole[:40]}")
            if isinstance(value, StoredTensor):
                tensors[whole] = value
            else:
                waiting.append((f"{whole}.", depth + 1, value))
    return tensors

"""Read the tensors of a PyTorch checkpoint without running anything that the file names.

A `.ckpt` or `.pt` file is a pickle: a program that may import and call anything, and that names classes of libraries
which are not installed here (Lightning's callbacks, OmegaConf's nodes). `torch.load(weights_only=True)` refuses such a
file as a whole. This is the standard library's unpickler with an allow-list: the few names that a state dict needs
become functions of this module, which build records of their checked arguments; every other name becomes one inert
class, which can be called, constructed and filled, and does nothing.

The unpickler is the one written in Python. The one in C cannot be kept from hashing what a file puts into dicts and
sets (nested tuples take exponential time), nor from allocating whatever a file claims to need.
"""

from __future__ import annotations

import io
import math
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from pickle import UnpicklingError
from typing import Any

import torch

LARGEST_PICKLE = 1 << 23  # bytes; published checkpoints have less than 1 MiB besides their storages
LARGEST_INTEGER = (1 << 63) - 1  # of a shape, a stride, an offset or a key
MOST_DIMENSIONS = 64  # of a tensor, as in torch

Key = str | int  # of a storage
DTYPES = {name: dtype for name, dtype in vars(torch).items() if isinstance(dtype, torch.dtype)} | {
    "BFloat16Storage": torch.bfloat16, "BoolStorage": torch.bool, "ByteStorage": torch.uint8,
    "CharStorage": torch.int8, "ComplexDoubleStorage": torch.complex128, "ComplexFloatStorage": torch.complex64,
    "DoubleStorage": torch.float64, "FloatStorage": torch.float32, "HalfStorage": torch.float16,
    "IntStorage": torch.int32, "LongStorage": torch.int64, "ShortStorage": torch.int16, "UntypedStorage": torch.uint8,
}  # fmt: skip


@dataclass(frozen=True, eq=False)
class Storage:
    """A range of one of the file's storages."""

    key: Key
    dtype: torch.dtype
    start: int  # bytes into the storage
    nbytes: int


@dataclass(frozen=True, eq=False)
class StoredTensor:
    """Where a tensor lies in a storage; its bounds are checked, its numbers are not read yet."""

    storage: Storage
    dtype: torch.dtype
    offset: int  # elements into the storage's range
    shape: tuple[int, ...]
    stride: tuple[int, ...]  # elements

    @property
    def nbytes(self) -> int:
        """Bytes of its elements, each counted once per place in the shape."""
        return math.prod(self.shape) * self.dtype.itemsize


class Inert:
    """Stands for every class that is not on the allow-list, and for its objects."""

    def __new__(cls, *_: Any, **__: Any) -> Inert:
        """Take any arguments."""
        return object.__new__(cls)

    def __call__(self, *_: Any, **__: Any) -> Inert:
        """Take any arguments."""
        return self

    def __setitem__(self, key: Any, value: Any) -> None:
        pass

    def append(self, *_: Any) -> None:
        """Ignore an item; so do `extend` and `add`."""

    extend = add = append


class _Dict(dict[Any, Any]):
    """A dict that takes only keys that are quick to hash; others cannot be in a state dict."""

    def __setitem__(self, key: Any, value: Any) -> None:
        if type(key) in (str, float) or (type(key) is int and abs(key) <= LARGEST_INTEGER):
            super().__setitem__(key, value)


def _dict(*arguments: Any) -> _Dict:
    """`dict`, `OrderedDict` or `defaultdict`, empty or (in Python 2) from a list of pairs."""
    items = arguments[-1] if arguments else None
    if isinstance(items, _Dict):
        return items
    made = _Dict()
    if isinstance(items, list):
        for key, value in items:
            made[key] = value
        items.clear()  # a list that is copied again and again would fill the memory
    return made


def _size(items: Any = ()) -> tuple[Any, ...]:
    if not isinstance(items, tuple | list) or len(items) > MOST_DIMENSIONS:
        raise UnpicklingError("not a torch.Size")
    return tuple(items)


def make_storage(key: Any, dtype: Any, count: Any, start: Any = 0, *, available: int = LARGEST_INTEGER) -> Any:
    """`count` numbers of a storage that has `available` bytes, from number `start` on; inert if its type is unknown."""
    if not isinstance(dtype, torch.dtype):
        return Inert()
    if type(key) not in (str, int) or len(str(key)) > 100:
        raise UnpicklingError("a storage without a proper key")
    if not (_is_count(count) and _is_count(start)) or (start + count) * dtype.itemsize > available:
        raise UnpicklingError(f"storage {key} is larger than the bytes it has")
    return Storage(key, dtype, start * dtype.itemsize, count * dtype.itemsize)


def _is_count(number: Any) -> bool:
    return type(number) is int and 0 <= number <= LARGEST_INTEGER


def _tensor(storage: Any, offset: Any, shape: Any, stride: Any, *others: Any) -> StoredTensor | Inert:
    """`torch._utils._rebuild_tensor` and `_v2`, which adds gradient, hooks and metadata (conjugate, negative)."""
    if not isinstance(storage, Storage | Inert):
        raise UnpicklingError("a tensor without a storage")
    if isinstance(storage, Inert) or any(others[2:3]):
        return Inert()
    return _checked(storage, storage.dtype, offset, shape, stride)


def _tensor_3(
    storage: Any, offset: Any, shape: Any, stride: Any, _gradient: Any, _hooks: Any, dtype: Any, *_: Any
) -> StoredTensor | Inert:
    """`torch._utils._rebuild_tensor_v3`: the storage holds bytes, the type of number is an argument."""
    if not isinstance(storage, Storage) or not isinstance(dtype, torch.dtype):
        return Inert()
    return _checked(storage, dtype, offset, shape, stride)


def _checked(storage: Storage, dtype: torch.dtype, offset: Any, shape: Any, stride: Any) -> StoredTensor:
    """A tensor that lies within its storage."""
    if not (isinstance(shape, tuple) and isinstance(stride, tuple) and len(shape) == len(stride) <= MOST_DIMENSIONS):
        raise UnpicklingError("a tensor whose shape and strides do not agree")
    if not all(_is_count(number) for number in (offset, *shape, *stride)):
        raise UnpicklingError("a tensor whose shape, strides or offset are no counts")
    if 0 not in shape:
        last = offset + sum((size - 1) * step for size, step in zip(shape, stride, strict=True))
        if (last + 1) * dtype.itemsize > storage.nbytes:
            raise UnpicklingError(f"a tensor reaches beyond its storage {storage.key}")
    return StoredTensor(storage, dtype, offset, shape, stride)


def _parameter(data: Any = None, *_: Any) -> StoredTensor | Inert:
    return data if isinstance(data, StoredTensor) else Inert()


def _from_type(rebuild: Any, _type: Any, arguments: Any, *_: Any) -> StoredTensor | Inert:
    """`torch._tensor._rebuild_from_type_v2`: a tensor with attributes, or of a subclass; only its data is kept."""
    return rebuild(*arguments) if rebuild in (_tensor, _tensor_3, _parameter) else Inert()


ALLOWED: dict[tuple[str, str], Callable[..., Any]] = {
    ("builtins", "dict"): _dict,
    ("__builtin__", "dict"): _dict,  # Python 2
    ("collections", "OrderedDict"): _dict,
    ("collections", "defaultdict"): _dict,
    ("torch", "Size"): _size,
    ("torch._utils", "_rebuild_tensor"): _tensor,
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    ("torch._utils", "_rebuild_tensor_v3"): _tensor_3,
    ("torch._utils", "_rebuild_parameter"): _parameter,
    ("torch._utils", "_rebuild_parameter_with_state"): _parameter,
    ("torch.nn.parameter", "Parameter"): _parameter,  # in torch's first versions
    ("torch._tensor", "_rebuild_from_type"): _from_type,
    ("torch._tensor", "_rebuild_from_type_v2"): _from_type,
    ("torch.tensor", "_rebuild_from_type_v2"): _from_type,  # its former place
}


class RestrictedUnpickler(pickle._Unpickler):
    """Python's own unpickler, without imports, attributes, and containers that hash anything."""

    def __init__(self, file: io.BytesIO, persistent: Callable[[Any], Any]) -> None:
        super().__init__(file, fix_imports=False, encoding="latin1")
        self._persistent = persistent

    def find_class(self, module: str, name: str) -> Any:
        """What stands for a name: a type of number, a function on the allow-list, or the inert class."""
        if module.partition(".")[0] == "torch" and name in DTYPES:
            return DTYPES[name]
        return ALLOWED.get((module, name), Inert)

    def persistent_load(self, pid: Any) -> Any:
        """What a persistent id stands for, by which torch refers to storages."""
        return self._persistent(pid)


def _load_dict(machine: Any) -> None:
    items = machine.pop_mark()
    made = _Dict()
    for key, value in zip(items[::2], items[1::2], strict=True):
        made[key] = value
    machine.append(made)


def _replace_marked(machine: Any) -> None:
    machine.pop_mark()
    machine.append(Inert())


def _load_extension(size: int) -> Callable[[Any], None]:
    def load(machine: Any) -> None:
        machine.read(size)  # a number that stands for a registered class
        machine.append(Inert)

    return load


def _push(make: Callable[[], Any]) -> Callable[[Any], None]:
    return lambda machine: machine.append(make())


def _drop_state(machine: Any) -> None:
    machine.stack.pop()


RestrictedUnpickler.dispatch = {
    **pickle._Unpickler.dispatch,
    pickle.EMPTY_DICT[0]: _push(_Dict),
    pickle.DICT[0]: _load_dict,
    pickle.EMPTY_SET[0]: _push(Inert),
    pickle.FROZENSET[0]: _replace_marked,
    pickle.BUILD[0]: _drop_state,  # which would become attributes
    pickle.BYTEARRAY8[0]: pickle._Unpickler.dispatch[pickle.BINBYTES8[0]],  # which allocates no more than it reads
    **{code[0]: _load_extension(size) for code, size in ((pickle.EXT1, 1), (pickle.EXT2, 2), (pickle.EXT4, 4))},
}


def _refuse(_: Any) -> Any:
    raise UnpicklingError("a storage where none belongs")


def unpickle(data: bytes, persistent: Callable[[Any], Any] = _refuse) -> tuple[Any, int]:
    """The value of the pickle at the start of `data`, and its length in bytes.

    Raises:
        UnpicklingError: It is damaged or too large. Wrong bytes also provoke other errors of the standard library.
    """
    file = io.BytesIO(data[:LARGEST_PICKLE])
    try:
        return RestrictedUnpickler(file, persistent).load(), file.tell()
    except EOFError:
        if len(data) > LARGEST_PICKLE:
            raise UnpicklingError(f"a pickle of more than {LARGEST_PICKLE >> 20} MiB") from None
        raise UnpicklingError("the pickle has no end") from None

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
from typing import Any, BinaryIO, ClassVar

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


def _is_count(number: Any) -> bool:
    return type(number) is int and 0 <= number <= LARGEST_INTEGER


def check_key(key: Any) -> Key:
    """Refuse what is no storage's key, before it is hashed or printed (nested tuples take exponential time)."""
    if type(key) not in (str, int) or len(str(key)) > 100:
        raise UnpicklingError("a storage without a proper key")
    found: Key = key
    return found


def make_storage(
    key: Any, dtype: Any, count: Any, start: Any = 0, *, available: int | None = LARGEST_INTEGER
) -> Storage | Inert:
    """`count` numbers of a storage of `available` bytes, from number `start` on; inert if their type is unknown."""
    if not isinstance(dtype, torch.dtype):
        return Inert()
    check_key(key)
    if available is None:
        raise UnpicklingError(f"storage {key} is missing")
    if not (_is_count(count) and _is_count(start)) or (start + count) * dtype.itemsize > available:
        raise UnpicklingError(f"storage {key} is larger than the bytes it has")
    return Storage(key, dtype, start * dtype.itemsize, count * dtype.itemsize)


def _tensor(storage: Any, offset: Any, shape: Any, stride: Any, *others: Any) -> StoredTensor | Inert:
    """A tensor that lies within its storage: `torch._utils._rebuild_tensor`, and `_v2` and `_v3` with more arguments.

    These are the gradient, hooks, and in `_v2` what is special (conjugate, negative), in `_v3` the type of number.
    """
    if not isinstance(storage, Storage | Inert):
        raise UnpicklingError("a tensor without a storage")
    special = others[2] if len(others) > 2 else None
    if isinstance(storage, Inert) or (special and not isinstance(special, torch.dtype)):
        return Inert()
    dtype = special or storage.dtype
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
    return rebuild(*arguments) if rebuild in (_tensor, _parameter) else Inert()


ALLOWED: dict[str, Callable[..., Any]] = {
    "builtins.dict": _dict,
    "__builtin__.dict": _dict,  # Python 2
    "collections.OrderedDict": _dict,
    "collections.defaultdict": _dict,
    "torch.Size": _size,
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_tensor_v3": _tensor,
    "torch._utils._rebuild_parameter": _parameter,
    "torch._utils._rebuild_parameter_with_state": _parameter,
    "torch.nn.parameter.Parameter": _parameter,  # in torch's first versions
    "torch._tensor._rebuild_from_type": _from_type,
    "torch._tensor._rebuild_from_type_v2": _from_type,
    "torch.tensor._rebuild_from_type_v2": _from_type,  # its former place
}


def _load_dict(machine: Any) -> None:
    items = machine.pop_mark()
    machine.append(_dict(list(zip(items[::2], items[1::2], strict=True))))


def _load_frozen_set(machine: Any) -> None:
    machine.pop_mark()  # replaces `machine.append`, which so must be looked up after it
    machine.append(Inert())


_OVERRIDES: dict[int, Callable[[Any], None]] = {
    pickle.EMPTY_DICT[0]: lambda machine: machine.append(_Dict()),
    pickle.DICT[0]: _load_dict,
    pickle.EMPTY_SET[0]: lambda machine: machine.append(Inert()),
    pickle.FROZENSET[0]: _load_frozen_set,
    pickle.BUILD[0]: lambda machine: machine.stack.pop(),  # the state, which would become attributes
    pickle.BYTEARRAY8[0]: pickle._Unpickler.dispatch[pickle.BINBYTES8[0]],  # which allocates no more than it reads
}


class RestrictedUnpickler(pickle._Unpickler):
    """Python's own unpickler, without imports, attributes, and containers that hash anything."""

    dispatch: ClassVar[dict[int, Callable[[Any], None]]] = {**pickle._Unpickler.dispatch, **_OVERRIDES}

    def __init__(self, file: BinaryIO, storage: Callable[[Any], Any] | None) -> None:
        super().__init__(file, fix_imports=False, encoding="latin1")
        self._storage = storage

    def find_class(self, module: str, name: str) -> Any:
        """What stands for a name: a type of number, a function on the allow-list, or the inert class."""
        if module.partition(".")[0] == "torch" and name in DTYPES:
            return DTYPES[name]
        return ALLOWED.get(f"{module}.{name}", Inert)

    def get_extension(self: Any, code: int) -> None:
        """What stands for a registered class, which would be imported."""
        self.append(Inert)

    def persistent_load(self, pid: Any) -> Any:
        """What a persistent id stands for, by which torch refers to storages."""
        if self._storage is None:
            raise UnpicklingError("a storage where none belongs")
        return self._storage(pid)


def unpickle(file: BinaryIO, storage: Callable[[Any], Any] | None = None) -> Any:
    """The value of the pickle that follows in a file, which is read to its end; `storage` makes those it refers to.

    Raises:
        UnpicklingError: It is damaged or too large. Wrong bytes also provoke other errors of the standard library.
    """
    start = file.tell()
    data = io.BytesIO(file.read(LARGEST_PICKLE))
    try:
        value = RestrictedUnpickler(data, storage).load()
    except EOFError:
        if len(data.getbuffer()) == LARGEST_PICKLE:
            raise UnpicklingError(f"a pickle of more than {LARGEST_PICKLE >> 20} MiB") from None
        raise UnpicklingError("the pickle has no end") from None
    file.seek(start + data.tell())
    return value
